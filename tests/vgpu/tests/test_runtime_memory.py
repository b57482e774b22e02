"""Memory of every kind: where it is, what a copy may touch, when a copy happens, what is found when it is used wrongly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from raw_cuda import D2D, D2H, DEFAULT, H2D, H2H, Cuda, PointerAttributes

Kernel = Callable[[str], int]
Buffer = Callable[[np.ndarray], int]
VALUES = np.arange(64, dtype=np.uint32)


def pinned(address: int, count: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint32 * count).from_address(address))


def where(cuda: Cuda, pointer: int) -> tuple[int, int, bool, bool]:
    out = PointerAttributes()
    cuda("cudaPointerGetAttributes", ctypes.byref(out), pointer)
    return out.type, out.device, out.device_pointer == pointer, out.host_pointer == pointer


def test_pointer_attributes(cuda: Cuda) -> None:
    device, managed, host = cuda.malloc(64), cuda.new("cudaMallocManaged", 64, 1), cuda.new("cudaMallocHost", 64)
    plain = np.zeros(64, np.uint8)
    assert where(cuda, device) == (2, 0, True, False)
    assert where(cuda, device + 63) == (2, 0, True, False)
    assert where(cuda, device + 64) == (0, -2, False, True)
    assert where(cuda, managed) == (3, 0, True, True)
    assert where(cuda, host) == (1, 0, True, True)
    assert where(cuda, plain.ctypes.data) == (0, -2, False, True)
    assert where(cuda, 0)[0] == 0
    cuda("cudaHostRegister", plain.ctypes.data, 64, 0)
    assert where(cuda, plain.ctypes.data + 5) == (1, 0, True, True)
    assert cuda.code("cudaHostRegister", plain.ctypes.data + 32, 4, 0) == 712
    cuda("cudaHostUnregister", plain.ctypes.data)
    assert where(cuda, plain.ctypes.data)[0] == 0
    for pointer in (device, managed):
        cuda("cudaFree", pointer)
    cuda("cudaFreeHost", host)
    assert where(cuda, device)[0] == 0


def test_allocations_are_aligned_to_256_and_no_more(cuda: Cuda) -> None:
    for size in (1, 255, 4096, 100_000):
        pointer = cuda.malloc(size)
        assert pointer % 512 == 256
        cuda("cudaFree", pointer)
    assert cuda.malloc(0) == 0


def test_memory_info_and_limit(cuda: Cuda, virtual_gpu: Any) -> None:
    free, total, after = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t()
    cuda("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    pointer = cuda.malloc(1 << 20)
    cuda("cudaMemGetInfo", ctypes.byref(after), ctypes.byref(total))
    assert free.value - after.value == 1 << 20
    virtual_gpu.configure(memory=virtual_gpu.state()["used"] + 100)
    assert cuda.code("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 101) == 2
    cuda("cudaFree", cuda.malloc(100))
    cuda("cudaFree", pointer)


@pytest.mark.parametrize("call", ["cudaMemcpy", "cudaMemcpyAsync"])
def test_copies_of_every_direction(cuda: Cuda, buffer: Buffer, call: str) -> None:
    more = (0,) if call.endswith("Async") else ()
    one, two = buffer(VALUES), buffer(np.zeros_like(VALUES))
    cuda(call, two, one, VALUES.nbytes, D2D, *more)
    out, again = np.empty_like(VALUES), np.empty_like(VALUES)
    cuda(call, out.ctypes.data, two, out.nbytes, D2H, *more)
    cuda(call, again.ctypes.data, out.ctypes.data, out.nbytes, H2H, *more)
    assert (again == VALUES).all()
    cuda(call, one, (out + 1).ctypes.data, 0, H2D, *more)
    cuda(call, out.ctypes.data, one, out.nbytes, DEFAULT, *more)
    assert (out == VALUES).all()


def test_rows_and_boxes(cuda: Cuda) -> None:
    source = np.arange(6 * 40, dtype=np.uint8).reshape(6, 40)
    pitch = ctypes.c_size_t()
    pointer = cuda.new("cudaMallocPitch", ctypes.byref(pitch), 33, 6)
    assert pitch.value == 512
    cuda("cudaMemset2D", pointer, pitch.value, 9, 33, 6)
    cuda("cudaMemcpy2D", pointer + 1, pitch.value, source.ctypes.data, 40, 32, 5, H2D)
    out = np.zeros((6, 33), np.uint8)
    cuda("cudaMemcpy2DAsync", out.ctypes.data, 33, pointer, pitch.value, 33, 6, D2H, 0)
    assert (out[:5, 1:] == source[:5, :32]).all()
    assert (out[:, 0] == 9).all()
    assert (out[5] == 9).all()
    cuda("cudaFree", pointer)


def test_async_copies_read_pinned_memory_late_and_pageable_memory_at_once(cuda: Cuda, buffer: Buffer) -> None:
    """Host code that changes a pinned buffer before it has waited sends the change."""
    target = buffer(np.zeros_like(VALUES))
    stream = cuda.new("cudaStreamCreate")
    address = cuda.new("cudaMallocHost", VALUES.nbytes)
    for late in (True, False):
        source = pinned(address, 64) if late else np.empty_like(VALUES)
        source[:] = VALUES
        cuda("cudaMemcpyAsync", target, source.ctypes.data, VALUES.nbytes, H2D, stream)
        source[:] = 5
        cuda("cudaStreamSynchronize", stream)
        assert (cuda.download(target, VALUES) == (5 if late else VALUES)).all()
    result = pinned(address, 64)
    result[:] = 1
    cuda("cudaMemsetAsync", target, 0, VALUES.nbytes, stream)
    cuda("cudaMemcpyAsync", address, target, VALUES.nbytes, D2H, stream)
    assert (result == 1).all(), "not waited for: old data"
    out = np.ones_like(VALUES)
    cuda("cudaMemcpyAsync", out.ctypes.data, target, VALUES.nbytes, D2H, stream)
    assert (out == 0).all(), "a copy to pageable memory is waited for"
    assert (result == 0).all(), "and so is what came before it"
    cuda("cudaFreeHost", address)
    cuda("cudaStreamDestroy", stream)


def test_kernels_reach_pinned_managed_and_registered_memory(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    host, managed = cuda.new("cudaMallocHost", 256), cuda.new("cudaMallocManaged", 256, 1)
    plain = np.zeros(64, np.uint32)
    cuda("cudaHostRegister", plain.ctypes.data, plain.nbytes, 0)
    for pointer in (host, managed, plain.ctypes.data):
        pinned(pointer, 64)[:] = VALUES
        cuda.launch(kernel("add_one"), 2, 32, [pointer, np.uint32(64)])
        cuda("cudaDeviceSynchronize")
        assert (pinned(pointer, 64) == VALUES + 1).all()
    virtual_gpu.assert_clean()
    cuda("cudaFreeHost", host)
    cuda("cudaFree", managed)
    cuda("cudaHostUnregister", plain.ctypes.data)
    cuda.launch(kernel("add_one"), 1, 1, [plain.ctypes.data, np.uint32(64)])
    assert cuda.code("cudaDeviceSynchronize") == 700


def test_undefined_bytes_that_reach_the_host_are_found(cuda: Cuda, virtual_gpu: Any) -> None:
    pointer = cuda.malloc(64)
    cuda("cudaMemset", pointer, 0, 60)
    out = np.zeros(64, np.uint8)
    cuda("cudaMemcpy", out.ctypes.data, pointer, 60, D2H)
    virtual_gpu.assert_clean()
    cuda("cudaMemcpy", out.ctypes.data, pointer, 64, D2H)
    assert [r["code"] for r in virtual_gpu.reports()] == ["undefined"]
    assert "60 bytes into it" in virtual_gpu.reports()[0]["text"]
    cuda("cudaFree", pointer)


def test_freed_before_use(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    pointer = cuda.upload(VALUES)
    cuda("cudaFree", pointer)
    cuda.launch(kernel("add_one"), 2, 32, [pointer, np.uint32(64)])
    assert cuda.code("cudaDeviceSynchronize") == 700
    assert {r["code"] for r in virtual_gpu.reports()} == {"use-after-free"}


def test_cuda_free_waits_for_kernels(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    pointer = cuda.upload(VALUES)
    cuda.launch(kernel("add_one"), 2, 32, [pointer, np.uint32(64)])
    cuda("cudaFree", pointer)
    virtual_gpu.assert_clean()


@pytest.mark.parametrize("release", ["cudaFree", "cudaFreeAsync on another stream"])
def test_freed_during_use(cuda: Cuda, kernel: Kernel, virtual_gpu: Any, release: str) -> None:
    """Pool memory is not waited for: a kernel that still uses it works on released memory."""
    one, two = cuda.new("cudaStreamCreateWithFlags", 1), cuda.new("cudaStreamCreateWithFlags", 1)
    pointer = cuda.new("cudaMallocAsync", VALUES.nbytes, one)
    cuda("cudaMemsetAsync", pointer, 0, VALUES.nbytes, one)
    cuda("cudaStreamSynchronize", one)
    cuda.launch(kernel("add_one"), 2, 32, [pointer, np.uint32(64)], stream=one)
    if release == "cudaFree":
        cuda("cudaFree", pointer)
    else:
        cuda("cudaFreeAsync", pointer, two)
    assert cuda.code("cudaDeviceSynchronize") == 700
    assert {r["code"] for r in virtual_gpu.reports()} == {"use-after-free"}
    virtual_gpu.reset()
    for stream in (one, two):
        cuda("cudaStreamDestroy", stream)


def test_stream_ordered_memory(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    stream = cuda.new("cudaStreamCreateWithFlags", 1)
    pool = cuda.new("cudaDeviceGetDefaultMemPool", 0)
    used = ctypes.c_uint64()
    pointer = cuda.new("cudaMallocAsync", VALUES.nbytes, stream)
    cuda("cudaMemcpyAsync", pointer, VALUES.ctypes.data, VALUES.nbytes, H2D, stream)
    cuda.launch(kernel("add_one"), 2, 32, [pointer, np.uint32(64)], stream=stream)
    out = np.empty_like(VALUES)
    cuda("cudaMemcpyAsync", out.ctypes.data, pointer, out.nbytes, D2H, stream)
    cuda("cudaMemPoolGetAttribute", pool, 7, ctypes.byref(used))
    assert used.value == VALUES.nbytes
    cuda("cudaFreeAsync", pointer, stream)
    cuda("cudaStreamSynchronize", stream)
    assert (out == VALUES + 1).all()
    cuda("cudaMemPoolGetAttribute", pool, 7, ctypes.byref(used))
    assert used.value == 0
    virtual_gpu.assert_clean()
    cuda("cudaStreamDestroy", stream)


def test_leaks_are_listed(cuda: Cuda, virtual_gpu: Any) -> None:
    before = len(virtual_gpu.leaks())
    pointer, stream, event = cuda.malloc(123), cuda.new("cudaStreamCreate"), cuda.new("cudaEventCreate")
    found = virtual_gpu.leaks()
    assert [(leak["what"], leak.get("bytes")) for leak in found if "bytes" in leak][-1] == ("cudaMalloc", 123)
    assert {leak["what"] for leak in found} >= {"stream", "event"}
    cuda("cudaFree", pointer)
    cuda("cudaStreamDestroy", stream)
    cuda("cudaEventDestroy", event)
    assert len(virtual_gpu.leaks()) == before
