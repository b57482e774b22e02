"""Products that carry the norm of their input: csrc/kernels/gemm/gemm_fold.h. On CUDA; elsewhere the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose
from ._call import start
from ._gemm import check_product
from ._tensor import dtype_name, put
from .statistics import mean_and_variance, parts, told

if TYPE_CHECKING:
    from torch import Tensor


@checked_reference("weight float [a, b]", "norm_weight float [c]", "bias float [d]", "norm_bias float [e]")
def fold_norm(weight: Any, norm_weight: Any, bias: Any = None, norm_bias: Any = None) -> tuple[Any, Any]:
    """A weight ``[N, K]`` times the norm's ``[K]`` in front of it, and what ``linear_folded`` needs of each column ``[N, 2]``.

    torch tensors on the host. The weight is rounded once, to its dtype; the columns are float32: the sum of its row, and
    ``bias + weight @ norm_bias``.
    """
    if tuple(norm_weight.shape) != tuple(weight.shape[1:]) or len(weight.shape) != 2:
        found = f"weight {list(weight.shape)}, norm_weight {list(norm_weight.shape)}"
        raise UnsupportedError(f"fold_norm: {found}; allowed: [N, K] and [K]")
    for name, given, size in (("bias", bias, len(weight)), ("norm_bias", norm_bias, weight.shape[1])):
        if given is not None and tuple(given.shape) != (size,):
            raise UnsupportedError(f"fold_norm: {name} is {list(given.shape)}; allowed: [{size}], or None")
    wide = torch.float64 if weight.dtype in (torch.float32, torch.float64) else torch.float32  # holds a product exactly
    folded = (weight.to(wide) * norm_weight.to(wide)).to(weight.dtype)
    shift = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
    if norm_bias is not None:
        shift = weight.double() @ norm_bias.double()
    if bias is not None:
        shift = shift + bias.double()
    return folded, torch.stack([folded.sum(1, dtype=torch.float64), shift], -1).float()


@checked
def linear_folded(
    x: Any,
    statistics: Any,
    weight: Any,
    columns: Any,
    *,
    eps: float,
    rms: bool = False,
    gelu: bool = False,
    tell: Any = None,
    out: Any = None,
    backend: str = "auto",
) -> Any:
    """``linear(norm(x), W, bias)``, or its exact GELU, with weight and columns of ``fold_norm`` and x's ``row_statistics``.

    x ``[..., K]``, statistics float32 ``[ceil(K / 32), rows, 2]``, weight ``[N, K]`` of x's dtype, columns float32 ``[N, 2]``; returns
    ``[..., N]``. tell: float32 ``[G, rows, 2]`` with G up to ``ceil(N / 32)``, into which the statistics of the result's first G
    parts are written. out: memory for the result.
    """
    check_product("linear_folded", x, weight, None)
    check_statistics("linear_folded", "statistics", statistics, x, parts(x.shape[-1]))
    if tuple(columns.shape) != (weight.shape[0], 2) or dtype_name(columns) != "float32":
        found = f"{dtype_name(columns)} {list(columns.shape)}"
        raise UnsupportedError(f"linear_folded: columns is {found}; allowed: float32 [{weight.shape[0]}, 2]")
    if tell is not None:
        check_statistics("linear_folded", "tell", tell, x, parts(weight.shape[0]), fewer=True)
    if choose("linear_folded", backend, x, statistics, weight, columns, tell, out) == "reference":
        y = linear_folded_reference(x, statistics, weight, columns, eps=eps, rms=rms, gelu=gelu)
        return put(told(y, tell), out)
    call = start("cuda", 0, x, statistics, weight, columns, tell, out)
    given, matrix = call.take(x, "x"), call.take(weight, "weight")
    rows, shift, place = (
        call.take(t, n) for t, n in ((statistics, "statistics"), (columns, "columns"), (tell, "tell"))
    )
    y = call.result((*given.shape[:-1], weight.shape[0]), out)
    kind = "gelu" if gelu else "linear"
    call.run(
        "gemm",
        given,
        matrix,
        None,
        None,
        None,
        None,
        y,
        kind,
        rows=rows,
        columns=shift,
        eps=eps,
        rms=rms,
        statistics=place,
    )
    if place is not None:
        call.give(place, tell)
    return call.give(y, out)


@checked_reference("x float [..., K]", "statistics wide [parts, rows, 2]", "weight x [N, K]", "columns wide [N, 2]")
def linear_folded_reference(
    x: Tensor,
    statistics: Tensor,
    weight: Tensor,
    columns: Tensor,
    *,
    eps: float,
    rms: bool = False,
    gelu: bool = False,
) -> Tensor:
    mean, variance = mean_and_variance(statistics, x.shape[-1])
    factor = ((variance + mean.square() if rms else variance) + eps).rsqrt()
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rows = x.reshape(-1, x.shape[-1]).to(wide) @ weight.to(wide).T
    shift = torch.zeros_like(mean) if rms else mean * factor
    y = rows * factor.to(wide)[:, None] - shift.to(wide)[:, None] * columns[:, 0].to(wide) + columns[:, 1].to(wide)
    y = torch.nn.functional.gelu(y) if gelu else y
    return y.to(x.dtype).reshape(*x.shape[:-1], len(weight))


def check_statistics(op: str, name: str, given: Any, x: Any, wanted: int, fewer: bool = False) -> None:
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    shape = tuple(given.shape)
    fits = len(shape) == 3 and (0 < shape[0] <= wanted if fewer else shape[0] == wanted) and shape[1:] == (rows, 2)
    if not fits or dtype_name(given) != "float32":
        count = f"up to {wanted}" if fewer else str(wanted)
        raise UnsupportedError(
            f"{op}: {name} is {dtype_name(given)} {list(shape)}; allowed: float32 [{count}, {rows}, 2]"
        )


__all__ = ["check_statistics", "fold_norm", "linear_folded", "linear_folded_reference"]
