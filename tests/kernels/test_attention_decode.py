"""Decoding one row of each sequence: parity, bits that no neighbour, thread or page moves, caches of another dtype."""

from __future__ import annotations

import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

LENGTHS = (1, 63, 64, 65, 191, 192, 193, 511, 512, 513, 1025, 4100)


def rows(lengths: tuple[int, ...], heads: int, kv_heads: int, dim: int, dtype: str = "float32") -> list:
    """q, k, v and spans of sequences one after the other in the cache."""
    slots = sum(lengths)
    shapes = ((len(lengths), heads), (slots, kv_heads), (slots, kv_heads))
    tensors = [normal(n, h, dim, dtype=dtype, seed=i) for i, (n, h) in enumerate(shapes)]
    begins = [sum(lengths[:i]) for i in range(len(lengths))]
    return [*tensors, [(i, i + 1, begin, n) for i, (begin, n) in enumerate(zip(begins, lengths))]]


def decode(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: list, **extra: object) -> torch.Tensor:
    return ops.cached_attention(q, k, v, spans, decode=True, backend="cpu", **extra)


def compared(args: list, dtype: str, **extra: object) -> torch.Tensor:
    """The kernel's rows against the reference in the dtype and in float64."""
    y = decode(*args, **extra)
    wide = [t.double() for t in args[:3]]
    wide_extra = {
        n: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for n, x in extra.items()
    }
    narrow, high = reference.cached_attention(*args, **extra), reference.cached_attention(*wide, args[3], **wide_extra)
    compare(y, narrow, high, "cached_attention", dtype)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [7, 64, 80, 96, 128, 256])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (5, 1), (14, 2), (8, 1)])
def test_shapes(heads: int, kv_heads: int, dim: int, dtype: str, isa: str) -> None:
    compared(rows((1, 65, 193, 513), heads, kv_heads, dim, dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths(dtype: str, isa: str) -> None:
    compared(rows(LENGTHS, 4, 2, 64, dtype), dtype)


def test_one_dimension(isa: str) -> None:
    args = rows((1, 3, 200, 600), 4, 2, 1)
    wide = reference.cached_attention(*(t.double() for t in args[:3]), args[3])
    torch.testing.assert_close(decode(*args).double(), wide, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [1, 63, 64, 65, 200, 512, 700, None])
def test_windows_and_sinks(window: int | None, isa: str) -> None:
    args = rows((1, 64, 193, 600, 1100), 4, 2, 24)
    y = compared(args, "float32", window=window)
    compared(args, "float32", window=window, sinks=torch.tensor([-3.0, 0.0, 2.0, 5.0]))
    if window is not None:  # keys out of sight are not read
        q, k, v, spans = args
        for _, _, begin, length in spans:
            k[begin : begin + max(0, length - window)] = v[begin : begin + max(0, length - window)] = float("nan")
        same_bits(decode(q, k, v, spans, window=window), y)


def test_bits_do_not_depend_on_neighbours_threads_or_width() -> None:
    q, k, v, spans = rows((700, 1, 64, 4100, 513), 14, 2, 40)
    extra = {"sinks": normal(14, seed=5)}
    y = check_invariant(lambda threads: decode(q, k, v, spans, threads=threads, **extra), fused=True)
    same_bits(decode(q, k, v, spans, threads=3, **extra), y)
    for i, (_, _, begin, length) in enumerate(spans):
        alone = decode(q[i : i + 1], k[begin:], v[begin:], [(0, 1, 0, length)], **extra)
        same_bits(alone, y[i : i + 1], f"sequence {i}")
    heads = decode(q[:, 7:], k[:, 1:], v[:, 1:], spans, sinks=extra["sinks"][7:])
    same_bits(heads, y[:, 7:].contiguous(), "one key head")


def test_special_values() -> None:
    q, k, v, spans = rows((700, 90), 2, 1, 32)
    clean = decode(q, k, v, spans)
    q, k = q.abs() + 0.1, k.clone()
    k[5] = float("-inf")  # weighs nothing
    keep = torch.arange(790) != 5
    torch.testing.assert_close(
        decode(q, k, v, spans), decode(q, k[keep], v[keep], [(0, 1, 0, 699), (1, 2, 699, 90)]), rtol=1e-5, atol=1e-6
    )
    k[:700] = float("-inf")
    assert decode(q, k, v, spans)[0].isnan().all()
    k[600] = float("inf")
    assert decode(q, k, v, spans)[0].isnan().all()
    q, k, v, spans = rows((700, 90), 2, 1, 32)
    k[3, 0, 7] = float("nan")
    y = decode(q, k, v, spans)
    assert y[0].isnan().all()
    same_bits(y[1], clean[1])
    q, k, v, spans = rows((700, 90), 2, 1, 32)
    v[650, 0, 3] = float("inf")
    y = decode(q, k, v, spans)
    assert (y[0, :, 3] == float("inf")).all()
    assert y[0, :, 4:].isfinite().all()


def test_scores_that_rise_and_overflow() -> None:
    q, k, v, spans = rows((1300,), 4, 1, 32)
    k = k * torch.linspace(0.1, 30, 1300)[:, None, None]
    for keys in (k, k.flip(0), k * 100):
        assert compared([q, keys, v, spans], "float32").isfinite().all()


def test_views_of_every_stride() -> None:
    q, k, v, spans = rows((300, 77), 4, 2, 16)
    expected = decode(q, k, v, spans)
    turned = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (q, k, v)]
    same_bits(decode(*turned, spans), expected, "heads first in memory")
    wide = [torch.nn.functional.pad(t, (3, 5))[..., 3:-5] for t in (q, k, v)]
    same_bits(decode(*wide, spans), expected, "room beside the heads")
    same_bits(decode(q.numpy(), k.numpy(), v.numpy(), spans), expected.numpy(), "numpy")


# ---- caches of another dtype --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [24, 64])
def test_caches_of_another_dtype(dtype: str, kv: str, dim: int, isa: str) -> None:
    """Widening is exact, so fp32 rows over narrow caches have the bits of the widened caches."""
    q, k, v, spans = rows((200, 1, 600), 6, 2, dim, kv)
    wide, whole = q.to(getattr(torch, dtype)), [(0, 3, 0, 801)]
    for extra in ({"decode": True}, {"decode": False}):
        y = ops.cached_attention(wide, k, v, spans, backend="cpu", **extra)
        as_float = ops.cached_attention(wide.float(), k.float(), v.float(), spans, backend="cpu", **extra)
        same_bits(y, as_float.to(y.dtype), f"{extra}")
    y = ops.cached_attention(wide, k, v, whole, backend="cpu")
    same_bits(y, ops.cached_attention(wide.float(), k.float(), v.float(), whole, backend="cpu").to(y.dtype), "prefill")
    if dtype == "float32":
        check("cached_attention", wide, k, v, spans)


# ---- pages ----------------------------------------------------------------------------------------------------------------


def paged(k: torch.Tensor, v: torch.Tensor, spans: list, size: int) -> tuple:
    """The same keys in pages strewn over a larger cache full of NaN."""
    counts = [-(-length // size) for *_, length in spans]
    order = torch.randperm(sum(counts) + 3, generator=torch.Generator().manual_seed(1))[: sum(counts)]
    caches = [torch.full((size * (sum(counts) + 3), *t.shape[1:]), float("nan"), dtype=t.dtype) for t in (k, v)]
    moved, first = [], 0
    for (row, row_end, begin, length), count in zip(spans, counts):
        slots = (order[first : first + count, None] * size + torch.arange(size)).reshape(-1)[:length]
        for cache, tensor in zip(caches, (k, v)):
            cache[slots] = tensor[begin : begin + length]
        moved.append((row, row_end, first, length))
        first += count
    return (*caches, moved), {"pages": order, "page_size": size}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 16, 32, 50, 64, 96, 192, 1024])
def test_pages_change_no_bit(size: int, dtype: str) -> None:
    q, k, v, spans = rows((1, 130, 600, 64), 4, 2, 24, dtype)
    moved, how = paged(k, v, spans, size)
    for extra in ({}, {"window": 100}):
        same_bits(decode(q, *moved, **how, **extra), decode(q, k, v, spans, **extra), "decode")
    expected = reference.cached_attention(q, k, v, spans)
    same_bits(reference.cached_attention(q, *moved, **how), expected, "reference")
    spans = [(0, 1, 0, 1), (1, 101, 1, 130), (101, 301, 131, 600), (301, 302, 731, 64)]
    q = normal(302, 4, 24, dtype=dtype)
    moved, how = paged(k, v, spans, size)
    for extra in ({}, {"window": 100}):
        plain = ops.cached_attention(q, k, v, spans, backend="cpu", **extra)
        same_bits(ops.cached_attention(q, *moved, backend="cpu", **how, **extra), plain, "prefill")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_wrong_pages_are_refused(backend: str) -> None:
    q, k, v, _ = rows((40, 30), 2, 1, 8)
    spans = [(0, 1, 0, 40), (1, 2, 3, 30)]

    def refused(text: str, pages: object, size: object = 16, **extra: object) -> None:
        with pytest.raises(UnsupportedError, match=text):
            ops.cached_attention(q, k, v, spans, pages=pages, page_size=size, backend=backend, **extra)

    for bad in (-1, 4, 2**40):
        for decode in (True, False):
            refused(rf"pages\[4\] is {bad}; allowed: 0 to 3", torch.tensor([0, 1, 2, 3, bad]), decode=decode)
    refused(r"spans\[1\] = \(1, 2, 3, 30\) with 2 rows and 4 pages", torch.tensor([0, 1, 2, 3]))
    refused("page_size is None", torch.arange(5) % 4, None)
    refused("page_size is 0", torch.arange(5) % 4, 0)
    refused("page_size is 16; allowed: 1 and more with pages", None)
    refused(r"pages is torch.int32 \[5\]", (torch.arange(5) % 4).int())
    refused(r"pages is torch.int64 \[1, 5\]", (torch.arange(5) % 4)[None])
