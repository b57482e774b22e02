"""The one place that decides which backend runs an op."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from .._lazy import torch
from ..errors import BackendError, UnsupportedError


class UnfitTensorError(UnsupportedError):
    """Of ``tensor``, called "a tensor" in the text: whoever knows its name puts that in."""

    def __init__(self, text: str, tensor: Any) -> None:
        super().__init__(text)
        self.tensor = tensor


BACKENDS = ("reference", "cpu", "cuda")
# With a kernel for CUDA, and the dtypes it computes in.
CUDA_OPS = {
    **dict.fromkeys(
        ("add_norm", "add_scaled", "embed_tokens", "layer_norm", "pixel_shuffle", "rms_norm", "vision_qk_norm"),
        ("float32", "bfloat16", "float16"),
    ),
    **dict.fromkeys(
        ("attention", "linear", "linear_gelu", "linear_residual", "linear_swiglu", "patch_embed"),
        ("bfloat16", "float16"),
    ),
    **dict.fromkeys(("cached_attention", "qkv_rope", "qkv_rope_append"), ("bfloat16", "float16")),
    **dict.fromkeys(("linear_folded", "normed_attention", "row_statistics"), ("bfloat16", "float16")),
    "row_factors": ("float32",),
    "tile_pixels": ("uint8",),
}
# Pieces of a fusion that only CUDA has: the cpu backend's norms stay beside its packing.
CUDA_ALONE = ("linear_folded", "normed_attention", "row_factors", "row_statistics")
NOT_BUILT = "this build has no CUDA part"


@functools.lru_cache(maxsize=1)
def _load_cpu() -> ModuleType | ImportError:
    try:
        return importlib.import_module("internvl_kernels._cpu")
    except ImportError as error:
        return error


_running: list[ModuleType] = []  # the CUDA module, once a GPU ran it; a failure is looked into again at the next call


def _load_cuda() -> ModuleType | str:
    """The extension when a GPU can run it, else why not. The driver is asked for its devices; no context is made."""
    if not _running:
        found = _find_cuda()
        if isinstance(found, str):
            return found
        _running.append(found)
    return _running[0]


def _find_cuda() -> ModuleType | str:
    if importlib.util.find_spec("internvl_kernels._cuda") is None:
        return NOT_BUILT
    try:
        module = importlib.import_module("internvl_kernels._cuda")
    except ImportError as error:
        return f"the extension does not load: {error}"
    try:
        count = module.device_count()
        found = [module.device(i) for i in range(count)]
    except BackendError as error:
        return str(error)
    if not found:
        return "no GPU was found"
    if all(device["capability"] < (8, 0) for device in found):
        device = found[0]
        return f"{device['name']} has compute capability {device['capability']}; needed: 8.0 (Ampere) or newer"
    return module


def cpu() -> ModuleType:
    """The compiled CPU module. Raises BackendError with the loader's reason."""
    module = _load_cpu()
    if isinstance(module, ImportError):
        raise BackendError(f"backend 'cpu': the extension does not load: {module}")
    return module


def cuda() -> ModuleType:
    """The compiled CUDA module, imported on first use. Raises BackendError with the reason why it cannot run."""
    module = _load_cuda()
    if isinstance(module, str):
        raise BackendError(f"backend 'cuda': {module}")
    return module


def unavailable(backend: str) -> str | None:
    """Why ``backend`` cannot run here, or None."""
    if backend == "cpu":
        module = _load_cpu()
        return f"the extension does not load: {module}" if isinstance(module, ImportError) else None
    if backend == "cuda":
        found = _load_cuda()
        return found if isinstance(found, str) else None
    return None


@functools.lru_cache(maxsize=64)
def _is_torch_type(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch" or hasattr(kind, "data_ptr")


def is_torch(x: Any) -> bool:
    kind: Any = type(x)
    return _is_torch_type(kind)


def needs_grad(*tensors: Any) -> bool:
    tracked = _tracked(tensors)
    return bool(tracked) and torch.is_grad_enabled()


def _tracked(tensors: Iterable[Any]) -> list[Any]:
    return [t for t in tensors if t is not None and is_torch(t) and t.requires_grad]


@functools.lru_cache(maxsize=64)
def _speaks_dlpack(kind: type) -> bool:
    return kind.__module__.partition(".")[0] != "numpy" and hasattr(kind, "__dlpack_device__")


def _place(x: Any) -> str:
    """host, cuda (GPU memory that only kernels read) or other (another device of torch), by the tensor's own words."""
    if x is None:
        return "host"
    kind: Any = type(x)
    if _is_torch_type(kind):
        place: str = x.device.type
        return {"cpu": "host", "cuda": "torch cuda"}.get(place, "other")
    return "cuda" if _speaks_dlpack(kind) and x.__dlpack_device__()[0] in (2, 13) else "host"


def choose(op: str, backend: str, *tensors: Any) -> str:
    """Resolve ``backend`` for the tensors of one call.

    ``"auto"`` without gradients is ``cpu`` for host memory when the extension loads, ``cuda`` for GPU memory when that runs and
    has the op in that dtype (the first tensor's), else ``reference``. A named backend is taken or refused, never replaced.
    """
    if backend == "auto":
        places = {_place(t) for t in tensors}
        if places == {"host"}:
            here = op not in CUDA_ALONE and not needs_grad(*tensors) and unavailable("cpu") is None
            return "cpu" if here else "reference"
        if "cuda" in places:
            backend = "cuda"  # only kernels read it: taken or refused
        else:
            here = "torch cuda" in places and not needs_grad(*tensors)
            has = str(tensors[0].dtype).rpartition(".")[2] in CUDA_OPS.get(op, ())
            return "cuda" if here and has and unavailable("cuda") is None else "reference"
    if backend not in BACKENDS:
        raise UnsupportedError(f"{op}: backend={backend!r}; allowed: auto, {', '.join(BACKENDS)}")
    reason = unavailable(backend)
    if reason is not None:
        raise BackendError(f"{op}: backend {backend!r}: {reason}")
    if backend == "cuda" and op not in CUDA_OPS:
        raise BackendError(f"{op}: backend 'cuda' has no kernel for it yet; it has {', '.join(sorted(CUDA_OPS))}")
    if backend == "cpu" and op in CUDA_ALONE:
        raise BackendError(f"{op}: backend 'cpu' has no kernel for it; allowed: 'cuda' or 'reference'")
    for t in tensors:
        if backend != "cuda" and _place(t) == "cuda":
            raise UnfitTensorError(
                f"{op}: a tensor is a DeviceArray or other GPU memory, backend is {backend!r}; allowed: 'cuda'", t
            )
    if backend != "reference" and needs_grad(*tensors):
        raise UnfitTensorError(
            f"{op}: backend {backend!r} has no gradient and a tensor requires one; use torch.no_grad() or backend='reference'",
            _tracked(tensors)[0],
        )
    return backend


__all__ = ["BACKENDS", "CUDA_OPS", "NOT_BUILT", "choose", "cpu", "cuda", "is_torch", "needs_grad", "unavailable"]
