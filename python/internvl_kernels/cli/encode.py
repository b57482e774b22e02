"""The command encode: images to visual tokens, or to features of the tower, in a file."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UnsupportedError
from ._common import (
    Backend,
    Checkpoint,
    Dtype,
    Json,
    MaxTiles,
    PackedCache,
    Threads,
    Weights,
    Workspace,
    console,
    packed_cache,
    print_json,
    run_table,
)  # fmt: skip

if TYPE_CHECKING:
    from torch import Tensor

    from ..encoder import VisionModel

_FEATURES = "Features of the tower"


def encode(
    checkpoint: Checkpoint,
    images: Annotated[list[Path], typer.Argument(help="Images, each encoded with its own tiles.", show_default=False)],
    out: Annotated[Path, typer.Option(help="FILE.safetensors (a tensor per image) or FILE.npy (all rows, float32).")],
    max_tiles: MaxTiles = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]", help="Hidden states: 0 the embedding, -1 the last.", rich_help_panel=_FEATURES,
            show_default=False,
        ),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="cls or mean: one row per tile.", rich_help_panel=_FEATURES)] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Maps [tiles, rows, columns, width], without CLS.", rich_help_panel=_FEATURES)
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE|HEIGHTxWIDTH", help="One tile of this size for each image; multiples of the patch size.",
            rich_help_panel=_FEATURES, show_default=False,
        ),
    ] = None,
    backend: Backend = "auto",
    dtype: Dtype = None,
    weights: Weights = None,
    threads: Threads = None,
    max_workspace: Workspace = None,
    packed: PackedCache = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Images to the visual tokens that the language model would get, in a file.

    With an option of the tower, or a checkpoint of a tower alone, its hidden states instead; no language model is read.
    """
    if out.suffix not in (".safetensors", ".npy"):
        raise UnsupportedError(f"--out: {str(out)!r}; allowed: a name ending in .safetensors or .npy")
    wanted, sides = _layers(layers), _size(size)
    if out.suffix == ".npy" and wanted is not None and len(wanted) > 1:
        raise UnsupportedError(f"--layers: {layers!r} with --out {str(out)!r}; allowed: one, or a .safetensors file")
    from ..io.checkpoint import resolve
    from ..io.config import stands_alone

    run: dict[str, Any] = {
        "backend": backend, "dtype": dtype, "threads": threads, "max_workspace": max_workspace, "weights": weights,
        "progress": not as_json, "packed_cache": packed_cache(packed),
    }  # fmt: skip
    asked = dense or any(option is not None for option in (layers, pool, size))
    if asked or stands_alone(resolve(checkpoint)):
        from ..encoder import load_vision

        tower = load_vision(checkpoint, **run)
        begin = time.perf_counter()
        found, rows = _features(tower, images, wanted, sides, max_tiles, {"pool": pool, "dense": dense})
        model: VisionModel = tower
    else:
        from ..model import load

        whole = load(checkpoint, **run)
        begin = time.perf_counter()
        visual = whole.encode(images, max_tiles=max_tiles)
        per_tile = whole.config.tokens_per_tile
        found = {f"image_{number}": tensor for number, tensor in enumerate(visual)}
        counts = [len(tensor) for tensor in visual]
        rows = [
            {"image": str(path), "tensor": name, "tiles": count // per_tile, "tokens": count, "first_row": sum(counts[:number])}
            for number, (path, name, count) in enumerate(zip(images, found, counts))
        ]  # fmt: skip
        model = whole
    seconds = time.perf_counter() - begin
    _write(out, found, rows)
    width = int(next(iter(found.values())).shape[-1])
    if as_json:
        print_json({"out": str(out), "width": width, **run_table(model, threads), "seconds": seconds, "images": rows})
        return
    from rich.table import Table

    table = Table(title=f"{out}: width {width}, {model.dtype}, {seconds:.2f} s", title_justify="left")
    for column in rows[0]:
        justify: Any = "left" if column in ("image", "tensor") else "right"
        table.add_column(column.replace("_", " "), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console().print(table)


def _layers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if re.fullmatch(r"-?\d{1,4}(,-?\d{1,4})*", text) is None:
        raise UnsupportedError(f"--layers: {text!r}; allowed: integers with commas between them, such as -1,-4")
    return [int(part) for part in text.split(",")]


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if match is None:
        raise UnsupportedError(f"--size: {text!r}; allowed: a side in pixels, or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def _features(
    tower: VisionModel,
    images: list[Path],
    layers: list[int] | None,
    size: tuple[int, int] | None,
    max_tiles: int | None,
    taken: dict[str, Any],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """A tensor per image, or per image and layer, by name; and a line of the table for each."""
    found, rows, first = {}, [], 0
    for number, path in enumerate(images):
        tiles = tower.tile(path, max_tiles=max_tiles, size=size)
        states = tower.vision(tiles, layers=layers or [-1], **taken)
        for layer, state in zip(layers or [-1], states):
            name = f"image_{number}" if layers is None or len(layers) == 1 else f"image_{number}.layer_{layer}"
            found[name] = state
            row = {"image": str(path), "tensor": name, "tiles": len(tiles), "layer": layer}
            rows.append({**row, "shape": list(state.shape), "first_row": first})
        first += len(tiles)
    return found, rows


def _write(out: Path, found: dict[str, Tensor], rows: list[dict[str, Any]]) -> None:
    """Through a temporary name, so that a failure leaves no half-written file."""
    import numpy as np
    import torch

    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.suffix == ".npy":
            with partial.open("wb") as file:
                np.save(file, torch.cat(list(found.values())).float().cpu().numpy())
        else:
            from safetensors.torch import save_file

            tensors = {name: tensor.contiguous().clone() for name, tensor in found.items()}
            save_file(tensors, partial, metadata={row["tensor"]: row["image"] for row in rows})
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
