"""Products with a weight and what is fused behind them. Contract: csrc/kernels/gemm/gemm.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._packed import PackedWeight
from ._product import by_library, product
from ._tensor import as_kind, host, put, result
from .norm import add_scaled, add_scaled_reference

if TYPE_CHECKING:
    from torch import Tensor


@checked
def linear(
    x: Any,
    weight: Any | PackedWeight,
    bias: Any = None,
    *,
    decode: bool = False,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``x @ weight.T + bias``: x ``[..., K]``, weight ``[N, K]``, bias ``[N]`` or None, one dtype; result ``[..., N]``.

    A weight from ``pack_weight`` may be of another dtype than x: products and sums are fp32 either way. A row's bits do not
    depend on the rows beside it. decode=True reads a plain weight once for a few rows (csrc/kernels/gemm/gemm_few_rows.h), with
    other bits than the rest. out: memory for the result, contiguous and apart from the inputs. float64, and bfloat16 where the
    processor multiplies it, go through torch (ops/_product.py).
    """
    check_product("linear", x, weight, bias)
    if choose_product("linear", backend, x, weight, bias, out) == "reference":
        return put(linear_reference(x, cast("Tensor", weight), bias), out)
    if decode and not isinstance(weight, PackedWeight):
        x = host(x)
        y = result(x, (*x.shape[:-1], weight.shape[0]), out)
        cpu().gemm_few_rows(x, host(weight), host(bias), y, threads)
        return y
    if left_to_library(x, weight):
        return put(as_kind(product(x, weight, bias), x), out)
    return gemm("linear", x, weight, bias, threads, out=out)


@checked_reference("x float [..., K]", "weight x [N, K]", "bias x [N]")
def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


@checked
def linear_gelu(
    x: Any,
    weight: Any | PackedWeight,
    bias: Any = None,
    *,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``gelu(linear(x, weight, bias))`` with the exact (erf) GELU. Shapes, dtypes and ``out`` as ``linear``."""
    check_product("linear_gelu", x, weight, bias)
    if choose_product("linear_gelu", backend, x, weight, bias, out) == "reference":
        return put(linear_gelu_reference(x, cast("Tensor", weight), bias), out)
    if left_to_library(x, weight):
        return put(as_kind(product(x, weight, bias, gelu=True), x), out)
    return gemm("gelu", x, weight, bias, threads, out=out)


@checked_reference("x float [..., K]", "weight x [N, K]", "bias x [N]")
def linear_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.gelu(linear_reference(x, weight, bias))


@checked
def linear_residual(
    x: Any,
    weight: Any | PackedWeight,
    bias: Any = None,
    *,
    residual: Any,
    scale: Any = None,
    inplace: bool = False,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``residual + scale * linear(x, weight, bias)``: residual ``[..., N]``, scale (layer scale) ``[N]`` or None, x's dtype.

    inplace: kernels write into residual and return it; the reference, whose gradients may need it, returns a new tensor. Shapes
    and dtypes otherwise as ``linear``.
    """
    check_product("linear_residual", x, weight, bias)
    wanted = (*x.shape[:-1], weight.shape[0])
    if tuple(residual.shape) != wanted or (scale is not None and tuple(scale.shape) != wanted[-1:]):
        found = f"residual {list(residual.shape)}, scale {None if scale is None else list(scale.shape)}"
        raise UnsupportedError(f"linear_residual: {found}; allowed: residual {list(wanted)}, scale [{wanted[-1]}]")
    if choose_product("linear_residual", backend, x, weight, bias, residual, scale) == "reference":
        return linear_residual_reference(x, cast("Tensor", weight), bias, residual=residual, scale=scale)
    if left_to_library(x, weight):
        run: dict[str, Any] = {"threads": threads, "backend": "cpu"}
        return add_scaled(residual, linear(x, weight, bias, **run), scale, inplace=inplace, **run)
    return gemm("residual", x, weight, bias, threads, scale, residual, host(residual) if inplace else None)


@checked_reference("x float [..., K]", "weight x [N, K]", "bias,scale x [N]", "residual x [..., N]")
def linear_residual_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    return add_scaled_reference(residual, linear_reference(x, weight, bias), scale)


def gemm(
    epilogue: str,
    x: Any,
    weight: Any,
    bias: Any,
    threads: int,
    scale: Any = None,
    residual: Any = None,
    out: Any = None,
) -> Any:
    x, rows = host(x), weight.shape[0]
    packed = isinstance(weight, PackedWeight)
    y = result(x, (*x.shape[:-1], rows // 2 if epilogue == "swiglu" else rows), out)
    matrix = weight.data if packed else host(weight)
    cpu().gemm(x, matrix, rows if packed else None, host(bias), host(scale), host(residual), y, epilogue, threads)
    return y


def choose_product(op: str, backend: str, x: Any, weight: Any, *others: Any) -> str:
    packed = isinstance(weight, PackedWeight)
    found = choose(op, backend, x, None if packed else weight, *others)
    if packed and (found != "cpu" or weight.gated != (op == "linear_swiglu")):
        name, kind = ("gate_up", "gated=True") if op == "linear_swiglu" else ("weight", "gated=False")
        raise UnsupportedError(
            f"{op}: {name} is {weight!r}, backend {found!r}; allowed: one packed with {kind}, on 'cpu'"
        )
    return found


def left_to_library(x: Any, weight: Any) -> bool:
    return not isinstance(weight, PackedWeight) and by_library(x.dtype)


def check_product(op: str, x: Any, weight: Any, bias: Any, name: str = "weight") -> None:
    """Shapes, and one dtype unless the weight is packed."""
    if not x.shape or len(weight.shape) != 2 or x.shape[-1] != weight.shape[1]:
        raise UnsupportedError(
            f"{op}: x {list(x.shape)}, {name} {list(weight.shape)}; allowed: x [..., K], {name} [N, K]"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise UnsupportedError(f"{op}: bias {list(bias.shape)}, {name} {list(weight.shape)}; allowed: bias [N]")
    for key, value in ((name, weight), ("bias", bias)):
        if value is not None and not isinstance(value, PackedWeight) and value.dtype != x.dtype:
            raise UnsupportedError(f"{op}: {key} is {value.dtype}; allowed: x's dtype, {x.dtype}")


__all__ = [
    "linear",
    "linear_gelu",
    "linear_gelu_reference",
    "linear_reference",
    "linear_residual",
    "linear_residual_reference",
]
