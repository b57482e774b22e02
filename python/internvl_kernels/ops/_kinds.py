"""What a parameter of an op takes, by its annotation: the rules, and how a value is shown in an error."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._lazy import torch
from ..errors import UnsupportedError
from ..errors import shown as shown
from ._backend import is_torch
from ._packed import PackedWeight

_NONE = type(None)
LEAST, MOST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32, in which kernels compute


class Kind:
    """What one parameter takes. ``fine`` holds the types that need no second look."""

    def __init__(self, op: str, parameter: inspect.Parameter) -> None:
        text = str(parameter.annotation)
        self.what = f"{op}: {parameter.name}"
        self.rule, self.allowed = _RULES.get(text.removesuffix(" | None"), (_anything, ""))
        self.rule, self.allowed = _BY_NAME.get(parameter.name, (self.rule, self.allowed))
        self.tensor = text.startswith(("Any", "Tensor"))
        optional = text.endswith("| None") or parameter.default is None
        self.fine: set[type] = {_NONE} if optional else set()
        self.allowed += " or None" if optional else ""

    def check(self, value: Any) -> None:
        verdict = self.rule(value)
        if not verdict:
            raise UnsupportedError(f"{self.what} is {shown(value)}; allowed: {self.allowed}")
        if verdict is ALWAYS:
            self.fine.add(type(value))


ALWAYS = object()  # every value of this type is fine


def _anything(value: Any) -> object:
    return True


def _tensor(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return False if isinstance(value, np.ma.MaskedArray) else ALWAYS  # kernels do not see the mask
    if isinstance(value, type):
        return False
    if is_torch(value):  # of the package; its modules, dtypes and storages are no tensors
        return _torch_tensor(value)
    return (
        ALWAYS if all(callable(getattr(value, name, None)) for name in ("__dlpack__", "__dlpack_device__")) else False
    )


def _torch_tensor(value: Any) -> object:
    return ALWAYS if isinstance(value, torch.Tensor) else False


def _tensor_or_packed(value: Any) -> object:
    return ALWAYS if isinstance(value, PackedWeight) else _tensor(value)


def _tensor_or_list(value: Any) -> object:
    return _tensor(value) or isinstance(value, (list, tuple))


def _numbers(value: Any) -> object:
    dtype = getattr(value, "dtype", None)
    if isinstance(dtype, np.dtype) and (dtype.kind not in "iuf" or dtype.itemsize > 8):
        return False
    return not getattr(dtype, "is_complex", False) and bool(_tensor_or_list(value))


def _torch_tensor_or_list(value: Any) -> object:
    return _torch_tensor(value) or isinstance(value, (list, tuple))


def _integer(value: Any) -> object:
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _word(value: Any) -> object:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _threads(value: Any) -> object:
    if type(value) is int:  # the usual ones first, here and below: every call of an op comes by
        return 0 <= value <= 1024
    return _integer(value) and 0 <= value <= 1024


def _real(value: Any) -> object:
    if type(value) is float:
        return math.isfinite(value)
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, (float, np.floating)) else _integer(value)


def _epsilon(value: Any) -> object:
    return (type(value) is float or bool(_real(value))) and LEAST <= value <= MOST


def _integers(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iu"
    return _word(value) or (isinstance(value, (list, tuple, range)) and all(_word(v) for v in value))


def _boolean(value: Any) -> object:
    return ALWAYS if isinstance(value, (bool, np.bool_)) else False


def _text(value: Any) -> object:
    return ALWAYS if isinstance(value, str) else False


def _two_integers(value: Any) -> object:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(_integer(v) for v in value)


def _reals(value: Any) -> object:
    if isinstance(value, np.ndarray) or (is_torch(value) and isinstance(value, torch.Tensor)):
        if value.ndim != 1 or not hasattr(value, "tolist") or getattr(value, "is_meta", False):
            return False
        value = value.tolist()
    return isinstance(value, (tuple, list)) and all(_real(v) for v in value)


def _spans(value: Any) -> object:
    rows = isinstance(value, Sequence) and not isinstance(value, str)
    return rows and all(isinstance(s, (tuple, list)) and len(s) == 4 and all(_integer(v) for v in s) for s in value)


_TENSOR = "a tensor (torch, numpy, DeviceArray or anything with __dlpack__)"
_PLAIN = "a tensor of torch, which the reference computes with"
_RULES: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "Any": (_tensor, _TENSOR),
    "Any | PackedWeight": (_tensor_or_packed, f"{_TENSOR}, or a weight from pack_weight"),
    "Any | Sequence[Any]": (_tensor_or_list, f"{_TENSOR}, or a list of them"),
    "Any | Sequence[float]": (_numbers, f"{_TENSOR}, or a list; of real numbers"),
    "Any | Sequence[Sequence[int]]": (_tensor_or_list, f"{_TENSOR}, or a list of rows"),
    "int | Sequence[int]": (_integers, "an integer or a list of them"),
    "Tensor": (_torch_tensor, _PLAIN),
    "Tensor | Sequence[Sequence[int]]": (_torch_tensor_or_list, f"{_PLAIN}, or a list of rows"),
    "int": (_integer, "an integer of 64 bits"),
    "float": (_real, "a finite number"),
    "bool": (_boolean, "True or False"),
    "str": (_text, "a string"),
    "tuple[int, int]": (_two_integers, "two integers"),
    "Sequence[float]": (_reals, "a list of numbers"),
    "Spans": (_spans, "a list of four integers each: row_begin, row_end, slot_begin, length"),
}
_BY_NAME: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "threads": (_threads, "an integer, 0 (the default cap) to 1024"),
    "eps": (_epsilon, "a number greater than 0 that float32 holds, 1.2e-38 to 3.4e38"),
}


__all__ = ["Kind", "shown"]
