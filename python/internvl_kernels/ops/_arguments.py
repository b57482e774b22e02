"""The kinds of an op's arguments, checked by name before anything runs. The op's own annotations say what is allowed."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from .._lazy import torch
from ..errors import BackendError, UnsupportedError
from ._backend import UnfitTensorError, is_torch
from ._kinds import Kind, shown
from ._layout import Layouts
from ._packed import PackedWeight
from ._tensor import host

F = TypeVar("F", bound=Callable[..., Any])


def checked(op: F) -> F:
    """Decorator of a public op: an argument of the wrong kind raises UnsupportedError with its name, value and what is allowed.

    ``Any`` stands for a tensor, ``Any | Sequence[...]`` for a tensor or a list; a default of None makes either optional. A
    tensor that only fails inside (nested, sparse, quantised, foreign byte order ...) is named afterwards. Whatever else fails
    inside is refused with the whole problem printed (as a MemoryError where memory is lacking); BackendError stays.
    """
    return _guard(op, op.__name__, None)


def checked_reference(*layouts: str) -> Callable[[F], F]:
    """``checked`` for ``<op>_reference``, which has no kernel to refuse what torch would broadcast, promote or crash on.

    layouts: one of ``_layout.Layouts`` for each tensor, such as ``"weight x [cols]"``.
    """

    def decorate(op: F) -> F:
        return _guard(op, op.__name__.removesuffix("_reference"), Layouts(layouts))

    return decorate


def _guard(op: F, name: str, layouts: Layouts | None) -> F:
    kinds = {p.name: Kind(name, p) for p in inspect.signature(op).parameters.values()}
    in_order = tuple(kinds.values())

    @functools.wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        for kind, value in zip(in_order, args):
            if type(value) not in kind.fine:
                kind.check(value)
        for key, value in kwargs.items():
            known = kinds.get(key)
            if known is not None and type(value) not in known.fine:
                known.check(value)
        try:
            if layouts is not None:
                layouts.check(name, {**dict(zip(kinds, args)), **kwargs})
            return op(*args, **kwargs)
        except (BackendError, Warning):
            raise
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":
                raise  # torch's, of a GPU
            if isinstance(error, TypeError) and error.__traceback__ and error.__traceback__.tb_next is None:
                raise  # the call itself: an argument too few, or one of an unknown name
            raise _refusal(name, {**dict(zip(kinds, args)), **kwargs}, kinds, error) from error

    return call  # type: ignore[return-value]


def _refusal(op: str, given: Mapping[str, Any], kinds: Mapping[str, Kind], error: Exception) -> Exception:
    """What ``op`` raises for an error inside, which may be a kernel's, torch's, or a refusal that has all it needs."""
    text, known = str(error), isinstance(error, UnsupportedError)
    if isinstance(error, UnfitTensorError):
        name = next((name for name, value in given.items() if value is error.tensor), "a tensor")
        return UnsupportedError(text.replace("a tensor", name, 1))
    words = set(re.findall(r"\w+", text))
    if known and text.startswith(f"{op}: ") and words & set(kinds):
        return error
    if not known or re.split(r"\W", text, maxsplit=1)[0] not in kinds:
        for name, value in given.items():
            odd = _oddity(value) if name in kinds and kinds[name].tensor and value is not None else ""
            if odd:
                return UnsupportedError(f"{op}: {name} is {odd}; allowed: a dense tensor in memory")
    text = text.strip().partition("\n")[0].removeprefix(f"{op}: ")
    if known and words & set(kinds):  # of a kernel, which does not know what it is part of
        return UnsupportedError(f"{op}: {text}")
    problem = f"{op}: {', '.join(f'{name}={shown(value)}' for name, value in given.items())}"
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return MemoryError(f"{problem}: {text}")
    return UnsupportedError(f"{problem}: {text if known else f'{type(error).__name__}: {text}'}")


def _oddity(x: Any) -> str:
    """What is unusual about a tensor, in words; empty for a plain one."""
    if isinstance(x, PackedWeight):
        return ""
    if isinstance(x, (list, tuple)):
        return next(filter(None, map(_oddity, x)), "") if x and not isinstance(x[0], (int, float)) else ""
    if is_torch(x):
        if x.is_nested:
            return "a nested tensor"
        if x.layout is not torch.strided:
            return f"a {str(x.layout).removeprefix('torch.')} tensor"
        if x.is_quantized:
            return f"a quantised tensor, {x.dtype}"
        if x.is_conj() or x.is_neg():
            return f"a view with a pending {'conj' if x.is_conj() else 'neg'}, {x.dtype}"
        if x.dtype.is_complex or x.device.type == "meta":
            return f"{x.dtype} on {x.device}"
        if type(x).__name__ == "FakeTensor":
            return "a FakeTensor, which has no elements"
    elif isinstance(x, np.ndarray):
        if not x.dtype.isnative:
            return f"of foreign byte order, dtype {x.dtype.str}"
        if x.dtype.kind not in "fiubcV":
            return f"a numpy array of {x.dtype}"
        if any(step < 0 for step in x.strides):
            return f"a numpy view with negative strides {x.strides}"
    elif not hasattr(x, "__dlpack_device__"):
        return f"a list that holds {shown(x)}"
    elif x.__dlpack_device__() == (1, 0):
        try:
            host(x)
        except Exception as error:
            return f"a {type(x).__name__} that does not come by DLPack ({error})"
    return "a tensor without dimensions" if hasattr(x, "shape") and not x.shape else ""


__all__ = ["checked", "checked_reference"]
