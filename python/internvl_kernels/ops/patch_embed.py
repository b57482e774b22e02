"""Pixels to tower input: normalise, project patches, add CLS and positions.

Contract of the passes around the product: csrc/kernels/patch_embed/patch_embed.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._call import start
from ._tensor import as_kind, dtype_name, fill, result, to_torch
from .gemm import linear

if TYPE_CHECKING:
    from torch import Tensor


@checked
def patch_embed(
    tiles: Any,
    weight: Any,
    bias: Any,
    cls: Any,
    pos: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    patch_size: int = 14,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Tower input ``[T, 1 + N, D]``: row 0 is ``cls + pos[0]``, row 1 + n is patch n's projection plus ``pos[1 + n]``.

    tiles uint8 ``[T, H, W, 3]``, normalised here as ``(x / 255 - mean) / std`` per channel in fp32, or float
    ``[T, 3, H, W]`` (float32 or weight's dtype) already normalised; H and W multiples of ``patch_size``, patches numbered
    row by row. weight ``[D, 3 * patch_size**2]``, a Conv2d weight flattened as channel, row, column; bias, cls ``[D]``;
    pos ``[1 + N, D]`` for this grid; all of weight's dtype, which is the result's. out: contiguous memory for the result, also
    of float32 beside 16-bit weights (a wide residual stream). Workspace: one tile's patches and products
    on ``cpu``, none on ``cuda``.
    """
    _check(tiles, weight, bias, patch_size, mean, std)
    backend = choose("patch_embed", backend, weight, tiles, bias, cls, pos, out)
    if backend == "reference":
        options: dict[str, Any] = {"mean": mean, "std": std, "patch_size": patch_size}
        return _into(patch_embed_reference(tiles, weight, bias, cls, pos, **options), out)
    rows = math.prod(_size(tiles)) // patch_size**2
    scale = [float(m) for m in mean], [float(s) for s in std]
    if backend == "cuda":
        call, given = start(backend, threads, weight, tiles, bias, cls, pos), {"weight": weight, "tiles": tiles}
        on = {name: call.take(t, name) for name, t in {**given, "bias": bias, "cls": cls, "pos": pos}.items()}
        y = call.result((tiles.shape[0], 1 + rows, weight.shape[0]), out, _wanted(on["weight"], out))
        call.run("patch_embed", on["tiles"], on["weight"], on["bias"], on["cls"], on["pos"], y, *scale, patch_size)
        return call.give(y, out)
    kernels, matrix = cpu(), to_torch(weight, "weight")
    pixels, offsets, first, places = (
        to_torch(t, name) for name, t in (("tiles", tiles), ("bias", bias), ("cls", cls), ("pos", pos))
    )
    if offsets.dtype != matrix.dtype:
        raise UnsupportedError(f"patch_embed: bias is {offsets.dtype}; allowed: weight's dtype, {matrix.dtype}")
    _check_rows(pixels, matrix, first, places, patch_size)
    width = _size(pixels)[1]
    packed = pixels.stride()[2:] == (3, 1) if pixels.dtype == torch.uint8 else width == 1 or pixels.stride(3) == 1
    if not packed and pixels.numel():
        found = f"{tiles.dtype} {list(tiles.shape)} with strides {list(pixels.stride())}"
        raise UnsupportedError(f"patch_embed: tiles is {found}; allowed: contiguous pixel rows")
    found = matrix.new_empty((len(pixels), 1 + rows, len(matrix)))
    patches = matrix.new_empty((rows, matrix.shape[1]))
    for tile, target in zip(pixels.split(1), found):
        kernels.patchify(tile, patches, *scale, patch_size, threads)
        kernels.add_positions(
            linear(patches, matrix, offsets, threads=threads, backend="cpu"), first, places, target, threads
        )
    return _into(as_kind(found, weight), out)


@checked_reference("tiles number [T, a, b, c]", "weight float [D, K]", "bias,cls weight [D]", "pos weight [1+N, D]")
def patch_embed_reference(
    tiles: Tensor,
    weight: Tensor,
    bias: Tensor,
    cls: Tensor,
    pos: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    patch_size: int = 14,
) -> Tensor:
    _check(tiles, weight, bias, patch_size, mean, std)
    if tiles.dtype not in (torch.uint8, torch.float32, weight.dtype):
        raise UnsupportedError(
            f"patch_embed: tiles is {tiles.dtype}; allowed: uint8, float32 or weight's {weight.dtype}"
        )
    height, width = _size(tiles)
    if len(pos) != 1 + height // patch_size * (width // patch_size):
        raise UnsupportedError(
            f"patch_embed: pos is {list(pos.shape)}; allowed: a row for CLS and one for each patch of {height} x {width} pixels"
        )
    if tiles.dtype == torch.uint8:
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        channel_mean, channel_std = (torch.tensor(v, dtype=wide, device=tiles.device) for v in (mean, std))
        tiles = ((tiles.to(wide) / 255 - channel_mean) / channel_std).permute(0, 3, 1, 2)
    kernel = weight.reshape(-1, 3, patch_size, patch_size)
    maps = torch.nn.functional.conv2d(tiles.to(weight.dtype), kernel, bias, stride=patch_size)
    return torch.cat([cls.expand(len(tiles), 1, -1), maps.flatten(2).transpose(1, 2)], dim=1) + pos


def _wanted(like: Any, out: Any) -> str:
    """Name of the result's dtype."""
    return "float32" if out is not None and dtype_name(out) == "float32" else dtype_name(like)


def _into(found: Any, out: Any) -> Any:
    if out is None:
        return found
    return fill(result(found, found.shape, out, _wanted(found, out)), found)


def _size(tiles: Any) -> tuple[int, int]:
    shape = tuple(tiles.shape)
    return (shape[1], shape[2]) if str(tiles.dtype).endswith("uint8") else (shape[2], shape[3])


def _check(tiles: Any, weight: Any, bias: Any, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if len(tiles.shape) != 4 or tiles.shape[3 if str(tiles.dtype).endswith("uint8") else 1] != 3:
        raise UnsupportedError(
            f"patch_embed: tiles is {tiles.dtype} {list(tiles.shape)}; allowed: uint8 [T, H, W, 3] or float [T, 3, H, W]"
        )
    height, width = _size(tiles)
    if patch_size < 1 or min(height, width) < patch_size or height % patch_size or width % patch_size:
        raise UnsupportedError(
            f"patch_embed: tiles of {height} x {width} pixels; allowed: positive multiples of patch_size={patch_size}"
        )
    if len(weight.shape) != 2 or weight.shape[1] != 3 * patch_size**2:
        raise UnsupportedError(
            f"patch_embed: weight is {list(weight.shape)}; allowed: [D, {3 * patch_size**2}] for patch size {patch_size}"
        )
    if tuple(bias.shape) != (weight.shape[0],):
        raise UnsupportedError(f"patch_embed: bias is {list(bias.shape)}; allowed: [{weight.shape[0]}] as weight")
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise UnsupportedError(f"patch_embed: mean={mean!r}, std={std!r}; allowed: three values each, std other than 0")


def _check_rows(tiles: Any, weight: Any, cls: Any, pos: Any, patch_size: int) -> None:
    """What is added to the patches: refused here, because without a tile no kernel sees it."""
    width, patches = weight.shape[0], math.prod(_size(tiles)) // patch_size**2
    for name, given, wanted in (("cls", cls, [width]), ("pos", pos, [1 + patches, width])):
        if list(given.shape) != wanted or dtype_name(given) != dtype_name(weight):
            found = f"{dtype_name(given)}{list(given.shape)}"
            raise UnsupportedError(f"patch_embed: {name} is {found}; allowed: {dtype_name(weight)} {wanted} as weight")


__all__ = ["patch_embed", "patch_embed_reference"]
