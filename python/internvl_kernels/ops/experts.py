"""The experts of a mixture, all of them in two products. Contract: csrc/kernels/gemm/gemm_grouped.h."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._kinds import shown
from ._packed import PackedWeight
from ._product import by_library
from ._tensor import as_kind, dtype_name, to_torch
from .gemm import linear, linear_reference
from .moe import moe_combine, moe_combine_reference, moe_permute, moe_permute_reference
from .swiglu import checked_limit, linear_swiglu, linear_swiglu_reference

if TYPE_CHECKING:
    from torch import Tensor


@checked
def moe_experts(
    x: Any,
    gate_up: Any | PackedWeight,
    down: Any | PackedWeight,
    weights: Any,
    experts: Any,
    *,
    gate_up_bias: Any = None,
    down_bias: Any = None,
    limit: float | None = None,
    decode: bool = False,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Every token through its chosen SwiGLU experts: ``sum_j w_j * down_e(silu(gate_e x) * (up_e x))``, e = experts[t, j].

    x ``[n, H]``; gate_up ``[E, 2I, H]`` (gate rows first), down ``[E, H, I]``; weights ``[n, k]`` and experts int64 ``[n, k]``
    from ``moe_route``. Returns ``[n, H]``. gate_up_bias ``[E, 2I]`` and down_bias ``[E, H]`` join their products; limit: GPT-OSS's
    gate (``swiglu``). An expert's weights are read only when a token chose it. Packed weights (both, gate_up
    with gated=True) may be of another dtype than x; ``decode`` as in ``linear``. Contract: csrc/kernels/gemm/gemm_grouped.h.
    """
    _check_experts(x, gate_up, down, weights, experts, gate_up_bias, down_bias)
    bound = checked_limit("moe_experts", limit)
    packed = isinstance(gate_up, PackedWeight) and isinstance(down, PackedWeight)
    matrices = () if packed else (gate_up, down)
    found = choose("moe_experts", backend, x, *matrices, weights, experts, gate_up_bias, down_bias)
    if found == "reference":
        if packed:
            raise UnsupportedError(
                "moe_experts: gate_up is packed, backend 'reference'; allowed: a tensor, or backend 'cpu'"
            )
        extra: dict[str, Any] = {"gate_up_bias": gate_up_bias, "down_bias": down_bias, "limit": limit}
        return moe_experts_reference(x, cast("Tensor", gate_up), cast("Tensor", down), weights, experts, **extra)
    run: dict[str, Any] = {"threads": threads, "backend": "cpu"}
    rows, choices = to_torch(x, "x"), to_torch(experts, "experts")
    order, offsets = moe_permute(choices, gate_up.shape[0], **run)
    tokens = order // max(choices.shape[1], 1)
    biases = [None if b is None else to_torch(b, "bias").contiguous() for b in (gate_up_bias, down_bias)]
    if packed or not (decode or by_library(rows.dtype)):
        inner = _products(rows, tokens, offsets, gate_up, biases[0], True, threads, bound)
        y = _products(inner, None, offsets, down, biases[1], False, threads)
    else:
        matrices = (to_torch(gate_up, "gate_up"), to_torch(down, "down"))
        y = _one_by_one(rows, tokens, offsets, matrices, biases, limit, {"decode": decode, **run})
    return as_kind(moe_combine(y, to_torch(weights), order, **run), x)


@checked_reference(
    "x float [n, H]",
    "down x [E, H, I]",
    "gate_up x [E, 2*I, H]",
    "weights x [n, k]",
    "experts int64 [n, k]",
    "gate_up_bias x [E, 2*I]",
    "down_bias x [E, H]",
)
def moe_experts_reference(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    weights: Tensor,
    experts: Tensor,
    *,
    gate_up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
    limit: float | None = None,
) -> Tensor:
    _check_experts(x, gate_up, down, weights, experts, gate_up_bias, down_bias)
    before, after = (itertools.repeat(None) if b is None else b for b in (gate_up_bias, down_bias))
    order, offsets = moe_permute_reference(experts, gate_up.shape[0])
    rows = x[order // experts.shape[1]]
    parts = []
    for (begin, end), into, out_of, *bias in zip(pairwise(offsets.tolist()), gate_up, down, before, after):
        if begin < end:
            inner = linear_swiglu_reference(rows[begin:end], into, bias[0], limit=limit)
            parts.append(linear_reference(inner, out_of, bias[1]))
    return moe_combine_reference(torch.cat(parts) if parts else rows, weights, order)


def _products(
    x: Tensor,
    rows: Tensor | None,
    offsets: Tensor,
    weight: Any,
    bias: Tensor | None,
    gated: bool,
    threads: int,
    limit: float = 0.0,
) -> Tensor:
    """Every expert's rows times its own weight."""
    n = weight.shape[1]
    y = x.new_empty((len(x) if rows is None else len(rows), n // 2 if gated else n))
    packed = isinstance(weight, PackedWeight)
    data = weight.data if packed else to_torch(weight, "weight").contiguous()
    cpu().gemm_grouped(x, rows, offsets, data, n if packed else None, bias, y, gated, limit, threads)
    return y


def _one_by_one(
    x: Tensor,
    tokens: Tensor,
    offsets: Tensor,
    matrices: tuple[Tensor, Tensor],
    biases: Sequence[Tensor | None],
    limit: float | None,
    run: dict[str, Any],
) -> Tensor:
    """The same through ``linear``, where its products are not our GEMM's. Rows are gathered for one expert at a time."""
    y = x.new_empty((len(tokens), x.shape[1]))
    for e, (begin, end) in enumerate(pairwise(offsets.tolist())):
        if begin < end:
            before, after = (None if b is None else b[e] for b in biases)
            inner = linear_swiglu(x[tokens[begin:end]], matrices[0][e], before, limit=limit, **run)
            y[begin:end] = linear(inner, matrices[1][e], after, **run)
    return y


def _check_experts(x: Any, gate_up: Any, down: Any, weights: Any, experts: Any, *biases: Any) -> None:
    kinds = [isinstance(value, PackedWeight) for value in (gate_up, down)]
    if kinds[0] != kinds[1] or (kinds[0] and (not gate_up.gated or down.gated)):
        raise UnsupportedError(
            f"moe_experts: gate_up is {shown(gate_up)}, down {shown(down)}; allowed: both tensors, or both packed, gate_up with gated=True"
        )
    for name, value in (("weights", weights), *(() if kinds[0] else (("gate_up", gate_up), ("down", down)))):
        if str(value.dtype).rpartition(".")[2] != str(x.dtype).rpartition(".")[2]:
            raise UnsupportedError(f"moe_experts: {name} is {value.dtype}; allowed: x's dtype, {x.dtype}")
    for name, bias, rows in zip(("gate_up_bias", "down_bias"), biases, (gate_up, down)):
        wrong = bias is not None and (list(bias.shape) != list(rows.shape[:2]) or dtype_name(bias) != dtype_name(x))
        if wrong:
            raise UnsupportedError(
                f"moe_experts: {name} is {bias.dtype} {list(bias.shape)}; allowed: x's dtype, {x.dtype}, {list(rows.shape[:2])}"
            )
    shapes = [list(t.shape) for t in (x, gate_up, down, weights, experts)]
    if [len(s) for s in shapes] == [2, 3, 3, 2, 2]:
        (n, hidden), (count, _, _), (_, _, inner) = shapes[:3]
        wanted = [[count, 2 * inner, hidden], [count, hidden, inner], [n, shapes[4][1]], [n, shapes[4][1]]]
        if shapes[1:] == wanted and shapes[4][1]:
            return
    raise UnsupportedError(
        "moe_experts: x, gate_up, down, weights, experts have shapes {}, {}, {}, {}, {}; allowed: [n, H], [E, 2I, H], [E, H, I], "
        "[n, k], [n, k], k >= 1".format(*shapes)
    )


__all__ = ["moe_experts", "moe_experts_reference"]
