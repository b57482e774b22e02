"""Valid arguments of norms and products."""

from __future__ import annotations

import torch

from fuzz.op_maker import Arguments, Maker, maker


def _norm(m: Maker) -> tuple[list[int], int, str]:
    """Leading dimensions, columns, and the weight's dtype: 16 bits beside rows of float32 too."""
    weight = m.rng.choice(("bfloat16", "float16")) if m.dtype == "float32" and m.rng.random() < 0.2 else m.dtype
    return m.rows(), m.size(most=65), weight


@maker
def layer_norm(m: Maker) -> Arguments:
    rows, columns, weight = _norm(m)
    shift = m.maybe(m.normal(columns, dtype=weight))
    return {
        "x": _rows(m, *rows, columns),
        "weight": m.normal(columns, dtype=weight),
        "bias": shift,
        "eps": m.rng.choice((1e-6, 1e-5, 1.0)),
    }


@maker
def rms_norm(m: Maker) -> Arguments:
    rows, columns, weight = _norm(m)
    return {
        "x": _rows(m, *rows, columns),
        "weight": m.normal(columns, dtype=weight),
        "eps": m.rng.choice((1e-6, 1e-5, 1.0)),
    }


def _rows(m: Maker, *shape: int) -> torch.Tensor:
    return (
        m.normal(*shape, scale=m.rng.choice((1.0, 1.0, 30.0, 1e-3))) + m.rng.choice((0.0, 0.0, 3.0))
        if m.rng.random() < 0.6
        else m.data(*shape)
    )


@maker
def add_norm(m: Maker) -> Arguments:
    rows, columns, _ = _norm(m)
    rms = m.rng.random() < 0.5
    given = {"x": m.normal(*rows, columns), "branch": m.normal(*rows, columns), "weight": m.normal(columns), "rms": rms}
    return {
        **given,
        "bias": None if rms else m.maybe(m.normal(columns)),
        "scale": m.maybe(m.normal(columns)),
        "inplace": m.rng.random() < 0.3,
    }


@maker
def add_scaled(m: Maker) -> Arguments:
    rows, columns, _ = _norm(m)
    return {
        "x": m.normal(*rows, columns),
        "branch": m.normal(*rows, columns),
        "scale": m.maybe(m.normal(columns)),
        "inplace": m.rng.random() < 0.3,
    }


@maker
def vision_qk_norm(m: Maker) -> Arguments:
    width = m.size(most=33)
    return {
        "qkv": m.normal(*m.rows(), 3 * width),
        "q_weight": m.normal(width),
        "k_weight": m.normal(width),
        "inplace": m.rng.random() < 0.3,
    }


# -- products ---------------------------------------------------------------------------------------------------------------


def _product(m: Maker) -> tuple[list[int], int, int, Arguments]:
    rows, n, k = m.rows(), m.size(), m.size()
    return rows, n, k, {"x": m.data(*rows, k), "weight": m.data(n, k), "bias": m.maybe(m.data(n))}


@maker
def linear(m: Maker) -> Arguments:
    return {**_product(m)[-1], "decode": m.rng.random() < 0.3}


@maker
def linear_gelu(m: Maker) -> Arguments:
    m.infinities = ()  # torch's gelu of them is NaN
    return _product(m)[-1]


@maker
def linear_residual(m: Maker) -> Arguments:
    rows, n, _, given = _product(m)
    wide = "float32" if m.rng.random() < 0.2 and m.dtype != "float64" else m.dtype
    return {
        **given,
        "residual": m.data(*rows, n, dtype=wide),
        "scale": m.maybe(m.data(n)),
        "inplace": m.rng.random() < 0.3,
    }


@maker
def linear_swiglu(m: Maker) -> Arguments:
    rows, n, k = m.rows(), m.size(most=33), m.size()
    return {"x": m.data(*rows, k), "gate_up": m.data(2 * n, k), "decode": m.rng.random() < 0.3}


@maker
def swiglu(m: Maker) -> Arguments:
    return {"gate_up": m.normal(*m.rows(), 2 * m.size(), scale=3.0)}


@maker
def pack_weight(m: Maker) -> Arguments:
    shape = [2 * m.size(most=33), m.size()]
    return {
        "weight": m.data(*(shape if m.rng.random() < 0.7 else [m.size(most=4), *shape])),
        "gated": m.rng.random() < 0.4,
    }


# -- attention, rotation, pictures ------------------------------------------------------------------------------------------
