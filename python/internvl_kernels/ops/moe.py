"""Mixture of experts: routing, permutation by expert, combination. Contract: csrc/kernels/moe/moe.h."""

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
def moe_route(
    logits: Any, k: int, *, normalize: bool = True, threads: int = 0, backend: str = "auto"
) -> tuple[Any, Any]:
    """The k experts of every token: softmax over all experts in fp32, top-k, weights divided by their sum: ``(weights, experts)``.

    logits ``[n, E]`` float32 | bfloat16 | float16; 1 <= k <= E. Returns weights ``[n, k]`` of logits' dtype, descending, and
    experts int64 ``[n, k]``; equal logits keep the lower expert first. ``normalize=False`` leaves the softmax as it is. A row
    with NaN, +inf or nothing but -inf has no softmax: its weights are NaN, its experts 0 to k - 1.
    """
    _check_k(logits, k)
    if choose("moe_route", backend, logits) == "reference":
        return moe_route_reference(logits, k, normalize=normalize)
    logits = host(logits)
    weights, experts = empty(logits, (logits.shape[0], k)), empty(logits, (logits.shape[0], k), "int64")
    cpu().moe_route(logits, weights, experts, normalize, threads)
    return weights, experts


@checked_reference("logits float [n, E]")
def moe_route_reference(logits: Tensor, k: int, *, normalize: bool = True) -> tuple[Tensor, Tensor]:
    _check_k(logits, k)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    probability = wide.softmax(-1)
    # Softmax is monotone: sorting the logits keeps apart what it rounds together. A row without a softmax keeps 0 .. k - 1.
    ranked = wide.masked_fill(probability.isnan(), 0.0)
    experts = ranked.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    weights = probability.gather(-1, experts)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(logits.dtype), experts


@checked
def moe_permute(experts: Any, num_experts: int, *, threads: int = 0, backend: str = "auto") -> tuple[Any, Any]:
    """Group the choices by expert with a stable counting sort: ``(order, offsets)``.

    experts int64 ``[n, k]``. Returns order int64 ``[n * k]``, the flat indices t * k + j sorted by expert (equal experts keep
    their order), and offsets int64 ``[num_experts + 1]``: expert e owns ``order[offsets[e]:offsets[e + 1]]``. An expert outside
    [0, num_experts) raises UnsupportedError.
    """
    if len(experts.shape) != 2 or num_experts < 1:
        raise UnsupportedError(
            f"moe_permute: experts has shape {list(experts.shape)}, num_experts={num_experts}; allowed: [n, k], at least 1"
        )
    if choose("moe_permute", backend, experts) == "reference":
        return moe_permute_reference(experts, num_experts)
    experts = host(experts)
    order = empty(experts, (experts.shape[0] * experts.shape[1],), "int64")
    offsets = empty(experts, (num_experts + 1,), "int64")
    cpu().moe_permute(experts, order, offsets)
    return order, offsets


@checked_reference("experts int64 [n, k]")
def moe_permute_reference(experts: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    flat = experts.flatten()
    if flat.numel() and not (int(flat.min()) >= 0 and int(flat.max()) < num_experts):
        raise UnsupportedError(
            f"moe_permute: experts in [{int(flat.min())}, {int(flat.max())}]; allowed: 0 to {num_experts - 1}"
        )
    offsets = torch.zeros(num_experts + 1, dtype=torch.int64, device=flat.device)
    offsets[1:] = torch.bincount(flat, minlength=num_experts).cumsum(0)
    return flat.sort(stable=True).indices, offsets


@checked
def moe_combine(y: Any, weights: Any, order: Any, *, threads: int = 0, backend: str = "auto") -> Any:
    """Weighted sum of every token's expert outputs: ``out[t] = sum_j weights[t, j] * y[row of t * k + j]``.

    y ``[n * k, H]`` in ``moe_permute``'s order; weights ``[n, k]`` of y's dtype; order int64 ``[n * k]``, a permutation.
    Returns ``[n, H]``: products and sum in fp32, j = 0 to k - 1 in that order, rounded once.
    """
    if len(y.shape) != 2 or len(weights.shape) != 2:
        raise UnsupportedError(
            f"moe_combine: y has shape {list(y.shape)}, weights {list(weights.shape)}; allowed: [n * k, H] and [n, k]"
        )
    if choose("moe_combine", backend, y, weights) == "reference":
        return moe_combine_reference(y, weights, order)
    y = host(y)
    out = empty(y, (weights.shape[0], y.shape[1]))
    cpu().moe_combine(y, host(weights), host(order), out, threads)
    return out


@checked_reference("weights float [n, k]", "y weights [n*k, H]", "order int64 [n*k]")
def moe_combine_reference(y: Tensor, weights: Tensor, order: Tensor) -> Tensor:
    n, k = weights.shape
    if not torch.equal(order.sort().values, torch.arange(n * k, device=order.device)):
        raise UnsupportedError(f"moe_combine: order is no permutation; allowed: each of 0 to {n * k - 1} once")
    wide = y.dtype if y.dtype == torch.float64 else torch.float32
    row_of = torch.empty_like(order)
    row_of[order] = torch.arange(n * k, device=order.device)
    parts = y[row_of].to(wide).unflatten(0, (n, k)) * weights.to(wide)[..., None]
    return parts.sum(1).to(y.dtype)


def _check_k(logits: Any, k: int) -> None:
    if len(logits.shape) != 2 or not 1 <= k <= logits.shape[1]:
        raise UnsupportedError(
            f"moe_route: k is {k}, logits have shape {list(logits.shape)}; allowed: [n, E] and k from 1 to E"
        )


__all__ = [
    "moe_combine",
    "moe_combine_reference",
    "moe_permute",
    "moe_permute_reference",
    "moe_route",
    "moe_route_reference",
]
