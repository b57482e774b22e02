"""Checked arguments of the public calls."""

from __future__ import annotations

import contextlib
import numbers
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._lazy import torch
from .config import ModelConfig
from .errors import BackendError, UnsupportedError, shown
from .generate import GenerationOptions
from .ops._backend import BACKENDS, CUDA_OPS, unavailable
from .ops._product import packs
from .plan import parse_bytes

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float32", "bfloat16", "float16")
DEFAULT_WORKSPACE = "2GB"


class RuntimeOptions:
    """Checked arguments of ``load``."""

    given_dtype = True

    def __init__(
        self,
        backend: str,
        device: str,
        dtype: str,
        max_workspace: int,
        threads: int | None,
        weights: str | None = None,
        packed_cache: Path | None = None,
        kv_dtype: str | None = None,
    ) -> None:
        self.kv_dtype = kv_dtype or dtype
        self.backend, self.device, self.dtype, self.weights = backend, device, dtype, weights or dtype
        self.max_workspace, self.threads, self.packed_cache = max_workspace, threads, packed_cache

    @classmethod
    def check(
        cls,
        backend: str,
        device: str | None,
        dtype: str | None,
        weights: str | None,
        workspace: int | str | None,
        threads: int | None,
        cache: bool | str | os.PathLike[str] | None = None,
        kv_dtype: str | None = None,
        *,
        tower_only: bool = False,
    ) -> RuntimeOptions:
        device = _gpu(device) if backend == "cuda" else _device(device)
        if backend not in ("auto", *BACKENDS):
            raise UnsupportedError(f"backend: {shown(backend)}; allowed: auto, {', '.join(BACKENDS)}")
        if backend == "auto":
            backend = "cpu" if device == "cpu" and unavailable("cpu") is None else "reference"
        elif (reason := unavailable(backend)) is not None:
            raise BackendError(f"backend {shown(backend)}: {reason}")
        elif backend == "cuda" and not tower_only:
            raise BackendError(
                "backend 'cuda': a language model needs kernels that the CUDA part does not have yet (load_vision runs the tower "
                "on it); it has the ops " + ", ".join(sorted(CUDA_OPS))
            )
        if backend == "cpu" and device != "cpu":
            raise UnsupportedError(f"device: {shown(device)}; allowed with backend 'cpu': cpu")
        computes = DTYPES[1:] if backend == "cuda" else DTYPES
        given, dtype = dtype, computes[0] if dtype is None else str(dtype).removeprefix("torch.")
        if dtype not in computes:
            raise UnsupportedError(
                f"dtype: {shown(dtype)}; allowed with backend {shown(backend)}: {', '.join(computes)}"
            )
        stored = dtype if weights is None else str(weights).removeprefix("torch.")
        if stored not in DTYPES or (stored != dtype and not (backend == "cpu" and packs(dtype))):
            allowed = (
                ", ".join(DTYPES) if backend == "cpu" and packs(dtype) else f"the dtype here (backend {shown(backend)})"
            )
            raise UnsupportedError(f"weights: {shown(weights)} with dtype {shown(dtype)}; allowed: {allowed}")
        kept = dtype if kv_dtype is None else str(kv_dtype).removeprefix("torch.")
        if kept not in DTYPES:
            raise UnsupportedError(f"kv_dtype: {shown(kv_dtype)}; allowed: {', '.join(DTYPES)}, or None for the dtype")
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024
        ):
            raise UnsupportedError(f"threads: {shown(threads)}; allowed: 1 to 1024, or None")
        limit = parse_bytes(DEFAULT_WORKSPACE if workspace is None else workspace)
        assert limit is not None
        found = cls(backend, device, dtype, limit, threads, stored, packed_folder(cache, backend), kept)
        found.given_dtype = given is not None
        return found

    def for_checkpoint(self, dtype: str) -> RuntimeOptions:
        """On the cuda backend the checkpoint's own 16-bit dtype is the default."""
        if self.backend == "cuda" and not self.given_dtype and dtype in DTYPES[1:]:
            self.dtype = self.weights = self.kv_dtype = dtype
        return self

    @property
    def ordinal(self) -> int:
        """The GPU of the cuda backend."""
        return int(self.device.partition(":")[2] or 0)

    @property
    def packed(self) -> bool:
        """Whether the matrices of a model are kept packed, in ``weights``."""
        return self.backend == "cpu" and packs(self.dtype)

    @property
    def kv_type(self) -> torch.dtype:
        kept: torch.dtype = getattr(torch, self.kv_dtype)
        return kept

    def place(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """On the device of the reference; the cuda backend uploads what it needs itself."""
        return (
            tensors
            if self.device == "cpu" or self.backend == "cuda"
            else {name: t.to(self.device) for name, t in tensors.items()}
        )

    @property
    def op_threads(self) -> int:
        return self.threads or torch.get_num_threads()

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """The cap holds only while we run. torch's count belongs to the thread, but new threads take the one set last."""
        if self.threads is None or self.threads == torch.get_num_threads():
            yield
            return
        with _caps.lock:
            if _caps.running == 0:
                _caps.outside = torch.get_num_threads()
            _caps.running += 1
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            with _caps.lock:
                _caps.running -= 1
                torch.set_num_threads(_caps.outside)


class _Caps:
    """Calls with a cap that run now, over all threads, and torch's count before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running, self.outside = 0, 1


_caps = _Caps()


def packed_folder(value: bool | str | os.PathLike[str] | None, backend: str) -> Path | None:
    """The folder that packed_cache names, for a model on ``backend``."""
    if value is None or value is False:
        return None
    named = isinstance(value, (str, os.PathLike)) and str(value) != "" and "\0" not in str(value)
    if value is not True and not named:
        raise UnsupportedError(
            f"packed_cache: {shown(value)}; allowed: a folder, True for the user's cache folder, or None"
        )
    if backend != "cpu":
        raise UnsupportedError(
            f"packed_cache: {shown(value)} with backend {shown(backend)}; allowed: None, or backend 'cpu'"
        )
    if value is True:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "internvl-kernels"
    try:
        return Path(value).expanduser()
    except (RuntimeError, TypeError) as error:  # no such user; a path of bytes
        raise UnsupportedError(f"packed_cache: {shown(value)}: {error}; allowed: a folder") from None


class ChatArguments:
    """The arguments of one chat, checked."""

    _KEYS = ("question", "images", "history", "system", "max_tiles", "visual_stride", "check_finite")

    def __init__(
        self,
        question: str,
        images: list[Any],
        history: Any,
        system: str | None,
        max_tiles: int | None,
        visual_stride: Any,
        check_finite: bool,
        options: GenerationOptions,
    ) -> None:
        self.question, self.images, self.history, self.system = question, images, history, system
        self.max_tiles, self.visual_stride = max_tiles, visual_stride
        self.check_finite, self.options = check_finite, options

    @classmethod
    def check(cls, request: Mapping[str, Any], number: int) -> ChatArguments:
        if not isinstance(request, Mapping):
            raise UnsupportedError(
                f"requests: entry {number} is a {type(request).__name__}; allowed: a mapping of chat arguments"
            )
        known = {key: request.get(key) for key in cls._KEYS}
        if not isinstance(known["question"], str):
            raise UnsupportedError(f"question: {shown(known['question'])}; allowed: text")
        most = known["max_tiles"]
        if most is not None and (isinstance(most, bool) or not isinstance(most, numbers.Integral) or most < 1):
            raise UnsupportedError(f"max_tiles: {shown(most)}; allowed: an integer of at least 1, or None")
        most = None if most is None else int(most)
        finite = known["check_finite"]
        if not (finite is None or isinstance(finite, bool)):
            raise UnsupportedError(f"check_finite: {shown(finite)}; allowed: True or False")
        options = generation_options({k: v for k, v in request.items() if k not in cls._KEYS})
        given = (known["history"], known["system"], most, known["visual_stride"], bool(finite))
        return cls(known["question"], as_list(known["images"]), *given, options)


def token_ids(input_ids: Any, device: str) -> Tensor:
    ids = dense("input_ids", input_ids)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.ndim != 2 or ids.shape[1] == 0:
        raise UnsupportedError(f"input_ids: {ids.dtype} {list(ids.shape)}; allowed: integers [B, L] with L >= 1")
    return ids.to(device, torch.int64)


def kept_positions(attention_mask: Any, ids: Tensor) -> Tensor:
    """True where ``attention_mask`` is not 0, and everywhere without one."""
    if attention_mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    mask = dense("attention_mask", attention_mask).to(ids.device)
    if mask.shape != ids.shape:
        raise UnsupportedError(
            f"attention_mask: {list(mask.shape)}; allowed: the shape of input_ids, {list(ids.shape)}"
        )
    return mask != 0


def joined(pixels: list[np.ndarray]) -> np.ndarray:
    return pixels[0] if len(pixels) == 1 else np.concatenate(pixels)


def checked_stride(given: Any, config: ModelConfig) -> float:
    """Positions of a visual token; None: the checkpoint's."""
    if given is None:
        return config.language.visual_stride
    if not isinstance(given, numbers.Real) or isinstance(given, bool) or not 0 < float(given) <= 1:
        raise UnsupportedError(f"visual_stride: {shown(given)}; allowed: greater than 0, at most 1, or None")
    return float(given)


def generation_options(given: Mapping[str, Any]) -> GenerationOptions:
    allowed = [f.name for f in fields(GenerationOptions)]
    for name in given:
        if name not in allowed:
            raise UnsupportedError(f"{name}: is not an option; allowed: {', '.join(allowed)}")
    return replace(GenerationOptions(), **given)


def _gpu(device: Any) -> str:
    """ "cuda:N" of the cuda backend, which needs no torch that knows it."""
    name = "cuda:0" if device is None or str(device) == "cuda" else str(device)
    if re.fullmatch(r"cuda:\d{1,3}", name) is None:
        raise UnsupportedError(f"device: {shown(device)}; allowed with backend 'cuda': cuda, cuda:0, cuda:1, ...")
    return name


def _device(device: Any) -> str:
    """The torch device's name, "cpu" for None; it must exist and hold data."""
    if device is None:
        return "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UnsupportedError(
            f"device: {shown(device)}; allowed: a device that torch can use here ({reason})"
        ) from None
    if found.type == "meta":
        raise UnsupportedError(f"device: {shown(device)}; allowed: a device that holds data")
    return "cpu" if found.type == "cpu" else str(found)


def dense(name: str, value: Any, error: type[ValueError] = UnsupportedError) -> Tensor:
    """``value`` (tensor, array, nested lists of numbers) as a torch tensor with memory that the kernels read.

    numpy: copied where torch cannot share it. torch: rows of pixels or ids in another order are made contiguous; what has no
    dense memory of its own (meta, sparse) is refused here, views with a pending operation and expanded ones by the kernels.
    """
    if not isinstance(value, torch.Tensor):
        try:
            array = np.asarray(value)
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
            return torch.from_numpy(array if array.flags.writeable else array.copy())
        except (TypeError, ValueError, RuntimeError) as cause:
            found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise error(f"{name}: {found}; allowed: numbers, as a tensor, an array or rows of one length") from cause
    if value.layout != torch.strided or value.device.type == "meta" or value.is_nested:
        kind = "nested" if value.is_nested else f"{value.layout} on {value.device}"
        raise error(f"{name}: a tensor {kind}; allowed: a dense tensor with memory")
    pending = value.is_neg() or value.is_conj() or 0 in value.stride()
    return value if pending else value.contiguous()


def as_list(images: Any) -> list[Any]:
    if images is None:
        return []
    return list(images) if isinstance(images, (list, tuple)) else [images]


__all__ = [
    "ChatArguments",
    "RuntimeOptions",
    "as_list",
    "checked_stride",
    "dense",
    "generation_options",
    "packed_folder",
]
