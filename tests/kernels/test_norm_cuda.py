"""The norm kernels for CUDA against their references, on a GPU or on the virtual one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

# One lane, a vector and its edges; edges of a warp's and of a block's registers; rows longer than those; the widths of
# InternViT-300M and -6B, and of their tokens after pixel shuffle.
COLUMNS = (1, 7, 8, 9, 255, 1016, 1024, 1025, 3200, 4096, 4100, 12800)
LONG = {"float32": 16385, "bfloat16": 32776, "float16": 32769}


def vectors(cols: int, dtype: str, count: int = 2) -> list[torch.Tensor]:
    return [normal(cols, dtype=dtype, seed=90 + i) + 1 for i in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", COLUMNS)
def test_columns(cols: int, dtype: str) -> None:
    x, branch = normal(3, cols, dtype=dtype), normal(3, cols, dtype=dtype, seed=1)
    weight, bias = vectors(cols, dtype)
    if cols > 1:  # one column has variance 0: only eps decides, and rounding decides everything
        check("layer_norm", x, weight, bias, backend="cuda")
        check("add_norm", x, branch, weight, bias, scale=weight, backend="cuda")
    check("rms_norm", x, weight, backend="cuda")
    check("add_norm", x, branch, weight, rms=True, backend="cuda")
    check("add_scaled", x, branch, bias, backend="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_longer_than_the_registers_of_a_block(dtype: str) -> None:
    cols = LONG[dtype]
    x, branch = normal(2, cols, dtype=dtype), normal(2, cols, dtype=dtype, seed=1)
    weight, bias = vectors(cols, dtype)
    check("layer_norm", x, weight, bias, backend="cuda")
    check("add_norm", x, branch, weight, rms=True, scale=bias, inplace=True, backend="cuda")


@pytest.mark.parametrize("rows", hostile.ROWS)
def test_rows(rows: int) -> None:
    x = normal(rows, 48)
    weight, bias = vectors(48, "float32")
    check("layer_norm", x, weight, bias, backend="cuda")
    check("add_norm", x, x, weight, rms=True, backend="cuda")


@pytest.mark.modes(vgpu.LAZY)  # 65 537 rows: once is enough
def test_many_rows() -> None:
    weight, bias = vectors(3, "float32")
    check("layer_norm", normal(hostile.MANY_ROWS, 3) * 8, weight, bias, backend="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [96, 100, 3200])
def test_alignment_and_strides_do_not_change_bits(cols: int, dtype: str) -> None:
    """Whole vectors, single elements and strided rows add in one order."""
    x, branch = normal(5, cols, dtype=dtype), normal(5, cols, dtype=dtype, seed=1)
    weight, bias = vectors(cols, dtype)
    expected = ops.layer_norm(x, weight, bias, backend="cuda")
    pair = ops.add_norm(x, branch, weight, rms=True, scale=bias, backend="cuda")
    for shift, gap in ((1, 0), (0, 5), (8, 16)):
        shifted = [placed(t, shift, gap) for t in (x, branch, weight, bias)]
        same_bits(host(ops.layer_norm(shifted[0], shifted[2], shifted[3])), expected, f"shift {shift}, gap {gap}")
        got = ops.add_norm(shifted[0], shifted[1], shifted[2], rms=True, scale=shifted[3])
        same_bits(tuple(map(host, got)), pair, f"add_norm, shift {shift}, gap {gap}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_massive_channels_large_mean_and_special_values(dtype: str) -> None:
    x = hostile.massive_channels(5, 1024, dtype=dtype)
    weight, bias = vectors(1024, dtype)
    check("layer_norm", x, weight, bias, backend="cuda")
    check("rms_norm", x, weight, backend="cuda")
    check("add_norm", x, x, weight, bias, backend="cuda")
    check("rms_norm", hostile.special(7, 200, dtype=dtype), weight[:200], backend="cuda")
    check("add_scaled", hostile.special(3, 200, dtype=dtype), normal(3, 200, dtype=dtype), backend="cuda")


@pytest.mark.parametrize("cols", [1024, 3200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_of_a_row_do_not_depend_on_the_batch(dtype: str, cols: int) -> None:
    x, weight = normal(9, cols, dtype=dtype), vectors(cols, dtype, 1)[0]
    whole = ops.rms_norm(x, weight, backend="cuda")
    same_bits(ops.rms_norm(x, weight, backend="cuda"), whole, "run again")
    for row in (0, 4, 8):
        same_bits(ops.rms_norm(x[row : row + 1], weight, backend="cuda"), whole[row : row + 1], f"row {row}")


def test_inplace_reuses_the_residual() -> None:
    x, branch = normal(4, 32), normal(4, 32, seed=1)
    weight, bias = vectors(32, "float32")
    expected = ops.add_norm(x, branch, weight, bias, backend="cuda")
    on_gpu = ivk.DeviceArray(x)
    h, y = ops.add_norm(on_gpu, ivk.DeviceArray(branch), weight, bias, inplace=True)
    assert h.pointer == on_gpu.pointer
    same_bits((host(h), host(y)), expected)
    h, y = ops.add_norm(x, branch, weight, bias, inplace=True, backend="cuda")
    assert h is x
    same_bits((h, y), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [200, 3200])
def test_vision_qk_norm(dtype: str, width: int) -> None:
    qkv, weights = normal(2, 3, 3 * width, dtype=dtype), vectors(width, dtype)
    out = check("vision_qk_norm", qkv, *weights, backend="cuda")
    same_bits(out[..., 2 * width :], qkv[..., 2 * width :], "v")
    given = ivk.DeviceArray(qkv)
    same_bits(host(ops.vision_qk_norm(given, *weights, inplace=True)), out, "in place")
    same_bits(host(given), out, "the given array")


def test_results_come_back_as_the_callers_kind() -> None:
    x, weight = normal(3, 20), vectors(20, "float32", 1)[0]
    expected = ops.rms_norm(x, weight, backend="cuda")
    assert isinstance(expected, torch.Tensor)
    assert expected.device.type == "cpu"
    as_numpy = ops.rms_norm(x.numpy(), weight.numpy(), backend="cuda")
    assert isinstance(as_numpy, np.ndarray)
    same_bits(as_numpy, expected)
    on_gpu = ops.rms_norm(ivk.DeviceArray(x), weight)
    assert isinstance(on_gpu, ivk.DeviceArray)
    np.testing.assert_array_equal(on_gpu.numpy(), as_numpy)


def test_refused_tensors_are_named() -> None:
    weight = torch.ones(8)
    hostile.check_refused(lambda x: ops.rms_norm(x, weight, backend="cuda"), normal(4, 8))
    hostile.check_refused(lambda b: ops.add_norm(torch.zeros(4, 8), b, weight, backend="cuda"), normal(4, 8))


def test_wrong_arguments_are_refused_before_anything_runs() -> None:
    x, weight = torch.zeros(2, 8), torch.ones(8)
    with pytest.raises(UnsupportedError, match=r"weight is float32\[7\]"):
        ops.rms_norm(x, torch.ones(7), backend="cuda")
    with pytest.raises(UnsupportedError, match="eps is 0"):
        ops.rms_norm(x, weight, eps=0.0, backend="cuda")
    memory = ivk.DeviceArray(torch.zeros(3, 8))
    with pytest.raises(UnsupportedError, match="partly overlaps"):
        ops.add_norm(memory[:2], memory[1:], weight, inplace=True)
    with pytest.raises(UnsupportedError, match="allowed: 'cuda'"):
        ops.rms_norm(ivk.DeviceArray(x), weight, backend="cpu")
    with pytest.raises(ivk.BackendError, match="swiglu: backend 'cuda' has no kernel"):
        ops.swiglu(ivk.DeviceArray(x))
