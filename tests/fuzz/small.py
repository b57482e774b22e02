"""Checkpoints of a few kilobytes, of every architecture and layout, as files in memory."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fuzz.scratch import fresh_folder
from fuzz.values import Rng
from internvl_kernels.config import ModelConfig, RopeScaling
from internvl_kernels.io.checkpoint import read_config, save_checkpoint
from internvl_kernels.io.language_config import ARCHITECTURES
from internvl_kernels.testing.checkpoints import VISION_STYLES, random_weights, tiny_config

_TEXT = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "intermediate_size": 24,
    "vocab_size": 20,
    "head_dim": 12,
}
_VISION = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "image_size": 28}


@dataclass(frozen=True)
class Base:
    label: str
    config: ModelConfig
    weights: dict[str, torch.Tensor]  # canonical
    files: dict[str, bytes]


@functools.lru_cache(maxsize=1)
def bases() -> list[Base]:
    found = []
    for kind in ARCHITECTURES.values():
        for layout in ("original", "hf"):
            style = VISION_STYLES[len(found) % 2]
            config = tiny_config(kind, style, layout=layout, text_overrides=_TEXT, vision_overrides=_VISION)
            if isinstance(scaling := config.language.rope_scaling, RopeScaling) and scaling.kind == "longrope":
                assert len(scaling.short_factors) == _TEXT["head_dim"] // 2
            weights = random_weights(config)
            folder = fresh_folder("base")
            folder.rmdir()
            shard = 1 << 13 if len(found) % 3 == 0 else 1 << 30
            options: dict[str, Any] = {"prefixes": "new"} if layout == "hf" and kind in ("qwen3", "phi3") else {}
            options["fused_experts"] = layout == "hf" and kind == "qwen3_moe"
            save_checkpoint(weights, config, folder, layout=layout, max_shard_bytes=shard, **options)
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            # As it is read again: transformers has InternLM2 and 3 as Llama.
            found.append(Base(f"{kind}, {style}, {layout}", replace(read_config(folder)), weights, files))
            fresh_folder("base")
    return found


def write(files: dict[str, bytes], name: str = "input") -> Path:
    folder = fresh_folder(name)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return folder


def misplace(rng: Rng, path: Path) -> str:
    """Puts something else in the place of a file, and says what."""
    if path.is_symlink() or path.is_dir():  # misplaced already
        return "nothing new"
    data = path.read_bytes() if path.is_file() else b"{}"
    path.unlink(missing_ok=True)
    kind = rng.choice(
        (
            "nothing",
            "a folder",
            "a pipe",
            "a loop",
            "a dangling link",
            "a link",
            "/dev/zero",
            "/dev/null",
            "/proc/self/mem",
            "text",
        )
    )
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a loop":
        path.symlink_to(path.name)
    elif kind == "a dangling link":
        path.symlink_to("nowhere")
    elif kind == "a link":
        other = path.with_name(path.name + ".elsewhere")
        other.write_bytes(data)
        path.symlink_to(other.name)
    elif kind.startswith("/"):
        path.symlink_to(kind)
    elif kind != "nothing":
        path.write_text("x")
    return kind
