"""Memory of the CUDA backend, without torch: a strided array on one GPU, DLPack in and out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from .._lazy import torch
from ..errors import UnsupportedError
from ._backend import cuda, is_torch
from ._tensor import numpy_dtype

_STREAM: ContextVar[int] = ContextVar("internvl_kernels_stream", default=0)
_KINDS = {2: "CUDA", 13: "CUDA managed"}  # DLPack's numbers for memory that kernels read in place


@contextlib.contextmanager
def use_stream(handle: int) -> Iterator[None]:
    """Runs the body's ops on this CUDA stream (its handle as an integer; 0 is the default stream).

    Ops on CUDA tensors of torch do not need it: they follow torch's current stream.
    """
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise UnsupportedError(f"use_stream: {handle!r}; allowed: a stream's handle as an integer, 0 for the default")
    token = _STREAM.set(handle)
    try:
        yield
    finally:
        _STREAM.reset(token)


def current_stream() -> int:
    return _STREAM.get()


class DeviceArray:
    """Elements on a GPU with a shape and strides, the kind that every op with a CUDA kernel takes and returns.

    Made from host memory (``DeviceArray(array)``: numpy, CPU torch, host DLPack; copied) or from another library's GPU memory
    (``DeviceArray(x)`` with x's ``__dlpack__``, or a CUDA tensor of torch; shared, not copied). ``numpy()`` copies back.
    Slices share memory. Without a CUDA part or a GPU the constructor raises BackendError.
    """

    __slots__ = ("_array",)

    def __init__(self, source: Any, *, device: int = 0) -> None:
        self._array = take(source, "source", device, current_stream())

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: str = "float32", *, device: int = 0) -> DeviceArray:
        """Uninitialised memory. dtype: float32, bfloat16, float16, float64, uint8, int32, int64 or bool."""
        return cls._of(cuda().empty(list(shape), dtype, device, current_stream()))

    @classmethod
    def _of(cls, array: Any) -> DeviceArray:
        made = cls.__new__(cls)
        made._array = array
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        return self._array.strides

    @property
    def dtype(self) -> str:
        return self._array.dtype

    @property
    def device(self) -> int:
        return self._array.device

    @property
    def pointer(self) -> int:
        """Address of the first element."""
        return self._array.pointer

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("DeviceArray: no length without dimensions")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)}, device {self.device})"

    def numpy(self) -> np.ndarray:
        """A copy in host memory, once the work before it is done. bfloat16 needs the package ml_dtypes."""
        out = np.empty(self.shape, numpy_dtype(self.dtype))
        cuda().copy(out, self._array, self.device, self._array.stream, True)
        return out

    def copy_from(self, source: Any) -> DeviceArray:
        """Overwrites the elements with those of an array of the same shape and dtype, on the host or on this device."""
        stream = current_stream()
        cuda().copy(self._array, take(source, "source", self.device, stream), self.device, stream, True)
        return self

    def copy_to(self, target: Any) -> None:
        """Overwrites a writable array or tensor of the same shape and dtype, on the host or on this device."""
        stream = current_stream()
        place = take(target, "target", self.device, stream) if _on_gpu(target) else target
        cuda().copy(place, self._array, self.device, stream, True)

    def __getitem__(self, key: Any) -> DeviceArray:
        """Integers, slices and one Ellipsis, as in numpy; shares memory."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis not in [k for k in keys if k is Ellipsis]:
            keys.append(Ellipsis)
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        if len(keys) != self.ndim:
            raise IndexError(f"DeviceArray: {len(keys)} indices for {self.ndim} dimensions")
        offset, shape, strides = 0, [], []
        for k, size, stride in zip(keys, self.shape, self.strides):
            if isinstance(k, slice):
                begin, end, step = k.indices(size)
                if step < 1:
                    raise IndexError(f"DeviceArray: a step of {step}; allowed: 1 and more")
                count = len(range(begin, end, step))
                offset += begin * stride if count else 0
                shape.append(count)
                strides.append(stride * step)
            elif isinstance(k, int) and -size <= k < size:
                offset += (k % size) * stride
            else:
                raise IndexError(
                    f"DeviceArray: index {k!r} into {size} elements; allowed: integers inside, slices, ..."
                )
        return self._of(self._array.view(offset, shape, strides))

    def reshape(self, *shape: int) -> DeviceArray:
        """The same elements in another shape; the array must be contiguous."""
        if not self._array.contiguous or np.prod(shape, dtype=np.int64) != np.prod(self.shape, dtype=np.int64):
            raise UnsupportedError(f"reshape: {self!r} to {list(shape)}; allowed: contiguous, as many elements")
        strides = [int(np.prod(shape[d + 1 :], dtype=np.int64)) for d in range(len(shape))]
        return self._of(self._array.view(0, list(shape), strides))

    def __dlpack__(
        self, *, stream: int | None = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """The standard's export: on the GPU without a copy, or with ``dl_device=(1, 0)`` as a copy on the host."""
        if dl_device is not None and tuple(dl_device) == (1, 0):
            if self.dtype != "bfloat16":
                return self.numpy().__dlpack__()
            out = torch.empty(self.shape, dtype=torch.bfloat16)  # which numpy does not export
            cuda().copy(out, self._array, self.device, self._array.stream, True)
            return out.__dlpack__()
        if (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()) or copy:
            raise BufferError(f"DeviceArray: dl_device={dl_device}, copy={copy}; allowed: its own device, or (1, 0)")
        return self._array.dlpack(stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device


def _on_gpu(x: Any) -> bool:
    return isinstance(x, DeviceArray) or (is_torch(x) and bool(x.is_cuda))


def take(x: Any, name: str, device: int, stream: int) -> Any:
    """``x`` as the extension's Array: device memory in place, host memory as a copy on ``device``."""
    if isinstance(x, DeviceArray):
        return x._array
    if not is_torch(x) and not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__"):
        if x.__dlpack_device__()[0] in _KINDS:
            return cuda().from_dlpack(x.__dlpack__(stream=stream or 1), name)
        x = np.from_dlpack(x)
    return cuda().take(x, name, device, stream)


__all__ = ["DeviceArray", "current_stream", "take", "use_stream"]
