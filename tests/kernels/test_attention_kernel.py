"""The attention kernel at its own edges: lanes, tiles, pieces and key blocks, head dimensions, special values, bits."""

from __future__ import annotations

import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant


def qkv(rows: int, keys: int, heads: int, kv_heads: int, dim: int, dtype: str = "float32", batch: int = 1) -> list:
    shapes = ((rows, heads), (keys, kv_heads), (keys, kv_heads))
    return [normal(batch, n, h, dim, dtype=dtype, seed=i) for i, (n, h) in enumerate(shapes)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 3, 8, 15, 17, 40, 96, 129, 256])
def test_head_dimensions(dim: int, dtype: str, isa: str) -> None:
    q, k, v = qkv(37, 45, 2, 1, dim, dtype)
    if dim == 1:  # in a row of one value nothing larger would hide cancellation
        v = v.abs()
    for causal in (False, True):
        y = ops.attention(q, k, v, causal=causal, backend="cpu")
        wide = reference.attention(q.double(), k.double(), v.double(), causal=causal)
        compare(y, reference.attention(q, k, v, causal=causal), wide, "attention", dtype)


# Lanes (16), tiles (32), pieces (512 of dimension 64); micro-kernels (2, 6, 12) and blocks (192) of keys.
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("rows", "keys"),
    [(15, 15), (16, 191), (17, 192), (31, 193), (32, 383), (33, 384), (49, 385), (511, 512), (513, 513), (545, 577)],
)
def test_edges(rows: int, keys: int, causal: bool, isa: str) -> None:
    q, k, v = qkv(rows, keys, 2, 2, 64)
    check("attention", q, k, v, causal=causal)
    grouped = qkv(rows, keys, 3, 1, 24)
    check("attention", *grouped, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_bits_do_not_depend_on_rows_threads_or_width(causal: bool) -> None:
    q, k, v = qkv(600, 600, 4, 2, 64, batch=2)
    y = check_invariant(
        lambda threads: ops.attention(q, k, v, causal=causal, threads=threads, backend="cpu"), fused=True
    )
    same_bits(ops.attention(q[1:], k[1:], v[1:], causal=causal, backend="cpu"), y[1:], "one sequence")
    same_bits(
        ops.attention(q[:, :, 2:], k[:, :, 1:], v[:, :, 1:], causal=causal, backend="cpu"), y[:, :, 2:], "one head"
    )
    if not causal:
        for first, last in ((0, 1), (16, 17), (100, 245), (599, 600)):
            part = ops.attention(q[:, first:last], k, v, backend="cpu")
            same_bits(part, y[:, first:last], f"queries {first} to {last}")
        return
    for first, last in ((0, 1), (30, 190), (190, 600), (599, 600)):
        part = ops.attention(q[:, first:last], k[:, :last], v[:, :last], causal=True, backend="cpu")
        same_bits(part, y[:, first:last], f"positions {first} to {last}")


def test_one_key_is_its_value_and_equal_keys_are_the_mean(isa: str) -> None:
    q, k, v = qkv(40, 1, 4, 2, 32)
    y = ops.attention(q, k, v, backend="cpu")
    same_bits(y, v.repeat_interleave(2, 2).expand(1, 40, 4, 32).contiguous())
    same = torch.zeros(1, 256, 2, 32)
    values = hostile.integers(1, 256, 2, 32, high=3)
    y = ops.attention(q, same, values, backend="cpu")
    expected = values.double().mean(1, keepdim=True).repeat_interleave(2, 2).expand(1, 40, 4, 32)
    same_bits(y, expected.float().contiguous())  # a sum of 256 small numbers and a power of two: exact


def test_infinite_scores_and_values() -> None:
    q, k, v = qkv(20, 400, 2, 2, 16)
    q, k = q.abs() + 0.1, k.clone()
    k[0, 7, 0] = float("-inf")  # that key weighs nothing, in its block and beside the others
    y = ops.attention(q, k, v, backend="cpu")
    keep = torch.arange(400) != 7
    torch.testing.assert_close(
        y[:, :, :1], ops.attention(q[:, :, :1], k[:, keep][:, :, :1], v[:, keep][:, :, :1], backend="cpu")
    )
    k[0, :, 0] = float("-inf")  # none weighs anything: NaN, as a softmax of nothing is
    assert ops.attention(q, k, v, backend="cpu")[:, :, 0].isnan().all()
    k[0, :192, 0], k[0, 192:, 0] = float("-inf"), 1.0  # a whole block first
    y = ops.attention(q, k, v, backend="cpu")
    torch.testing.assert_close(y[:, :, 0], v[:, 192:, 0].mean(1, keepdim=True).expand(1, 20, 16))
    k[0, 390, 1] = float("inf")
    assert ops.attention(q, k, v, backend="cpu")[:, :, 1].isnan().all()
    q, k, v = qkv(20, 400, 2, 2, 16)
    v[0, 250, 1, 3] = float("inf")
    y = ops.attention(q, k, v, backend="cpu")
    assert (y[:, :, 1, 3] == float("inf")).all()
    assert y[:, :, 0].isfinite().all()


def test_the_largest_scores_come_last() -> None:
    """Every block raises the maximum, so that all results so far fade."""
    q, k, v = qkv(33, 1000, 2, 1, 32)
    k = k * torch.linspace(0.1, 30, 1000)[None, :, None, None]
    check("attention", q, k, v)
    check("attention", q, k.flip(1), v)
    check("attention", q * 100, k, v)


def test_views_of_every_stride() -> None:
    q, k, v = qkv(30, 50, 4, 2, 16, batch=2)
    expected = ops.attention(q, k, v, backend="cpu")
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    same_bits(ops.attention(*turned, backend="cpu"), expected, "heads first in memory")
    wide = [torch.nn.functional.pad(t, (3, 5))[..., 3:-5] for t in (q, k, v)]
    same_bits(ops.attention(*wide, backend="cpu"), expected, "room beside the heads")
    same_bits(ops.attention(q.numpy(), k.numpy(), v.numpy()), expected.numpy(), "numpy")


def test_refusals() -> None:
    with pytest.raises(UnsupportedError, match="head dimension of 1 to 256"):
        ops.attention(*qkv(3, 3, 2, 2, 257), backend="cpu")
    q, k, v = qkv(3, 3, 2, 2, 8)
    with pytest.raises(UnsupportedError, match="last contiguous"):
        ops.attention(q, k.transpose(1, 3).contiguous().transpose(1, 3), v, backend="cpu")
    assert ops.attention(q[:, :0], k, v, backend="cpu").shape == (1, 0, 2, 8)
