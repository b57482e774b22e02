"""Blocks of patches to tokens, with the projector's LayerNorm. Contract: csrc/kernels/pixel_shuffle/pixel_shuffle.h."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose
from ._call import start
from ._tensor import normed, put
from .norm import layer_norm_reference

if TYPE_CHECKING:
    from torch import Tensor


@checked
def pixel_shuffle(
    x: Any,
    *,
    grid: tuple[int, int] | None = None,
    factor: int = 2,
    version: str = "v2",
    drop_cls: bool = True,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Folds each ``factor`` x ``factor`` block of patches into one token: ``[T, 1 + N, D]`` -> ``[T, N / f^2, D * f^2]``.

    grid: (rows, columns) of patches, default square; both multiples of ``factor``. A token holds its block's patches
    row by row. version "v2" orders tokens row-major, "v1" column-major. drop_cls: x's first row is CLS and is left out;
    with False x is ``[T, N, D]``. With weight (and bias) ``[D * f^2]`` the tokens go through LayerNorm in the same pass; dtypes as
    in ``layer_norm``. out: contiguous memory for the result, apart from x.
    """
    grid = _grid(x, grid, factor, version, drop_cls)
    _check_norm(weight, bias)
    backend = choose("pixel_shuffle", backend, x, weight, bias, out)
    if backend == "reference":
        order: dict[str, Any] = {"grid": grid, "factor": factor, "version": version, "drop_cls": drop_cls}
        return put(pixel_shuffle_reference(x, weight=weight, bias=bias, eps=eps, **order), out)
    call, area = start(backend, threads, x, weight, bias), factor * factor
    tiles = call.take(x, "x")
    weight, bias = call.take(weight, "weight"), call.take(bias, "bias")
    shape = (tiles.shape[0], grid[0] * grid[1] // area, tiles.shape[2] * area)
    y = call.result(shape, out, normed(tiles, weight))
    call.run("pixel_shuffle", tiles, weight, bias, y, *grid, factor, version == "v1", drop_cls, eps)
    return call.give(y, out)


@checked_reference("x float [T, tokens, D]", "weight x- [width]", "bias weight [width]")
def pixel_shuffle_reference(
    x: Tensor,
    *,
    grid: tuple[int, int] | None = None,
    factor: int = 2,
    version: str = "v2",
    drop_cls: bool = True,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    rows, cols = _grid(x, grid, factor, version, drop_cls)
    _check_norm(weight, bias)
    patches = x[:, 1:] if drop_cls else x
    blocks = patches.reshape(len(x), rows // factor, factor, cols // factor, factor, x.shape[-1])
    order = (0, 1, 3, 2, 4, 5) if version == "v2" else (0, 3, 1, 2, 4, 5)
    tokens = blocks.permute(order).reshape(len(x), rows * cols // factor**2, factor**2 * x.shape[-1])
    return tokens if weight is None else layer_norm_reference(tokens, weight, bias, eps=eps)


def _grid(x: Any, grid: tuple[int, int] | None, factor: int, version: str, drop_cls: bool) -> tuple[int, int]:
    if len(x.shape) != 3:
        raise UnsupportedError(f"pixel_shuffle: x is {list(x.shape)}; allowed: [tiles, tokens, channels]")
    if version not in ("v1", "v2"):
        raise UnsupportedError(f"pixel_shuffle: version={version!r}; allowed: 'v1', 'v2'")
    if not isinstance(factor, int) or factor < 1:
        raise UnsupportedError(f"pixel_shuffle: factor={factor!r}; allowed: a positive integer (2 for a ratio of 0.5)")
    patches = x.shape[1] - 1 if drop_cls else x.shape[1]
    side = math.isqrt(max(patches, 0))
    rows, cols = (side, side) if grid is None else grid
    if rows < 1 or cols < 1 or rows * cols != patches or rows % factor or cols % factor:
        raise UnsupportedError(
            f"pixel_shuffle: {patches} patches as a grid of {rows} x {cols} with factor {factor} (x {list(x.shape)}, "
            f"drop_cls={drop_cls}); allowed: rows * columns = patches, both positive multiples of factor"
        )
    return rows, cols


def _check_norm(weight: Any, bias: Any) -> None:
    if bias is not None and weight is None:
        raise UnsupportedError("pixel_shuffle: bias without weight; allowed: both, weight alone, or neither")


__all__ = ["pixel_shuffle", "pixel_shuffle_reference"]
