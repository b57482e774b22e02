"""Products that the cpu backend leaves to the libraries that torch ships: float64, and bfloat16 where the processor multiplies it.

Processors with bfloat16 dot products (AVX512_BF16, AMX) do twice as much with them as in fp32 and more; oneDNN has the kernels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ._backend import cpu
from ._tensor import to_torch

if TYPE_CHECKING:
    from torch import Tensor

# Below these many rows each library takes other paths, with other bits (measured; tests/kernels/test_gemm_rows.py).
_FEWEST_ROWS = {"bfloat16": 2, "float64": 8}


@functools.cache
def _onednn() -> Callable[..., Tensor] | None:
    """torch's door to oneDNN's product of bfloat16, with the activation fused; None where torch or machine lacks it."""
    if not cpu().has_bf16_products() or not torch.backends.mkldnn.is_available():
        return None
    try:
        run = torch.ops.mkldnn._linear_pointwise
        ones = torch.ones(2, 4, dtype=torch.bfloat16)
        run(ones, ones, None, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return None
    return run


def by_library(dtype: Any) -> bool:
    """Whether products of ``dtype`` (torch's, numpy's or a name) are a library's; else they are csrc/kernels/gemm's."""
    name = str(dtype).rpartition(".")[2]
    return name == "float64" or (name == "bfloat16" and _onednn() is not None)


def packs(dtype: str) -> bool:
    """Whether a model that computes in ``dtype`` keeps its matrices packed for our GEMM."""
    return not by_library(dtype)


def product(x: Any, weight: Any, bias: Any, *, gelu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then the exact GELU if asked, as a torch tensor; on torch's own number of threads.

    A row's bits do not depend on the rows beside it: too few rows are padded to where the library takes its usual path.
    """
    rows, matrix, shift = to_torch(x, "x"), to_torch(weight, "weight"), to_torch(bias, "bias")
    shift = None if shift is None else shift.contiguous()  # oneDNN takes no stride of it
    flat = rows.reshape(-1, rows.shape[-1])
    count, fewest = math.prod(rows.shape[:-1]), _FEWEST_ROWS[str(rows.dtype).rpartition(".")[2]]
    with torch.no_grad():
        if 0 < count < fewest:
            flat = torch.cat([flat, flat.new_zeros(fewest - count, flat.shape[1])])
        run = _onednn() if rows.dtype == torch.bfloat16 else None
        if run is not None and count > 0:
            y = run(flat, matrix, shift, "gelu", [], "none") if gelu else run(flat, matrix, shift, "none", [], "")
        else:
            y = torch.nn.functional.linear(flat, matrix, shift)
            y = torch.ops.aten.gelu_(y) if gelu else y  # in place: no second copy of the widest rows
        return y[:count].reshape(*rows.shape[:-1], matrix.shape[0])


__all__ = ["by_library", "packs", "product"]
