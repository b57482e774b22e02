"""Capture and graphs: calls become nodes, nodes run at each launch, and the rules of capture hold."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from raw_cuda import H2D, Cuda, HostFunction, HostNodeParams, KernelNodeParams, MemsetParams, arguments, dims

Kernel = Callable[[str], int]
Buffer = Callable[[np.ndarray], int]
VALUES = np.arange(8, dtype=np.uint32)
ILLEGAL_STATE, UNSUPPORTED, INVALIDATED, MERGE = 401, 900, 901, 902
UNMATCHED, UNJOINED, ISOLATION, IMPLICIT, CAPTURED_EVENT = 903, 904, 905, 906, 907
GLOBAL, THREAD_LOCAL, RELAXED = range(3)


class Capturing:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.made: list[tuple[str, int]] = []
        self.stream = self.another()

    def another(self, flags: int = 1) -> int:
        return self.keep("cudaStreamDestroy", self.cuda.new("cudaStreamCreateWithFlags", flags))

    def event(self) -> int:
        return self.keep("cudaEventDestroy", self.cuda.new("cudaEventCreateWithFlags", 2))

    def keep(self, release: str, handle: int) -> int:
        self.made.append((release, handle))
        return handle

    def begin(self, mode: int = THREAD_LOCAL, stream: int | None = None) -> None:
        self.cuda("cudaStreamBeginCapture", stream or self.stream, mode)

    def end_code(self, stream: int | None = None) -> int:
        return self.cuda.code("cudaStreamEndCapture", stream or self.stream, ctypes.byref(ctypes.c_void_p()))

    def end(self) -> int:
        graph = ctypes.c_void_p()
        self.cuda("cudaStreamEndCapture", self.stream, ctypes.byref(graph))
        return self.keep("cudaGraphDestroy", graph.value or 0)

    def instantiate(self, graph: int) -> int:
        return self.keep("cudaGraphExecDestroy", self.cuda.new("cudaGraphInstantiate", graph, 0))

    def status(self) -> int:
        out = ctypes.c_int()
        self.cuda("cudaStreamIsCapturing", self.stream, ctypes.byref(out))
        return out.value


@pytest.fixture
def capturing(cuda: Cuda, virtual_gpu: Any) -> Iterator[Capturing]:
    tool = Capturing(cuda)
    yield tool
    virtual_gpu.reset()
    for release, handle in reversed(tool.made):
        cuda(release, handle)


@pytest.mark.parametrize("order", ["lazy", "eager", "random"])
def test_a_captured_sequence_runs_at_each_launch(
    cuda: Cuda, kernel: Kernel, buffer: Buffer, capturing: Capturing, virtual_gpu: Any, order: str
) -> None:
    data, host = buffer(VALUES), np.full_like(VALUES, 100)
    calls: list[int] = []
    kept = cuda.host_function(lambda: calls.append(1))
    with virtual_gpu.options(host=order):
        capturing.begin()
        assert capturing.status() == 1
        cuda("cudaMemcpyAsync", data, host.ctypes.data, host.nbytes, H2D, capturing.stream)
        cuda.launch(kernel("add_one"), 1, 8, [data, np.uint32(8)], stream=capturing.stream)
        cuda("cudaMemsetAsync", data, 0, 4, capturing.stream)
        cuda("cudaLaunchHostFunc", capturing.stream, kept, 0)
        graph = capturing.end()
        assert capturing.status() == 0
        assert calls == []
        assert (cuda.download(data, VALUES) == VALUES).all(), "capturing runs nothing"
        count = ctypes.c_size_t()
        cuda("cudaGraphGetNodes", graph, 0, ctypes.byref(count))
        assert count.value == 4
        run = capturing.instantiate(graph)
        for launch in range(3):
            host[:] = 10 * launch  # a captured copy reads its source when it runs
            cuda("cudaGraphLaunch", run, capturing.stream)
            cuda("cudaStreamSynchronize", capturing.stream)
            assert cuda.download(data, VALUES).tolist() == [0] + [10 * launch + 1] * 7
    assert len(calls) == 3
    virtual_gpu.assert_clean()


def test_arguments_are_those_of_the_capture(cuda: Cuda, kernel: Kernel, buffer: Buffer, capturing: Capturing) -> None:
    data = buffer(VALUES)
    count = np.array(3, np.uint32)
    array, _kept = arguments([data])
    both = (ctypes.c_void_p * 2)(array[0], count.ctypes.data)
    capturing.begin()
    cuda("cudaLaunchKernel", kernel("add_one"), dims(1), dims(8), both, 0, capturing.stream)
    count[()] = 8
    run = capturing.instantiate(capturing.end())
    cuda("cudaGraphLaunch", run, capturing.stream)
    cuda("cudaStreamSynchronize", capturing.stream)
    assert (cuda.download(data, VALUES) == VALUES + (np.arange(8) < 3)).all()


def test_a_fork_and_its_join(
    cuda: Cuda, kernel: Kernel, buffer: Buffer, capturing: Capturing, virtual_gpu: Any
) -> None:
    left, right = buffer(np.array([3], np.uint32)), buffer(np.array([5], np.uint32))
    other, fork, join = capturing.another(), capturing.event(), capturing.event()
    capturing.begin()
    cuda.launch(kernel("add_one"), 1, 1, [left, np.uint32(1)], stream=capturing.stream)
    cuda("cudaEventRecord", fork, capturing.stream)
    cuda("cudaStreamWaitEvent", other, fork, 0)
    cuda.launch(kernel("scale"), 1, 1, [right, np.uint32(2)], stream=other)
    cuda.launch(kernel("scale"), 1, 1, [left, np.uint32(2)], stream=capturing.stream)
    cuda("cudaEventRecord", join, other)
    assert cuda.code("cudaEventQuery", join) == CAPTURED_EVENT
    virtual_gpu.reset()
    capturing.begin()
    cuda.launch(kernel("add_one"), 1, 1, [left, np.uint32(1)], stream=capturing.stream)
    cuda("cudaEventRecord", fork, capturing.stream)
    cuda("cudaStreamWaitEvent", other, fork, 0)
    cuda.launch(kernel("scale"), 1, 1, [right, np.uint32(2)], stream=other)
    cuda("cudaEventRecord", join, other)
    cuda("cudaStreamWaitEvent", capturing.stream, join, 0)
    cuda.launch(kernel("add_one"), 1, 1, [right, np.uint32(1)], stream=capturing.stream)
    run = capturing.instantiate(capturing.end())
    for seed in range(3):
        with virtual_gpu.options(host="random", seed=seed):
            cuda("cudaGraphLaunch", run, capturing.stream)
    out = np.zeros(1, np.uint32)
    cuda("cudaDeviceSynchronize")
    assert (cuda.download(left, out)[0], cuda.download(right, out)[0]) == (6, ((5 * 2 + 1) * 2 + 1) * 2 + 1)
    virtual_gpu.assert_clean()


def spoil_sync(cuda: Cuda, c: Capturing) -> int:
    return cuda.code("cudaStreamSynchronize", c.stream)


# what a program does while it captures -> code; all of these spoil the capture
SPOILERS: dict[str, tuple[Callable[[Cuda, Capturing], int], int]] = {
    "synchronize": (spoil_sync, UNSUPPORTED),
    "query": (lambda cuda, c: cuda.code("cudaStreamQuery", c.stream), UNSUPPORTED),
    "device": (lambda cuda, c: cuda.code("cudaDeviceSynchronize"), UNSUPPORTED),
    "malloc": (lambda cuda, c: cuda.code("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 4), UNSUPPORTED),
    "uncaptured event": (lambda cuda, c: uncaptured_event(cuda, c), ISOLATION),
    "another capture": (lambda cuda, c: another_capture(cuda, c), MERGE),
}


def uncaptured_event(cuda: Cuda, c: Capturing) -> int:
    event, other = c.event(), c.another()
    cuda("cudaEventRecord", event, other)
    return cuda.code("cudaStreamWaitEvent", c.stream, event, 0)


def another_capture(cuda: Cuda, c: Capturing) -> int:
    event, other = c.event(), c.another()
    c.begin(stream=other)
    cuda("cudaEventRecord", event, other)
    code = cuda.code("cudaStreamWaitEvent", c.stream, event, 0)
    assert c.end_code(other) == INVALIDATED, "both are spoiled"
    return code


@pytest.mark.parametrize(("spoil", "code"), SPOILERS.values(), ids=SPOILERS.keys())
def test_what_spoils_a_capture(cuda: Cuda, kernel: Kernel, capturing: Capturing, spoil: Any, code: int) -> None:
    run = kernel("nothing")
    capturing.begin()
    assert spoil(cuda, capturing) == code
    assert capturing.status() == 2
    assert cuda.launch_code(run, 1, 1, stream=capturing.stream) == INVALIDATED
    assert capturing.end_code() == INVALIDATED
    assert capturing.status() == 0
    cuda.launch(run, 1, 1, stream=capturing.stream)
    cuda("cudaStreamSynchronize", capturing.stream)


def test_rules_of_beginning_and_ending(cuda: Cuda, kernel: Kernel, capturing: Capturing) -> None:
    run = kernel("nothing")
    assert capturing.end_code() == ILLEGAL_STATE
    assert cuda.code("cudaStreamBeginCapture", 0, GLOBAL) == UNSUPPORTED
    assert cuda.code("cudaStreamBeginCapture", capturing.stream, 9) == 1
    capturing.begin()
    assert cuda.code("cudaStreamBeginCapture", capturing.stream, GLOBAL) == ILLEGAL_STATE
    other, event = capturing.another(), capturing.event()
    cuda("cudaEventRecord", event, capturing.stream)
    cuda("cudaStreamWaitEvent", other, event, 0)
    cuda.launch(run, 1, 1, stream=other)
    assert capturing.end_code() == UNJOINED
    capturing.begin()
    cuda("cudaEventRecord", event, capturing.stream)
    cuda("cudaStreamWaitEvent", other, event, 0)
    assert capturing.end_code(other) == UNMATCHED


def test_the_legacy_stream_cannot_wait_for_a_capture(cuda: Cuda, kernel: Kernel, capturing: Capturing) -> None:
    run, blocking = kernel("nothing"), capturing.another(0)
    capturing.begin(RELAXED, blocking)
    assert cuda.launch_code(run, 1, 1) == IMPLICIT
    assert capturing.end_code(blocking) == INVALIDATED


def test_relaxed_capture_permits_allocation(cuda: Cuda, capturing: Capturing) -> None:
    capturing.begin(RELAXED)
    cuda("cudaFree", cuda.malloc(4))
    capturing.end()


def test_graphs_by_hand(cuda: Cuda, kernel: Kernel, buffer: Buffer, capturing: Capturing, virtual_gpu: Any) -> None:
    data = buffer(VALUES)
    graph = capturing.keep("cudaGraphDestroy", cuda.new("cudaGraphCreate", 0))
    calls: list[int] = []
    function = HostFunction(lambda _: calls.append(1))
    fill = MemsetParams(data, 0, 7, 4, 8, 1)
    first = cuda.new("cudaGraphAddMemsetNode", graph, 0, 0, ctypes.byref(fill))
    array, _kept = arguments([data, np.uint32(4)])
    params = KernelNodeParams(kernel("add_one"), dims(1), dims(8), 0, ctypes.addressof(array), None)
    second = cuda.new("cudaGraphAddKernelNode", graph, (ctypes.c_void_p * 1)(first), 1, ctypes.byref(params))
    third = cuda.new(
        "cudaGraphAddHostNode", graph, (ctypes.c_void_p * 1)(second), 1, ctypes.byref(HostNodeParams(function, None))
    )
    kinds = []
    for node in (first, second, third):
        kind = ctypes.c_int()
        cuda("cudaGraphNodeGetType", node, ctypes.byref(kind))
        kinds.append(kind.value)
    assert kinds == [2, 0, 3]
    run = capturing.instantiate(graph)
    cuda("cudaGraphLaunch", run, capturing.stream)
    cuda("cudaStreamSynchronize", capturing.stream)
    assert cuda.download(data, VALUES).tolist() == [8] * 4 + [7] * 4
    assert calls == [1]
    back = (ctypes.c_void_p * 1)(third)
    cuda("cudaGraphAddDependencies", graph, back, (ctypes.c_void_p * 1)(first), 0, 1)
    assert cuda.code("cudaGraphInstantiate", ctypes.byref(ctypes.c_void_p()), graph, 0) == 1, "a cycle"
    virtual_gpu.assert_clean()
