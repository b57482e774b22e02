"""What is given back of a hidden state ``[T, 1 + N, D]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

POOLS = ("cls", "mean")


@dataclass(frozen=True)
class Features:
    """All rows; by ``pool`` the CLS row or the mean over patches; by ``dense`` the patches as a map."""

    pool: str | None = None
    dense: bool = False

    @property
    def whole(self) -> bool:
        return self.pool is None and not self.dense

    def rows(self, patches: int) -> int:
        """Of one tile."""
        return 1 if self.pool else patches if self.dense else 1 + patches

    def shape(self, count: int, grid: tuple[int, int], width: int) -> tuple[int, ...]:
        """Of ``count`` tiles of ``grid`` patches."""
        if self.pool:
            return count, width
        return (count, *grid, width) if self.dense else (count, 1 + grid[0] * grid[1], width)

    def of(self, hidden: Tensor, grid: tuple[int, int]) -> Tensor:
        """In memory of its own unless it is the whole state, contiguous. A tile's mean does not depend on those beside it."""
        if self.whole:
            return hidden
        if self.pool == "cls":
            return hidden[:, 0].clone()
        if self.pool == "mean":
            return torch.stack([tile[1:].mean(0) for tile in hidden])
        patches = hidden[:, 1:].clone(memory_format=torch.contiguous_format)
        return patches.view(self.shape(len(hidden), grid, hidden.shape[2]))


WHOLE = Features()

__all__ = ["POOLS", "WHOLE", "Features"]
