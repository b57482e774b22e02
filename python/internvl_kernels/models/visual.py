"""Tiles to visual tokens: tower and projector together, in micro-batches under a limit on workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import costs
from ..config import ModelConfig
from .projector import Projector
from .vision import VisionTower

if TYPE_CHECKING:
    from torch import Tensor


def encode_tiles(
    config: ModelConfig, tower: VisionTower, projector: Projector, tiles: Tensor, backend: str, limit: int
) -> Tensor:
    """``[T, tokens_per_tile, H]`` of uint8 or float tiles. Raises UnsupportedError when one tile does not keep ``limit`` bytes."""
    height, width = tower.check(tiles)
    grid = (height // config.vision.patch_size, width // config.vision.patch_size)

    def need(count: int) -> int:
        return costs.encode_workspace(config, count, tower.dtype.itemsize, backend, height, width)

    together = costs.tiles_a_pass(config.vision, backend, tower.threads, height, width)
    chunk = costs.most(limit, need, min(len(tiles), together), "one tile")
    if chunk >= len(tiles):
        return projector(tower.forward(tiles), grid)
    result: Tensor | None = None  # written where it belongs: joining parts would need it twice
    for begin in range(0, len(tiles), chunk):
        part = projector(tower.forward(tiles[begin : begin + chunk]), grid)
        if result is None:
            result = part.new_empty((len(tiles), *part.shape[1:]))
        result[begin : begin + chunk] = part
        del part  # not held while the next pass runs
    assert result is not None
    return result
