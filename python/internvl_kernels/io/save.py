"""Canonical tensors -> a checkpoint directory in either published layout, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ModelConfig
from ..errors import CheckpointError
from .config_json import config_files
from .layouts import Naming, Parameter, parameters
from .shards import CODES, INDEX, SINGLE, write_shard

if TYPE_CHECKING:
    from torch import Tensor

MAX_SHARD_BYTES = 5_000_000_000


def save_checkpoint(
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    path: str | Path,
    *,
    layout: str = "original",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    fused_experts: bool = False,
    prefixes: str = "legacy",
    extra_files: Mapping[str, bytes | str | Path] | None = None,
    overwrite: bool = False,
) -> None:
    """Write config.json, its companions and safetensors, so that ``read_config`` and ``load_weights`` give the same
    back bit for bit.

    ``weights``: every canonical parameter, each in its own float dtype. Layers of the tower past ``num_layers`` are
    not in it, so the written config counts only those that run. ``layout``: "original" | "hf". ``prefixes``: of "hf",
    "legacy" (read by every transformers) | "new". ``extra_files``: name -> content or a file to copy, such as the
    tokenizer's. ``overwrite``: replace a directory that is there.

    The directory appears complete or not at all. Raises ``CheckpointError``: tensors that do not fit ``config``, a
    config that the layout cannot express, a path that is taken.
    """
    for argument, value, allowed in (("layout", layout, ("original", "hf")), ("prefixes", prefixes, ("legacy", "new"))):
        if value not in allowed:
            raise CheckpointError(f"{argument}: {value!r}; allowed: {', '.join(allowed)}")
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes: {max_shard_bytes}; allowed: at least 1")
    naming = Naming(layout, prefixes, fused_experts)
    described = list(parameters(config, naming))
    _check(weights, described)
    files: dict[str, bytes | str | Path] = dict(config_files(config, layout, dtype=_common_dtype(weights)))
    for name, content in (extra_files or {}).items():
        if name != os.path.basename(name) or not name or name.startswith("model.safetensors") or name == "config.json":
            raise CheckpointError(
                f"extra_files: {name!r}; allowed: a plain file name other than config.json and the weights'"
            )
        files[name] = content
    target = Path(path)
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not overwrite:
        raise CheckpointError(f"{target}: exists; allowed: a new or empty directory, or overwrite=True")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        work.chmod(0o755)
        for name, content in files.items():
            _write(work / name, content)
        _write_weights(work, weights, described, max_shard_bytes)
        _replace(work, target, taken)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check(weights: Mapping[str, Tensor], described: list[Parameter]) -> None:
    for parameter in described:
        tensor = weights.get(parameter.name)
        if tensor is None:
            raise CheckpointError(f"weights: {parameter.name} {list(parameter.shape)} is missing")
        if tuple(tensor.shape) != parameter.shape:
            raise CheckpointError(
                f"weights: {parameter.name} has shape {list(tensor.shape)}; allowed: {list(parameter.shape)}"
            )
        if str(tensor.dtype).removeprefix("torch.") not in CODES:
            raise CheckpointError(f"weights: {parameter.name} has dtype {tensor.dtype}; allowed: {', '.join(CODES)}")
    names = {parameter.name for parameter in described}
    extra = next((name for name in weights if name not in names), None)
    if extra is not None:
        raise CheckpointError(f"weights: {extra} is not a parameter of this configuration")


def _common_dtype(weights: Mapping[str, Tensor]) -> str:
    held: Counter[str] = Counter()
    for tensor in weights.values():
        held[str(tensor.dtype).removeprefix("torch.")] += tensor.numel() * tensor.element_size()
    return max(held, key=lambda name: held[name])


def _write(file: Path, content: bytes | str | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, file)
    else:
        file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def _write_weights(directory: Path, weights: Mapping[str, Tensor], described: list[Parameter], limit: int) -> None:
    """Shards in the order of the forward pass, each as full as ``limit`` allows; a tensor larger than that gets its
    own.
    """
    shards: list[list[tuple[str, Parameter, int]]] = [[]]
    room = limit
    total = 0
    for parameter in described:
        for k, piece in enumerate(parameter.pieces):
            size = piece.size * weights[parameter.name].element_size()
            if size > room and shards[-1]:
                shards.append([])
                room = limit
            shards[-1].append((piece.name, parameter, k))
            room -= size
            total += size
    names = (
        [SINGLE]
        if len(shards) == 1
        else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    for name, shard in zip(names, shards):
        write_shard(directory / name, [(source, _block(weights[p.name], p, k)) for source, p, k in shard])
    if len(shards) > 1:
        weight_map = {source: name for name, shard in zip(names, shards) for source, _, _ in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _block(tensor: Tensor, parameter: Parameter, k: int) -> Tensor:
    piece = parameter.pieces[k]
    return tensor.detach().reshape(-1)[piece.start : piece.start + piece.size].view(piece.shape).cpu()


def _replace(work: Path, target: Path, taken: bool) -> None:
    if not taken:
        work.rename(target)  # an empty directory in the way is replaced by the system
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = aside / "old"
    target.rename(old)
    try:
        work.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
