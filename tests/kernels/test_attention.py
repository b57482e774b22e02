"""Attention over whole sequences and over a slot cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal


def qkv(batch: int, rows: int, keys: int, heads: int, kv_heads: int, dim: int, dtype: str = "float32") -> list:
    return [
        normal(batch, rows, heads, dim, dtype=dtype),
        normal(batch, keys, kv_heads, dim, dtype=dtype, seed=1),
        normal(batch, keys, kv_heads, dim, dtype=dtype, seed=2),
    ]


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """The definition, one query and one head at a time."""
    out = torch.empty_like(q)
    rows, keys, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    for b in range(q.shape[0]):
        for i in range(rows):
            for h in range(q.shape[2]):
                seen = i + keys - rows + 1 if causal else keys
                scores = k[b, :seen, h // group] @ q[b, i, h] * q.shape[3] ** -0.5
                out[b, i, h] = scores.softmax(0) @ v[b, :seen, h // group]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 9), (5, 5), (3, 8), (17, 33)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 2), (4, 1)])
def test_by_definition(rows: int, keys: int, heads: int, kv_heads: int, causal: bool) -> None:
    q, k, v = (t.double() for t in qkv(2, rows, keys, heads, kv_heads, 16))
    expected = by_hand(q, k, v, causal)
    for backend in ("reference", "cpu"):
        torch.testing.assert_close(ops.attention(q, k, v, causal=causal, backend=backend), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("batch", "rows", "keys", "heads", "kv_heads", "dim"),
    [
        (1, 65, 65, 4, 4, 64),
        (2, 1, 130, 14, 2, 64),
        (1, 31, 600, 4, 2, 128),
        (3, 257, 257, 2, 2, 64),
        (1, 7, 7, 2, 1, 96),
        (0, 4, 4, 2, 2, 64),
        (1, 0, 4, 2, 2, 64),
    ],
)
def test_attention(
    batch: int, rows: int, keys: int, heads: int, kv_heads: int, dim: int, causal: bool, dtype: str
) -> None:
    check("attention", *qkv(batch, rows, keys, heads, kv_heads, dim, dtype), causal=causal)


def test_scale_and_views_of_fused_rows() -> None:
    rows = normal(2, 50, 3, 4, 64)
    q, k, v = rows.unbind(2)
    check("attention", q, k, v, scale=0.5)
    same_bits(
        ops.attention(q, k, v, backend="cpu"), ops.attention(q.clone(), k.clone(), v.clone(), backend="cpu"), "views"
    )


def test_nan_stays_in_its_sequence_and_head() -> None:
    q, k, v = qkv(2, 9, 9, 4, 2, 64)
    clean = ops.attention(q, k, v, backend="cpu")
    k[1, 3, 1, 5] = float("nan")
    y = ops.attention(q, k, v, backend="cpu")
    assert torch.equal(y.isnan(), reference.attention(q, k, v).isnan())
    same_bits(y[0], clean[0])
    same_bits(y[1, :, :2], clean[1, :, :2])


def test_large_scores_do_not_overflow() -> None:
    q, k, v = qkv(1, 5, 70, 2, 2, 64)
    y = check("attention", q * 300, k * 300, v)
    assert y.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_batch(dtype: str) -> None:
    q, k, v = qkv(5, 65, 65, 4, 2, 64, dtype)
    y = ops.attention(q, k, v, causal=True, backend="cpu")
    same_bits(ops.attention(q, k, v, causal=True, backend="cpu"), y, "again")
    same_bits(ops.attention(q[3:4], k[3:4], v[3:4], causal=True, backend="cpu"), y[3:4], "alone")
    torch.set_num_threads(2)
    same_bits(ops.attention(q, k, v, causal=True, backend="cpu"), y, "two threads")


SPANS = [(0, 1, 40, 25), (1, 8, 0, 7), (8, 12, 10, 30), (12, 13, 70, 1)]


def cached(dtype: str = "float32", heads: int = 6, kv_heads: int = 2, dim: int = 64) -> list:
    return [
        normal(13, heads, dim, dtype=dtype),
        normal(80, kv_heads, dim, dtype=dtype, seed=1),
        normal(80, kv_heads, dim, dtype=dtype, seed=2),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_cached_attention(dtype: str) -> None:
    q, k, v = cached(dtype)
    y = check("cached_attention", q, k, v, SPANS)
    for row, row_end, slot, length in SPANS:
        part = [q[row:row_end, :][None], k[slot : slot + length][None], v[slot : slot + length][None]]
        wide = [t.double() for t in part]
        same, high = (reference.attention(*p, causal=True)[0] for p in (part, wide))
        compare(y[row:row_end], same, high, "cached_attention", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decode_row_does_not_see_the_batch_or_other_slots(dtype: str) -> None:
    q, k, v = cached(dtype)
    spans = [(i, i + 1, 5 * i, 17) for i in range(13)]
    run = {"decode": True, "backend": "cpu"}
    y = ops.cached_attention(q, k, v, spans, **run)
    for i in (0, 4, 12):
        same_bits(ops.cached_attention(q[i : i + 1], k, v, [(0, 1, 5 * i, 17)], **run), y[i : i + 1])
    k[17:], v[17:] = float("nan"), float("nan")
    same_bits(ops.cached_attention(q[:1], k, v, [(0, 1, 0, 17)], **run), y[:1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [64, 24])
def test_a_prefill_row_does_not_see_the_cut(dtype: str, dim: int) -> None:
    """One prompt of 150 positions, whole, in pieces of any length, and row by row; what lies behind it is not read."""
    q, k, v = (normal(n, h, dim, dtype=dtype, seed=i) for i, (n, h) in enumerate(((150, 4), (190, 2), (190, 2))))
    k[160:], v[160:] = float("nan"), float("nan")
    whole = ops.cached_attention(q, k, v, [(0, 150, 10, 150)], backend="cpu")
    assert whole.isfinite().all()
    for size in (1, 7, 63, 64, 65, 100):
        for begin in range(0, 150, size):
            end = min(begin + size, 150)
            part = ops.cached_attention(q[begin:end], k, v, [(0, end - begin, 10, end)], backend="cpu")
            same_bits(part, whole[begin:end], f"rows {begin} to {end}")
    two = ops.cached_attention(torch.cat([q, q[:70]]), k, v, [(0, 150, 10, 150), (150, 220, 10, 70)], backend="cpu")
    same_bits(two, torch.cat([whole, whole[:70]]), "two sequences")


def test_decode_takes_one_row_of_each_sequence() -> None:
    q, k, v = cached()
    for backend in ("cpu", "reference"):
        with pytest.raises(UnsupportedError, match=r"spans\[1\] has 7 rows"):
            ops.cached_attention(q, k, v, SPANS, decode=True, backend=backend)
    spans = [(i, i + 1, 5 * i, 17) for i in range(13)]
    ours, theirs = (ops.cached_attention(q, k, v, spans, decode=True, backend=b) for b in ("cpu", "reference"))
    torch.testing.assert_close(ours, theirs)


def test_cache_layers_are_read_in_place() -> None:
    q, k, v = cached()
    memory = torch.stack([k, v])
    same_bits(
        ops.cached_attention(q, memory[0], memory[1], SPANS, backend="cpu"),
        ops.cached_attention(q, k, v, SPANS, backend="cpu"),
    )


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        ([(0, 13, 0, 12)], r"spans\[0\] = \(0, 13, 0, 12\)"),
        ([(0, 13, 70, 13)], "80 slots"),
        ([(0, 13, -1, 13)], r"\(0, 13, -1, 13\)"),
        ([(0, 6, 0, 10), (7, 13, 20, 10)], r"row_begin 6"),
        ([(0, 6, 0, 10), (5, 13, 20, 10)], r"row_begin 6"),
        ([(0, 6, 0, 10)], "spans cover 6 rows; allowed: all 13"),
        ([(0, 0, 0, 10), (0, 13, 0, 20)], r"spans\[0\]"),
        ([(0, 14, 0, 20)], "cover 14 rows"),
        ([], "cover 0 rows"),
    ],
)
def test_wrong_spans_are_refused(spans: list, text: str) -> None:
    for backend in ("cpu", "reference"):
        with pytest.raises(UnsupportedError, match=text):
            ops.cached_attention(*cached(), spans, backend=backend)


@pytest.mark.parametrize(
    ("shapes", "causal", "text"),
    [
        (((1, 4, 3, 8), (1, 4, 2, 8), (1, 4, 2, 8)), False, "Hq a multiple of Hkv"),
        (((1, 4, 2, 8), (1, 4, 2, 8), (1, 5, 2, 8)), False, r"v \[1, 5, 2, 8\]"),
        (((1, 4, 2, 8), (2, 4, 2, 8), (2, 4, 2, 8)), False, "one B and d"),
        (((1, 4, 2, 8), (1, 4, 2, 6), (1, 4, 2, 6)), False, "one B and d"),
        (((1, 4, 2, 8), (1, 3, 2, 8), (1, 3, 2, 8)), True, "4 queries over 3 keys"),
        (((1, 4, 2, 8), (1, 0, 2, 8), (1, 0, 2, 8)), False, "4 queries over 0 keys"),
        (((4, 2, 8), (4, 2, 8), (4, 2, 8)), False, r"q \[4, 2, 8\]"),
    ],
)
def test_wrong_shapes_are_refused(shapes: tuple, causal: bool, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        ops.attention(*(torch.zeros(s) for s in shapes), causal=causal, backend="cpu")


def test_refused_tensors_are_named() -> None:
    q, k, v = qkv(1, 3, 3, 2, 2, 8)
    kinds = ("negative view", "meta", "fake", "sparse", "expanded", "requires grad")
    for kind, tensor, text in hostile.refused(k):
        if kind in kinds:
            with pytest.raises(UnsupportedError, match=text):
                ops.attention(q, tensor, v, backend="cpu")
    for wrong in (k.half(), k.int()):
        with pytest.raises(UnsupportedError, match=f"k is {wrong.dtype}"):
            ops.attention(q, wrong, v, backend="cpu")


def test_numpy_in_numpy_out() -> None:
    q, k, v = qkv(1, 3, 3, 2, 2, 8)
    y = ops.attention(q.numpy(), k.numpy(), v.numpy(), causal=True)
    assert isinstance(y, np.ndarray)
    same_bits(y, ops.attention(q, k, v, causal=True, backend="cpu"))


def test_reference_is_differentiable() -> None:
    q, k, v = (t.double().requires_grad_() for t in qkv(1, 2, 3, 2, 1, 4))
    assert torch.autograd.gradcheck(lambda a, b, c: ops.attention(a, b, c, causal=True), (q, k, v))


def test_no_rows_of_any_strides() -> None:
    """A tensor without elements may say any strides of itself: torch.empty_strided and expanded ones say 0."""
    k = normal(1, 17, 2, 64)
    q = torch.empty_strided((1, 0, 6, 64), (0, 0, 0, 0))
    assert ops.attention(q, k, k, backend="cpu").shape == (1, 0, 6, 64)
    spans: list[tuple[int, int, int, int]] = []
    assert ops.cached_attention(q[0], k[0], k[0], spans, backend="cpu").shape == (0, 6, 64)
