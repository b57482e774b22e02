"""Weights in the order in which the cpu backend's GEMM reads them. Contract: csrc/kernels/gemm/gemm.h."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from .._lazy import torch
from ..errors import UnsupportedError
from ._backend import cpu

if TYPE_CHECKING:
    from torch import Tensor

PANEL = 16  # rows side by side in memory
FLOATS = ("float32", "bfloat16", "float16")


def packed_layout() -> str:
    """Names the order of a packed weight's values; data packed under another name must not be read."""
    return f"panels of {PANEL}, {cpu().packed_layout}"


class PackedWeight:
    """A weight ``[N, K]``, or one for each of E experts ``[E, N, K]``, for ``ops.linear`` and its relatives on the cpu backend.

    ``data`` holds panels of 16 rows, ``[E, panels * K * 16]`` in the weight's own dtype; rows past N are zeros. gated: the two
    halves of N are gate and up of a SwiGLU layer, packed side by side.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, *, gated: bool = False) -> None:
        if len(shape) not in (2, 3) or min(shape) < 1 or (gated and shape[-2] % 2):
            raise UnsupportedError(
                f"pack_weight: weight is {list(shape)}, gated={gated}; allowed: [N, K] or [E, N, K], N even when gated"
            )
        self.shape, self.dtype, self.gated = torch.Size(shape), dtype, gated
        size = cpu().packed_elements(shape[-2], shape[-1], gated)
        self.data = torch.empty((*shape[:-2], size), dtype=dtype)
        self._fixed = False

    def write(self, weight: Tensor, first: int = 0, *, threads: int = 0) -> None:
        """Rows ``[first, first + len(weight))`` of a weight ``[N, K]``, or experts of ``[E, N, K]``.

        Some rows alone: not of a gated weight, and from a multiple of 32 on.
        """
        if self._fixed:
            raise UnsupportedError(f"pack_weight: {self!r} lies in memory that is only read; allowed: one of its own")
        if len(self.shape) == 3:
            for expert, matrix in enumerate(weight, first):
                cpu().pack_weight(matrix, self.data[expert], self.gated, threads)
            return
        if len(weight) == self.shape[0]:
            cpu().pack_weight(weight, self.data, self.gated, threads)
            return
        if self.gated or first % (2 * PANEL):
            raise UnsupportedError(
                f"pack_weight: rows from {first}; allowed: all of a gated weight, else a multiple of 32"
            )
        begin, inner = first * self.shape[1], self.shape[1]
        size = cpu().packed_elements(len(weight), inner, False)
        cpu().pack_weight(weight, self.data[begin : begin + size], False, threads)

    def over(self, data: Tensor) -> PackedWeight:
        """The same weight on ``data``, which holds its panels already and is never written."""
        assert data.shape == self.data.shape
        assert data.dtype == self.dtype
        fixed = copy.copy(self)
        fixed.data, fixed._fixed = data, True
        return fixed

    def rows(self, index: Tensor) -> Tensor:
        """Rows ``[n, K]`` of a weight ``[N, K]`` that is not gated, as they were."""
        assert len(self.shape) == 2
        assert not self.gated
        panels = self.data.view(-1, self.shape[1], PANEL)
        return panels[index // PANEL, :, index % PANEL]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"PackedWeight({str(self.dtype).removeprefix('torch.')} {list(self.shape)}{', gated' if self.gated else ''})"


__all__ = ["FLOATS", "PANEL", "PackedWeight", "packed_layout"]
