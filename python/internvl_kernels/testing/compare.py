"""Deciding whether a result is right: equal NaN and Inf masks, worst error, relative L2 error, or equal bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ops, reference
from .._lazy import torch
from ..ops._tensor import to_torch
from .tolerances import EPS, tolerance


def compare(actual: Any, same: Any, high: Any, op: str, dtype: str) -> float:
    """Raises AssertionError unless ``actual`` is as good as the table asks; returns its error as a share of the allowed one.

    same: the reference computed in the dtype under test; high: the reference in float64, from the same inputs. All three
    may be tuples. The text names op, dtype, the worst position and the three values there.
    """
    if isinstance(actual, (tuple, list)):
        assert len(actual) == len(same) == len(high), f"{op}: {len(actual)} results; expected {len(same)}"
        triples = enumerate(zip(actual, same, high))
        return max((compare(*parts, f"{op}[{index}]", dtype) for index, parts in triples), default=0.0)
    actual, same, high = to_torch(actual), to_torch(same), to_torch(high)
    assert actual.shape == same.shape, f"{op} {dtype}: shape {list(actual.shape)}; expected {list(same.shape)}"
    assert actual.dtype == same.dtype, f"{op} {dtype}: dtype {actual.dtype}; expected {same.dtype}"
    allowed = tolerance(op.partition("[")[0], dtype)
    if allowed.exact or not actual.is_floating_point():
        same_bits(actual, same, op)
        return 0.0
    actual, same, high = actual.double(), same.double(), high.double()
    for name, mask in (("NaN", torch.isnan), ("+Inf", torch.isposinf), ("-Inf", torch.isneginf)):
        _equal_masks(mask(actual), mask(same), f"{op} {dtype}: {name}", actual, same)
    usable = actual.isfinite() & high.isfinite()
    if not bool(usable.any()):
        return 0.0
    clean = high.where(usable, 0.0)
    rows = clean.abs().amax(-1, keepdim=True) if clean.ndim else clean.abs()
    scale = rows.clamp_min(torch.finfo(getattr(torch, dtype)).tiny)
    error = ((actual - high).abs() / scale).where(usable, 0.0)
    error_same = ((same - high).abs() / scale).where(usable, 0.0)
    limit = allowed.factor * float(error_same.max()) + allowed.floor * EPS[dtype]
    norm = max(float(clean.norm()), torch.finfo(torch.float32).tiny)
    l2, l2_same = (float((t - high).where(usable, 0.0).norm()) / norm for t in (actual, same))
    l2_limit = allowed.factor * l2_same + allowed.l2_floor * EPS[dtype]
    if float(error.max()) <= limit and l2 <= l2_limit:
        return max(float(error.max()) / limit, l2 / l2_limit)
    at = _position(int(error.argmax()), error.shape)
    raise AssertionError(
        f"{op} {dtype} {list(error.shape)}: worst error {float(error.max()):.3e} of its row's largest value (limit "
        f"{limit:.3e}) at {at}: {float(actual[at]):.9g}, PyTorch {float(same[at]):.9g}, float64 {float(high[at]):.9g}; "
        f"relative L2 {l2:.3e} (limit {l2_limit:.3e}); {int((error > limit).sum())} of {error.numel()} beyond"
    )


def same_bits(actual: Any, expected: Any, what: str = "result") -> None:
    """Raises AssertionError unless both hold the same bits; any NaN equals any NaN."""
    if isinstance(actual, (tuple, list)):
        assert len(actual) == len(expected), f"{what}: {len(actual)} results; expected {len(expected)}"
        for index, parts in enumerate(zip(actual, expected)):
            same_bits(*parts, f"{what}[{index}]")
        return
    actual, expected = to_torch(actual), to_torch(expected)
    assert actual.shape == expected.shape, f"{what}: shape {list(actual.shape)}; expected {list(expected.shape)}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}; expected {expected.dtype}"
    different = _bits(actual) != _bits(expected)
    if actual.is_floating_point():
        different &= ~(actual.isnan() & expected.isnan())
    if bool(different.any()):
        at = _position(int(different.int().argmax()), different.shape)
        raise AssertionError(
            f"{what} {list(actual.shape)}: {int(different.sum())} of {actual.numel()} elements differ in bits, the first "
            f"at {at}: {actual[at].item()!r}, expected {expected[at].item()!r}"
        )


def check(op: str, *args: Any, backend: str = "cpu", dtype: str | None = None, **kwargs: Any) -> Any:
    """Runs ``ops.<op>`` and both references on the same arguments and compares; returns the result.

    dtype: whose tolerances hold, by default those of the first floating-point tensor.
    """
    dtype = dtype or next(str(a.dtype)[6:] for a in _tensors([*args, *kwargs.values()]) if a.is_floating_point())
    actual = getattr(ops, op)(*_map(args, lambda t: t.clone()), backend=backend, **kwargs)
    kwargs = {k: v for k, v in kwargs.items() if k not in ("threads", "inplace")}
    same = getattr(reference, op)(*args, **kwargs)
    wide_kwargs = dict(zip(kwargs, _map(list(kwargs.values()), _widen)))
    high = getattr(reference, op)(*_map(args, _widen), **wide_kwargs)
    compare(actual, same, high, op, dtype)
    return actual


def _widen(t: Any) -> Any:
    return t.double() if t.is_floating_point() else t


def _map(values: Sequence[Any], f: Any) -> list[Any]:
    return [f(v) if isinstance(v, torch.Tensor) else v for v in values]


def _tensors(values: Sequence[Any]) -> list[Any]:
    return [v for v in values if isinstance(v, torch.Tensor)]


def _bits(t: Any) -> Any:
    return t.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


def _position(flat: int, shape: Any) -> tuple[int, ...]:
    at = []
    for size in reversed(shape):
        at.append(flat % size)
        flat //= size
    return tuple(reversed(at))


def _equal_masks(actual: Any, expected: Any, what: str, values: Any, others: Any) -> None:
    different = actual != expected
    if bool(different.any()):
        at = _position(int(different.int().argmax()), different.shape)
        raise AssertionError(
            f"{what} masks differ in {int(different.sum())} of {different.numel()} places, the first at {at}: "
            f"{values[at].item()!r}, PyTorch {others[at].item()!r}"
        )


__all__ = ["check", "compare", "same_bits"]
