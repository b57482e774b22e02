"""Memory that the layers of a pass write again and again: taken once, it neither grows by holes nor is faulted in anew.

On the cuda backend the same of a DeviceArray: nothing is allocated while a pass runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..ops._device import DeviceArray

if TYPE_CHECKING:
    from torch import Tensor


class Space:
    """Elements of ``like``'s dtype for results that follow each other; without ``like`` every result is new memory."""

    def __init__(self, like: Tensor | DeviceArray | None = None, size: int = 0) -> None:
        self._memory: Any = None
        if isinstance(like, DeviceArray):
            self._memory = DeviceArray.empty((size,), like.dtype, device=like.device)
        elif like is not None:
            self._memory = like.new_empty(size)

    def __call__(self, begin: int, *shape: int) -> Any:
        """``out`` of an op: ``shape`` from element ``begin`` on. What lay there is given up."""
        if self._memory is None:
            return None
        return self._memory[begin : begin + math.prod(shape)].reshape(*shape)
