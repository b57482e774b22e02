"""The kinds of an op's arguments, checked by name before anything runs. The op's own annotations say what is allowed."""

from __future__ import annotations

import functools
import inspect
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .._lazy import torch
from ..errors import BackendError, UnsupportedError
from ._backend import is_torch

F = TypeVar("F", bound=Callable[..., Any])
_NONE = type(None)


def checked(op: F) -> F:
    """Decorator of a public op: an argument of the wrong kind raises UnsupportedError with its name, value and what is allowed.

    ``Any`` stands for a tensor, ``Any | Sequence[...]`` for a tensor or a list; a default of None makes either optional. A
    tensor that only fails inside (nested, sparse, quantised, foreign byte order ...) is named afterwards.
    """
    kinds = {name: _Kind(op.__name__, p) for name, p in inspect.signature(op).parameters.items()}
    in_order = tuple(kinds.values())

    @functools.wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        for kind, value in zip(in_order, args):
            if type(value) not in kind.fine:
                kind.check(value)
        for name, value in kwargs.items():
            known = kinds.get(name)
            if known is not None and type(value) not in known.fine:
                known.check(value)
        try:
            return op(*args, **kwargs)
        except BackendError:
            raise
        except Exception as error:
            refusal = isinstance(error, UnsupportedError)
            if refusal and op.__name__ in str(error):
                raise
            if not refusal or re.split(r"\W", str(error), maxsplit=1)[0] not in kinds:
                _name_the_odd_one(op.__name__, {**dict(zip(kinds, args)), **kwargs}, kinds, error)
            if refusal:  # of a kernel, which does not know what it is part of
                raise UnsupportedError(f"{op.__name__}: {error}") from error
            raise

    return call  # type: ignore[return-value]


class _Kind:
    """What one parameter takes. ``fine`` holds the types that need no second look."""

    def __init__(self, op: str, parameter: inspect.Parameter) -> None:
        text = str(parameter.annotation)
        self.what = f"{op}: {parameter.name}"
        self.rule, self.allowed = _RULES.get(text.removesuffix(" | None"), (_anything, ""))
        self.tensor = text.startswith("Any")
        optional = text.endswith("| None") or parameter.default is None
        self.fine: set[type] = {_NONE} if optional else set()
        self.allowed += " or None" if optional else ""

    def check(self, value: Any) -> None:
        verdict = self.rule(value)
        if not verdict:
            raise UnsupportedError(f"{self.what} is {_shown(value)}; allowed: {self.allowed}")
        if verdict is ALWAYS:
            self.fine.add(type(value))


ALWAYS = object()  # every value of this type is fine


def _anything(value: Any) -> object:
    return True


def _tensor(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return ALWAYS
    return ALWAYS if not isinstance(value, type) and (is_torch(value) or hasattr(value, "__dlpack__")) else False


def _tensor_or_list(value: Any) -> object:
    return _tensor(value) or isinstance(value, (list, tuple))


def _integer(value: Any) -> object:
    return ALWAYS if isinstance(value, numbers.Integral) and not isinstance(value, bool) else False


def _real(value: Any) -> object:
    return ALWAYS if isinstance(value, numbers.Real) and not isinstance(value, bool) else False


def _integers(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iu"
    return _integer(value) or (isinstance(value, (list, tuple, range)) and all(_integer(v) for v in value))


def _boolean(value: Any) -> object:
    return ALWAYS if isinstance(value, (bool, np.bool_)) else False


def _text(value: Any) -> object:
    return ALWAYS if isinstance(value, str) else False


def _two_integers(value: Any) -> object:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(_integer(v) for v in value)


def _reals(value: Any) -> object:
    if isinstance(value, np.ndarray) or is_torch(value):
        return value.ndim == 1
    return isinstance(value, (tuple, list)) and all(_real(v) for v in value)


def _spans(value: Any) -> object:
    rows = isinstance(value, Sequence) and not isinstance(value, str)
    return rows and all(isinstance(s, (tuple, list)) and len(s) == 4 and all(_integer(v) for v in s) for s in value)


_TENSOR = "a tensor (torch, numpy, DeviceArray or anything with __dlpack__)"
_RULES: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "Any": (_tensor, _TENSOR),
    "Any | Sequence[Any]": (_tensor_or_list, f"{_TENSOR}, or a list of them"),
    "Any | Sequence[float]": (_tensor_or_list, f"{_TENSOR}, or a list of numbers"),
    "Any | Sequence[Sequence[int]]": (_tensor_or_list, f"{_TENSOR}, or a list of rows"),
    "int | Sequence[int]": (_integers, "an integer or a list of them"),
    "int": (_integer, "an integer"),
    "float": (_real, "a number"),
    "bool": (_boolean, "True or False"),
    "str": (_text, "a string"),
    "tuple[int, int]": (_two_integers, "two integers"),
    "Sequence[float]": (_reals, "a list of numbers"),
    "Spans": (_spans, "a list of four integers each: row_begin, row_end, slot_begin, length"),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:57]}..." if len(text) > 60 else text


def _name_the_odd_one(op: str, given: Mapping[str, Any], kinds: Mapping[str, _Kind], error: Exception) -> None:
    for name, value in given.items():
        if name in kinds and kinds[name].tensor and value is not None:
            odd = _oddity(value)
            if odd:
                raise UnsupportedError(f"{op}: {name} is {odd}; allowed: a dense tensor in memory") from error


def _oddity(x: Any) -> str:
    """What is unusual about a tensor, in words; empty for a plain one."""
    if isinstance(x, (list, tuple)):
        return next(filter(None, map(_oddity, x)), "") if x and not isinstance(x[0], numbers.Number) else ""
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
    elif isinstance(x, np.ndarray):
        if not x.dtype.isnative:
            return f"of foreign byte order, dtype {x.dtype.str}"
        if x.dtype.kind not in "fiubcV":
            return f"a numpy array of {x.dtype}"
        if any(step < 0 for step in x.strides):
            return f"a numpy view with negative strides {x.strides}"
    return "a tensor without dimensions" if hasattr(x, "shape") and not x.shape else ""


__all__ = ["checked"]
