"""The engine without the runtime front: PTX text in, arrays and findings out."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from vgpu_micro import HEADER

TARGETS = {"l4": "sm_89", "h100": "sm_90"}


def library(build: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(build / "libcudart.so.13"))
    for name in ("open", "allocate"):
        getattr(lib, f"vgpu_door_{name}").restype = ctypes.c_void_p
    for name in ("error", "result", "opcodes", "refused"):
        getattr(lib, f"vgpu_door_{name}").restype = ctypes.c_char_p
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
