"""Results in the caller's kind: torch in, torch out; numpy (or any DLPack host array) in, numpy out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._lazy import torch
from ..errors import UnsupportedError
from ._backend import cpu, is_torch
from ._layout import memory_gone


def host(x: Any) -> Any:
    """``x`` as something the CPU kernels read: torch and numpy pass through, others come in by DLPack without a copy."""
    if x is None or is_torch(x) or isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return x
    return np.from_dlpack(x)


def empty(like: Any, shape: Sequence[int], dtype: str | None = None) -> Any:
    """Uninitialised contiguous memory of ``like``'s kind; ``dtype`` is a name such as "float32" (default: ``like``'s)."""
    if is_torch(like):
        return like.new_empty(tuple(shape), dtype=getattr(torch, dtype)) if dtype else like.new_empty(tuple(shape))
    own = like.dtype if dtype is None or dtype == like.dtype.name else numpy_dtype(dtype)
    return np.empty(tuple(shape), dtype=own)


def numpy_dtype(name: str) -> Any:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError("numpy(): bfloat16 needs the package ml_dtypes; or take the memory by DLPack") from None
    return np.dtype(ml_dtypes.bfloat16)


def dtype_name(x: Any) -> str:
    """ "float32" and the like, of any kind of tensor."""
    return str(x.dtype).rpartition(".")[2]


def normed(x: Any, weight: Any) -> str:
    """Name of the dtype of a norm's result: the weight's where x is a stream of float32 beside 16-bit weights, else x's."""
    wide = weight is not None and dtype_name(x) == "float32" and dtype_name(weight) in ("bfloat16", "float16")
    return dtype_name(weight if wide else x)


def result(like: Any, shape: Sequence[int], out: Any, dtype: str | None = None) -> Any:
    """Where a result of ``dtype`` (default: ``like``'s) goes: ``out``, the caller's, of exactly that shape, or new memory."""
    if out is None:
        return empty(like, shape, dtype)
    out, wanted = host(out), dtype or dtype_name(like)
    if tuple(out.shape) != tuple(shape) or dtype_name(out) != wanted:
        raise UnsupportedError(f"out is {dtype_name(out)} {list(out.shape)}; allowed: {wanted} {list(shape)}")
    return out


def put(value: Any, out: Any) -> Any:
    """``value``, in ``out`` if there is one."""
    if out is None:
        return value
    return fill(result(value, value.shape, out), value)


def fill(out: Any, value: Any) -> Any:
    """``out``, the caller's memory, with ``value`` in it."""
    if is_torch(out) and memory_gone(out):  # torch would write through a null pointer
        raise UnsupportedError("out is a tensor whose memory was given back; allowed: one in memory")
    out[...] = value
    return out


def to_torch(x: Any, name: str | None = None) -> Any:
    """``x`` as a torch tensor on the same memory, for the steps that torch computes.

    With ``name`` the tensor is held to the rules of the kernels: dense host memory, no pending negation or conjugation.
    """
    if name is not None and x is not None:
        cpu().check_tensor(host(x), name)
    if x is None or is_torch(x):
        return x
    array = host(x)
    if isinstance(array, np.ndarray) and array.dtype.name == "bfloat16":  # of ml_dtypes; torch does not know it
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_kind(result: Any, like: Any) -> Any:
    """``result``, a torch tensor, in the kind of the caller's tensor ``like``."""
    if is_torch(like):
        return result
    if result.dtype == torch.bfloat16:
        return result.contiguous().view(torch.int16).numpy().view(host(like).dtype)
    return result.numpy()


__all__ = ["as_kind", "dtype_name", "empty", "fill", "host", "normed", "numpy_dtype", "put", "result", "to_torch"]
