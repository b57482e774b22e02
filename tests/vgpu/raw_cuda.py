"""CUDA runtime calls through ctypes, on whatever library vgpu.load() gives: what the virtual GPU's own tests speak."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import vgpu

H2H, H2D, D2H, D2D, DEFAULT = range(5)


class Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


class PointerAttributes(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("device", ctypes.c_int),
        ("device_pointer", ctypes.c_void_p),
        ("host_pointer", ctypes.c_void_p),
        ("reserved", ctypes.c_long * 8),
    ]


class FuncAttributes(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("shared", "const", "local")),
        *(
            (name, ctypes.c_int)
            for name in ("max_threads", "registers", "ptx", "binary", "cache", "max_dynamic", "carveout")
        ),
        ("rest", ctypes.c_int * 22),
    ]


class LaunchAttribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16)]


class LaunchConfig(ctypes.Structure):
    _fields_ = [
        ("grid", Dim3),
        ("block", Dim3),
        ("smem", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("count", ctypes.c_uint),
    ]


class KernelNodeParams(ctypes.Structure):
    _fields_ = [
        ("function", ctypes.c_void_p),
        ("grid", Dim3),
        ("block", Dim3),
        ("smem", ctypes.c_uint),
        ("params", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
    ]


class MemsetParams(ctypes.Structure):
    _fields_ = [
        ("dst", ctypes.c_void_p),
        ("pitch", ctypes.c_size_t),
        ("value", ctypes.c_uint),
        ("element", ctypes.c_uint),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    ]


HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class HostNodeParams(ctypes.Structure):
    _fields_ = [("function", HostFunction), ("data", ctypes.c_void_p)]


class CudaError(RuntimeError):
    def __init__(self, call: str, code: int) -> None:
        name = vgpu.load().cudaGetErrorName(code).decode()
        super().__init__(f"{call}: {code} {name} ({vgpu.last_message()})")
        self.code = code


def dims(shape: int | Sequence[int]) -> Dim3:
    numbers = (shape,) if isinstance(shape, int) else tuple(shape)
    return Dim3(*numbers, *(1,) * (3 - len(numbers)))


def arguments(values: Sequence[Any]) -> tuple[Any, list[Any]]:
    """An array of addresses for a launch, and what must stay alive for it. int: pointer; np scalar: its bytes."""
    kept = [ctypes.c_uint64(v) if isinstance(v, int) else np.asarray(v) for v in values]
    addresses = [ctypes.addressof(v) if isinstance(v, ctypes.c_uint64) else v.ctypes.data for v in kept]
    return (ctypes.c_void_p * max(1, len(kept)))(*addresses), kept


class Cuda:
    """``cuda.code("cudaFree", p)`` gives the error code; ``cuda("cudaFree", p)`` raises it. Pointers are plain ints."""

    def __init__(self) -> None:
        self.handle = vgpu.load()

    def code(self, name: str, *values: Any) -> int:
        # Plain ints are pointers or sizes: eight bytes. Where the call reads four, it reads the low ones.
        converted = [ctypes.c_uint64(v & (2**64 - 1)) if isinstance(v, int) else v for v in values]
        return int(getattr(self.handle, name)(*converted))

    def __call__(self, name: str, *values: Any) -> None:
        code = self.code(name, *values)
        if code:
            raise CudaError(name, code)

    def new(self, name: str, *values: Any) -> int:
        """Calls that write a handle or pointer to their first argument."""
        out = ctypes.c_void_p()
        self(name, ctypes.byref(out), *values)
        return out.value or 0

    def malloc(self, size: int) -> int:
        return self.new("cudaMalloc", size)

    def upload(self, array: np.ndarray) -> int:
        pointer = self.malloc(array.nbytes)
        self("cudaMemcpy", pointer, array.ctypes.data, array.nbytes, H2D)
        return pointer

    def download(self, pointer: int, like: np.ndarray) -> np.ndarray:
        out = np.empty_like(like)
        self("cudaMemcpy", out.ctypes.data, pointer, out.nbytes, D2H)
        return out

    def kernel(self, ptx: str, name: str) -> int:
        data = ptx.encode() + b"\0"
        library = self.new("cudaLibraryLoadData", data, 0, 0, 0, 0, 0, 0)
        return self.new("cudaLibraryGetKernel", library, name.encode())

    def launch_code(
        self, kernel: int, grid: Any, block: Any, values: Sequence[Any] = (), smem: int = 0, stream: int = 0
    ) -> int:
        array, _kept = arguments(values)
        return self.code("cudaLaunchKernel", kernel, dims(grid), dims(block), array, smem, stream)

    def launch(
        self, kernel: int, grid: Any, block: Any, values: Sequence[Any] = (), smem: int = 0, stream: int = 0
    ) -> None:
        code = self.launch_code(kernel, grid, block, values, smem, stream)
        if code:
            raise CudaError("cudaLaunchKernel", code)

    def host_function(self, body: Callable[[], None]) -> Any:
        return HostFunction(lambda _data: body())
