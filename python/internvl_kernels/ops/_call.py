"""One call of a compiled op: tensors as its backend reads them, results in the caller's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._lazy import torch
from ..errors import UnsupportedError
from ._backend import cpu, cuda, is_torch
from ._device import DeviceArray, current_stream, take
from ._tensor import dtype_name, empty, host, result


class HostCall:
    """On the ``cpu`` backend: host memory is read and written where it is."""

    def __init__(self, like: Any, threads: int) -> None:
        self._like, self._threads = host(like), threads

    def take(self, x: Any, name: str) -> Any:
        return host(x)

    def empty(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        return empty(self._like, shape, dtype)

    def result(self, shape: Sequence[int], out: Any, dtype: str | None = None) -> Any:
        return result(self._like, shape, out, dtype)

    def run(self, kernel: str, *arguments: Any, **named: Any) -> None:
        getattr(cpu(), kernel)(*arguments, self._threads, **named)

    def part(self, x: Any, columns: slice) -> Any:
        """Some columns of the last dimension, sharing memory."""
        return x[..., columns]

    def copy(self, to: Any, source: Any) -> None:
        to[...] = source

    def give(self, result: Any, into: Any = None) -> Any:
        return result


class DeviceCall:
    """On the ``cuda`` backend: device memory is used in place, host memory is copied in and the results copied back.

    CUDA tensors of torch run on its current stream and give CUDA tensors; DeviceArrays, and what other libraries hand over
    by DLPack, run on ``use_stream``'s and give DeviceArrays.
    """

    def __init__(self, like: Any, *others: Any) -> None:
        self._like, self._dtype = like, ""
        resident = [t for t in (like, *others) if on_device(t)]
        self._ordinal = _ordinal(resident[0]) if resident else 0
        on_torch = [t for t in resident if is_torch(t)]
        self._stream = torch.cuda.current_stream(on_torch[0].device).cuda_stream if on_torch else current_stream()

    def take(self, x: Any, name: str) -> Any:
        if x is None:
            return None
        array = take(x, name, self._ordinal, self._stream)
        self._dtype = self._dtype or array.dtype  # of the first, ``like``
        return array

    def empty(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        like = self._like
        if is_torch(like) and on_device(like):
            return take(empty(like, shape, dtype), "result", self._ordinal, self._stream)
        return cuda().empty(list(shape), dtype or self._dtype, self._ordinal, self._stream)

    def result(self, shape: Sequence[int], out: Any, dtype: str | None = None) -> Any:
        """``out`` itself where it lies on the device; else memory there, which ``give`` copies into it."""
        if out is None:
            return self.empty(shape, dtype)
        wanted = dtype or self._dtype
        if tuple(out.shape) != tuple(shape) or dtype_name(out) != wanted:
            raise UnsupportedError(f"out is {dtype_name(out)} {list(out.shape)}; allowed: {wanted} {list(shape)}")
        return self.take(out, "out") if on_device(out) else self.empty(shape, dtype)

    def run(self, kernel: str, *arguments: Any, **named: Any) -> None:
        getattr(cuda(), kernel)(*arguments, self._stream, **named)

    def part(self, x: Any, columns: slice) -> Any:
        return DeviceArray._of(x)[..., columns]._array

    def copy(self, to: Any, source: Any) -> None:
        cuda().copy(to, source, self._ordinal, self._stream, False)

    def give(self, result: Any, into: Any = None) -> Any:
        """``into``: the caller's own tensor that the result is to stand in."""
        if result.origin is not None:  # the caller's memory, or torch's for it
            return result.origin
        if into is not None and on_device(into):  # the kernel wrote there
            return into
        if into is not None or is_torch(self._like) or not on_device(self._like):
            out = into if into is not None else empty(host(self._like), result.shape, result.dtype)
            cuda().copy(host(out), result, self._ordinal, self._stream, True)
            return out
        return DeviceArray._of(result)


def start(backend: str, threads: int, like: Any, *others: Any) -> HostCall | DeviceCall:
    """``like``: the tensor whose kind and dtype results have; ``others``: the rest, any of them None."""
    return DeviceCall(like, *others) if backend == "cuda" else HostCall(like, threads)


def on_device(x: Any) -> bool:
    """Whether x says that it lies on a GPU. What its address says is asked later, by the extension."""
    if x is None or isinstance(x, np.ndarray):
        return False
    if is_torch(x):
        return bool(x.is_cuda)
    return isinstance(x, DeviceArray) or (hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] in (2, 13))


def _ordinal(x: Any) -> int:
    return x.device.index if is_torch(x) else x.__dlpack_device__()[1]


__all__ = ["DeviceCall", "HostCall", "on_device", "start"]
