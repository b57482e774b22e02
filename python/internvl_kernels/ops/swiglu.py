"""The gate of a SwiGLU layer: behind its product (csrc/kernels/gemm/gemm.h) and on its own (csrc/kernels/gemm/swiglu.h)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .._lazy import torch
from ..costs import UNFUSED_ROWS
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._gemm import check_product, choose_product, gemm, left_to_library
from ._packed import PackedWeight
from ._tensor import empty, host, put
from .gemm import linear, linear_reference

if TYPE_CHECKING:
    from torch import Tensor


@checked
def swiglu(gate_up: Any, *, limit: float | None = None, threads: int = 0, backend: str = "auto") -> Any:
    """``silu(gate) * up`` of a fused projection: gate_up ``[..., 2I]`` holds gate, then up; returns ``[..., I]``.

    limit: GPT-OSS's form instead, ``g * sigmoid(1.702 g) * (u + 1)`` with gate clamped to at most limit and up to [-limit,
    limit]. float32 | bfloat16 | float16, last dimension contiguous; computed in fp32 and rounded once.
    """
    bound = checked_limit("swiglu", limit)
    if not gate_up.shape or gate_up.shape[-1] % 2:
        raise UnsupportedError(
            f"swiglu: gate_up is {list(gate_up.shape)}; allowed: an even last dimension, gate then up"
        )
    if choose("swiglu", backend, gate_up) == "reference":
        return swiglu_reference(gate_up, limit=limit)
    x = host(gate_up)
    y = empty(x, (*x.shape[:-1], x.shape[-1] // 2))
    cpu().swiglu(x, y, bound, threads)
    return y


@checked_reference("gate_up float [..., 2*I]")
def swiglu_reference(gate_up: Tensor, *, limit: float | None = None) -> Tensor:
    checked_limit("swiglu", limit)
    gate, up = gate_up.chunk(2, dim=-1)
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (up + 1) * (gate * torch.sigmoid(1.702 * gate))
    return torch.nn.functional.silu(gate) * up


@checked
def linear_swiglu(
    x: Any,
    gate_up: Any | PackedWeight,
    bias: Any = None,
    *,
    limit: float | None = None,
    decode: bool = False,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``swiglu(linear(x, gate_up, bias))``: gate_up ``[2I, K]`` holds gate, then up (packed with gated=True), bias ``[2I]``;
    result ``[..., I]``. limit as in ``swiglu``.

    Dtypes, ``decode`` and ``out`` as ``linear``; the product is not rounded before the gate, except where ``linear`` is another's.
    """
    check_product("linear_swiglu", x, gate_up, bias, "gate_up")
    bound = checked_limit("linear_swiglu", limit)
    if gate_up.shape[0] % 2:
        raise UnsupportedError(f"linear_swiglu: gate_up is {list(gate_up.shape)}; allowed: an even number of rows")
    backend = choose_product("linear_swiglu", backend, x, gate_up, bias, out)
    if backend == "reference":
        return put(linear_swiglu_reference(x, cast("Tensor", gate_up), bias, limit=limit), out)
    run: dict[str, Any] = {"threads": threads, "backend": "cpu"}
    if backend == "cpu" and not isinstance(gate_up, PackedWeight) and (decode or left_to_library(x, gate_up)):
        width = gate_up.shape[0] // 2

        def some(rows: Any) -> Any:
            return swiglu(linear(rows, gate_up, bias, decode=decode, **run), limit=limit, **run)

        return put(_by_rows(x, width, some), out)
    return gemm(backend, "swiglu", x, gate_up, bias, threads, out=out, limit=bound)


@checked_reference("x float [..., K]", "gate_up x [N, K]", "bias x [N]")
def linear_swiglu_reference(
    x: Tensor, gate_up: Tensor, bias: Tensor | None = None, *, limit: float | None = None
) -> Tensor:
    return swiglu_reference(linear_reference(x, gate_up, bias), limit=limit)


def checked_limit(op: str, limit: float | None) -> float:
    """0 for none."""
    if limit is None:
        return 0.0
    if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not 0 < limit < math.inf:
        raise UnsupportedError(f"{op}: limit is {limit!r}; allowed: a finite number above 0, or None")
    return float(limit)


def _by_rows(x: Any, columns: int, run: Callable[[Any], Any]) -> Any:
    """``run`` of some rows at a time: what lies between two steps that are not fused stays small."""
    x = host(x)
    y, flat = empty(x, (*x.shape[:-1], columns)), x.reshape(-1, x.shape[-1])
    target = y.reshape(len(flat), columns)
    for first in range(0, len(flat), UNFUSED_ROWS):
        target[first : first + UNFUSED_ROWS] = run(flat[first : first + UNFUSED_ROWS])
    return y


__all__ = ["checked_limit", "linear_swiglu", "linear_swiglu_reference", "swiglu", "swiglu_reference"]
