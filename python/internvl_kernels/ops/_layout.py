"""Dtypes and shapes of a reference's tensors, as data: what the kernels' contracts refuse, torch would broadcast or promote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from .._lazy import torch
from ..errors import UnsupportedError

_FLOATS = ("float32", "float64", "bfloat16", "float16")
_INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
_HALVES = _FLOATS[2:]
_WORDS = {"float": _FLOATS, "wide": _FLOATS[:2], "number": (*_FLOATS, *_INTEGERS)}
_LINE = re.compile(r"([\w,]+) (\w+[+-]?) \[(.*)\]")
_SYMBOL = re.compile(r"[A-Za-z_]\w*|\.{3}")
_TERM = re.compile(r"(\w+)(?:([*/+])(\w+))?")


class Layouts:
    """A line for each tensor or several: names, dtype, dimensions, such as ``"weight,bias x [cols]"``.

    dtype: "float", "wide" (not the 16-bit ones), "number" (floats and integers), "int64", or the name of an earlier tensor that
    it must share; ``x+``: x's or float32; ``x-``: x's, or where that is float32 a 16-bit one. Dimensions are symbols that mean
    one size throughout (or an integer argument of that name), ``2*I``, ``H/2`` and ``1+N`` of them, and a leading ``...`` for
    any, the same throughout. A tensor that is None or not given is skipped.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = []
        for line in lines:
            found = _LINE.fullmatch(line)
            assert found, line
            names, dtype, dims = found.groups()
            self._lines += [(name, dtype, dims.split(", ")) for name in names.split(",")]

    def check(self, op: str, given: Mapping[str, Any]) -> None:
        sizes: dict[str, Any] = {name: value for name, value in given.items() if isinstance(value, Integral)}
        source: dict[str, str] = {}  # the tensor that a size was learnt from
        first: tuple[str, Any] | None = None  # the first tensor's name and device
        for name, dtype, dims in self._lines:
            x = given.get(name)
            if not isinstance(x, torch.Tensor):
                continue
            what = f"{op}: {name} is {x.dtype} {_shape(x)}"
            if not _dense(x):
                raise UnsupportedError(f"{what}; allowed: a dense tensor, not nested, sparse or quantised")
            allowed = _allowed(dtype, given)
            if str(x.dtype).rpartition(".")[2] not in allowed:
                whose = f", {dtype.rstrip('+-')}'s" if len(allowed) == 1 and dtype in given else ""
                raise UnsupportedError(f"{what}; allowed: {', '.join(allowed)}{whose}")
            first = first or (name, x.device)
            if x.device != first[1]:  # of a tensor on "meta" torch may make one on the host that nobody filled
                raise UnsupportedError(f"{what} on {x.device}; allowed: on {first[1]}, as {first[0]}")
            known = dict(sizes)
            if not _fits(list(x.shape), dims, sizes):
                used = [n for n in _SYMBOL.findall(" ".join(dims)) if n in known]
                where = ", ".join(f"{n} = {known[n]}{source.get(n, '')}" for n in dict.fromkeys(used))
                raise UnsupportedError(f"{what}; allowed: [{', '.join(dims)}]{' with ' if used else ''}{where}")
            source |= {n: f" of {name}" for n in sizes if n not in known}
            if memory_gone(x):
                raise UnsupportedError(f"{what}, whose memory was given back; allowed: a tensor in memory")


def _allowed(dtype: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the dtypes that a line's second word allows."""
    like = given.get(dtype.rstrip("+-"))
    if not isinstance(like, torch.Tensor):
        return _WORDS.get(dtype, (dtype,))
    name = str(like.dtype).rpartition(".")[2]
    if dtype.endswith("+"):
        return tuple(dict.fromkeys((name, "float32")))
    return (name, *_HALVES) if dtype.endswith("-") and name == "float32" else (name,)


def _fits(shape: list[int], dims: list[str], sizes: dict[str, Any]) -> bool:
    if dims and dims[0] == "...":
        leading = len(shape) - len(dims) + 1
        if leading < 0 or sizes.setdefault("...", shape[:leading]) != shape[:leading]:
            return False
        shape, dims = shape[leading:], dims[1:]
    return len(shape) == len(dims) and all(_equal(size, dim, sizes) for size, dim in zip(shape, dims))


def _equal(size: int, dim: str, sizes: dict[str, Any]) -> bool:
    """Whether a dimension has the size that its term says; the last factor or summand is learnt where it is new."""
    first, sign, second = _TERM.fullmatch(dim).groups()  # type: ignore[union-attr]
    if sign is None:
        return int(first) == size if first.isdigit() else sizes.setdefault(first, size) == size
    left = int(first) if first.isdigit() else sizes[first]
    if sign == "/":
        return bool(size * int(second) == left)
    if second not in sizes:
        if sign == "*" and (not left or size % left):
            return False
        sizes[second] = size // left if sign == "*" else size - left
    return bool(size == (left * sizes[second] if sign == "*" else left + sizes[second]))


def _dense(x: Any) -> bool:
    return not x.is_nested and x.layout is torch.strided and not x.is_quantized


def _shape(x: Any) -> str:
    return "of rows" if x.is_nested else str(list(x.shape))


def memory_gone(x: Any) -> bool:
    """Whether a tensor's storage was resized to nothing: torch's own kernels read through a null pointer then."""
    if not x.numel() or x.device.type != "cpu":
        return False
    try:
        return bool(x.untyped_storage().nbytes() == 0)
    except (NotImplementedError, RuntimeError):  # of a transform such as vmap: no storage of its own
        return False


__all__ = ["Layouts", "memory_gone"]
