"""What the language models' kernels for CUDA move, counted by the virtual GPU beside the contracts' floors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing.hostile import normal

pytestmark = pytest.mark.modes(vgpu.LAZY)  # counts do not depend on the schedule


def device(*shape: int, seed: int = 0) -> ivk.DeviceArray:
    return ivk.DeviceArray(normal(*shape, dtype="bfloat16", seed=seed))


# Query heads, key heads and their dimension in Qwen3-8B, 30B-A3B, Qwen2.5-0.5B and Phi-3.
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(32, 8, 128), (32, 4, 128), (14, 2, 64), (32, 32, 96)])
@pytest.mark.parametrize("norm", [True, False])
def test_rope_and_append(counted: Any, heads: int, kv_heads: int, dim: int, norm: bool) -> None:
    rows, width = 9, (heads + 2 * kv_heads) * dim
    qkv, weights = device(rows, width), {"q_weight": device(dim), "k_weight": device(dim, seed=1)} if norm else {}
    cos, sin = (ivk.DeviceArray(t) for t in ops.rope_table(torch.arange(rows), dim, 1e6))
    caches = [ivk.DeviceArray.empty((16, kv_heads, dim), "bfloat16") for _ in range(2)]
    slots = ivk.DeviceArray(torch.arange(rows) + 3)
    how = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": dim}
    (launch,) = counted(lambda: ops.qkv_rope_append(qkv, cos, sin, *caches, slots, **how, **weights))
    counters = launch["counters"]
    assert counters["unique_bytes_read"] == rows * (2 * width + 4 * dim + 8) + (4 * dim if norm else 0)
    assert counters["global_store_bytes"] == counters["unique_bytes_written"] == rows * width * 2, "written once"
    assert counters["global_store_sectors"] == counters["global_store_sectors_min"]
    # Of the tables each load takes half a sector, the next one the other half: they are what is over.
    tables = 2 * rows * (dim // 2) * 4 // 32 * 8
    assert counters["global_load_sectors"] <= counters["global_load_sectors_min"] + tables
    assert counters["local_requests"] == 0


@pytest.mark.parametrize(("dim", "heads", "kv_heads"), [(64, 4, 2), (96, 2, 2), (128, 4, 1)])
def test_causal_attention(counted: Any, dim: int, heads: int, kv_heads: int) -> None:
    """A prompt of 512: scores beside the diagonal alone are multiplied, and conflicts are none."""
    rows = 512
    q, k, v = device(rows, heads, dim), device(rows, kv_heads, dim, seed=1), device(rows, kv_heads, dim, seed=2)
    (launch,) = counted(lambda: ops.cached_attention(q, k, v, [(0, rows, 0, rows)]))
    counters = launch["counters"]
    distinct = (rows * heads + 2 * rows * kv_heads) * dim * 2
    assert distinct <= counters["unique_bytes_read"] <= distinct + 16 * 8, "and the list of tiles"
    assert counters["global_store_bytes"] == counters["unique_bytes_written"] == rows * heads * dim * 2
    assert counters["bank_conflicts"] == counters["local_requests"] == 0
    useful = 2 * rows * (rows + 1) * heads * dim
    # A warp has 32 rows and goes by 16 keys: half a square of 32 beside the diagonal.
    assert counters["mma_flops"] <= 1.13 * useful
    assert launch["blocks_per_sm"] * launch["block"][0] >= 256


def test_a_window_reads_its_keys_alone(counted: Any) -> None:
    rows, dim, window = 1024, 64, 128
    q, k, v = device(rows, 1, dim), device(rows, 1, dim, seed=1), device(rows, 1, dim, seed=2)
    (launch,) = counted(lambda: ops.cached_attention(q, k, v, [(0, rows, 0, rows)], window=window))
    counters = launch["counters"]
    tiles = rows // 128
    assert counters["global_load_bytes"] <= rows * dim * 2 + tiles * 2 * (128 + window + 64) * dim * 2 + 1024
    assert counters["mma_flops"] <= 1.6 * 4 * rows * window * dim


@pytest.mark.parametrize("m", [17, 512])
def test_swiglu(counted: Any, m: int) -> None:
    inner, k = 768, 256
    x, weight = device(m, k), device(2 * inner, k, seed=1)
    y = ivk.DeviceArray.empty((m, inner), "bfloat16")
    (launch,) = counted(lambda: cuda().gemm(x._array, weight._array, None, None, None, None, y._array, "swiglu", 0))
    counters = launch["counters"]
    assert counters["unique_bytes_read"] == (m * k + 2 * inner * k) * 2
    assert counters["global_store_bytes"] == counters["unique_bytes_written"] == m * inner * 2, (
        "gate and up never stored"
    )
    assert counters["bank_conflicts"] == counters["local_requests"] == 0
    assert counters["global_store_sectors"] == counters["global_store_sectors_min"]
    assert counters["global_load_sectors"] == counters["global_load_sectors_min"]
