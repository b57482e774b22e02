"""The gate of a SwiGLU layer on its own. Contract: csrc/kernels/gemm/swiglu.h; fused behind its product: ops.linear_swiglu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._tensor import empty, host

if TYPE_CHECKING:
    from torch import Tensor


@checked
def swiglu(gate_up: Any, *, threads: int = 0, backend: str = "auto") -> Any:
    """``silu(gate) * up`` of a fused projection: gate_up ``[..., 2I]`` holds gate, then up; returns ``[..., I]``.

    float32 | bfloat16 | float16, last dimension contiguous; computed in fp32 and rounded once.
    """
    if not gate_up.shape or gate_up.shape[-1] % 2:
        raise UnsupportedError(
            f"swiglu: gate_up is {list(gate_up.shape)}; allowed: an even last dimension, gate then up"
        )
    if choose("swiglu", backend, gate_up) == "reference":
        return swiglu_reference(gate_up)
    x = host(gate_up)
    y = empty(x, (*x.shape[:-1], x.shape[-1] // 2))
    cpu().swiglu(x, y, threads)
    return y


@checked_reference("gate_up float [..., 2*I]")
def swiglu_reference(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


__all__ = ["swiglu", "swiglu_reference"]
