"""Bad calls and bad launches: the code the real runtime gives, whether it sticks, and the reason in words."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from raw_cuda import D2D, D2H, DEFAULT, H2D, Cuda, FuncAttributes, dims

Kernel = Callable[[str], int]
Buffer = Callable[[np.ndarray], int]

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONFIGURATION, INVALID_PITCH = 0, 1, 2, 9, 12
INVALID_SYMBOL, INVALID_DIRECTION, INVALID_FUNCTION, INVALID_DEVICE = 13, 21, 98, 101
NO_IMAGE, INVALID_PTX, FILE_NOT_FOUND, INVALID_HANDLE, NOT_FOUND = 209, 218, 301, 400, 500
ILLEGAL_ADDRESS, OUT_OF_RESOURCES, TIMEOUT, MISALIGNED, LAUNCH_FAILURE = 700, 701, 702, 716, 719
COOPERATIVE_TOO_LARGE, NOT_PERMITTED, NOT_SUPPORTED = 720, 800, 801


# (kernel, grid, block, dynamic shared memory) -> code, reason
LAUNCHES = {
    "no blocks": (("nothing", (0, 1, 1), 32, 0), INVALID_CONFIGURATION, r"grid \(0, 1, 1\)"),
    "no threads": (("nothing", 1, (32, 0, 1), 0), INVALID_CONFIGURATION, r"block \(32, 0, 1\)"),
    "1025 threads": (("nothing", 1, 1025, 0), INVALID_CONFIGURATION, r"1024 threads in all"),
    "2048 threads in two dimensions": (("nothing", 1, (64, 32, 1), 0), INVALID_CONFIGURATION, r"\(64, 32, 1\)"),
    "65 deep": (("nothing", 1, (1, 1, 65), 0), INVALID_CONFIGURATION, r"\(1, 1, 65\)"),
    "65536 rows of blocks": (("nothing", (1, 65536, 1), 1, 0), INVALID_CONFIGURATION, r"65536"),
    "grid x": (("nothing", (0x80000000, 1, 1), 1, 0), INVALID_CONFIGURATION, r"2147483648"),
    "launch bounds": (("bounded", 1, 129, 0), INVALID_VALUE, r"129 threads a block; its launch bounds allow 128"),
    "required shape": (("exact", 1, 64, 0), INVALID_VALUE, r"compiled for \(32, 2, 1\)"),
    "48 KiB": (
        ("nothing", 1, 32, 48 * 1024 + 1),
        INVALID_VALUE,
        r"49153 bytes of dynamic shared memory; allowed: 49152",
    ),
    "static and dynamic": (("shared_static", 1, 32, 32 * 1024 + 1), INVALID_VALUE, r"allowed: 32768"),
}


@pytest.mark.parametrize(("launch", "code", "reason"), LAUNCHES.values(), ids=LAUNCHES.keys())
def test_refused_launches(cuda: Cuda, kernel: Kernel, virtual_gpu: Any, launch: Any, code: int, reason: str) -> None:
    name, grid, block, smem = launch
    assert cuda.launch_code(kernel(name), grid, block, smem=smem) == code
    assert re.search(reason, virtual_gpu.last_message())
    assert cuda.code("cudaPeekAtLastError") == code
    assert cuda.code("cudaGetLastError") == code
    assert cuda.code("cudaGetLastError") == SUCCESS, "a refused launch does not stick"
    assert cuda.code("cudaDeviceSynchronize") == SUCCESS
    assert virtual_gpu.counters() == [], "nothing ran"


@pytest.mark.parametrize(
    ("name", "grid", "block", "smem"),
    [
        ("nothing", (3, 2, 1), (1024, 1, 1), 48 * 1024),
        ("nothing", 1, (4, 4, 64), 0),
        ("bounded", 1, 128, 0),
        ("exact", 1, (32, 2, 1), 0),
        ("shared_static", 1, 32, 32 * 1024),
    ],
)
def test_launches_at_the_limits_run(
    cuda: Cuda, kernel: Kernel, virtual_gpu: Any, name: str, grid: Any, block: Any, smem: int
) -> None:
    cuda.launch(kernel(name), grid, block, smem=smem)
    virtual_gpu.assert_clean()
    assert len(virtual_gpu.counters()) == 1


def test_shared_memory_by_opting_in(cuda: Cuda, kernel: Kernel) -> None:
    opt_in = ctypes.c_int()
    cuda("cudaDeviceGetAttribute", ctypes.byref(opt_in), 97, 0)
    assert opt_in.value == 163 * 1024, "an A100's block"
    run = kernel("shared_static")
    most = opt_in.value - 16384
    assert cuda.code("cudaFuncSetAttribute", run, 8, most + 1) == INVALID_VALUE
    assert cuda.code("cudaFuncSetAttribute", run, 8, -1) == INVALID_VALUE
    cuda("cudaFuncSetAttribute", run, 8, most)
    cuda.launch(run, 1, 32, smem=most)
    assert cuda.launch_code(run, 1, 32, smem=most + 1) == INVALID_VALUE
    attributes = FuncAttributes()
    cuda("cudaFuncGetAttributes", ctypes.byref(attributes), run)
    assert (attributes.shared, attributes.max_dynamic) == (16384, most)


# kernel, arguments from a valid pointer -> sticky code, report
FAULTS = {
    "null pointer": ("store_at", lambda p: [0], ILLEGAL_ADDRESS, "oob"),
    "behind the end": ("store_at", lambda p: [p + 16], ILLEGAL_ADDRESS, "oob"),
    "before the begin": ("store_at", lambda p: [p - 4], ILLEGAL_ADDRESS, "oob"),
    "misaligned": ("store_at", lambda p: [p + 2], MISALIGNED, "misaligned"),
    "shared memory of another launch": ("store_shared", lambda p: [np.uint32(64)], LAUNCH_FAILURE, "oob"),
    "trap": ("trap", lambda p: [], LAUNCH_FAILURE, "trap"),
    "never ends": ("endless", lambda p: [p], TIMEOUT, "budget"),
}


@pytest.mark.parametrize(("name", "make", "code", "report"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_stick(
    cuda: Cuda, kernel: Kernel, buffer: Buffer, virtual_gpu: Any, name: str, make: Any, code: int, report: str
) -> None:
    data = buffer(np.zeros(4, np.uint32))
    virtual_gpu.configure(budget=5000)
    assert cuda.launch_code(kernel(name), 1, 1, make(data)) == SUCCESS, "a launch returns before its kernel runs"
    assert cuda.code("cudaDeviceSynchronize") == code
    found = virtual_gpu.reports()
    assert [(r["code"], r["kernel"]) for r in found] == [(report, name)]
    assert found[0]["ptx_line"] > 0
    for call in ("cudaGetLastError", "cudaGetLastError", "cudaPeekAtLastError", "cudaDeviceSynchronize"):
        assert cuda.code(call) == code, "the context is dead"
    assert cuda.code("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 4) == code
    count = ctypes.c_int()
    assert cuda.code("cudaGetDeviceCount", ctypes.byref(count)) == SUCCESS, "a query of the device needs no context"
    virtual_gpu.reset()
    assert cuda.code("cudaGetLastError") == SUCCESS
    cuda("cudaDeviceSynchronize")


def test_host_memory_is_not_for_kernels(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    host = np.zeros(4, np.uint32)
    cuda.launch(kernel("store_at"), 1, 1, [host.ctypes.data])
    assert cuda.code("cudaDeviceSynchronize") == ILLEGAL_ADDRESS
    assert [r["code"] for r in virtual_gpu.reports()] == ["host-pointer"]
    assert host[0] == 0


def test_work_behind_a_fault_does_not_run(cuda: Cuda, kernel: Kernel, buffer: Buffer, virtual_gpu: Any) -> None:
    values = np.zeros(4, np.uint32)
    data = buffer(values)
    cuda.launch(kernel("store_at"), 1, 1, [0])
    cuda.launch(kernel("add_one"), 1, 4, [data, np.uint32(4)])
    assert cuda.code("cudaDeviceSynchronize") == ILLEGAL_ADDRESS
    virtual_gpu.reset()
    assert (cuda.download(data, values) == 0).all()


def test_kernel_handles(cuda: Cuda, kernel: Kernel) -> None:
    assert cuda.launch_code(0, 1, 1) == INVALID_FUNCTION
    assert cuda.launch_code(0x1234, 1, 1) == INVALID_FUNCTION
    assert cuda.code("__cudaGetKernel", ctypes.byref(ctypes.c_void_p()), 0x1234) == INVALID_FUNCTION
    run = kernel("add_one")
    assert cuda.code("cudaLaunchKernel", run, dims(1), dims(1), 0, 0, 0) == INVALID_VALUE, "no arguments"
    missing = (ctypes.c_void_p * 2)(0, 0)
    assert cuda.code("cudaLaunchKernel", run, dims(1), dims(1), missing, 0, 0) == INVALID_VALUE
    assert cuda.launch_code(run, 1, 1, [1, np.uint32(0)], stream=0xBAD0) == INVALID_HANDLE
    grid, block, size, stream = dims(1), dims(1), ctypes.c_size_t(), ctypes.c_void_p()
    pop = [ctypes.byref(x) for x in (grid, block, size, stream)]
    assert cuda.code("__cudaPopCallConfiguration", *pop) == 52


def test_cooperative_launches_fit_the_part(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    run = kernel("nothing")
    resident = ctypes.c_int()
    cuda("cudaOccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(resident), run, 1024, 0)
    assert resident.value == 2
    sms = int(virtual_gpu.state()["config"]["sms"])
    most = (ctypes.c_void_p * 1)()
    assert cuda.code("cudaLaunchCooperativeKernel", run, dims(2 * sms), dims(1024), most, 0, 0) == SUCCESS
    assert (
        cuda.code("cudaLaunchCooperativeKernel", run, dims(2 * sms + 1), dims(1024), most, 0, 0)
        == COOPERATIVE_TOO_LARGE
    )


# call and arguments -> code
HOST = np.zeros(64, np.uint8)
CALLS = {
    "cudaMalloc of too much": (lambda p: ("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 1 << 50), OUT_OF_MEMORY),
    "cudaMalloc to null": (lambda p: ("cudaMalloc", 0, 4), INVALID_VALUE),
    "cudaFree inside": (lambda p: ("cudaFree", p + 4), INVALID_VALUE),
    "cudaFree of host memory": (lambda p: ("cudaFree", HOST.ctypes.data), INVALID_VALUE),
    "cudaFreeHost of device memory": (lambda p: ("cudaFreeHost", p), INVALID_VALUE),
    "copy past the end": (lambda p: ("cudaMemcpy", p + 1, HOST.ctypes.data, 64, H2D), INVALID_VALUE),
    "copy from past the end": (lambda p: ("cudaMemcpy", HOST.ctypes.data, p, 65, D2H), INVALID_VALUE),
    "copy to host as if device": (lambda p: ("cudaMemcpy", HOST.ctypes.data, p, 4, H2D), INVALID_VALUE),
    "copy from host as if device": (lambda p: ("cudaMemcpy", p, HOST.ctypes.data, 4, D2D), INVALID_VALUE),
    "copy to null": (lambda p: ("cudaMemcpy", 0, p, 4, DEFAULT), INVALID_VALUE),
    "copy of no kind": (lambda p: ("cudaMemcpy", p, p, 4, 7), INVALID_DIRECTION),
    "pitch": (lambda p: ("cudaMemcpy2D", p, 4, HOST.ctypes.data, 8, 8, 2, H2D), INVALID_PITCH),
    "memset of host memory": (lambda p: ("cudaMemset", HOST.ctypes.data, 0, 4), INVALID_VALUE),
    "memset past the end": (lambda p: ("cudaMemset", p, 0, 65), INVALID_VALUE),
    "symbol": (lambda p: ("cudaMemcpyToSymbol", HOST.ctypes.data, HOST.ctypes.data, 4, 0, H2D), INVALID_SYMBOL),
    "device 1": (lambda p: ("cudaSetDevice", 1), INVALID_DEVICE),
    "device -1": (lambda p: ("cudaDeviceGetAttribute", ctypes.byref(ctypes.c_int()), 16, -1), INVALID_DEVICE),
    "attribute 9999": (lambda p: ("cudaDeviceGetAttribute", ctypes.byref(ctypes.c_int()), 9999, 0), INVALID_VALUE),
    "stream": (lambda p: ("cudaStreamSynchronize", 0xBAD0), INVALID_HANDLE),
    "destroying the default stream": (lambda p: ("cudaStreamDestroy", 0), INVALID_HANDLE),
    "event": (lambda p: ("cudaEventSynchronize", 0xBAD0), INVALID_HANDLE),
    "file": (
        lambda p: ("cudaLibraryLoadFromFile", ctypes.byref(ctypes.c_void_p()), b"/no/file", *[0] * 6),
        FILE_NOT_FOUND,
    ),
    "host register twice": (lambda p: ("cudaHostUnregister", HOST.ctypes.data), 713),
    "limit": (lambda p: ("cudaDeviceSetLimit", 99, 0), 215),
    "graph": (lambda p: ("cudaGraphLaunch", 0xBAD0, 0), INVALID_VALUE),
    "pool": (lambda p: ("cudaMemPoolTrimTo", 0xBAD0, 0), INVALID_VALUE),
}


@pytest.mark.parametrize(("make", "code"), CALLS.values(), ids=CALLS.keys())
def test_refused_calls(cuda: Cuda, buffer: Buffer, virtual_gpu: Any, make: Any, code: int) -> None:
    data = buffer(HOST)
    name, *values = make(data)
    assert cuda.code(name, *values) == code
    assert virtual_gpu.last_message()
    assert (cuda.code("cudaGetLastError"), cuda.code("cudaGetLastError")) == (code, SUCCESS)
    assert virtual_gpu.reports() == []


def test_freeing_twice(cuda: Cuda) -> None:
    pointer = cuda.malloc(16)
    cuda("cudaFree", pointer)
    assert cuda.code("cudaFree", pointer) == INVALID_VALUE
    cuda("cudaFree", 0)


def test_an_unknown_call_names_itself(cuda: Cuda, virtual_gpu: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert cuda.code("cudaGraphExecUpdate", 0, 0, 0) == NOT_SUPPORTED
    assert "cudaGraphExecUpdate is not implemented by the virtual GPU" in capfd.readouterr().err
    assert [(r["code"], r["opcode"]) for r in virtual_gpu.reports()] == [("unsupported", "cudaGraphExecUpdate")]
    with pytest.raises(virtual_gpu.VirtualGpuError, match="cudaGraphExecUpdate"):
        virtual_gpu.assert_clean()
