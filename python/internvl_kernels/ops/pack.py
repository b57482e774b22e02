"""Weights packed once for the cpu backend's GEMM. Contract: csrc/kernels/gemm/gemm.h."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError
from ._arguments import checked
from ._packed import FLOATS, PackedWeight
from ._tensor import to_torch


@checked
def pack_weight(weight: Any, *, gated: bool = False, threads: int = 0) -> PackedWeight:
    """``weight`` packed once for the cpu backend: ``[N, K]`` or ``[E, N, K]``, float32 | bfloat16 | float16.

    gated: gate and up rows of a SwiGLU layer, ``[2I, K]``. Products with a packed weight give the bits of the plain one.
    """
    matrix = to_torch(weight, "weight")
    if str(matrix.dtype).removeprefix("torch.") not in FLOATS:
        raise UnsupportedError(f"pack_weight: weight is {matrix.dtype}; allowed: {', '.join(FLOATS)}")
    packed = PackedWeight(tuple(matrix.shape), matrix.dtype, gated=gated)
    packed.write(matrix, threads=threads)
    return packed


__all__ = ["PackedWeight", "pack_weight"]
