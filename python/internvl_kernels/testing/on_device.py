"""Tensors placed on the GPU with offsets and gaps, and brought back bit by bit."""

from __future__ import annotations

from typing import Any

from .._lazy import torch
from ..ops._backend import cuda
from ..ops._device import DeviceArray


def placed(t: Any, shift: int, gap: int) -> DeviceArray:
    """The same values on the device, ``shift`` elements into an allocation and with ``gap`` elements between rows."""
    rows = t.reshape(-1, t.shape[-1])
    wide = torch.zeros(rows.shape[0], rows.shape[1] + gap, dtype=t.dtype)
    wide[:, : rows.shape[1]] = rows
    flat = torch.cat([torch.zeros(shift, dtype=t.dtype), wide.flatten()])
    view = DeviceArray(flat)[shift:]._array
    strides = [1, wide.shape[1]][: t.ndim]
    for size in reversed(t.shape[1:-1]):
        strides.append(strides[-1] * size)
    return DeviceArray._of(view.view(0, list(t.shape), strides[::-1]))


def host(array: Any) -> Any:
    """A DeviceArray as a torch tensor in host memory; bits as they are."""
    out = torch.empty(array.shape, dtype=getattr(torch, array.dtype))
    cuda().copy(out, array._array, array.device, 0, True)
    return out


__all__ = ["host", "placed"]
