"""Sliding window and sinks of attention: parity on every ISA level, and bits that hold in whatever chunks rows come."""

from __future__ import annotations

import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal


def qkv(rows: int, keys: int, heads: int, kv_heads: int, dim: int, dtype: str = "float32") -> list[torch.Tensor]:
    shapes = ((rows, heads), (keys, kv_heads), (keys, kv_heads))
    return [normal(1, n, h, dim, dtype=dtype, seed=i) for i, (n, h) in enumerate(shapes)]


@pytest.mark.parametrize("window", [1, 15, 16, 33, 191, 192, 193, 385, 2000, None])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 577), (17, 193), (577, 577), (300, 449)])
def test_windows_and_sinks(rows: int, keys: int, window: int | None, isa: str) -> None:
    q, k, v = qkv(rows, keys, 4, 2, 24)
    check("attention", q, k, v, causal=True, window=window)
    check("attention", q, k, v, causal=True, window=window, sinks=torch.tensor([-3.0, 0.0, 2.0, 5.0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: str) -> None:
    q, k, v = qkv(70, 300, 6, 2, 64, dtype)
    sinks = normal(6, dtype=dtype, seed=9)
    for extra in ({"causal": True, "window": 50}, {"causal": False}):
        y = ops.attention(q, k, v, sinks=sinks, backend="cpu", **extra)
        narrow = reference.attention(q, k, v, sinks=sinks, **extra)
        wide = reference.attention(q.double(), k.double(), v.double(), sinks=sinks.double(), **extra)
        compare(y, narrow, wide, "attention", dtype)


def test_the_formula() -> None:
    """Against a loop that shares nothing with the reference."""
    q, k, v = (t.double()[0] for t in qkv(9, 12, 2, 1, 4))
    sinks = torch.tensor([0.5, -1.0], dtype=torch.float64)
    y = reference.attention(q[None], k[None], v[None], causal=True, window=5, sinks=sinks)[0]
    for i in range(9):
        for h in range(2):
            last = i + 3
            weights = {j: torch.exp(q[i, h] @ k[j, 0] * 0.5) for j in range(max(0, last - 4), last + 1)}
            expected = sum(w * v[j, 0] for j, w in weights.items()) / (sum(weights.values()) + torch.exp(sinks[h]))
            torch.testing.assert_close(y[i, h], expected)


def test_bits_hold_in_chunks_and_decode() -> None:
    q, k, v = qkv(600, 600, 4, 2, 32)
    extra = {"window": 210, "sinks": normal(4, seed=5), "backend": "cpu"}
    whole = ops.attention(q, k, v, causal=True, **extra)
    same_bits(ops.attention(q, k, v, causal=True, threads=2, **extra), whole, "threads")
    for first, last in ((0, 1), (190, 410), (403, 404), (599, 600)):
        part = ops.cached_attention(q[0, first:last], k[0], v[0], [(0, last - first, 0, last)], **extra)
        same_bits(part, whole[0, first:last], f"positions {first} to {last}")
    rows = [599, 17, 402]
    spans = [(i, i + 1, 0, row + 1) for i, row in enumerate(rows)]
    together = ops.cached_attention(q[0, rows], k[0], v[0], spans, decode=True, **extra)
    torch.testing.assert_close(together, whole[0, rows])  # another phase: other bits
    for i, row in enumerate(rows):
        alone = ops.cached_attention(q[0, row : row + 1], k[0], v[0], [(0, 1, 0, row + 1)], decode=True, **extra)
        same_bits(alone, together[i : i + 1], f"decode of {row}")


def test_keys_out_of_the_window_are_not_read() -> None:
    q, k, v = qkv(1, 600, 2, 1, 16)
    expected = ops.attention(q, k, v, causal=True, window=100, backend="cpu")
    v[:, :384] = k[:, :384] = float("nan")
    same_bits(ops.attention(q, k, v, causal=True, window=100, backend="cpu"), expected)


def test_a_sink_that_takes_nearly_all() -> None:
    """What is left is e^(score - sink), so its relative error is that of a number near the sink, in the base-2 exponent."""
    q, k, v = qkv(20, 577, 2, 1, 16)
    sinks = torch.tensor([40.0, -80.0])
    y = ops.attention(q, k, v, sinks=sinks, backend="cpu").double()
    wide = reference.attention(q.double(), k.double(), v.double(), sinks=sinks.double())
    error = (y - wide).abs().amax(-1) / wide.abs().amax(-1)
    assert float(error.max()) < 64 * 2**-23


def test_special_sinks() -> None:
    q, k, v = qkv(20, 200, 2, 1, 16)
    plain = ops.attention(q, k, v, backend="cpu")
    same_bits(ops.attention(q, k, v, sinks=torch.full((2,), float("-inf")), backend="cpu"), plain, "none")
    for value in ("nan", "inf"):
        sinks = torch.tensor([float(value), 0.0])
        y, expected = (f(q, k, v, sinks=sinks) for f in (ops.attention, reference.attention))
        assert torch.equal(y.isnan(), expected.isnan()), value


def test_refusals() -> None:
    q, k, v = qkv(4, 4, 2, 1, 8)
    for backend in ("cpu", "reference"):
        for extra, words in (
            ({"window": 3}, "window is 3, causal=False"),
            ({"window": 0, "causal": True}, "window is 0"),
            ({"sinks": torch.zeros(3)}, "sinks"),
            ({"sinks": torch.zeros(2, dtype=torch.bfloat16)}, "sinks"),
        ):
            with pytest.raises(UnsupportedError, match=words):
                ops.attention(q, k, v, backend=backend, **extra)
