"""Results in the caller's kind: torch in, torch out; numpy (or any DLPack host array) in, numpy out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._lazy import torch
from ._backend import is_torch


def host(x: Any) -> Any:
    """``x`` as something the CPU kernels read: torch and numpy pass through, others come in by DLPack without a copy."""
    if x is None or is_torch(x) or isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return x
    return np.from_dlpack(x)


def empty(like: Any, shape: Sequence[int], dtype: str | None = None) -> Any:
    """Uninitialised contiguous memory of ``like``'s kind; ``dtype`` is a name such as "float32" (default: ``like``'s)."""
    if is_torch(like):
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype) if dtype else like.dtype, device=like.device)
    return np.empty(tuple(shape), dtype=dtype or like.dtype)


__all__ = ["empty", "host"]
