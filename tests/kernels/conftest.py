from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

import vgpu
from internvl_kernels.about import loaded_runtime
from internvl_kernels.ops._backend import cpu, cuda
from internvl_kernels.testing.invariance import instruction_set


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=cpu().available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine in turn; the former one comes back afterwards."""
    with instruction_set(request.param):
        yield request.param


@pytest.fixture
def cuda_environment(cuda_backend: str) -> dict[str, str]:
    """What a child process needs so that its CUDA kernels run where this one's do."""
    cuda()
    runtime = loaded_runtime()
    assert runtime is not None
    if cuda_backend == "real":
        return {}
    return {"VGPU": "1", "LD_LIBRARY_PATH": os.path.dirname(runtime)}


@pytest.fixture(params=[0, 1], ids=["", "truncating"])
def sums(request: pytest.FixtureRequest, cuda_backend: str) -> Iterator[None]:
    """Both models of how tensor cores add, on the virtual GPU."""
    if cuda_backend == "real":
        if request.param:
            pytest.skip("a real GPU adds as it does")
        yield
        return
    with vgpu.options(truncating_mma=request.param):
        yield


@pytest.fixture
def counted(cuda_backend: str, request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], list[dict[str, Any]]]:
    """The launches of a call: their counters, registers and shared memory."""
    if cuda_backend == "real":
        pytest.skip("a real GPU does not count by itself")
    virtual_gpu: ModuleType = request.getfixturevalue("virtual_gpu")

    def run(call: Callable[[], Any]) -> list[dict[str, Any]]:
        virtual_gpu.reset()
        call()
        virtual_gpu.assert_clean()
        return virtual_gpu.counters()

    return run
