"""Tables of positions for patch grids other than the tower's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int]  # rows and columns of patches
KEPT = 8  # times the rows of the tower's own table: what the tables kept may have together


def interpolate_positions(positions: Tensor, grid: Grid, target: Grid) -> Tensor:
    """Position table ``[1 + h*w, D]`` for another patch grid: bicubic in fp32, the CLS row kept; identity at its own grid."""
    if grid == target:
        return positions
    patches = positions[1:].float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(patches, size=target, mode="bicubic", align_corners=False)
    rows = resized.permute(0, 2, 3, 1).reshape(target[0] * target[1], -1)
    return torch.cat([positions[:1], rows.to(positions.dtype)])


class PositionTables:
    """The table of any grid from the tower's own: made once, and kept while it is among the last that were used.

    ``place``: what a made table is kept as. Without a lock, so that a fork finds none held: threads that meet make a table twice.
    """

    def __init__(self, own: Tensor, grid: Grid, place: Callable[[Tensor], Any] | None = None) -> None:
        self._own, self._grid, self._place = own, grid, place or (lambda table: table)
        self._made: dict[Grid, Any] = {}

    def __call__(self, target: Grid) -> Any:
        table = self._made.get(target)
        if table is None:
            table = self._place(interpolate_positions(self._own, self._grid, target))
        if not self._own.requires_grad:  # else it is of this gradient, and of weights that are about to change
            self._made = self._last({**{g: t for g, t in self._made.items() if g != target}, target: table})
        return table

    def _last(self, made: dict[Grid, Any]) -> dict[Grid, Any]:
        """The newest of them that are not too much together, at least one."""
        room, last = KEPT * self._own.shape[0], list(made)
        while len(last) > 1 and sum(h * w for h, w in last) > room:
            last.pop(0)
        return {grid: made[grid] for grid in last}


__all__ = ["PositionTables", "interpolate_positions"]
