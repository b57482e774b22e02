"""Arguments of norms, products, attention, rotation and pictures."""

from __future__ import annotations

import torch

from fuzz.op_arguments import Arguments, Maker, maker

# -- norms ------------------------------------------------------------------------------------------------------------------


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


def product_of(m: Maker) -> tuple[list[int], int, int, Arguments]:
    rows, n, k = m.rows(), m.size(), m.size()
    return rows, n, k, {"x": m.data(*rows, k), "weight": m.data(n, k), "bias": m.maybe(m.data(n))}


@maker
def linear(m: Maker) -> Arguments:
    return {**product_of(m)[-1], "decode": m.rng.random() < 0.3}


@maker
def linear_gelu(m: Maker) -> Arguments:
    m.infinities = ()  # torch's gelu of them is NaN
    given = product_of(m)[-1]
    given["x"], given["weight"][0] = given["x"].abs(), given["weight"][0].abs()  # no row of nearly nothing
    return {**given, "bias": None if given["bias"] is None else given["bias"].abs()}


@maker
def linear_residual(m: Maker) -> Arguments:
    rows, n, _, given = product_of(m)
    wide = "float32" if m.rng.random() < 0.2 and m.dtype != "float64" else m.dtype
    return {
        **given,
        "residual": m.data(*rows, n, dtype=wide),
        "scale": m.maybe(m.data(n)),
        "inplace": m.rng.random() < 0.3,
    }


@maker
def linear_swiglu(m: Maker) -> Arguments:
    m.infinities = ()  # and so are silu's
    rows, n, k = m.rows(), m.size(most=33), m.size()
    return {"x": m.data(*rows, k) / 8, "gate_up": m.data(2 * n, k), "decode": m.rng.random() < 0.3}


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


def _heads(m: Maker) -> tuple[int, int, int]:
    kv = m.size(most=3)
    return (
        kv * m.size(most=4),
        kv,
        m.size(most=33) if m.rng.random() < 0.7 else m.rng.choice((64, 80, 96, 128, 129, 256)),
    )


@maker
def attention(m: Maker) -> Arguments:
    heads, kv, dim = _heads(m)
    batch, keys, causal = m.rng.choice((0, 1, 1, 2)), m.size(most=65), m.rng.random() < 0.5
    rows = m.size(most=keys) if causal else m.rng.choice((0, m.size()))
    given: Arguments = {
        "q": m.normal(batch, rows, heads, dim),
        "k": m.normal(batch, keys, kv, dim),
        "v": m.data(batch, keys, kv, dim, signed=False),
    }
    return {
        **given,
        "causal": causal,
        "window": m.maybe(m.size()) if causal else None,
        "sinks": m.maybe(m.normal(heads), 0.2),
        "scale": m.maybe(0.3, 0.2),
    }


@maker
def cached_attention(m: Maker) -> Arguments:
    heads, kv, dim = _heads(m)
    slots, decode, spans, row = m.size(least=15), m.rng.random() < 0.4, [], 0
    page = m.maybe(m.rng.choice((1, 2, 5)), 0.4)
    room = slots // page if page else slots
    for _ in range(m.rng.choice((0, 1, 2, 3))):
        taken = m.rng.randint(1, room)
        length = taken if page is None else max(1, taken * page - m.rng.randrange(page))
        new = 1 if decode else m.rng.randint(1, min(length, 20))
        spans.append((row, row + new, m.rng.randint(0, room - taken), length))
        row += new
    q = m.normal(row, heads, dim)
    given: Arguments = {
        "q": q,
        "k_cache": m.normal(slots, kv, dim),
        "v_cache": m.data(slots, kv, dim, signed=False),
        "spans": spans,
    }
    given |= {"decode": decode, "window": m.maybe(m.size(), 0.3), "sinks": m.maybe(m.normal(heads), 0.2)}
    if page is not None:
        given |= {"pages": torch.tensor(m.rng.sample(range(room), room)), "page_size": page}
    return given


@maker
def qkv_rope(m: Maker) -> Arguments:
    heads, kv, _ = _heads(m)
    dim, rows = 2 * m.size(most=33), m.rng.choice((0, m.size(most=17)))
    angles = m.normal(rows, dim // 2, dtype="float32", scale=3.0)
    given: Arguments = {"qkv": m.normal(rows, (heads + 2 * kv) * dim), "cos": angles.cos(), "sin": angles.sin()}
    if m.dtype == "float64":
        given |= {"cos": given["cos"].float(), "sin": given["sin"].float()}
    if m.rng.random() < 0.5:
        given |= {"q_weight": m.normal(dim), "k_weight": m.normal(dim)}
    return {**given, "num_heads": heads, "num_kv_heads": kv, "head_dim": dim}


@maker
def qkv_rope_append(m: Maker) -> Arguments:
    given = qkv_rope(m)
    rows, kv, dim = len(given["qkv"]), given["num_kv_heads"], given["head_dim"]
    slots = rows + m.rng.choice((0, 3))
    kept = m.rng.choice((m.dtype, m.dtype, "bfloat16", "float16"))
    caches = {"k_cache": m.normal(slots, kv, dim, dtype=kept), "v_cache": m.normal(slots, kv, dim, dtype=kept)}
    return {**given, **caches, "slots": torch.tensor(m.rng.sample(range(slots), rows), dtype=torch.int64)}


@maker
def rope_table(m: Maker) -> Arguments:
    dim, rows = 2 * m.size(most=33), m.rng.choice((0, m.size()))
    positions = (
        m.integers(0, 40_000, rows) if m.rng.random() < 0.5 else m.normal(rows, dtype="float64", scale=1e3).abs()
    )
    given: Arguments = {
        "positions": positions,
        "head_dim": dim,
        "theta": m.rng.choice((1e4, 1e6, 1.0, 2.0)),
        "scale": m.rng.choice((1.0, 1.2)),
    }
    if m.rng.random() < 0.3:
        given["frequencies"] = m.normal(dim // 2, dtype="float64").abs()
    return given


@maker
def pixel_shuffle(m: Maker) -> Arguments:
    factor, width, drop = m.rng.choice((1, 2, 2, 3, 4)), m.size(most=17), m.rng.random() < 0.6
    grid = (factor * m.size(most=3), factor * m.size(most=3))
    x = m.normal(m.rng.choice((0, 1, 2)), grid[0] * grid[1] + drop, width)
    given: Arguments = {"x": x, "grid": grid, "factor": factor, "version": m.rng.choice(("v1", "v2")), "drop_cls": drop}
    if m.rng.random() < 0.5:
        given |= {"weight": m.normal(width * factor**2), "bias": m.maybe(m.normal(width * factor**2))}
    return given


@maker
def patch_embed(m: Maker) -> Arguments:
    patch, width, tiles = m.rng.choice((1, 2, 3, 14)), m.size(most=33), m.rng.choice((0, 1, 2))
    height, across = patch * m.size(most=3), patch * m.size(most=3)
    if m.rng.random() < 0.6:
        pixels = m.integers(0, 256, tiles, height, across, 3).to(torch.uint8)
    else:
        pixels = m.data(tiles, 3, height, across, dtype=m.rng.choice(("float32", m.dtype)))
    patches = (height // patch) * (across // patch)
    rest = {"bias": m.data(width), "cls": m.data(width), "pos": m.data(1 + patches, width)}
    given = {"tiles": pixels, "weight": m.data(width, 3 * patch**2, signed=False), **rest, "patch_size": patch}
    return {**given, "mean": (0.0, 0.0, 0.0), "std": (0.2, 0.25, 0.5)}


@maker
def embed_tokens(m: Maker) -> Arguments:
    rows, width = m.size(least=2), m.size()
    ids = m.integers(0, rows, *m.rng.choice(([m.size()], [2, 5], [0], [])))
    if m.rng.random() < 0.5:
        return {"input_ids": ids, "table": m.data(rows, width)}
    token = m.rng.choice((rows - 1, rows + 7))
    ids = torch.where(m.integers(0, 2, *ids.shape) > 0, torch.tensor(token), ids)
    return {
        "input_ids": ids,
        "table": m.data(rows, width),
        "visual": m.data(int((ids == token).sum()), width),
        "image_token_id": token,
    }


@maker
def tile_pixels(m: Maker) -> Arguments:
    height, width, bands = m.size(), m.size(), m.rng.choice((1, 1, 2))
    given = [m.integers(0, 256, height, width, 3).to(torch.uint8) for _ in range(bands)]
    grid = (m.size(most=4), m.size(most=3))
    return {
        "pixels": given if bands > 1 else given[0],
        "grid": grid,
        "size": m.size(most=33),
        "thumbnail": m.rng.random() < 0.5,
    }
