"""Mixture of experts: routing, permutation by expert, the experts, combination. Contract: csrc/kernels/moe/moe.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._backend import choose

if TYPE_CHECKING:
    from torch import Tensor


def moe_route(
    logits: Any, k: int, *, normalize: bool = True, threads: int = 0, backend: str = "auto"
) -> tuple[Any, Any]:
    """The k experts of every token: softmax over all experts in fp32, top-k, weights divided by their sum: ``(weights, experts)``.

    logits ``[n, E]`` float32 | bfloat16 | float16; 1 <= k <= E. Returns weights ``[n, k]`` of logits' dtype, descending, and
    experts int64 ``[n, k]``; equal logits keep the lower expert first. ``normalize=False`` leaves the softmax as it is. A row
    with NaN, +inf or nothing but -inf has no softmax: its weights are NaN, its experts still k different valid ones.
    """
    _check_k(logits, k)
    choose("moe_route", backend, logits)
    return moe_route_reference(logits, k, normalize=normalize)


def moe_route_reference(logits: Tensor, k: int, *, normalize: bool = True) -> tuple[Tensor, Tensor]:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    probability = wide.softmax(-1)
    # softmax is monotone; sorting the logits keeps apart what it rounds together
    experts = wide.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    weights = probability.gather(-1, experts)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(logits.dtype), experts


def moe_permute(experts: Any, num_experts: int, *, threads: int = 0, backend: str = "auto") -> tuple[Any, Any]:
    """Group the choices by expert with a stable counting sort: ``(order, offsets)``.

    experts int64 ``[n, k]``. Returns order int64 ``[n * k]``, the flat indices t * k + j sorted by expert (equal experts keep
    their order), and offsets int64 ``[num_experts + 1]``: expert e owns ``order[offsets[e]:offsets[e + 1]]``. An expert outside
    [0, num_experts) raises UnsupportedError.
    """
    choose("moe_permute", backend, experts)
    return moe_permute_reference(experts, num_experts)


def moe_permute_reference(experts: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    flat = experts.flatten()
    if flat.numel() and not (int(flat.min()) >= 0 and int(flat.max()) < num_experts):
        raise UnsupportedError(
            f"moe_permute: experts in [{int(flat.min())}, {int(flat.max())}]; allowed: 0 to {num_experts - 1}"
        )
    offsets = torch.zeros(num_experts + 1, dtype=torch.int64, device=flat.device)
    offsets[1:] = torch.bincount(flat, minlength=num_experts).cumsum(0)
    return flat.sort(stable=True).indices, offsets


def moe_combine(y: Any, weights: Any, order: Any, *, threads: int = 0, backend: str = "auto") -> Any:
    """Weighted sum of every token's expert outputs: ``out[t] = sum_j weights[t, j] * y[row of t * k + j]``.

    y ``[n * k, H]`` in ``moe_permute``'s order; weights ``[n, k]`` of y's dtype; order int64 ``[n * k]``, a permutation.
    Returns ``[n, H]``: products and sum in fp32, j = 0 to k - 1 in that order, rounded once.
    """
    choose("moe_combine", backend, y, weights)
    return moe_combine_reference(y, weights, order)


def moe_combine_reference(y: Tensor, weights: Tensor, order: Tensor) -> Tensor:
    n, k = weights.shape
    if y.shape[0] != n * k or order.shape != (n * k,):
        raise UnsupportedError(
            f"moe_combine: y has {y.shape[0]} rows and order shape {list(order.shape)}; allowed: n * k = {n * k}"
        )
    wide = y.dtype if y.dtype == torch.float64 else torch.float32
    row_of = torch.empty_like(order)
    row_of[order] = torch.arange(n * k, device=order.device)
    parts = y[row_of].to(wide).unflatten(0, (n, k)) * weights.to(wide)[..., None]
    return parts.sum(1).to(y.dtype)


def moe_experts(
    x: Any, gate_up: Any, down: Any, weights: Any, experts: Any, *, threads: int = 0, backend: str = "auto"
) -> Any:
    """Every token through its chosen SwiGLU experts: ``sum_j w_j * down_e(silu(gate_e x) * (up_e x))``, e = experts[t, j].

    x ``[n, H]``; gate_up ``[E, 2I, H]`` (gate rows first), down ``[E, H, I]``; weights ``[n, k]`` and experts int64 ``[n, k]``
    from ``moe_route``. Returns ``[n, H]``. An expert's weights are read once, and only when a token chose it.
    """
    choose("moe_experts", backend, x, gate_up, down, weights)
    return moe_experts_reference(x, gate_up, down, weights, experts)


def moe_experts_reference(x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
    order, offsets = moe_permute_reference(experts, gate_up.shape[0])
    rows = x[order // experts.shape[1]]
    parts = []
    for e, (begin, end) in enumerate(zip(offsets.tolist(), offsets.tolist()[1:])):
        if begin < end:
            gate, up = torch.nn.functional.linear(rows[begin:end], gate_up[e]).chunk(2, dim=-1)
            parts.append(torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, down[e]))
    return moe_combine_reference(torch.cat(parts) if parts else rows, weights, order)


def _check_k(logits: Any, k: int) -> None:
    if len(logits.shape) != 2 or not 1 <= k <= logits.shape[1]:
        raise UnsupportedError(
            f"moe_route: k is {k}, logits have shape {list(logits.shape)}; allowed: [n, E] and k from 1 to E"
        )


__all__ = [
    "moe_combine",
    "moe_combine_reference",
    "moe_experts",
    "moe_experts_reference",
    "moe_permute",
    "moe_permute_reference",
    "moe_route",
    "moe_route_reference",
]
