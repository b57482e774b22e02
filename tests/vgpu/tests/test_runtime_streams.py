"""Streams, events and host functions: what waits for what, and what a program sees that forgot to wait."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from raw_cuda import D2H, H2D, Cuda

Kernel = Callable[[str], int]
Buffer = Callable[[np.ndarray], int]
NOT_READY, NOT_PERMITTED, NOT_SUPPORTED = 600, 800, 801
ORDERS = ("lazy", "eager", "random")


class Log:
    """Host functions that note their name, and pinned memory to see what arrived."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.names, self.kept = cuda, [], []

    def add(self, stream: int, name: str) -> None:
        self.kept.append(self.cuda.host_function(lambda: self.names.append(name)))
        self.cuda("cudaLaunchHostFunc", stream, self.kept[-1], 0)


@pytest.fixture
def log(cuda: Cuda) -> Log:
    return Log(cuda)


@pytest.fixture
def streams(cuda: Cuda) -> Iterator[Callable[[int], int]]:
    """streams(flags): a stream, destroyed after the test; flags 1 is non-blocking."""
    made: list[int] = []

    def make(flags: int = 0) -> int:
        made.append(cuda.new("cudaStreamCreateWithFlags", flags))
        return made[-1]

    yield make
    for stream in made:
        cuda("cudaStreamDestroy", stream)


def test_nothing_runs_before_it_is_waited_for(cuda: Cuda, streams: Callable[[int], int], log: Log) -> None:
    one, two = streams(1), streams(1)
    for name in "ab":
        log.add(one, name)
    log.add(two, "c")
    assert log.names == []
    cuda("cudaStreamSynchronize", one)
    assert log.names == ["a", "b"], "the other stream need not have moved"
    cuda("cudaDeviceSynchronize")
    assert log.names == ["a", "b", "c"]


def test_eager_order_runs_at_once(cuda: Cuda, streams: Callable[[int], int], log: Log, virtual_gpu: Any) -> None:
    with virtual_gpu.options(host="eager"):
        log.add(streams(1), "a")
        assert log.names == ["a"]


def test_random_orders_are_legal_and_differ(
    cuda: Cuda, streams: Callable[[int], int], log: Log, virtual_gpu: Any
) -> None:
    one, two = streams(1), streams(1)
    seen = set()
    for seed in range(8):
        log.names.clear()
        with virtual_gpu.options(host="random", seed=seed):
            for i in range(3):
                log.add(one, f"a{i}")
                log.add(two, f"b{i}")
            cuda("cudaDeviceSynchronize")
        for letter in "ab":
            assert [n for n in log.names if n[0] == letter] == [f"{letter}{i}" for i in range(3)]
        seen.add(tuple(log.names))
    assert len(seen) > 2


@pytest.mark.parametrize("order", ORDERS)
def test_events_order_streams(
    cuda: Cuda, kernel: Kernel, buffer: Buffer, streams: Callable[[int], int], virtual_gpu: Any, order: str
) -> None:
    one, two = streams(1), streams(1)
    values = np.array([3], np.uint32)
    data = buffer(values)
    event = cuda.new("cudaEventCreateWithFlags", 2)
    for seed in range(5):
        with virtual_gpu.options(host=order, seed=seed):
            cuda("cudaMemcpyAsync", data, values.ctypes.data, 4, H2D, one)
            cuda.launch(kernel("scale"), 1, 1, [data, np.uint32(10)], stream=one)
            cuda("cudaEventRecord", event, one)
            cuda("cudaStreamWaitEvent", two, event, 0)
            cuda.launch(kernel("add_one"), 1, 1, [data, np.uint32(1)], stream=two)
            out = np.zeros(1, np.uint32)
            cuda("cudaMemcpyAsync", out.ctypes.data, data, 4, D2H, two)
        assert out[0] == 31
    virtual_gpu.assert_clean()
    cuda("cudaEventDestroy", event)


def test_a_forgotten_event_shows(cuda: Cuda, kernel: Kernel, buffer: Buffer, streams: Callable[[int], int]) -> None:
    one, two = streams(1), streams(1)
    values = np.array([3], np.uint32)
    data = buffer(values)
    cuda.launch(kernel("scale"), 1, 1, [data, np.uint32(10)], stream=one)
    cuda.launch(kernel("add_one"), 1, 1, [data, np.uint32(1)], stream=two)
    cuda("cudaDeviceSynchronize")
    assert cuda.download(data, values)[0] == 40, "the later stream went first"


def test_an_event_stands_for_its_last_record(cuda: Cuda, streams: Callable[[int], int], log: Log) -> None:
    one, two = streams(1), streams(1)
    event = cuda.new("cudaEventCreateWithFlags", 2)
    log.add(one, "a")
    cuda("cudaEventRecord", event, one)
    cuda("cudaStreamWaitEvent", two, event, 0)
    log.add(one, "b")
    cuda("cudaEventRecord", event, one)
    log.add(two, "c")
    cuda("cudaStreamSynchronize", two)
    assert log.names == ["a", "c"], "the wait was for the record of its time"
    assert cuda.code("cudaEventQuery", event) == NOT_READY
    cuda("cudaEventSynchronize", event)
    assert log.names == ["a", "c", "b"]
    assert cuda.code("cudaEventQuery", event) == 0
    cuda("cudaEventDestroy", event)


def test_legacy_stream_and_blocking_streams_wait_for_one_another(
    cuda: Cuda, streams: Callable[[int], int], log: Log
) -> None:
    blocking, other = streams(0), streams(1)
    log.add(other, "other")
    log.add(blocking, "before")
    log.add(0, "legacy")
    log.add(blocking, "after")
    cuda("cudaStreamSynchronize", blocking)
    assert log.names == ["before", "legacy", "after"]
    cuda("cudaDeviceSynchronize")
    assert log.names[-1] == "other"


def test_per_thread_stream(cuda: Cuda, log: Log) -> None:
    log.add(2, "own")  # cudaStreamPerThread
    kept = cuda.host_function(lambda: log.names.append("ptsz"))
    cuda("cudaLaunchHostFunc_ptsz", 0, kept, 0)
    assert cuda.code("cudaStreamQuery", 2) == NOT_READY
    cuda("cudaStreamSynchronize_ptsz", 0)
    assert log.names == ["own", "ptsz"]


def test_polling_ends(cuda: Cuda, streams: Callable[[int], int], log: Log) -> None:
    stream = streams(1)
    for i in range(5):
        log.add(stream, str(i))
    polls = 0
    while cuda.code("cudaStreamQuery", stream) == NOT_READY:
        polls += 1
        assert cuda.code("cudaGetLastError") == NOT_READY
        assert polls < 20
    assert polls == 5
    assert len(log.names) == 5


def test_host_functions_may_not_call_the_runtime(cuda: Cuda) -> None:
    codes: list[int] = []
    kept = cuda.host_function(lambda: codes.append(cuda.code("cudaMalloc", ctypes.byref(ctypes.c_void_p()), 4)))
    cuda("cudaLaunchHostFunc", 0, kept, 0)
    cuda("cudaDeviceSynchronize")
    assert codes == [NOT_PERMITTED]


def test_a_destroyed_stream_finishes_its_work(cuda: Cuda, log: Log) -> None:
    stream = cuda.new("cudaStreamCreate")
    log.add(stream, "a")
    cuda("cudaStreamDestroy", stream)
    assert cuda.code("cudaStreamSynchronize", stream) == 400
    cuda("cudaDeviceSynchronize")
    assert log.names == ["a"]


def test_priorities_flags_and_identities(cuda: Cuda) -> None:
    least, greatest, priority, flags = (ctypes.c_int() for _ in range(4))
    cuda("cudaDeviceGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
    assert (least.value, greatest.value) == (0, -5)
    stream = cuda.new("cudaStreamCreateWithPriority", 1, -100)
    cuda("cudaStreamGetPriority", stream, ctypes.byref(priority))
    cuda("cudaStreamGetFlags", stream, ctypes.byref(flags))
    assert (priority.value, flags.value) == (-5, 1)
    ids = [ctypes.c_uint64(), ctypes.c_uint64()]
    for handle, out in zip((0, stream), ids):
        cuda("cudaStreamGetId", handle, ctypes.byref(out))
    assert ids[0].value != ids[1].value
    cuda("cudaStreamDestroy", stream)


def test_there_is_no_time(cuda: Cuda, virtual_gpu: Any) -> None:
    begin, end, ms = cuda.new("cudaEventCreate"), cuda.new("cudaEventCreate"), ctypes.c_float(-1)
    assert cuda.code("cudaEventElapsedTime", ctypes.byref(ms), begin, end) == 400, "not recorded"
    cuda("cudaEventRecord", begin, 0)
    cuda("cudaEventRecord", end, 0)
    assert cuda.code("cudaEventElapsedTime", ctypes.byref(ms), begin, end) == NOT_READY
    cuda("cudaEventSynchronize", end)
    assert cuda.code("cudaEventElapsedTime", ctypes.byref(ms), begin, end) == NOT_SUPPORTED
    assert "no time" in virtual_gpu.last_message()
    assert ms.value == -1
    for event in (begin, end):
        cuda("cudaEventDestroy", event)
