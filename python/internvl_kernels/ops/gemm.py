"""Linear layers and the activations behind them. Contract of the activations: csrc/kernels/gemm/gemm.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._product import product
from ._tensor import as_kind, empty, host

if TYPE_CHECKING:
    from torch import Tensor


@checked
def linear(
    x: Any, weight: Any, bias: Any = None, *, decode: bool = False, threads: int = 0, backend: str = "auto"
) -> Any:
    """``x @ weight.T + bias``: x ``[..., K]``, weight ``[N, K]``, bias ``[N]`` or None, one dtype; result ``[..., N]``.

    decode=True is the decode phase: the weights are streamed once for a few rows, on at most ``threads`` threads (contract:
    csrc/kernels/gemm/gemm_few_rows.h). Otherwise the cpu backend takes the product of oneDNN or torch, on torch's own number
    of threads (ops/_product.py). Within a phase a row's bits do not depend on the rows beside it.
    """
    _check("linear", x, weight, bias, in_kernel=decode)
    if choose("linear", backend, x, weight, bias) == "reference":
        return linear_reference(x, weight, bias)
    if decode:
        x = host(x)
        y = empty(x, (*x.shape[:-1], weight.shape[0]))
        cpu().gemm_few_rows(x, host(weight), host(bias), y, threads)
        return y
    return as_kind(product(x, weight, bias), x)


@checked_reference("x float [..., K]", "weight x [N, K]", "bias x [N]")
def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


@checked
def linear_gelu(x: Any, weight: Any, bias: Any = None, *, threads: int = 0, backend: str = "auto") -> Any:
    """``gelu(linear(x, weight, bias))`` with the exact (erf) GELU. Shapes and dtypes as ``linear``."""
    _check("linear_gelu", x, weight, bias)
    if choose("linear_gelu", backend, x, weight, bias) == "reference":
        return linear_gelu_reference(x, weight, bias)
    return as_kind(product(x, weight, bias, gelu=True), x)


@checked_reference("x float [..., K]", "weight x [N, K]", "bias x [N]")
def linear_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.gelu(linear_reference(x, weight, bias))


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


def _check(op: str, x: Any, weight: Any, bias: Any, *, in_kernel: bool = False) -> None:
    """Shapes, and one dtype unless a kernel checks that itself (and names a tensor that it cannot read first)."""
    if not x.shape or len(weight.shape) != 2 or x.shape[-1] != weight.shape[1]:
        raise UnsupportedError(
            f"{op}: x {list(x.shape)}, weight {list(weight.shape)}; allowed: x [..., K], weight [N, K]"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise UnsupportedError(f"{op}: bias {list(bias.shape)}, weight {list(weight.shape)}; allowed: bias [N]")
    for name, value in () if in_kernel else (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            raise UnsupportedError(f"{op}: {name} is {value.dtype}; allowed: x's dtype, {x.dtype}")


__all__ = ["linear", "linear_gelu", "linear_gelu_reference", "linear_reference", "swiglu", "swiglu_reference"]
