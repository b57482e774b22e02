"""Ops on the GPU recorded once and repeated as one launch (a CUDA graph)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ._backend import cuda
from ._device import current_stream, use_stream

T = TypeVar("T")


class Recording(Generic[T]):
    """Calls of ``run``: the first one runs as it is, the second is recorded, and from then on the record is launched.

    run: ops on DeviceArrays whose memory stays; it makes none (every op has its ``out`` or works in place), so nothing is
    allocated or waited for. Its result is the same object each time.
    """

    def __init__(self, run: Callable[[], T], device: int = 0) -> None:
        self._run, self._device = run, device
        self._graph: Any = None
        self._result: list[T] = []

    def __call__(self) -> T:
        if not self._result:  # kernels are loaded, and errors name their op
            self._result.append(self._run())
            return self._result[0]
        if self._graph is None:
            self._graph = self._record()
        self._graph.launch(self._device, current_stream())
        return self._result[0]

    @property
    def launches(self) -> int:
        """Of a record; 0 before there is one."""
        return 0 if self._graph is None else int(self._graph.nodes)

    def _record(self) -> Any:
        graph, stream = cuda().Graph(), cuda().Stream(self._device)
        graph.begin(self._device, stream.handle)
        try:
            with use_stream(stream.handle):
                self._run()
            graph.end()
        except BaseException:
            graph.abandon()
            raise
        return graph


__all__ = ["Recording"]
