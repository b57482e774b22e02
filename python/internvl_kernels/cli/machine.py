"""Commands that look without running a model: info, plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._common import (
    Backend,
    Dtype,
    Json,
    KvDtype,
    MaxTiles,
    PackedCache,
    VisualStride,
    Weights,
    Workspace,
    console,
    packed_cache,
    print_json,
)

if TYPE_CHECKING:
    from ..config import ModelConfig

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


def info(as_json: Json = False) -> None:
    """What was built, what was found on this machine, what will run and why."""
    from ..about import info as look

    found = look()
    if as_json:
        print_json(found.to_dict())
    else:
        console().print(found)


def plan(
    target: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT|MODEL", help="A checkpoint directory, or a name from [bold]models[/bold]."),
    ],
    images: Annotated[list[Path] | None, typer.Argument(help="Images; only their headers are read.")] = None,
    tiles: Annotated[
        list[int] | None, typer.Option(help="Tile count of an image instead of the image; repeatable.")
    ] = None,
    text_tokens: Annotated[int, typer.Option(min=0, help="Prompt tokens beside the images.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of the answer.")] = 256,
    max_tiles: MaxTiles = None,
    visual_stride: VisualStride = None,
    backend: Backend = "auto",
    dtype: Dtype = None,
    weights: Weights = None,
    kv_dtype: KvDtype = None,
    max_workspace: Workspace = None,
    packed: PackedCache = None,
    as_json: Json = False,
) -> None:
    """Tiles, tokens, FLOPs and peak bytes of a request, before any work and without loading weights."""
    from .. import costs, registry
    from .._lazy import torch
    from ..errors import UnsupportedError
    from ..io.grid import count_tiles
    from ..options import RuntimeOptions, checked_stride
    from ..plan import make_plan

    if backend not in ("auto", "reference", "cpu"):
        raise UnsupportedError(f"backend: {backend!r}; allowed: auto, reference, cpu")
    config = _config_of(target)
    o = RuntimeOptions.check(backend, None, dtype, weights, max_workspace, None, packed_cache(packed), kv_dtype)
    items = [count_tiles(config.tiling, item, max_tiles) for item in [*(images or []), *(tiles or [])]]
    numbered = [(f"{number}: {title}", grid, count) for number, (title, grid, count) in enumerate(items, start=1)]
    result = make_plan(
        config,
        numbered,
        itemsize=_ITEMSIZE[o.dtype],
        stored=_ITEMSIZE[o.weights],
        kv_dtype=o.kv_dtype,
        backend=o.backend,
        limit=o.max_workspace,
        threads=torch.get_num_threads(),
        text_tokens=text_tokens,
        new_tokens=max_new_tokens,
        mapped=o.packed_cache is not None,
        visual_stride=checked_stride(visual_stride, config),
    )
    if as_json:
        print_json(
            {
                "target": target,
                "dtype": o.dtype,
                "weights": o.weights,
                "parameters": costs.model_parameters(config),
                **result.to_dict(),
            }
        )
        return
    console().print(f"[bold]{target}[/bold]: {costs.model_parameters(config) / 1e9:.4g} B parameters in {o.weights}")
    console().print(result)
    try:
        notes = registry.find(target).notes
    except UnsupportedError:
        notes = ""
    if notes:
        console().print(f"[dim]{notes}[/dim]")


def _config_of(target: str) -> ModelConfig:
    """A directory is read; any other text must name a release."""
    from .. import registry
    from ..errors import UnsupportedError
    from ..io.config import read_config

    if Path(target).exists():
        return read_config(Path(target))
    try:
        registry.find(target)
    except UnsupportedError:
        raise UnsupportedError(
            f"{target!r} is neither a directory here nor a released model; internvl-kernels models lists those"
        ) from None
    return registry.config_of(target)
