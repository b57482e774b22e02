"""The vision cases of bench/cpu.py: whole tower, one layer of the large tower, tiling. Generators: each case comes back measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import cpu_peers as peers
import internvl_kernels as ivk
from cpu_cases import Case, Settings, random_model
from cpu_memory import tower_memory
from cpu_peers import Call
from internvl_kernels import costs
from internvl_kernels.config import VisionConfig
from internvl_kernels.io.config import read_config
from internvl_kernels.registry import TOWERS

FEW_TILES = 4  # beyond these many, only the fastest are run: two peers, and ours in float32


def tower_300m(s: Settings) -> Iterator[Case]:
    tower = TOWERS["InternViT-300M-448px-V2.5"]
    if s.quick:
        tower = replace(tower, hidden_size=128, num_layers=2, num_heads=2, intermediate_size=256, image_size=112)
    return _towers(s, "tower", "InternViT-300M", tower, s.tiles)


def layer_6b(s: Settings) -> Iterator[Case]:
    tower = replace(TOWERS["InternViT-6B-448px-V2.5"], num_layers=1)
    if s.quick:
        tower = replace(tower, hidden_size=256, num_heads=2, intermediate_size=512, image_size=112)
    return _towers(s, "layer6b", "InternViT-6B, embedding and one layer", tower, (1,))


def _towers(s: Settings, key: str, name: str, tower: VisionConfig, counts: Sequence[int]) -> Iterator[Case]:
    folder = s.folder / key
    s.step(f"{name}: random weights")
    overrides = {
        "hidden_size": tower.hidden_size,
        "num_hidden_layers": tower.num_layers,
        "num_attention_heads": tower.num_heads,
        "intermediate_size": tower.intermediate_size,
        "image_size": [tower.image_size] * 2,
    }
    theirs = random_model(folder, vision=tower.norm, vision_overrides=overrides)
    module = peers.Tower(theirs.model.vision_tower)
    config = read_config(folder).vision
    generator = torch.Generator().manual_seed(1)
    tiles = torch.randn(max(*counts, 2), 3, *overrides["image_size"], generator=generator)
    exported = peers.Exported(module, [tiles[:2]], folder / "onnx", dynamic=True)
    size = 4 * costs.vision_parameters(config)

    def ours(x: Tensor) -> Callable[[str, str], Call]:
        def build(dtype: str, stored: str) -> Call:
            if (dtype, stored) not in models:
                run: dict[str, Any] = {"backend": "cpu", "threads": s.threads, "progress": False}
                models[dtype, stored] = ivk.load_vision(folder, dtype=dtype, weights=stored, **run)
            return lambda: models[dtype, stored].vision(x)

        return build

    def case(count: int, names: Sequence[str] | None) -> Case:
        x, configs = tiles[:count], [module.tower.config]
        found = Case(
            f"{key}-{count}", f"{name}, {count} tile{'s' * (count > 1)}", "GFLOP/s",
            lambda itemsize: costs.vision_flops(config, count), "fma", s,
        )  # fmt: skip
        run: dict[str, tuple[str, Callable[[], Call]]] = {
            "transformers eager": ("transformers", lambda: peers.plain(configs, "eager", lambda: module(x))),
            "transformers sdpa": ("transformers", lambda: peers.plain(configs, "sdpa", lambda: module(x))),
            "torch.compile": ("compile", lambda: peers.compiled_sdpa(configs, module, [x], size)),
            "ONNX Runtime": ("onnxruntime", lambda: peers.onnx_runtime(exported, [x], s.threads)),
            "OpenVINO": ("openvino", lambda: peers.openvino(exported, [x], s.threads)),
        }
        for peer, (program, build) in run.items():
            if names is None or peer in names:
                found.peer(program, peer, build)
        if "bfloat16" in s.precisions and names is None:
            lower = lambda: peers.openvino(exported, [x], s.threads, precision="bf16")  # noqa: E731
            found.peer("openvino", "OpenVINO bfloat16", lower, "bfloat16")
        found.ours(ours(x), None if names is None else [p for p in s.precisions if f"ours, {p}" in names])
        return found

    models: dict[tuple[str, str], Any] = {}
    s.memory += tower_memory(s, folder, tower.image_size, (n for n in counts if n <= FEW_TILES and key == "tower"))
    names: list[str] | None = None
    for count in sorted(counts):
        yield (found := case(count, names if count > FEW_TILES else None))
        exact = {n: t for n, t in found.median.items() if not (n.startswith("ours") or "bfloat16" in n)}
        names = ["ours, float32", *sorted(exact, key=exact.__getitem__)[:2]]


def pictures(s: Settings) -> Iterator[Case]:
    """A decoded photograph to uint8 tiles by transformers' rule. Our model normalises them inside its patch embedding."""
    width, height = (400, 300) if s.quick else (4000, 3000)
    rough = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    picture = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    case = Case(
        "tiling", f"{width} x {height} photograph to tiles", "MP/s", lambda itemsize: width * height, None, s,
        tolerance=1e-2,  # Pillow and we may round a grey level apart under this rule
    )  # fmt: skip

    def processor(**options: Any) -> Callable[[], Call]:
        def build() -> Call:
            from transformers import GotOcr2ImageProcessorPil

            size = {"height": 448, "width": 448}
            made = GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, min_patches=1, max_patches=12, **options)
            return lambda: made(images=picture, return_tensors="np")["pixel_values"]

        return build

    as_uint8 = {"do_rescale": False, "do_normalize": False}
    as_float = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    mean, std = (np.array(as_float[name], np.float32).reshape(3, 1, 1) for name in ("image_mean", "image_std"))
    case.peer("transformers", "Pillow processor", processor(**as_uint8))
    case.peer(
        "transformers", "Pillow processor, to normalised floats", processor(**as_float),
        result=lambda found: (np.asarray(found, np.float32) * std + mean) * 255,
    )  # fmt: skip

    def tiles(dtype: str, stored: str) -> Call:
        return lambda: ivk.tile_image(picture, rule="hf", threads=s.threads)

    case.ours(tiles, ["float32"], lambda found: found.pixels.transpose(0, 3, 1, 2).astype(np.float32))
    if "ours, float32" in case.contenders:  # pixels have no precision to choose
        case.contenders["ours"] = case.contenders.pop("ours, float32")
    yield case
