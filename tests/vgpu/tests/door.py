"""The engine without the runtime front: PTX text in, arrays and findings out."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
TARGETS = {"l4": "sm_89", "h100": "sm_90"}


def library(build: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(build / "libcudart.so.13"))
    for name in ("open", "allocate", "variable"):
        getattr(lib, f"vgpu_door_{name}").restype = ctypes.c_void_p
    for name in ("error", "result", "opcodes", "refused"):
        getattr(lib, f"vgpu_door_{name}").restype = ctypes.c_char_p
    lib.vgpu_door_first_undefined.restype = ctypes.c_uint64
    return lib


@dataclass(frozen=True)
class Result:
    clean: bool
    reports: list[dict[str, Any]]
    notes: list[dict[str, Any]]
    printed: str
    counters: dict[str, Any]

    @property
    def codes(self) -> set[str]:
        return {report["code"] for report in self.reports}


class Door:
    """One module. Buffers live until the door is dropped."""

    def __init__(self, lib: ctypes.CDLL, body: str, device: str = "a100") -> None:
        self.lib = lib
        text = body if ".version" in body else HEADER.replace("sm_80", TARGETS.get(device, "sm_80")) + body
        self.handle = ctypes.c_void_p(lib.vgpu_door_open(text.encode(), device.encode()))
        if not self.handle.value:
            raise ValueError(lib.vgpu_door_error().decode())

    def __del__(self) -> None:
        if getattr(self, "handle", None) and self.handle.value:
            self.lib.vgpu_door_close(self.handle)

    def refused(self) -> dict[int, str]:
        """PTX lines that the engine does not know, and what it says of them."""
        lines = self.lib.vgpu_door_refused(self.handle).decode().splitlines()
        return {int(number): text for number, _, text in (line.partition(" ") for line in lines)}

    def allocate(self, nbytes: int) -> int:
        return int(self.lib.vgpu_door_allocate(self.handle, ctypes.c_uint64(nbytes)))

    def release(self, pointer: int) -> None:
        assert self.lib.vgpu_door_release(self.handle, ctypes.c_void_p(pointer))

    def put(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        pointer = self.allocate(array.nbytes)
        self.lib.vgpu_door_write(
            self.handle, ctypes.c_void_p(pointer), array.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(array.nbytes)
        )
        return pointer

    def get(self, pointer: int, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        out = np.empty(shape, dtype)
        self.lib.vgpu_door_read(
            out.ctypes.data_as(ctypes.c_void_p), ctypes.c_void_p(pointer), ctypes.c_uint64(out.nbytes)
        )
        return out

    def launch(
        self,
        kernel: str,
        args: list[Any],
        *,
        grid: int | tuple[int, ...] = 1,
        block: int | tuple[int, ...] = 32,
        smem: int = 0,
        options: str = "",
        lines: bool = False,
    ) -> Result:
        """args: int is a pointer or 64-bit value, a numpy scalar or array gives its own bytes."""
        values = [np.asarray(a, np.uint64) if isinstance(a, int) else np.asarray(a) for a in args]
        pointers = (ctypes.c_void_p * max(len(values), 1))(*[v.ctypes.data for v in values])
        dims = [*(tuple([grid] if isinstance(grid, int) else grid) + (1, 1, 1))[:3]]
        dims += [*(tuple([block] if isinstance(block, int) else block) + (1, 1, 1))[:3], smem]
        shape = (ctypes.c_uint32 * 7)(*dims)
        status = self.lib.vgpu_door_launch(self.handle, kernel.encode(), shape, pointers, options.encode())
        if status < 0:
            raise ValueError(self.lib.vgpu_door_error().decode())
        raw = json.loads(self.lib.vgpu_door_result(self.handle, int(lines)))
        return Result(status == 1, raw["reports"], raw["notes"], raw["printed"], raw["counters"])


def lane_kernel(code: str, *, registers: str = "", width: str = "b32", inputs: int = 1) -> str:
    """Entry `k`: lane i loads element i of each input into %a, %b, %c, runs `code`, stores %d to the last parameter."""
    size = {"b16": 2, "b32": 4, "b64": 8}[width]
    names = "abcdefgh"[:inputs] if inputs < 4 else "abcefg"[:inputs]
    params = ", ".join(f".param .u64 p{n}" for n in range(inputs + 1))
    loads = "\n".join(
        f"ld.param.u64 %p, [p{i}]; add.s64 %p, %p, %o; ld.global.{width} %{n}, [%p];" for i, n in enumerate(names)
    )
    declared = " ".join(f".reg .{width} %{n};" for n in dict.fromkeys([*names, "d"]))
    return f"""
.visible .entry k({params}) {{
.reg .b64 %p, %o; .reg .b32 %t; {declared} {registers}
mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, {size};
{loads}
{code}
ld.param.u64 %p, [p{inputs}]; add.s64 %p, %p, %o; st.global.{width} [%p], %d;
ret; }}
"""


def words(engine, code, inputs, *, outputs=1, block=32, registers="", options="", target="sm_80"):
    """Kernel over one warp (or block): %a, %b ... are words of this thread; %d0 ... are stored word by word."""
    n = len(inputs)
    params = ", ".join(f".param .u64 p{i}" for i in range(n + 1))
    loads = "\n".join(
        f"ld.param.u64 %p, [p{i}]; add.s64 %p, %p, %o; ld.global.b32 %{'abcdefghijklmnop'[i]}, [%p];" for i in range(n)
    )
    stores = "\n".join(f"st.global.b32 [%p+{4 * block * i}], %d{i};" for i in range(outputs))
    names = ", ".join(["%" + "abcdefghijklmnop"[i] for i in range(n)] + [f"%d{i}" for i in range(outputs)])
    header = HEADER.replace("sm_80", target)
    text = f"""{header}.visible .entry k({params}) {{ .reg .b64 %p, %o; .reg .b32 %t, {names}; {registers}
mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 4; {loads} {code}
ld.param.u64 %p, [p{n}]; add.s64 %p, %p, %o; {stores} ret; }}"""
    door = Door(engine, text)
    pointers = [door.put(np.ascontiguousarray(a).view(np.uint32)) for a in inputs]
    out = door.allocate(4 * block * outputs)
    result = door.launch("k", [*pointers, out], block=block, options=options)
    assert result.clean, result.reports
    return door.get(out, (outputs, block), np.uint32)
