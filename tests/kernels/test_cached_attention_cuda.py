"""Causal attention over slot caches on CUDA, on a GPU or on the virtual one: GQA, windows, sinks, pages, chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = [pytest.mark.usefixtures("cuda_backend", "sums"), pytest.mark.modes(vgpu.LAZY, vgpu.STARVED)]

HALVES = ("bfloat16", "float16")
DIMS = (8, 64, 72, 96, 128, 160)
# (rows, keys) of the sequences of a call, next to each other in the caches.
BATCHES = (
    [(1, 1)],
    [(5, 5)],
    [(1, 64), (1, 65), (1, 63)],
    [(33, 33), (2, 150), (129, 129)],
    [(16, 113), (130, 200), (1, 300)],
)


def problem(batch: list[tuple[int, int]], dim: int, dtype: str, heads: int = 4, kv_heads: int = 2) -> list[Any]:
    """q, both caches and spans."""
    spans, row, slot = [], 0, 0
    for rows, keys in batch:
        spans.append((row, row + rows, slot, keys))
        row, slot = row + rows, slot + keys
    shapes = ((row, heads), (slot + 3, kv_heads), (slot + 3, kv_heads))
    return [*(normal(n, h, dim, dtype=dtype, seed=i) for i, (n, h) in enumerate(shapes)), spans]


def checked(q: Any, k: Any, v: Any, spans: Any, **extra: Any) -> torch.Tensor:
    y = ops.cached_attention(q, k, v, spans, backend="cuda", **extra)
    same = reference.cached_attention(q, k, v, spans, **extra)
    wide = {n: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for n, x in extra.items()}
    high = reference.cached_attention(q.double(), k.double(), v.double(), spans, **wide)
    compare(y, same, high, "cached_attention", str(q.dtype)[6:])
    return y


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_against_reference(batch: list[tuple[int, int]], dim: int, dtype: str) -> None:
    checked(*problem(batch, dim, dtype))


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (5, 5), (8, 1), (12, 4)])
def test_groups(heads: int, kv_heads: int) -> None:
    checked(*problem([(20, 77), (3, 3)], 64, "bfloat16", heads, kv_heads))


@pytest.mark.parametrize("window", [1, 2, 17, 48, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("dim", [64, 128])
def test_windows_and_sinks(dim: int, window: int) -> None:
    q, k, v, spans = problem([(70, 210), (1, 130), (140, 140)], dim, "bfloat16")
    checked(q, k, v, spans, window=window)
    checked(q, k, v, spans, window=window, sinks=torch.tensor([-3.0, 0.0, 2.0, 5.0], dtype=torch.bfloat16))


def test_sinks_far_from_the_scores() -> None:
    q, k, v, spans = problem([(40, 90)], 64, "bfloat16")
    y = checked(q, k, v, spans, sinks=torch.tensor([-1e4, 60.0, 0.0, float("-inf")], dtype=torch.bfloat16))
    assert y[:, 1].abs().max() < 1e-8
    plain = ops.cached_attention(q, k, v, spans, backend="cuda")
    same_bits(y[:, 0], plain[:, 0], "a sink that is nothing")
    same_bits(y[:, 3], plain[:, 3], "no sink at all")


@pytest.mark.parametrize("page_size", [64, 128])
@pytest.mark.parametrize("dim", [64, 96, 128, 160])
def test_pages_change_no_bit(dim: int, page_size: int) -> None:
    batch = [(70, 210), (1, 130), (33, 64)]
    q, k, v, spans = problem(batch, dim, "bfloat16")
    expected = ops.cached_attention(q, k, v, spans, window=150, backend="cuda")
    counts = [-(-keys // page_size) for _, keys in batch]
    places = torch.randperm(sum(counts) + 2, generator=torch.Generator().manual_seed(1))[: sum(counts)]
    caches = [torch.full(((sum(counts) + 2) * page_size, 2, dim), float("nan"), dtype=torch.bfloat16) for _ in range(2)]
    paged, first = [], 0
    for (begin, end, slot, keys), count in zip(spans, counts):
        paged.append((begin, end, first, keys))
        for i in range(keys):
            to = int(places[first + i // page_size]) * page_size + i % page_size
            caches[0][to], caches[1][to] = k[slot + i], v[slot + i]
        first += count
    run = {"pages": places, "page_size": page_size, "window": 150, "backend": "cuda"}
    same_bits(ops.cached_attention(q, *caches, paged, **run), expected)
    run["pages"] = ivk.DeviceArray(places)
    same_bits(ops.cached_attention(q, *caches, paged, **run), expected, "a table in GPU memory")


def test_a_page_that_is_not_there_reads_as_zeros() -> None:
    """A table in GPU memory is not looked at; nothing outside the cache is read."""
    q, k, v, _ = problem([(5, 128)], 64, "bfloat16")
    run = {"page_size": 64, "backend": "cuda"}
    for bad in (-1, 2, 1 << 40):
        pages = ivk.DeviceArray(torch.tensor([0, bad]))
        found = ops.cached_attention(q, k[:128], v[:128], [(0, 5, 0, 128)], pages=pages, **run)
        zero = [torch.cat([t[:64], torch.zeros_like(t[:64])]) for t in (k, v)]
        same_bits(found, ops.cached_attention(q, *zero, [(0, 5, 0, 128)], backend="cuda"))
        with pytest.raises(UnsupportedError, match=rf"pages\[1\] is {bad}; allowed: 0 to 1"):
            ops.cached_attention(q, k[:128], v[:128], [(0, 5, 0, 128)], pages=torch.tensor([0, bad]), **run)


@pytest.mark.parametrize("dim", [64, 128])
def test_chunks_and_neighbours_change_no_bit(dim: int) -> None:
    q, k, v, _ = problem([(300, 300)], dim, "bfloat16")
    extra: dict[str, Any] = {"sinks": normal(4, dtype="bfloat16", seed=5), "window": 120, "backend": "cuda"}
    whole = ops.cached_attention(q, k, v, [(0, 300, 0, 300)], **extra)
    for first, last in ((0, 1), (63, 193), (191, 192), (7, 300)):
        part = ops.cached_attention(q[first:last], k, v, [(0, last - first, 0, last)], **extra)
        same_bits(part, whole[first:last], f"positions {first} to {last}")
    rows = torch.cat([q[250:300], q[10:20], q[0:1]])
    together = ops.cached_attention(rows, k, v, [(0, 50, 0, 300), (50, 60, 0, 20), (60, 61, 0, 1)], **extra)
    same_bits(together, torch.cat([whole[250:300], whole[10:20], whole[0:1]]), "in one call")
    same_bits(ops.cached_attention(q, k, v, [(0, 300, 0, 300)], **extra), whole, "run again")


def test_keys_that_no_row_sees_are_not_read() -> None:
    q, k, v, _ = problem([(40, 400)], 64, "bfloat16")
    run = {"window": 90, "backend": "cuda"}
    expected = ops.cached_attention(q, k, v, [(0, 40, 0, 400)], **run)
    for t in (k, v):
        t[:256], t[400:] = float("nan"), float("nan")
    same_bits(ops.cached_attention(q, k, v, [(0, 40, 0, 400)], **run), expected)


@pytest.mark.parametrize(("shift", "gap"), [(0, 8), (1, 0), (3, 5)])
@pytest.mark.parametrize("dim", [64, 100])
def test_views_and_device_arrays(dim: int, shift: int, gap: int) -> None:
    q, k, v, spans = problem([(20, 77), (65, 65)], dim, "float16")
    expected = ops.cached_attention(q, k, v, spans, backend="cuda")
    found = ops.cached_attention(*(placed(t, shift, gap) for t in (q, k, v)), spans)
    assert isinstance(found, ivk.DeviceArray)
    same_bits(host(found), expected)
    out = ivk.DeviceArray(torch.zeros_like(q))
    assert ops.cached_attention(*map(ivk.DeviceArray, (q, k, v)), spans, out=out) is out
    same_bits(host(out), expected)


def test_refused() -> None:
    q, k, v, spans = problem([(5, 9)], 64, "bfloat16")
    run: Any = {"backend": "cuda"}
    for arguments, words in (
        ((q.float(), k.float(), v.float(), spans), "float32 and float32, scale"),
        ((q, k.half(), v.half(), spans), "the same for all"),
        ((q, k, v, [(0, 5, 8, 9)]), "slots inside the cache"),
        ((q, k, v, [(0, 4, 0, 9)]), "allowed: all 5"),
    ):
        with pytest.raises(UnsupportedError, match=words):
            ops.cached_attention(*arguments, **run)
    with pytest.raises(UnsupportedError, match="pages of 4; allowed: a power of 2, 64 and more"):
        ops.cached_attention(q, k, v, [(0, 5, 0, 9)], pages=torch.arange(3), page_size=4, **run)
    with pytest.raises(UnsupportedError, match=r"scale -1\.0+; allowed: 0 and more"):
        ops.cached_attention(q, k, v, spans, scale=-1.0, **run)
