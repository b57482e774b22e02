"""What the runtime tells of launches: shape, registers, occupancy, counts, coverage; and its settings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from raw_cuda import Cuda

import vgpu

Kernel = Callable[[str], int]
Buffer = Callable[[np.ndarray], int]


def test_a_launch_is_counted(cuda: Cuda, kernel: Kernel, buffer: Buffer) -> None:
    data = buffer(np.zeros(100, np.uint32))
    run = kernel("add_one")
    cuda.launch(run, 2, 64, [data, np.uint32(100)])
    assert vgpu.counters() == [], "it has not run yet"
    vgpu.finish()
    (launch,) = vgpu.counters()
    assert (launch["kernel"], launch["grid"], launch["block"]) == ("add_one", [2, 1, 1], [64, 1, 1])
    assert launch["counters"]["global_load_bytes"] == 400
    assert launch["blocks_per_sm"] == 32, "two warps a block: the limit on blocks decides"
    assert not launch["registers_from_cubin"]
    assert "counts, not times" in vgpu.counter_table()
    assert "estimate from PTX" in vgpu.counter_table()


def test_lines_are_kept_on_demand(cuda: Cuda, kernel: Kernel, virtual_gpu: Any) -> None:
    for lines in (False, True):
        virtual_gpu.configure(lines=lines)
        cuda.launch(kernel("nothing"), 1, 32)
        vgpu.finish()
    quiet, loud = vgpu.counters(lines=True)
    assert not quiet["counters"].get("lines")
    assert [line["opcode"] for line in loud["counters"]["lines"]] == ["ret"]


def test_coverage_adds_up_over_launches(cuda: Cuda, kernel: Kernel, buffer: Buffer, virtual_gpu: Any) -> None:
    before = vgpu.coverage().get("scale", {"launches": 0})["launches"]
    for _ in range(2):
        cuda.launch(kernel("scale"), 1, 1, [buffer(np.ones(1, np.uint32)), np.uint32(3)])
        vgpu.finish()
        vgpu.reset()
    found = vgpu.coverage()["scale"]
    assert found["launches"] == before + 2
    assert [line["opcode"] for line in found["lines"]][-3:] == ["mul.lo.u32", "st.global.u32", "ret"]
    assert all(line["executed"] == before + 2 for line in found["lines"])


# threads a block, dynamic shared memory -> blocks on one multiprocessor of the part, for a kernel of few registers
OCCUPANCY = [(32, 0, 32), (1024, 0, 2), (1000, 0, 2), (128, 0, 16), (256, 40 * 1024, 4), (33, 48 * 1024, 3)]


@pytest.mark.parametrize(("threads", "smem", "blocks"), OCCUPANCY)
def test_occupancy_of_an_a100(cuda: Cuda, kernel: Kernel, threads: int, smem: int, blocks: int) -> None:
    out = ctypes.c_int(-1)
    cuda("cudaOccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(out), kernel("nothing"), threads, smem)
    assert out.value == blocks


def test_occupancy_beyond_the_limits(cuda: Cuda, kernel: Kernel) -> None:
    out = ctypes.c_int(-1)
    name = "cudaOccupancyMaxActiveBlocksPerMultiprocessor"
    cuda(name, ctypes.byref(out), kernel("bounded"), 129, 0)
    assert out.value == 0
    cuda(name, ctypes.byref(out), kernel("nothing"), 32, 48 * 1024 + 1)
    assert out.value == 0
    assert cuda.code(name, ctypes.byref(out), kernel("nothing"), 0, 0) == 1


def test_options_come_back(virtual_gpu: Any) -> None:
    before = vgpu.state()["config"]
    with vgpu.mode(vgpu.STARVED):
        inside = vgpu.state()["config"]
        assert (inside["async"], inside["seed"], inside["host"], inside["starve"]) == ("random", "1", "random", "0")
    assert vgpu.state()["config"] == before


@pytest.mark.parametrize(
    "change",
    [{"device": "tpu"}, {"sms": 0}, {"host": "slow"}, {"async_": "x"}, {"seed": "x"}, {"bogus": 1}, {"memory": "1G"}],
)
def test_bad_settings_are_refused(virtual_gpu: Any, change: dict[str, Any]) -> None:
    before = vgpu.state()["config"]
    with pytest.raises(vgpu.VirtualGpuError):
        vgpu.configure(**change)
    assert vgpu.state()["config"] == before


def test_calls_are_refused_while_inactive(cuda: Cuda, virtual_gpu: Any) -> None:
    virtual_gpu.deactivate()
    try:
        assert not vgpu.active()
        assert cuda.code("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 4) == 3
        assert cuda.code("cudaGetLastError") == 3
    finally:
        virtual_gpu.activate()
    assert cuda.code("cudaDeviceSynchronize") == 0
