"""One instruction at a time: a kernel around it, the same instruction in as many lanes as there are cases.

The kernel is PTX text handed to the runtime (cudaLibraryLoadData), so no compiler is needed and the same rows run on a
real GPU with the real runtime.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_cuda import Dim3

PARTS = {80: "a100", 86: "l4", 89: "l4", 90: "h100"}  # of that compute capability (89 for 8.9), or a later one
NUMPY = {f"{k}{n}": np.dtype(f"{d}{n // 8}") for k, d in (("u", "u"), ("s", "i"), ("b", "u")) for n in (8, 16, 32, 64)}
NUMPY |= {"f16": np.dtype("u2"), "bf16": np.dtype("u2"), "f16x2": np.dtype("u4"), "bf16x2": np.dtype("u4")}
NUMPY |= {"f32": np.dtype("f4"), "f64": np.dtype("f8"), "pred": np.dtype("u4"), "tf32": np.dtype("u4")}
NUMPY |= {"e4m3x2": np.dtype("u2"), "e5m2x2": np.dtype("u2")}


def bits_type(name: str) -> str:
    """The register type: ld and st move bits, and 8-bit values live in 16-bit registers."""
    return f".b{max(16, 8 * NUMPY[name].itemsize)}"


def header(capability: int) -> str:
    return f".version 9.0\n.target sm_{capability}\n.address_size 64\n"


HEADER = header(80)


class CudaError(RuntimeError):
    """A runtime call that failed, with what the virtual GPU says about it."""


@dataclass
class Micro:
    runtime: ctypes.CDLL
    virtual: bool = True
    seen: set[str] = field(default_factory=set)  # first words of the instructions that ran
    modules: dict[str, None] = field(default_factory=dict)  # the texts that ran, in order
    _kept: list[Any] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Micro:
        """The virtual GPU's runtime, or the real one: told apart by what they export."""
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        virtual = hasattr(library, "vgpu_activate")
        for name in ("cudaGetErrorName", *(("vgpu_last_message", "vgpu_reports") if virtual else ())):
            getattr(library, name).restype = ctypes.c_char_p
        library.cudaLaunchKernel.argtypes = [
            ctypes.c_void_p, Dim3, Dim3, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
        ]  # fmt: skip
        library.cudaMemcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        library.cudaFree.argtypes = [ctypes.c_void_p]
        library.cudaMalloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        if virtual:
            library.vgpu_activate()
        micro = cls(library, virtual)
        micro.call("cudaGetDeviceCount", ctypes.byref(ctypes.c_int()))  # without a driver or a GPU it fails here
        return micro

    def call(self, name: str, *arguments: Any) -> None:
        error = getattr(self.runtime, name)(*arguments)
        if error:
            said = self.runtime.cudaGetErrorName(error).decode()
            self.runtime.cudaGetLastError()
            if self.virtual:
                said += f": {self.runtime.vgpu_last_message().decode()} {self.runtime.vgpu_reports().decode()}"
                self.runtime.vgpu_reset(1)
            raise CudaError(f"{name}: {said}")

    @contextlib.contextmanager
    def part(self, capability: int) -> Iterator[str]:
        """The header of modules for the capability, and the virtual GPU as a part that has it; a real one has it or skips."""
        if not self.virtual:
            major, minor = ctypes.c_int(), ctypes.c_int()
            self.call("cudaDeviceGetAttribute", ctypes.byref(major), 75, 0)
            self.call("cudaDeviceGetAttribute", ctypes.byref(minor), 76, 0)
            if 10 * major.value + minor.value < capability:
                pytest.skip(f"needs compute capability {capability / 10}")
            yield header(capability)
            return
        with self.option("device", PARTS[capability], "a100"):
            yield header(capability)

    @contextlib.contextmanager
    def option(self, key: str, value: str, usual: str) -> Iterator[None]:
        """A setting of the virtual GPU for a while; a real one has none."""
        if not self.virtual:
            pytest.skip(f"{key}={value} is a setting of the virtual GPU")
        if key == "device":
            self.runtime.vgpu_reset(
                1
            )  # a part is chosen before anything is allocated; an earlier test may have left something
        self.call("vgpu_configure", key.encode(), value.encode())
        try:
            yield
        finally:
            self.call("vgpu_configure", key.encode(), usual.encode())

    def launch(
        self, ptx: str, arrays: Sequence[np.ndarray], *, grid: int = 1, block: int = 32, shared: int = 0
    ) -> list[Any]:
        """Runs the kernel `k` whose parameters are addresses; every array is copied in, and back out as new arrays."""
        library, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        text = ptx.encode() + b"\0"
        none = ctypes.c_void_p()
        self.call("cudaLibraryLoadData", ctypes.byref(library), text, none, none, 0, none, none, 0)
        self.call("cudaLibraryGetKernel", ctypes.byref(kernel), library, b"k")
        addresses = []
        for array in arrays:
            address = ctypes.c_void_p()
            self.call("cudaMalloc", ctypes.byref(address), max(array.nbytes, 1))
            self.call("cudaMemcpy", address, array.ctypes.data, array.nbytes, 1)
            addresses.append(address)
        pointers = (ctypes.c_void_p * len(addresses))(*(ctypes.addressof(a) for a in addresses))
        self.call(
            "cudaLaunchKernel", kernel, Dim3(grid, 1, 1), Dim3(block, 1, 1), ctypes.addressof(pointers), shared, None
        )
        self.call("cudaDeviceSynchronize")
        results = []
        for array, address in zip(arrays, addresses, strict=True):
            results.append(np.empty_like(array))
            self.call("cudaMemcpy", results[-1].ctypes.data, address, array.nbytes, 2)
            self.call("cudaFree", address)
        self.call("cudaLibraryUnload", library)
        self.modules[ptx] = None
        body = re.sub(r"@!?%\w+|\w+:(?!:)", " ", ptx)  # without guards and labels
        self.seen.update(found.partition(".")[0] for found in re.findall(r"(?:^|[;{}\n])\s*([a-z][\w.:]*)", body))
        return results

    def each(
        self, text: str, result: str, operands: Sequence[str], values: Sequence[np.ndarray], *, header: str = HEADER
    ) -> np.ndarray:
        """`text` in each lane: $d is the result, $a, $b, $c, $e, … the operands; types by PTX name."""
        count = len(values[0])
        block = 128
        padded = -(-count // block) * block
        letters = "abcefgh"[: len(operands)]  # d is the result
        regs = "".join(
            f".reg {'.pred' if t == 'pred' else bits_type(t)} %{x};" for x, t in zip(letters, operands, strict=True)
        )
        loads = []
        for x, t in zip(letters, operands, strict=True):
            move = f"ld.global.{'b8' if NUMPY[t].itemsize == 1 else bits_type(t)[1:]}"
            place = f"mul.lo.u32 %t, %i, {NUMPY[t].itemsize}; cvt.u64.u32 %o, %t; ld.param.u64 %p, [p_{x}]; add.u64 %p, %p, %o;"
            if t == "pred":
                loads.append(f"{place} ld.global.u32 %t, [%p]; setp.ne.u32 %{x}, %t, 0;")
            else:
                loads.append(f"{place} {move} %{x}, [%p];")
        size = NUMPY[result].itemsize
        store = f"mul.lo.u32 %t, %i, {size}; cvt.u64.u32 %o, %t; ld.param.u64 %p, [p_d]; add.u64 %p, %p, %o;"
        if result == "pred":
            store += "selp.u32 %t, 1, 0, %d; st.global.u32 [%p], %t;"
        else:
            store += f"st.global.{'b8' if size == 1 else bits_type(result)[1:]} [%p], %d;"
        body = text
        for x in letters + "d":
            body = body.replace(f"${x}", f"%{x}")
        parameters = ", ".join(f".param .u64 p_{x}" for x in letters + "d")
        lines = "\n".join(loads)
        ptx = f"""{header}.visible .entry k({parameters}) {{
            .reg .b32 %i, %t, %w; .reg .b64 %o, %p; {regs} .reg {".pred" if result == "pred" else bits_type(result)} %d;
            mov.u32 %i, %ctaid.x; mov.u32 %w, %ntid.x; mov.u32 %t, %tid.x; mad.lo.u32 %i, %i, %w, %t;
            {lines}
            {body}
            {store}
            ret; }}"""
        arrays = []
        for t, v in zip(operands, values, strict=True):
            assert len(v) == count
            arrays.append(np.resize(np.ascontiguousarray(v).view(NUMPY[t]), padded))
        *_, out = self.launch(ptx, [*arrays, np.zeros(padded, NUMPY[result])], grid=padded // block, block=block)
        return np.asarray(out[:count])

    def words(
        self,
        code: str,
        inputs: Sequence[np.ndarray],
        *,
        outputs: int = 1,
        block: int = 32,
        registers: str = "",
        outside: str = "",
        header: str = HEADER,
    ) -> np.ndarray:
        """One block: $a, $b, … are 32-bit words of this thread, %t its number; $0, $1, … are stored: uint32 [outputs, block].

        Inputs of 64 bits are $A, $B, … in the same order. ``outside``: text at module scope.
        """
        names = "abcdefghijklmnop"[: len(inputs)]
        loads, regs, body = [], [], code
        for x, array in zip(names, inputs, strict=True):
            size = array.dtype.itemsize
            wide = size == 8
            regs.append(f".reg .b{8 * size} %{x.upper() if wide else x};")
            loads.append(f"mul.wide.u32 %o, %t, {size}; ld.param.u64 %p, [p_{x}]; add.u64 %p, %p, %o;")
            loads.append(f"ld.global.b{8 * size} %{x.upper() if wide else x}, [%p];")
        for x in (*names, *names.upper(), *map(str, range(outputs))):
            body = re.sub(rf"\${x}(?![0-9a-zA-Z])", f"%r_{x}" if x.isdigit() else f"%{x}", body)
        regs += [f".reg .b32 %r_{i};" for i in range(outputs)]
        stores = [f"st.global.b32 [%p+{4 * block * i}], %r_{i};" for i in range(outputs)]
        parameters = ", ".join(f".param .u64 p_{x}" for x in (*names, "out"))
        ptx = f"""{header}{outside}
            .visible .entry k({parameters}) {{
            .reg .b32 %t; .reg .b64 %o, %p; {" ".join(regs)} {registers}
            mov.u32 %t, %tid.x;
            {chr(10).join(loads)}
            {body}
            mul.wide.u32 %o, %t, 4; ld.param.u64 %p, [p_out]; add.u64 %p, %p, %o;
            {" ".join(stores)}
            ret; }}"""
        *_, out = self.launch(ptx, [*inputs, np.zeros(outputs * block, np.uint32)], block=block)
        return np.asarray(out).reshape(outputs, block)
