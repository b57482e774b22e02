"""Picture to tiles: the grid, and the resize that cuts while it resizes. Contract: csrc/kernels/image/image.h."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu, is_torch
from ._call import on_device, start
from ._device import DeviceArray
from ._layout import memory_gone
from ._tensor import dtype_name, empty, host

RULES = ("original", "hf")
MAX_TILES = 4096  # a grid has no more; the list of grids grows with it


@checked
def tile_pixels(
    pixels: Any | Sequence[Any],
    grid: tuple[int, int],
    size: int,
    *,
    thumbnail: bool = False,
    tall_first: bool | None = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Antialiased bicubic resize to ``grid`` = (columns, rows) tiles, row by row, the thumbnail last.

    pixels uint8 ``[H, W, 3]``, channels adjacent and pixels 3 or 4 bytes apart, or a list of such arrays that lie one
    below the other; size in pixels. Returns contiguous uint8 ``[columns * rows (+ 1), size, size, 3]`` of pixels' kind,
    the bits of Pillow's ``resize(..., BICUBIC)``. Pillow 13 turned its two passes round for tall pictures;
    ``tall_first`` says whether to follow it (None: as the installed Pillow does). On ``cuda`` host arrays may have
    any strides, and several arrays are copied into one first. Raises UnsupportedError for anything else.
    """
    given = list(pixels) if isinstance(pixels, (list, tuple)) else [pixels]
    columns, rows = grid
    if not given:
        raise UnsupportedError("tile_pixels: pixels is an empty list; allowed: one array or more")
    if min(columns, rows, size) < 1 or max(columns * rows, size) > MAX_TILES:
        raise UnsupportedError(
            f"tile_pixels: grid {columns} x {rows} of size {size}; allowed: 1 and more, at most {MAX_TILES} tiles and pixels"
        )
    backend = choose("tile_pixels", backend, *given)
    if backend == "reference":
        return tile_pixels_reference(pixels, grid, size, thumbnail=thumbnail, tall_first=tall_first)
    tall_first = pillow_tall_first() if tall_first is None else tall_first
    shape = (columns * rows + bool(thumbnail), size, size, 3)
    if backend == "cuda":
        call = start(backend, threads, *given)
        source, made = _one_picture(call, given), call.empty(shape, "uint8")
        call.run("tile_pixels", source, columns, rows, size, bool(thumbnail), tall_first, made)
        return call.give(made)
    bands = [host(band) for band in given]
    tiles = empty(bands[0], shape, "uint8")
    cpu().tile_pixels(bands, columns, rows, size, bool(thumbnail), tall_first, tiles, threads)
    return tiles


def _one_picture(call: Any, bands: Sequence[Any]) -> Any:
    """The bands on the device, one below the other."""
    parts = [call.take(band if on_device(band) else _packed(band), "pixels") for band in bands]
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if len(part.shape) != 3 or part.shape[1:] != (parts[0].shape[1], 3) or part.dtype != "uint8":
            found = f"{part.dtype}{list(part.shape)} under {parts[0].dtype}{list(parts[0].shape)}"
            raise UnsupportedError(f"tile_pixels: pixels are {found}; allowed: uint8 [height, width, 3] of one width")
    picture = call.empty((sum(part.shape[0] for part in parts), *parts[0].shape[1:]), "uint8")
    rows, top = DeviceArray._of(picture), 0
    for part in parts:
        call.copy(rows[top : top + part.shape[0]]._array, part)
        top += part.shape[0]
    return picture


def _packed(band: Any) -> Any:
    """A band in host memory without gaps, so that it is copied to the device in one go."""
    array = host(band)
    cpu().check_tensor(array, "pixels")
    return np.ascontiguousarray(array) if dtype_name(array) == "uint8" else array


@checked_reference()
def tile_pixels_reference(
    pixels: Any | Sequence[Any],
    grid: tuple[int, int],
    size: int,
    *,
    thumbnail: bool = False,
    tall_first: bool | None = None,
) -> Any:
    """The published algorithm on Pillow: resize, crop, append the thumbnail. ``tall_first``: the installed Pillow's."""
    from PIL import Image

    follows = pillow_tall_first()
    if tall_first not in (None, follows):
        raise UnsupportedError(f"tile_pixels: tall_first={tall_first}; allowed on the installed Pillow: {follows}")
    bands: list[Any] = list(pixels) if isinstance(pixels, (list, tuple)) else [pixels]
    if any(is_torch(band) and memory_gone(band) for band in bands):
        raise UnsupportedError("tile_pixels: pixels is a tensor whose memory was given back; allowed: one in memory")
    array = np.concatenate([np.asarray(band) for band in bands])
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        found = f"{array.dtype}{list(array.shape)}"
        raise UnsupportedError(f"tile_pixels: pixels are {found}; allowed: uint8 [height, width, 3]")
    image = Image.fromarray(array)
    columns, rows = grid
    resized = image.resize((columns * size, rows * size), Image.Resampling.BICUBIC)
    tiles = []
    for k in range(columns * rows):
        left, top = k % columns * size, k // columns * size
        tiles.append(np.asarray(resized.crop((left, top, left + size, top + size))))
    if thumbnail:
        tiles.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
    stacked = np.stack(tiles)
    return torch.from_numpy(stacked).to(bands[0].device) if is_torch(bands[0]) else stacked


@functools.lru_cache(maxsize=1)
def pillow_tall_first() -> bool:
    """Whether the installed Pillow resizes a tall picture vertically first (13 and later): tried out once."""
    from PIL import Image

    noise = (np.arange(64 * 8 * 3, dtype=np.uint32) * 2654435761 >> 7).astype(np.uint8).reshape(64, 8, 3)
    image, bicubic = Image.fromarray(noise), Image.Resampling.BICUBIC
    two_steps = image.resize((8, 8), bicubic).resize((7, 8), bicubic)
    return image.resize((7, 8), bicubic).tobytes() == two_steps.tobytes()


@checked
def choose_grid(
    width: int, height: int, *, min_tiles: int = 1, max_tiles: int = 12, size: int = 448, rule: str = "original"
) -> tuple[int, int]:
    """The grid (columns, rows) of min_tiles to max_tiles tiles whose aspect ratio is closest to ``width / height``.

    Grids are tried by number of tiles. On equal distance a later one wins if the picture has more than half its pixels.
    Among grids of one number of tiles, rule "hf" (transformers) tries fewer columns first; rule "original" tries them
    in the iteration order of a CPython set filled as the published code fills it. The two differ only for
    ``min_tiles`` > 1: with 1, no two grids of one number of tiles tie for the best (enumerated up to 40 tiles).
    """
    if min(width, height) < 1:
        raise UnsupportedError(f"choose_grid: width={width}, height={height}; allowed: 1 and more")
    if not 1 <= min_tiles <= max_tiles <= MAX_TILES:
        found = f"min_tiles={min_tiles}, max_tiles={max_tiles}"
        raise UnsupportedError(f"choose_grid: {found}; allowed: 1 <= min_tiles <= max_tiles <= {MAX_TILES}")
    if size < 1:
        raise UnsupportedError(f"choose_grid: size is {size}; allowed: 1 and more")
    if rule not in RULES:
        raise UnsupportedError(f"choose_grid: rule={rule!r}; allowed: {', '.join(RULES)}")
    aspect, pixels = width / height, width * height
    best, best_distance = (1, 1), float("inf")
    for columns, rows in _grids(min_tiles, max_tiles, rule):
        distance = abs(aspect - columns / rows)
        if distance < best_distance:
            best, best_distance = (columns, rows), distance
        elif distance == best_distance and pixels > 0.5 * size * size * columns * rows:
            best = (columns, rows)
    return best


@functools.lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int, rule: str) -> Sequence[tuple[int, int]]:
    def allowed(i: int, j: int) -> bool:
        return min_tiles <= i * j <= max_tiles

    if rule == "hf":
        grids = [(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles // i + 1) if allowed(i, j)]
        return sorted(grids, key=lambda grid: grid[0] * grid[1])
    # The published loops visit (i, j) for growing n >= max(i, j), i before j; a set keeps each grid's first visit.
    filled: set[tuple[int, int]] = set()
    for n in range(min_tiles, max_tiles + 1):
        for i in range(1, n + 1):
            fresh = i == n or n == min_tiles  # otherwise every j < n was visited before
            filled.update((i, j) for j in range(1 if fresh else n, min(n, max_tiles // i) + 1) if allowed(i, j))
    return sorted(filled, key=lambda grid: grid[0] * grid[1])


__all__ = ["MAX_TILES", "RULES", "choose_grid", "pillow_tall_first", "tile_pixels", "tile_pixels_reference"]
