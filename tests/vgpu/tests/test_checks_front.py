"""The planted bugs through the whole stack: the launch fails as on hardware, the error sticks, and the correct twin runs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import planted
import pytest
from planted import Case
from raw_cuda import Cuda
from test_checks import CHECKS

import vgpu

SUCCESS, ILLEGAL_ADDRESS, LAUNCH_FAILURE = 0, 700, 719


@pytest.fixture
def launched(cuda: Cuda) -> Iterator[Callable[[str, Case, str], int]]:
    """launched(ptx, case, source): the code of the synchronisation behind the launch."""
    given: list[int] = []
    libraries: list[int] = []

    def run(ptx: str, case: Case, source: str) -> int:
        libraries.append(cuda.new("cudaLibraryLoadData", ptx.encode() + b"\0", 0, 0, 0, 0, 0, 0))
        kernel = cuda.new("cudaLibraryGetKernel", libraries[-1], b"k")
        if source == "host":
            pin = ctypes.addressof(planted.HOST)
        elif source == "undefined":
            pin = cuda.malloc(case.bytes)
        else:
            pin = cuda.upload(planted.values(case))
        pout = cuda.upload(np.zeros(planted.WORDS, np.uint32))
        if source == "freed":
            cuda("cudaFree", pin)
        given.extend([pout] + [pin] * (source in ("data", "undefined")))
        values = [pin, pout, np.uint32(0)]
        assert cuda.launch_code(kernel, case.grid, case.block, values, case.smem) == SUCCESS
        return cuda.code("cudaDeviceSynchronize")

    yield run
    vgpu.reset()
    for pointer in given:
        cuda("cudaFree", pointer)
    for library in libraries:
        cuda("cudaLibraryUnload", library)


@pytest.mark.parametrize("name", CHECKS)
def test_the_launch_fails_as_on_hardware(
    cuda: Cuda, virtual_gpu: Any, launched: Callable[[str, Case, str], int], name: str
) -> None:
    case = CHECKS[name]
    virtual_gpu.configure(**dict(option.split("=") for option in case.options.split()))
    assert launched(planted.twin(case), case, "data") == SUCCESS
    assert virtual_gpu.reports() == []
    wrong, code = planted.bug(case), case.hardware or LAUNCH_FAILURE
    assert launched(wrong, case, case.source) == code
    found = [report for report in virtual_gpu.reports() if report["code"] == case.code]
    assert found, virtual_gpu.reports()
    planted.check_place(case, wrong, found[0])
    assert [cuda.code("cudaGetLastError") for _ in range(2)] == [code, code], "the context is dead"
    assert cuda.code("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 4) == code
    with pytest.raises(
        virtual_gpu.VirtualGpuError, match=rf"(?s){case.code}: .*\[k \(PTX line {found[0]['ptx_line']} "
    ):
        virtual_gpu.assert_clean()
