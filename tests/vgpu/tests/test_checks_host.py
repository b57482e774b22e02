"""What a program takes and does not give back is listed, by kind; what it gives back is not."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from raw_cuda import Cuda

import vgpu

HOST = np.zeros(64, np.uint8)


def register(cuda: Cuda) -> int:
    cuda("cudaHostRegister", HOST.ctypes.data, HOST.nbytes, 0)
    return HOST.ctypes.data


def executable(cuda: Cuda) -> int:
    graph = cuda.new("cudaGraphCreate", 0)
    made = cuda.new("cudaGraphInstantiate", graph, 0)
    cuda("cudaGraphDestroy", graph)
    return made


Take = Callable[[Cuda], int]
# what is listed, bytes, how it is taken, the call that gives it back
KINDS: dict[str, tuple[str, int | None, Take, str]] = {
    "device memory": ("cudaMalloc", 123, lambda c: c.new("cudaMalloc", 123), "cudaFree"),
    "stream-ordered memory": ("cudaMallocAsync", 64, lambda c: c.new("cudaMallocAsync", 64, 0), "cudaFree"),
    "managed memory": ("cudaMallocManaged", 32, lambda c: c.new("cudaMallocManaged", 32, 1), "cudaFree"),
    "pinned memory": ("cudaMallocHost", 16, lambda c: c.new("cudaMallocHost", 16), "cudaFreeHost"),
    "registered memory": ("cudaHostRegister", 64, register, "cudaHostUnregister"),
    "stream": ("stream", None, lambda c: c.new("cudaStreamCreate"), "cudaStreamDestroy"),
    "event": ("event", None, lambda c: c.new("cudaEventCreate"), "cudaEventDestroy"),
    "graph": ("graph", None, lambda c: c.new("cudaGraphCreate", 0), "cudaGraphDestroy"),
    "executable graph": ("executable graph", None, executable, "cudaGraphExecDestroy"),
}


@pytest.mark.parametrize("name", KINDS)
def test_leaks_are_listed(cuda: Cuda, virtual_gpu: Any, name: str) -> None:
    what, size, take, give_back = KINDS[name]
    before = [leak["what"] for leak in vgpu.leaks()]
    taken = take(cuda)
    after = vgpu.leaks()
    assert sorted([*before, what]) == sorted(leak["what"] for leak in after)
    found = next(leak for leak in reversed(after) if leak["what"] == what)
    assert found.get("bytes") == size
    cuda(give_back, taken)
    vgpu.finish()
    assert [leak["what"] for leak in vgpu.leaks()] == before
    assert ctypes.c_int(cuda.code("cudaGetLastError")).value == 0
