"""The matrix product of the prefill and tower phases on the cpu backend, by the libraries that torch ships."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ._tensor import to_torch

if TYPE_CHECKING:
    from torch import Tensor

# Below these many rows each library takes other paths, with other bits (measured; tests/kernels/test_gemm_rows.py).
_FEWEST_ROWS = {"oneDNN": 2, "torch": 8}


@functools.cache
def _onednn(dtype: Any) -> Callable[..., Tensor] | None:
    """torch's door to oneDNN's product, with the activation fused; None where this torch or machine lacks it for ``dtype``.

    In float32 torch itself calls MKL, which is 2.3 times slower than oneDNN on AMD processors.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return None
    try:
        run = torch.ops.mkldnn._linear_pointwise
        run(torch.ones(2, 4, dtype=dtype), torch.ones(3, 4, dtype=dtype), None, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return None
    return run


def library(dtype: Any) -> str:
    """Which library computes ``product`` in a torch dtype: "oneDNN" or "torch"."""
    return "torch" if _onednn(dtype) is None else "oneDNN"


def product(x: Any, weight: Any, bias: Any, *, gelu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then the exact GELU if asked, as a torch tensor; on torch's own number of threads.

    A row's bits do not depend on the rows beside it: too few rows are padded to where the library takes its usual path.
    """
    rows, matrix, shift = to_torch(x, "x"), to_torch(weight, "weight"), to_torch(bias, "bias")
    flat = rows.reshape(-1, rows.shape[-1])
    count, fewest = math.prod(rows.shape[:-1]), _FEWEST_ROWS[library(rows.dtype)]
    with torch.no_grad():
        if 0 < count < fewest:
            flat = torch.cat([flat, flat.new_zeros(fewest - count, flat.shape[1])])
        run = _onednn(rows.dtype)
        if run is not None and count > 0:
            y = run(flat, matrix, shift, "gelu", [], "none") if gelu else run(flat, matrix, shift, "none", [], "")
        else:
            y = torch.nn.functional.linear(flat, matrix, shift)
            y = torch.ops.aten.gelu_(y) if gelu else y  # in place: no second copy of the widest rows
        return y[:count].reshape(*rows.shape[:-1], matrix.shape[0])


__all__ = ["library", "product"]
