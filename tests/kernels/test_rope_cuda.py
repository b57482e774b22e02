"""Rotary embedding with QK-norm and KV append on CUDA, on a GPU or on the virtual one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import UnsupportedError, ops
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import normal, special
from internvl_kernels.testing.on_device import host, placed

pytestmark = [pytest.mark.usefixtures("cuda_backend"), pytest.mark.modes(vgpu.LAZY, vgpu.STARVED)]

HALVES = ("bfloat16", "float16")
DEFAULT = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 64}
AXES = [
    *({"rows": n} for n in (0, 1, 2, 65)),
    *({"num_heads": q, "num_kv_heads": kv} for q, kv in ((1, 1), (7, 1), (3, 5), (40, 8))),
    *({"head_dim": d} for d in (2, 6, 16, 24, 30, 34, 96, 128, 130, 256, 510, 512)),
]


def problem(dtype: str, *, norm: bool = True, rows: int = 5, **changes: int) -> tuple[list[Any], dict[str, Any]]:
    size = DEFAULT | changes
    d = size["head_dim"]
    qkv = normal(rows, (size["num_heads"] + 2 * size["num_kv_heads"]) * d, dtype=dtype)
    cos, sin = ops.rope_table(torch.arange(rows) * 3 + 1000, d, 1e6)
    weights = {name: normal(d, dtype=dtype, seed=i) for i, name in enumerate(("q_weight", "k_weight"))}
    return [qkv, cos, sin], {**size, **(weights if norm else {})}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_against_reference(axis: dict[str, int], norm: bool, dtype: str) -> None:
    args, how = problem(dtype, norm=norm, **axis)
    check("qkv_rope", *args, **how, backend="cuda")


@pytest.mark.parametrize("dtype", HALVES)
def test_without_a_norm_the_bits_are_the_cpu_kernels(dtype: str) -> None:
    args, how = problem(dtype, norm=False, rows=17, head_dim=96)
    same_bits(ops.qkv_rope(*args, **how, backend="cuda"), ops.qkv_rope(*args, **how, backend="cpu"))


@pytest.mark.parametrize(("shift", "gap"), [(0, 8), (1, 0), (3, 5), (8, 16)])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_views_and_device_arrays(norm: bool, shift: int, gap: int) -> None:
    args, how = problem("bfloat16", norm=norm, rows=9)
    expected = ops.qkv_rope(*args, **how, backend="cuda")
    on_gpu = {n: placed(v, shift, 0) if isinstance(v, torch.Tensor) else v for n, v in how.items()}
    found = ops.qkv_rope(*(placed(a, shift, gap) for a in args), **on_gpu)
    assert all(isinstance(part, ivk.DeviceArray) for part in found)
    same_bits(tuple(map(host, found)), expected)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_special_values_stay_where_they_are(norm: bool, dtype: str) -> None:
    args, how = problem(dtype, norm=norm, rows=24)
    args[0] = special(*args[0].shape, dtype=dtype)
    check("qkv_rope", *args, **how, backend="cuda")


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_append_writes_its_slots_and_nothing_else(norm: bool) -> None:
    args, how = problem("float16", norm=norm, rows=7)
    q, k, v = ops.qkv_rope(*args, **how, backend="cuda")
    slots = torch.tensor([11, 0, 5, 3, 12, 7, 2])
    shape = (13, how["num_kv_heads"], how["head_dim"])
    caches = [torch.full(shape, float("nan"), dtype=torch.float16) for _ in range(2)]
    on_gpu = [ivk.DeviceArray(c) for c in caches]
    found = ops.qkv_rope_append(*args, *on_gpu, slots, **how, backend="cuda")
    same_bits(found, q)
    for cache, part in zip(on_gpu, (k, v)):
        wanted = torch.full(shape, float("nan"), dtype=torch.float16)
        wanted[slots] = part
        same_bits(host(cache), wanted)
    out = torch.empty_like(q)
    assert ops.qkv_rope_append(*args, *caches, slots, **how, backend="cuda", out=out) is out
    same_bits((out, *caches), (q, *map(host, on_gpu)), "into host memory")


def test_slots_in_gpu_memory_are_kept_inside_the_cache() -> None:
    args, how = problem("bfloat16", rows=6)
    _, k, v = ops.qkv_rope(*args, **how, backend="cuda")
    slots = torch.tensor([1, -1, 4, 1 << 40, 0, 5])
    shape = (5, how["num_kv_heads"], how["head_dim"])
    caches = [ivk.DeviceArray(torch.zeros(shape, dtype=torch.bfloat16)) for _ in range(2)]
    ops.qkv_rope_append(*args, *caches, ivk.DeviceArray(slots), **how)
    for cache, part in zip(caches, (k, v)):
        wanted = torch.zeros(shape, dtype=torch.bfloat16)
        wanted[[1, 4, 0]] = part[[0, 2, 4]]
        same_bits(host(cache), wanted)


def test_a_row_depends_on_itself_alone() -> None:
    args, how = problem("bfloat16", rows=33, head_dim=128)
    whole = ops.qkv_rope(*args, **how, backend="cuda")
    for first, last in ((0, 1), (7, 33)):
        part = ops.qkv_rope(*(a[first:last] for a in args), **how, backend="cuda")
        same_bits(part, tuple(t[first:last] for t in whole))
    same_bits(ops.qkv_rope(*args, **how, backend="cuda"), whole, "run again")


def test_more_rows_than_a_grid_dimension() -> None:
    args, how = problem("bfloat16", rows=65_600, num_heads=1, num_kv_heads=1, head_dim=2)
    found = ops.qkv_rope(*args, **how, backend="cuda")
    same = ivk.reference.qkv_rope(*args, **how)
    wide = {n: v.double() if isinstance(v, torch.Tensor) else v for n, v in how.items()}
    compare(found, same, ivk.reference.qkv_rope(*(a.double() for a in args), **wide), "qkv_rope", "bfloat16")


def test_refused() -> None:
    args, how = problem("float32")
    with pytest.raises(UnsupportedError, match=r"no CUDA kernel takes qkv_rope of 5 rows .*float32"):
        ops.qkv_rope(*args, **how, backend="cuda")
    args, how = problem("bfloat16", head_dim=514)
    with pytest.raises(UnsupportedError, match="heads of 514; allowed: at most 512"):
        ops.qkv_rope(*args, **how, backend="cuda")
    args, how = problem("bfloat16")
    caches = [torch.zeros(5, 2, 64, dtype=torch.bfloat16) for _ in range(2)]
    for slots in ([0, 1, 2, 3, 5], [0, 1, 2, 3, -1], [0, 1, 2, 3, 3]):
        with pytest.raises(UnsupportedError, match="allowed: distinct, 0 to 4"):
            ops.qkv_rope_append(*args, *caches, torch.tensor(slots), **how, backend="cuda")
    twice = ivk.DeviceArray(caches[0])
    with pytest.raises(UnsupportedError, match="share memory"):
        ops.qkv_rope_append(*args, twice, twice, torch.arange(5), **how, backend="cuda")
    hostile.check_refused(lambda t: ops.qkv_rope(t, *args[1:], **how, backend="cuda"), args[0])
