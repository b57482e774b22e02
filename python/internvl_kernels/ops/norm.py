"""LayerNorm and RMSNorm, alone or with the residual branch before them. Contract: csrc/kernels/norm/norm.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose
from ._call import start
from ._tensor import normed, put

if TYPE_CHECKING:
    from torch import Tensor


@checked
def layer_norm(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    eps: float = 1e-6,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """LayerNorm over the last dimension: ``(x - mean) * rsqrt(var + eps) * weight + bias``, statistics in fp32.

    x ``[..., cols]`` float32 | bfloat16 | float16, last dimension contiguous; weight, bias ``[cols]`` of x's dtype, or 16-bit
    ones beside x of float32: a residual stream in float32 before 16-bit products. Returns a contiguous tensor of x's shape in
    the weight's dtype, ``out`` if given. Raises UnsupportedError for anything else.
    """
    backend = choose("layer_norm", backend, x, weight, bias, out)
    if backend == "reference":
        return put(layer_norm_reference(x, weight, bias, eps=eps), out)
    return _norm(start(backend, threads, x, weight, bias), x, weight, bias, eps, False, False, out)


@checked_reference("x float [..., cols]", "weight x- [cols]", "bias weight [cols]")
def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    shift = None if bias is None else bias.to(x.dtype)
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight.to(x.dtype), shift, eps).to(weight.dtype)


@checked
def rms_norm(
    x: Any,
    weight: Any,
    *,
    eps: float = 1e-6,
    once: bool = False,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """RMSNorm over the last dimension: ``round(x * rsqrt(mean(x^2) + eps)) * weight``, statistics in fp32.

    The normalised value is rounded to the result's dtype before the weight, as the published Llama, Qwen and InternViT code does;
    once: the product alone is rounded, as GPT-OSS's does. Shapes, dtypes and ``out`` as ``layer_norm``.
    """
    backend = choose("rms_norm", backend, x, weight, out)
    if backend == "reference":
        return put(rms_norm_reference(x, weight, eps=eps, once=once), out)
    return _norm(start(backend, threads, x, weight), x, weight, None, eps, True, once, out)


@checked_reference("x float [..., cols]", "weight x- [cols]")
def rms_norm_reference(x: Tensor, weight: Tensor, *, eps: float = 1e-6, once: bool = False) -> Tensor:
    wide = x if x.dtype == torch.float64 else x.float()
    if once:
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(weight.dtype)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(weight.dtype) * weight


@checked
def add_norm(
    x: Any,
    branch: Any,
    weight: Any,
    bias: Any = None,
    *,
    scale: Any = None,
    eps: float = 1e-6,
    rms: bool = False,
    once: bool = False,
    inplace: bool = False,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> tuple[Any, Any]:
    """Residual, layer scale and the next norm in one pass: ``h = x + scale * branch``; returns ``(h, norm(h))``.

    x, branch ``[..., cols]`` of one dtype; scale (layer scale, optional), weight, bias ``[cols]``. ``rms`` chooses RMSNorm, which
    takes no bias, and ``once`` its rounding as in ``rms_norm``. ``inplace`` lets the op write h into x's memory (use the returned
    h); ``out`` takes norm(h) and may be branch itself. h is rounded to the dtype once and the norm reads the rounded value.
    """
    _check_once(rms, once)
    backend = choose("add_norm", backend, x, branch, weight, bias, scale, out)
    if backend == "reference":
        h, y = add_norm_reference(x, branch, weight, bias, scale=scale, eps=eps, rms=rms, once=once)
        return h, put(y, out)
    call = start(backend, threads, x, branch, weight, bias, scale)
    h, y = _add(call, x, branch, scale, weight, bias, eps, rms, inplace, out, once)
    return call.give(h, x if inplace else None), call.give(y, out)


@checked_reference("x float [..., cols]", "branch x [..., cols]", "weight,bias,scale x [cols]")
def add_norm_reference(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    eps: float = 1e-6,
    rms: bool = False,
    once: bool = False,
) -> tuple[Tensor, Tensor]:
    _check_once(rms, once)
    if rms and bias is not None:
        raise UnsupportedError("add_norm: bias with rms=True; allowed: None, RMSNorm has no bias")
    h = add_scaled_reference(x, branch, scale)
    return h, rms_norm_reference(h, weight, eps=eps, once=once) if rms else layer_norm_reference(
        h, weight, bias, eps=eps
    )


@checked
def add_scaled(
    x: Any, branch: Any, scale: Any = None, *, inplace: bool = False, threads: int = 0, backend: str = "auto"
) -> Any:
    """Residual and layer scale without a norm after them: ``x + scale * branch``; shapes as ``add_norm``."""
    backend = choose("add_scaled", backend, x, branch, scale)
    if backend == "reference":
        return add_scaled_reference(x, branch, scale)
    call = start(backend, threads, x, branch, scale)
    h, _ = _add(call, x, branch, scale, None, None, 1.0, False, inplace, None)
    return call.give(h, x if inplace else None)


@checked_reference("x float [..., cols]", "branch x [..., cols]", "scale x [cols]")
def add_scaled_reference(x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
    return x + (branch if scale is None else branch * scale)


def _check_once(rms: bool, once: bool) -> None:
    if once and not rms:
        raise UnsupportedError("add_norm: once is True, rms False; allowed: with rms=True")


def _norm(call: Any, x: Any, weight: Any, bias: Any, eps: float, rms: bool, once: bool, out: Any) -> Any:
    rows, scale, shift = call.take(x, "x"), call.take(weight, "weight"), call.take(bias, "bias")
    y = call.result(rows.shape, out, normed(rows, scale))
    call.run("norm", rows, None, None, scale, shift, None, y, eps, rms, once=once)
    return call.give(y, out)


def _add(
    call: Any,
    x: Any,
    branch: Any,
    scale: Any,
    weight: Any,
    bias: Any,
    eps: float,
    rms: bool,
    inplace: bool,
    out: Any,
    once: bool = False,
) -> tuple[Any, Any]:
    x, branch, scale = call.take(x, "x"), call.take(branch, "branch"), call.take(scale, "scale")
    if tuple(x.shape) != tuple(branch.shape):
        found = f"{str(branch.dtype).rpartition('.')[2]}{list(branch.shape)}"
        raise UnsupportedError(f"branch is {found}; allowed: x's shape, {list(x.shape)}")
    h = x if inplace else call.empty(x.shape)
    y = None if weight is None else call.result(x.shape, out)
    factor, shift = call.take(weight, "weight"), call.take(bias, "bias")
    call.run("norm", x, branch, scale, factor, shift, h, y, eps, rms, once=once)
    return h, y


__all__ = [
    "add_norm",
    "add_norm_reference",
    "add_scaled",
    "add_scaled_reference",
    "layer_norm",
    "layer_norm_reference",
    "rms_norm",
    "rms_norm_reference",
]
