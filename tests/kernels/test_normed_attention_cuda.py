"""Attention with RMSNorm of q and k on the way: against its reference, and against the norm and attention apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import ops
from internvl_kernels.errors import BackendError, UnsupportedError
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
# B, L, S, Hq, Hkv, d: single rows, edges of a block of keys and of queries, every padded dimension, odd ones.
SHAPES = (
    (1, 1, 1, 1, 1, 64), (2, 17, 65, 2, 2, 64), (1, 129, 63, 4, 2, 64), (1, 33, 47, 2, 1, 128), (2, 31, 49, 2, 2, 128),
    (1, 130, 97, 1, 1, 128), (1, 40, 66, 2, 2, 96), (1, 9, 70, 1, 1, 256), (1, 20, 21, 2, 2, 7), (1, 6, 50, 1, 1, 100),
)  # fmt: skip


def problem(b: int, rows: int, keys: int, heads: int, kv_heads: int, dim: int, dtype: str) -> list[torch.Tensor]:
    q = normal(b, rows, heads, dim, dtype=dtype)
    k, v = (normal(b, keys, kv_heads, dim, dtype=dtype, seed=seed) for seed in (1, 2))
    factors = [normal(b, n, seed=seed).abs() + 0.1 for n, seed in ((rows, 3), (keys, 4))]
    return [q, k, v, *factors, normal(heads, dim, seed=5) + 1]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: tuple[int, ...], dtype: str, sums: None) -> None:
    given = problem(*shape, dtype)  # type: ignore[arg-type]
    found = check("normed_attention", *given, backend="cuda")
    same_bits(ops.normed_attention(*given, backend="cuda"), found, "run again")
    arrays = [ivk.DeviceArray(t) for t in given]
    same_bits(host(ops.normed_attention(*arrays)), found, "DeviceArrays")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("dim", [64, 128, 7])
def test_ones_change_nothing(dim: int, dtype: str) -> None:
    q, k, v, q_factor, k_factor, weight = problem(1, 70, 51, 2, 2, dim, dtype)
    ones = (torch.ones_like(t) for t in (q_factor, k_factor, weight))
    same_bits(ops.normed_attention(q, k, v, *ones, backend="cuda"), ops.attention(q, k, v, backend="cuda"))


@pytest.mark.parametrize("dtype", HALVES)
def test_the_gate_of_a_large_tower(dtype: str) -> None:
    """RMSNorm across all heads and attention behind it: not worse than both apart, each rounding."""
    heads, dim, rows = 3, 128, 70
    width = heads * dim
    qkv = normal(1, rows, 3 * width, dtype=dtype) * 4
    gains = [normal(width, dtype=dtype, seed=seed) * 0.3 + 1 for seed in (1, 2)]

    def parts(t: torch.Tensor) -> list[torch.Tensor]:
        return list(t.reshape(1, rows, 3, heads, dim).unbind(2))

    def apart(kind: torch.dtype) -> Any:
        normed = ops.vision_qk_norm(qkv.to(kind), *(g.to(kind) for g in gains), backend="reference")
        return ops.attention(*parts(normed), backend="reference")

    statistics = ops.row_statistics(qkv[..., : 2 * width], backend="cuda")
    factors = ops.row_factors(statistics, 2, backend="cuda")
    weight = (gains[0].float() * gains[1].float()).reshape(heads, dim)
    found = ops.normed_attention(*parts(qkv), *(f[None] for f in factors), weight, backend="cuda")
    compare(found, apart(qkv.dtype), apart(torch.float64), "attention", dtype)


def test_sequences_do_not_depend_on_the_batch() -> None:
    given = problem(3, 65, 97, 2, 2, 128, "bfloat16")
    whole = ops.normed_attention(*given, backend="cuda")
    one = [t[1:2] if i < 5 else t for i, t in enumerate(given)]
    same_bits(ops.normed_attention(*one, backend="cuda"), whole[1:2])


def test_nan_stays_in_its_row() -> None:
    given = problem(1, 20, 30, 1, 1, 128, "bfloat16")
    clean = ops.normed_attention(*given, backend="cuda")
    given[3][0, 4] = float("nan")
    found = ops.normed_attention(*given, backend="cuda")
    assert found[0, 4].isnan().all()
    rest = torch.arange(20) != 4
    same_bits(found[:, rest], clean[:, rest], "the other rows")


def test_refused() -> None:
    q, k, v, q_factor, k_factor, weight = problem(1, 5, 6, 2, 1, 64, "bfloat16")
    wrong: tuple[tuple[Any, Any, Any, str], ...] = (
        (q_factor[:, :4], k_factor, weight, r"q_factor is float32 \[1, 4\]; allowed: float32 \[1, 5\]"),
        (q_factor, k_factor.double(), weight, r"k_factor is float64 \[1, 6\]; allowed: float32 \[1, 6\]"),
        (q_factor, k_factor, weight[:1], r"weight is float32 \[1, 64\]; allowed: float32 \[2, 64\]"),
    )
    for *given, text in wrong:
        with pytest.raises(UnsupportedError, match=text):
            ops.normed_attention(q, k, v, *given, backend="cuda")
    with pytest.raises(BackendError, match="backend 'cpu' has no kernel for it"):
        ops.normed_attention(q, k, v, q_factor, k_factor, weight, backend="cpu")
    arrays = [ivk.DeviceArray(t) for t in (q, k, v, q_factor, k_factor)]
    strided = ivk.DeviceArray(torch.ones(2, 128))[:, :64]
    with pytest.raises(UnsupportedError, match=r"weight is float32.*allowed: contiguous float32"):
        ops.normed_attention(*arrays, strided)
