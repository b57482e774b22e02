"""DeviceArray: memory of the CUDA backend, slices, DLPack, streams, and errors of the runtime."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import ops
from internvl_kernels.errors import BackendError, UnsupportedError
from internvl_kernels.testing.hostile import normal

pytestmark = pytest.mark.usefixtures("cuda_backend")


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int32", "int64", "bool"])
def test_there_and_back(dtype: str) -> None:
    source = np.arange(24).reshape(2, 3, 4).astype(dtype)
    array = ivk.DeviceArray(source)
    assert (array.shape, array.strides, array.dtype, array.device) == ((2, 3, 4), (12, 4, 1), dtype, 0)
    np.testing.assert_array_equal(array.numpy(), source)
    assert array.pointer % 256 == 0


def test_bfloat16_keeps_its_bits() -> None:
    dtypes = pytest.importorskip("ml_dtypes")
    source = normal(3, 5, dtype="bfloat16")
    back = ivk.DeviceArray(source).numpy()
    assert back.dtype == dtypes.bfloat16
    np.testing.assert_array_equal(back.view(np.int16), source.view(torch.int16).numpy())


def test_slices_share_memory() -> None:
    source = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    array = ivk.DeviceArray(source)
    for key in (
        1,
        -1,
        slice(1, 3),
        (slice(None), slice(1, 3)),
        (..., slice(0, 5)),
        (2, slice(0, 4, 2)),
        (..., 2),
        (slice(None), 0, slice(1, 4, 2)),
        (0, 1, 2),
    ):
        part, expected = array[key], source[key]
        assert part.shape == expected.shape
        np.testing.assert_array_equal(part.numpy(), expected)
    array[1].copy_from(np.zeros((4, 5), np.float32))
    assert not array.numpy()[1].any()
    assert array.reshape(12, 5).shape == (12, 5)
    for wrong in (3, -4, (0, 0, 0, 0), slice(None, None, -1), 1.5):
        with pytest.raises(IndexError, match="DeviceArray"):
            array[wrong]
    with pytest.raises(UnsupportedError, match="reshape"):
        array.reshape(7)


def test_dlpack_out_and_in() -> None:
    array = ivk.DeviceArray(normal(3, 4))
    assert array.__dlpack_device__() == (2, 0)
    shared = ivk.DeviceArray(Foreign(array))
    assert shared.pointer == array.pointer
    np.testing.assert_array_equal(shared.numpy(), array.numpy())
    shared[0].copy_from(np.ones(4, np.float32))
    del shared
    np.testing.assert_array_equal(array.numpy()[0], 1)
    unused = array.__dlpack__()  # freed by its capsule
    del unused
    with pytest.raises(BufferError, match="dl_device"):
        array.__dlpack__(dl_device=(10, 0))
    assert ops.rms_norm(Foreign(array), ivk.DeviceArray(np.ones(4, np.float32))).shape == (3, 4)


class Foreign:
    """Another library's array: it speaks DLPack and nothing else."""

    def __init__(self, array: ivk.DeviceArray) -> None:
        self.array, self.asked = array, None

    def __dlpack__(self, *, stream: int | None = None) -> object:
        assert stream is not None
        return self.array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_memory_is_where_the_runtime_says(cuda_backend: str) -> None:
    """A tensor whose label says CPU, on memory that cudaMalloc gave, is used in place. Only the virtual GPU can show it."""
    if cuda_backend != "virtual":
        pytest.skip("device memory of a real GPU cannot carry torch's CPU label")
    array = ivk.DeviceArray(normal(4, 16))
    memory = (ctypes.c_float * 64).from_address(array.pointer)
    labelled = torch.frombuffer(memory, dtype=torch.float32).view(4, 16)
    h = ops.add_scaled(labelled, normal(4, 16, seed=1), inplace=True, backend="cuda")
    assert h is labelled
    np.testing.assert_array_equal(array.numpy(), (normal(4, 16) + normal(4, 16, seed=1)).numpy())


def test_stream_by_handle() -> None:
    x = normal(3, 64)
    with pytest.raises(UnsupportedError, match="use_stream"), ivk.use_stream(-1):
        pass
    with ivk.use_stream(0):
        assert ops.rms_norm(ivk.DeviceArray(x), torch.ones(64)).shape == (3, 64)


def test_what_the_runtime_refuses_is_a_backend_error() -> None:
    with pytest.raises(BackendError, match=r"cudaMalloc of \d+ bytes .*cudaErrorMemoryAllocation \(2\)"):
        ivk.DeviceArray.empty((1 << 50,))
    with pytest.raises(UnsupportedError, match="dtype: float8"):
        ivk.DeviceArray.empty((2,), "float8")
    with pytest.raises(UnsupportedError, match="dimension 0 is -1"):
        ivk.DeviceArray.empty((-1,))
    np.testing.assert_array_equal(ivk.DeviceArray(np.ones(3, np.float32)).numpy(), 1)  # it still works
