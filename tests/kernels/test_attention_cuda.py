"""Attention on CUDA against its reference, on a GPU or on the virtual one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
DIMS = (1, 8, 20, 32, 40, 64, 72, 96, 100, 128, 136, 250, 256)
TILES = ("128", "64")


def heads(batch: int, rows: int, keys: int, q: int, kv: int, dim: int, dtype: str) -> list[torch.Tensor]:
    shapes = ((batch, rows, q, dim), (batch, keys, kv, dim), (batch, keys, kv, dim))
    return [normal(*shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", DIMS)
def test_dimensions(dim: int, dtype: str, sums: None) -> None:
    check("attention", *heads(1, 33, 81, 2, 2, dim, dtype), backend="cuda")


LENGTHS = ((1, 1), (15, 16), (17, 15), (32, 17), (63, 63), (64, 64), (65, 65), (80, 129), (129, 200), (7, 128))


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(("rows", "keys"), LENGTHS)
def test_lengths(rows: int, keys: int, dim: int, sums: None) -> None:
    check("attention", *heads(1, rows, keys, 2, 1, dim, "bfloat16"), backend="cuda")


def attended(tile: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One launch with a block of the test's choice."""
    arrays = [ivk.DeviceArray(t) for t in (q, k, v)]
    y = ivk.DeviceArray.empty(q.shape, str(q.dtype)[6:])
    given = [t._array for t in (*arrays, y)]
    cuda().attention(*given, False, q.shape[-1] ** -0.5, 0, None, 0, tile)
    return host(y)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "keys", "dim"), [(129, 200, 64), (65, 17, 40), (1, 64, 64), (70, 97, 128)])
def test_every_tile_gives_the_same_bits(rows: int, keys: int, dim: int, dtype: str, sums: None) -> None:
    given = heads(2, rows, keys, 4, 2, dim, dtype)
    expected = attended(TILES[0], *given)
    for tile in TILES[1:]:
        same_bits(attended(tile, *given), expected, tile)
    same_bits(ops.attention(*given, backend="cuda"), expected, "the chosen one")


def test_the_tile_that_costs_least_is_taken() -> None:
    def chosen(rows: int, heads: int) -> str:
        found = cuda().attention_tiles(rows, heads, 108)
        assert [row["name"] for row in found] == list(TILES)
        (best,) = [row for row in found if row["chosen"]]
        assert best["cost"] == min(row["cost"] for row in found)
        return str(best["name"])

    assert chosen(1025, 16) == chosen(1025, 25) == "64", "one tile of either tower fills the multiprocessors better"
    assert chosen(1025, 2 * 16) == chosen(1025, 4 * 16) == "128"
    assert chosen(64, 13 * 16) == "64", "else half of every block would be empty"


@pytest.mark.modes(vgpu.LAZY)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_tile_of_the_tower(dtype: str) -> None:
    check("attention", *heads(1, 1025, 1025, 1, 1, 64, dtype), backend="cuda")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("q", "kv", "dim"), [(16, 16, 64), (6, 2, 96), (25, 5, 128)])
def test_parts_of_one_projection(q: int, kv: int, dim: int, dtype: str) -> None:
    """q, k and v as they lie beside each other, heads in groups, several sequences."""
    joined = normal(3, 37, (q + 2 * kv) * dim, dtype=dtype).view(3, 37, q + 2 * kv, dim)
    parts = [joined[:, :, :q], joined[:, :, q : q + kv], joined[:, :, q + kv :]]
    expected = ops.attention(*[part.contiguous() for part in parts], backend="cuda")
    check("attention", *parts, backend="cuda")
    on_gpu = ivk.DeviceArray(joined)
    out = ivk.DeviceArray.empty((3, 37, q, dim), dtype)
    found = ops.attention(on_gpu[:, :, :q], on_gpu[:, :, q : q + kv], on_gpu[:, :, q + kv :], out=out)
    assert found.pointer == out.pointer
    same_bits(host(found), expected)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", [64, 128])
def test_bits_depend_on_the_query_and_its_keys_alone(dim: int, dtype: str, sums: None) -> None:
    q, k, v = heads(2, 131, 150, 2, 2, dim, dtype)
    whole = ops.attention(q, k, v, backend="cuda")
    same_bits(ops.attention(q, k, v, backend="cuda"), whole, "run again")
    same_bits(ops.attention(q[1:], k[1:], v[1:], backend="cuda"), whole[1:], "the second sequence")
    for first, last in ((0, 1), (63, 65), (100, 131)):
        same_bits(
            ops.attention(q[:, first:last], k, v, backend="cuda"), whole[:, first:last], f"rows {first} to {last}"
        )
    one = [t[:, :, 1:] for t in (q, k, v)]
    same_bits(ops.attention(*one, backend="cuda"), whole[:, :, 1:], "one head")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", [64, 96, 128, 256])
def test_alignment_does_not_change_bits(dim: int, dtype: str) -> None:
    q, k, v = heads(1, 40, 70, 2, 2, dim, dtype)
    expected = ops.attention(q, k, v, backend="cuda")
    shifted = []
    for t in (q, k, v):
        memory = ivk.DeviceArray(torch.cat([torch.zeros(1, dtype=t.dtype), t.flatten()]))
        shifted.append(memory[1:].reshape(*t.shape))
    same_bits(host(ops.attention(*shifted)), expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_large_scores_and_special_values(dtype: str) -> None:
    q, k, v = heads(1, 20, 90, 2, 2, 64, dtype)
    check("attention", q * 30, k * 30, v, backend="cuda")
    check("attention", q, k, hostile.massive_channels(1, 90, 2, 64, dtype=dtype), backend="cuda")
    check("attention", q, k, v, scale=0.0, backend="cuda")
    q[0, 3, 0, 5] = float("nan")
    k[0, 70, 1, 2] = float("nan")
    v[0, 80, 0, 9] = float("inf")
    y = ops.attention(q, k, v, backend="cuda")
    assert y[0, 3, 0].isnan().all()
    assert y[0, :, 1].isnan().all()
    others = y[0, [0, 1, 2, *range(4, 20)], 0]
    assert others[:, 9].isinf().all()
    assert others[:, [*range(9), *range(10, 64)]].isfinite().all()
    for value in ("inf", "-inf"):  # all scores of a row without a number, some of them, one
        q, k, v = heads(1, 20, 90, 1, 1, 64, dtype)
        q[0, 3, 0, 5], k[0, 70, 0, 7] = float(value), float(value)
        check("attention", q, k, v, backend="cuda")


def test_memory_beyond_the_last_key_is_not_read() -> None:
    """What follows the keys may be anything: a NaN there reaches no result."""
    q, k, v = heads(1, 9, 21, 1, 1, 64, "bfloat16")
    long_k, long_v = (torch.cat([t, torch.full((1, 50, 1, 64), float("nan")).bfloat16()], 1) for t in (k, v))
    same_bits(ops.attention(q, long_k[:, :21], long_v[:, :21], backend="cuda"), ops.attention(q, k, v, backend="cuda"))


def test_no_rows() -> None:
    q, k, v = heads(2, 0, 5, 2, 2, 64, "bfloat16")
    assert ops.attention(q, k, v, backend="cuda").shape == (2, 0, 2, 64)
    q, k, v = heads(0, 3, 5, 2, 2, 64, "bfloat16")
    assert ops.attention(q, k, v, backend="cuda").shape == (0, 3, 2, 64)


def test_refused(cuda_backend: str) -> None:
    q, k, v = heads(1, 4, 4, 2, 2, 64, "bfloat16")

    def refused(text: str, *tensors: Any, **options: Any) -> None:
        with pytest.raises(UnsupportedError, match=text):
            ops.attention(*tensors, backend="cuda", **options)

    refused("causal, window and sinks are the cpu backend's", q, k, v, causal=True)
    refused("causal, window and sinks are the cpu backend's", q, k, v, sinks=torch.zeros(2).bfloat16())
    refused("allowed: bfloat16 or float16, the same for all", q.float(), k.float(), v.float())
    refused("allowed: bfloat16 or float16, the same for all", q, k.half(), v.half())
    refused("scale -2.0.*allowed: 0 and more", q, k, v, scale=-2.0)
    with pytest.raises(UnsupportedError, match="tile is 7; allowed: 128, 64"):
        attended("7", q, k, v)
    refused("head dimension of 1 to 256", *heads(1, 4, 4, 1, 1, 264, "bfloat16"))
