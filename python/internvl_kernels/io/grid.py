"""How many tiles a picture becomes under a checkpoint's tiling settings."""

from __future__ import annotations

import numbers
from typing import Any

from ..config import TilingConfig
from ..errors import UnsupportedError, shown
from ..ops import choose_grid
from .decode import MAX_TILES, check_int
from .images import Video, image_size


def grid_of(tiling: TilingConfig, width: int, height: int, max_tiles: int | None = None) -> tuple[tuple[int, int], int]:
    """``((columns, rows), tiles)`` of a ``width`` x ``height`` picture, thumbnail counted; max_tiles: None is the checkpoint's."""
    most = (tiling.max_tiles if max_tiles is None else max_tiles) if tiling.dynamic else 1
    columns, rows = choose_grid(
        width, height, min_tiles=min(tiling.min_tiles, most), max_tiles=most, size=tiling.size, rule=tiling.rule
    )
    return (columns, rows), columns * rows + (1 if tiling.thumbnail and tiling.dynamic and columns * rows > 1 else 0)


def count_tiles(
    tiling: TilingConfig, item: Any, max_tiles: int | None = None
) -> tuple[str, tuple[int, int] | None, int]:
    """Name, grid and tiles of an image (only its header is read), a Video, or a tile count (which has no grid)."""
    if max_tiles is not None:
        check_int("max_tiles", max_tiles, 1, MAX_TILES)
    item = int(item) if isinstance(item, numbers.Integral) and not isinstance(item, bool) else item
    if isinstance(item, bool) or (isinstance(item, int) and item < 1):
        raise UnsupportedError(f"images_or_tile_counts: {shown(item)}; allowed: images, or tile counts of at least 1")
    if isinstance(item, int):
        return f"{item} tiles", None, item
    if isinstance(item, Video):
        return "video", None, len(item.frames)
    width, height = image_size(item)
    return f"{width} x {height}", *grid_of(tiling, width, height, max_tiles)


__all__ = ["count_tiles", "grid_of"]
