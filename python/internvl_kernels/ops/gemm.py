"""Products with a weight and what is fused behind them. Contract: csrc/kernels/gemm/gemm.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import cpu
from ._gemm import check_product, choose_product, gemm, left_to_library
from ._packed import PackedWeight
from ._product import product
from ._tensor import as_kind, dtype_name, host, put, result
from .norm import add_scaled, add_scaled_reference
from .statistics import told

if TYPE_CHECKING:
    from torch import Tensor


@checked
def linear(
    x: Any,
    weight: Any | PackedWeight,
    bias: Any = None,
    *,
    decode: bool = False,
    tell: Any = None,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``x @ weight.T + bias``: x ``[..., K]``, weight ``[N, K]``, bias ``[N]`` or None, one dtype; result ``[..., N]``.

    A weight from ``pack_weight`` may be of another dtype than x: products and sums are fp32 either way. A row's bits do not
    depend on the rows beside it. decode=True reads a plain weight once for a few rows (csrc/kernels/gemm/gemm_few_rows.h; cpu), with
    other bits than the rest. tell: float32 ``[G, rows, 2]``, into which the ``row_statistics`` of the result's first G parts are
    written (cuda, the reference). out: memory for the result, contiguous and apart from the inputs. float64, and bfloat16 where the
    processor multiplies it, go through torch (ops/_product.py).
    """
    check_product("linear", x, weight, bias)
    backend = choose_product("linear", backend, x, weight, bias, out, tell=tell)
    if backend == "reference":
        return put(told(linear_reference(x, cast("Tensor", weight), bias), tell), out)
    if backend == "cuda":
        return gemm(backend, "linear", x, weight, bias, out=out, tell=tell)
    if decode and not isinstance(weight, PackedWeight):
        x = host(x)
        y = result(x, (*x.shape[:-1], weight.shape[0]), out)
        cpu().gemm_few_rows(x, host(weight), host(bias), y, threads)
        return y
    if left_to_library(x, weight):
        return put(as_kind(product(x, weight, bias), x), out)
    return gemm(backend, "linear", x, weight, bias, threads, out=out)


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
    backend = choose_product("linear_gelu", backend, x, weight, bias, out)
    if backend == "reference":
        return put(linear_gelu_reference(x, cast("Tensor", weight), bias), out)
    if backend == "cpu" and left_to_library(x, weight):
        return put(as_kind(product(x, weight, bias, gelu=True), x), out)
    return gemm(backend, "gelu", x, weight, bias, threads, out=out)


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
    tell: Any = None,
    inplace: bool = False,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``residual + scale * linear(x, weight, bias)``: residual ``[..., N]``, scale (layer scale) ``[N]`` or None, x's dtype;
    residual may be float32 beside 16-bit x, and then so is the result.

    inplace: kernels write into residual and return it; the reference, whose gradients may need it, returns a new tensor. tell:
    float32 ``[G, rows, 2]``, into which the ``row_statistics`` of the result's first G parts are written (cuda, the reference). Shapes and
    dtypes otherwise as ``linear``.
    """
    check_product("linear_residual", x, weight, bias)
    wanted = (*x.shape[:-1], weight.shape[0])
    if tuple(residual.shape) != wanted or (scale is not None and tuple(scale.shape) != wanted[-1:]):
        found = f"residual {list(residual.shape)}, scale {None if scale is None else list(scale.shape)}"
        raise UnsupportedError(f"linear_residual: {found}; allowed: residual {list(wanted)}, scale [{wanted[-1]}]")
    if dtype_name(residual) not in (dtype_name(x), "float32"):
        raise UnsupportedError(f"linear_residual: residual is {residual.dtype}; allowed: x's, {x.dtype}, or float32")
    backend = choose_product("linear_residual", backend, x, weight, bias, residual, scale, tell=tell)
    if backend == "reference":
        y = linear_residual_reference(x, cast("Tensor", weight), bias, residual=residual, scale=scale)
        return told(y, tell)
    if backend == "cpu" and left_to_library(x, weight) and dtype_name(residual) == dtype_name(x):
        run: dict[str, Any] = {"threads": threads, "backend": "cpu"}
        return add_scaled(residual, linear(x, weight, bias, **run), scale, inplace=inplace, **run)
    return gemm(backend, "residual", x, weight, bias, threads, scale, residual, residual if inplace else None, tell)


@checked_reference("x float [..., K]", "weight x [N, K]", "bias,scale x [N]", "residual x+ [..., N]")
def linear_residual_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    factor = None if scale is None else scale.to(residual.dtype)
    return add_scaled_reference(residual, linear_reference(x, weight, bias).to(residual.dtype), factor)


__all__ = [
    "linear",
    "linear_gelu",
    "linear_gelu_reference",
    "linear_reference",
    "linear_residual",
    "linear_residual_reference",
]
