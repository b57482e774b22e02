"""Linear layers and the activations behind them. Contract of the activations: csrc/kernels/gemm/gemm.h."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ._backend import choose, cpu
from ._tensor import as_kind, empty, host, to_torch

if TYPE_CHECKING:
    from torch import Tensor


_FEWEST_ROWS = 8  # torch's CPU GEMM takes other paths, with other bits, below this many rows


def linear(
    x: Any, weight: Any, bias: Any = None, *, decode: bool = False, threads: int = 0, backend: str = "auto"
) -> Any:
    """``x @ weight.T + bias``: x ``[..., K]``, weight ``[N, K]``, bias ``[N]`` or None, one dtype; returns ``[..., N]``.

    A row's bits do not depend on the other rows within one phase. decode=True is the decode phase: the weights are streamed
    once for a few rows (contract: csrc/kernels/gemm/gemm_few_rows.h). Otherwise, on the CPU, torch's GEMM on at least 8 rows.
    """
    if choose("linear", backend, x, weight, bias) == "reference":
        return linear_reference(x, weight, bias)
    if decode:
        x = host(x)
        y = empty(x, (*x.shape[:-1], weight.shape[0]))
        cpu().gemm_few_rows(x, host(weight), host(bias), y, threads)
        return y
    rows = to_torch(x)
    count = math.prod(rows.shape[:-1])
    if 0 < count < _FEWEST_ROWS:
        padded = torch.zeros(_FEWEST_ROWS, rows.shape[-1], dtype=rows.dtype)
        padded[:count] = rows.reshape(count, -1)
        y = linear_reference(padded, to_torch(weight), to_torch(bias))[:count].reshape(*rows.shape[:-1], -1)
    else:
        y = linear_reference(rows, to_torch(weight), to_torch(bias))
    return as_kind(y, x)


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def linear_gelu(x: Any, weight: Any, bias: Any = None, *, threads: int = 0, backend: str = "auto") -> Any:
    """``gelu(linear(x, weight, bias))`` with the exact (erf) GELU. Shapes and dtypes as ``linear``."""
    if choose("linear_gelu", backend, x, weight, bias) == "reference":
        return linear_gelu_reference(x, weight, bias)
    return as_kind(linear_gelu_reference(to_torch(x), to_torch(weight), to_torch(bias)), x)


def linear_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.gelu(linear_reference(x, weight, bias))


def swiglu(gate_up: Any, *, threads: int = 0, backend: str = "auto") -> Any:
    """``silu(gate) * up`` of a fused projection: gate_up ``[..., 2I]`` holds gate, then up; returns ``[..., I]``."""
    if choose("swiglu", backend, gate_up) == "reference":
        return swiglu_reference(gate_up)
    return as_kind(swiglu_reference(to_torch(gate_up)), gate_up)


def swiglu_reference(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


__all__ = ["linear", "linear_gelu", "linear_gelu_reference", "linear_reference", "swiglu", "swiglu_reference"]
