"""Arguments of experts, choices, and the pieces of the CUDA tower."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fuzz.op_arguments import Arguments, Maker, maker
from fuzz.op_makers import attention, product_of
from internvl_kernels import ops

# -- experts and choices ----------------------------------------------------------------------------------------------------


@maker
def moe_route(m: Maker) -> Arguments:
    experts = m.size()
    logits = (
        m.normal(m.rng.choice((0, m.size(most=17))), experts, scale=2.0)
        if m.rng.random() < 0.6
        else m.data(m.size(most=9), experts)
    )
    return {"logits": logits, "k": m.rng.randint(1, min(experts, 9)), "normalize": m.rng.random() < 0.5}


@maker
def moe_permute(m: Maker) -> Arguments:
    count = m.size()
    return {"experts": m.integers(0, count, m.rng.choice((0, m.size())), m.size(most=8)), "num_experts": count}


@maker
def moe_combine(m: Maker) -> Arguments:
    n, k = m.rng.choice((0, m.size(most=17))), m.size(most=8)
    order = torch.tensor(m.rng.sample(range(n * k), n * k), dtype=torch.int64)
    return {"y": m.data(n * k, m.size()), "weights": m.data(n, k, signed=False), "order": order}


@maker
def moe_experts(m: Maker) -> Arguments:
    m.infinities = ()  # torch's silu of them is NaN
    n, k, count, hidden, inner = (
        m.rng.choice((0, m.size(most=17))),
        m.size(most=3),
        m.size(least=3, most=9),
        m.size(least=15),
        m.size(most=33),
    )
    chosen = (
        torch.stack([torch.tensor(m.rng.sample(range(count), k)) for _ in range(n)])
        if n
        else torch.empty(0, k, dtype=torch.int64)
    )
    given = {
        "x": m.data(n, hidden) / 8,
        "gate_up": m.data(count, 2 * inner, hidden),
        "down": m.data(count, hidden, inner, signed=False),
    }
    return {**given, "weights": m.data(n, k, signed=False), "experts": chosen, "decode": m.rng.random() < 0.3}


@maker
def argmax(m: Maker) -> Arguments:
    return {"logits": m.data(m.rng.choice((0, m.size(most=9))), m.rng.choice((m.size(), 1500)))}


@maker
def penalise(m: Maker) -> Arguments:
    rows, vocab = m.rng.choice((0, m.size(most=5))), m.size()
    ids: Any = m.integers(0, vocab, rows, m.rng.choice((0, m.size(most=9))))
    ids = ids if m.rng.random() < 0.5 else [row.tolist()[: m.rng.randrange(9)] for row in ids]
    return {"logits": m.data(rows, vocab), "token_ids": ids, "penalty": m.rng.choice((1.0, 1.5, 0.5, 4.0))}


@maker
def sample(m: Maker) -> Arguments:
    rows = m.rng.choice((0, m.size(most=9)))
    logits = (
        m.normal(rows, m.rng.choice((m.size(), 700)), scale=2.0) if m.rng.random() < 0.7 else m.data(rows, m.size())
    )
    uniform: Any = torch.tensor(
        [m.rng.choice((0.0, m.rng.random(), 1 - 2**-53)) for _ in range(rows)], dtype=torch.float64
    )
    given: Arguments = {"logits": logits, "uniform": uniform if m.rng.random() < 0.7 else uniform.tolist()}
    return {
        **given,
        "temperature": m.rng.choice((1.0, 0.5, 1e-3, 7.0)),
        "top_k": m.rng.choice((0, 0, 1, 5, 10**6)),
        "top_p": m.rng.choice((1.0, 0.9, 0.1)),
    }


@maker
def uniforms(m: Maker) -> Arguments:
    seeds: Any = m.rng.choice((0, 2**64 - 1, [1, 2, 3], range(3)))
    return {"seed": seeds, "step": m.rng.choice((0, 5, 2**63))}


@maker
def choose_grid(m: Maker) -> Arguments:
    low = m.size(most=4)
    given = {
        "width": m.rng.randint(1, 9000),
        "height": m.rng.randint(1, 9000),
        "min_tiles": low,
        "max_tiles": low + m.rng.choice((0, 5, 36)),
    }
    return {**given, "size": m.rng.choice((1, 224, 448)), "rule": m.rng.choice(("original", "hf"))}


# -- the pieces of the CUDA tower, of which a host without a GPU has the reference ------------------------------------------


@maker
def fold_norm(m: Maker) -> Arguments:
    n, k = m.size(), m.size()
    return {
        "weight": m.data(n, k),
        "norm_weight": m.data(k),
        "bias": m.maybe(m.data(n)),
        "norm_bias": m.maybe(m.data(k)),
    }


@maker
def row_statistics(m: Maker) -> Arguments:
    return {"x": m.normal(*m.rows(), m.size())}


@maker
def row_factors(m: Maker) -> Arguments:
    matrices = m.size(most=3)
    statistics = m.data(matrices * m.size(most=3), m.size(most=9), 2, dtype="float32", signed=False)
    return {"statistics": statistics, "matrices": matrices}


@maker
def linear_folded(m: Maker) -> Arguments:
    rows, n, k, given = product_of(m)
    x = given["x"]
    told = ops.row_statistics(x, backend="reference") if x.numel() else torch.zeros(-(-k // 32), int(np.prod(rows)), 2)
    return {
        "x": x,
        "statistics": told,
        "weight": given["weight"],
        "columns": m.normal(n, 2, dtype="float32"),
        "eps": 1e-6,
        "rms": m.rng.random() < 0.5,
    }


@maker
def normed_attention(m: Maker) -> Arguments:
    given = {k: v for k, v in attention(m).items() if k in ("q", "k", "v")}
    (batch, rows, heads, dim), keys = given["q"].shape, given["k"].shape[1]
    factors = {
        "q_factor": m.normal(batch, rows, dtype="float32").abs(),
        "k_factor": m.normal(batch, keys, dtype="float32").abs(),
    }
    return {**given, **factors, "weight": m.normal(heads, dim, dtype="float32")}


@maker
def statistics_space(m: Maker) -> Arguments:
    return {"columns": m.size(), "rows": m.size()}
