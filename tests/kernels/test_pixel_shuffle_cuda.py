"""Pixel shuffle for CUDA, with and without the projector's LayerNorm, on a GPU or on the virtual one."""

from __future__ import annotations

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal

pytestmark = pytest.mark.usefixtures("cuda_backend")

GRIDS = [((2, 2), 2), ((4, 6), 2), ((6, 2), 2), ((8, 4), 4), ((3, 5), 1), ((1, 1), 1), ((6, 9), 3)]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("grid", "factor"), GRIDS)
@pytest.mark.parametrize("width", [3, 8])
def test_order(grid: tuple[int, int], factor: int, version: str, width: int) -> None:
    (rows, cols), options = grid, {"grid": grid, "factor": factor, "version": version}
    x = torch.arange(2.0 * (1 + rows * cols) * width).reshape(2, 1 + rows * cols, width)
    same_bits(ops.pixel_shuffle(x, backend="cuda", **options), reference.pixel_shuffle(x, **options))
    whole = {"drop_cls": False, **options}
    same_bits(ops.pixel_shuffle(x[:, 1:], backend="cuda", **whole), reference.pixel_shuffle(x[:, 1:], **whole))
    weight = torch.ones(factor**2 * width)
    check("pixel_shuffle", x, weight=weight, backend="cuda", **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("width", "factor"), [(1, 2), (7, 2), (16, 2), (33, 2), (200, 2), (1024, 2), (1024, 4), (3200, 2)]
)
def test_fused_layer_norm(width: int, factor: int, dtype: str) -> None:
    x = normal(1, 1 + 2 * factor**2, width, dtype=dtype)
    options = {"grid": (factor, 2 * factor), "factor": factor}
    weight, bias = (normal(factor**2 * width, dtype=dtype, seed=s) + 1 for s in (1, 2))
    y = check("pixel_shuffle", x, weight=weight, bias=bias, backend="cuda", **options)
    moved = ops.pixel_shuffle(x, backend="cuda", **options)
    same_bits(moved, reference.pixel_shuffle(x, **options), "without weight")
    same_bits(y, ops.layer_norm(moved, weight, bias, eps=1e-5, backend="cuda"), "fused against two steps")


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_longer_than_the_registers_of_a_block(dtype: str) -> None:
    x = normal(1, 17, 3200, dtype=dtype)
    weight = normal(51200, dtype=dtype, seed=1) + 1
    check("pixel_shuffle", x, factor=4, weight=weight, backend="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_and_batches(dtype: str) -> None:
    x = normal(5, 17, 24, dtype=dtype)
    weight = normal(96, dtype=dtype)
    whole = ops.pixel_shuffle(x, weight=weight, backend="cuda")
    on_gpu, on_gpu_weight = ivk.DeviceArray(x), ivk.DeviceArray(weight)
    part = ops.pixel_shuffle(on_gpu[1:4:2], weight=on_gpu_weight)
    again = ops.pixel_shuffle(on_gpu[:, 1:], weight=on_gpu_weight, drop_cls=False)
    for got, expected in ((part, whole[1:4:2]), (again, whole)):
        out = torch.empty(got.shape, dtype=x.dtype)
        ops._backend.cuda().copy(out, got._array, got.device, 0, True)
        same_bits(out, expected)


def test_copies_keep_nan_payloads_and_signed_zeros() -> None:
    x = hostile.special(1, 17, 40)
    same_bits(ops.pixel_shuffle(x, backend="cuda"), reference.pixel_shuffle(x))


@pytest.mark.modes(vgpu.LAZY)  # 65 537 rows: once is enough
def test_no_tiles_and_many() -> None:
    assert ops.pixel_shuffle(torch.empty(0, 17, 8), backend="cuda").shape == (0, 4, 32)
    x = normal(hostile.MANY_ROWS, 2, 2)
    same_bits(ops.pixel_shuffle(x, factor=1, backend="cuda"), reference.pixel_shuffle(x, factor=1))


def test_refused() -> None:
    weight = torch.ones(32)
    hostile.check_refused(lambda x: ops.pixel_shuffle(x, weight=weight, backend="cuda"), normal(2, 17, 8))
    with pytest.raises(UnsupportedError, match=r"weight is float32\[31\]"):
        ops.pixel_shuffle(normal(2, 17, 8), weight=torch.ones(31), backend="cuda")
