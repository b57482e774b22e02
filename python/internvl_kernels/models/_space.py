"""Memory that the layers of a pass write again and again: taken once, it neither grows by holes nor is faulted in anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Space:
    """Elements of ``like``'s dtype for results that follow each other; without ``like`` every result is new memory."""

    def __init__(self, like: Tensor | None = None, size: int = 0) -> None:
        self._memory = None if like is None else like.new_empty(size)

    def __call__(self, begin: int, *shape: int) -> Tensor | None:
        """``out`` of an op: ``shape`` from element ``begin`` on. What lay there is given up."""
        if self._memory is None:
            return None
        return self._memory[begin : begin + math.prod(shape)].view(shape)
