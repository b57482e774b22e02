"""The one place that decides which backend runs an op."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from .._lazy import torch
from ..errors import BackendError, UnsupportedError

BACKENDS = ("reference", "cpu", "cuda")


@functools.lru_cache(maxsize=1)
def _load_cpu() -> ModuleType | ImportError:
    try:
        return importlib.import_module("internvl_kernels._cpu")
    except ImportError as error:
        return error


def cpu() -> ModuleType:
    """The compiled CPU module. Raises BackendError with the loader's reason."""
    module = _load_cpu()
    if isinstance(module, ImportError):
        raise BackendError(f"backend 'cpu': the extension does not load: {module}")
    return module


def unavailable(backend: str) -> str | None:
    """Why ``backend`` cannot run here, or None."""
    if backend == "cpu":
        module = _load_cpu()
        return f"the extension does not load: {module}" if isinstance(module, ImportError) else None
    if backend == "cuda":
        return "this build has no CUDA part"
    return None


@functools.lru_cache(maxsize=64)
def _is_torch_type(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch" or hasattr(kind, "data_ptr")


def is_torch(x: Any) -> bool:
    kind: Any = type(x)
    return _is_torch_type(kind)


def needs_grad(*tensors: Any) -> bool:
    tracked = [t for t in tensors if t is not None and is_torch(t) and t.requires_grad]
    return bool(tracked) and torch.is_grad_enabled()


def choose(op: str, backend: str, *tensors: Any) -> str:
    """Resolve ``backend`` for the tensors of one call.

    ``"auto"`` is ``cpu`` for host memory without gradients when the extension loads, else ``reference``. A named backend is
    taken or refused, never replaced.
    """
    if backend == "auto":
        plain = all(t is None or not is_torch(t) or t.device.type == "cpu" for t in tensors)
        return "cpu" if plain and not needs_grad(*tensors) and unavailable("cpu") is None else "reference"
    if backend not in BACKENDS:
        raise UnsupportedError(f"{op}: backend={backend!r}; allowed: auto, {', '.join(BACKENDS)}")
    reason = unavailable(backend)
    if reason is not None:
        raise BackendError(f"{op}: backend {backend!r}: {reason}")
    if backend != "reference" and needs_grad(*tensors):
        raise UnsupportedError(
            f"{op}: backend {backend!r} has no gradient and a tensor requires one; use torch.no_grad() or backend='reference'"
        )
    return backend


__all__ = ["BACKENDS", "choose", "cpu", "is_torch", "needs_grad", "unavailable"]
