"""f16 and bf16: packed forms, extremes, functions, comparisons, and what parts of 9.0 add, against exact fractions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pytest
import vgpu_micro
from test_ops_float import expect, extreme, flush
from vgpu_exact import FORMATS, combinations, from_bits, numbers, same, to_bits

HALVES = ("f16", "bf16")


@contextmanager
def later(micro: Any) -> Iterator[None]:
    """Rows that need a part of 9.0, and a header that says so."""
    each = micro.each
    header = vgpu_micro.HEADER.replace("sm_80", "sm_90")
    with micro.part("h100", 90), mock.patch.object(micro, "each", lambda *a: each(*a, header=header)):
        yield


def columns(cases: list[tuple[float, ...]], name: str, packed: bool) -> list[np.ndarray]:
    """Operands; packed ones hold the case in the lower half and the case after the next in the upper."""
    bits = [to_bits(np.array(column), name) for column in zip(*cases)]
    return [b.astype(np.uint32) | np.roll(b, -2).astype(np.uint32) << 16 for b in bits] if packed else bits


def check(micro: Any, text: str, name: str, cases: list[tuple[float, ...]], expected: list[float]) -> None:
    """`text` with TYPE for the type, alone and packed."""
    letters = [x for x in "abc" if f"${x}" in text]
    for packed in (False, True):
        kind = name + "x2" * packed
        found = micro.each(text.replace("TYPE", kind), kind, [kind] * len(letters), columns(cases, name, packed))
        low = from_bits(found.astype(np.uint16), name)
        wrong = np.flatnonzero(~same(low, np.array(expected)))
        assert not len(wrong), [(cases[i], low[i], expected[i]) for i in wrong[:4]]
        if packed:
            assert same(from_bits((found >> 16).astype(np.uint16), name), np.roll(expected, -2)).all()


@pytest.mark.parametrize("extra", ["", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"])
@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("kind", ["min", "max"])
def test_extremes(micro: Any, kind: str, name: str, extra: str) -> None:
    cases = combinations(numbers(name, 1), numbers(name, 2))
    if "xorsign" in extra:  # the sign of what is not a number is open
        cases = [c for c in cases if not any(map(math.isnan, c))]
    expected = []
    for a, b in cases:
        sign = math.copysign(1, a) * math.copysign(1, b)
        if "xorsign" in extra:
            expected.append(math.copysign(extreme(kind, abs(a), abs(b), "NaN" in extra), sign))
        else:
            expected.append(extreme(kind, a, b, "NaN" in extra))
    with later(micro) if "xorsign" in extra else nullcontext():  # from 8.6 on
        check(micro, f"{kind}{extra}.TYPE $d, $a, $b;", name, cases, expected)


@pytest.mark.parametrize("kind", ["min", "max"])
def test_extremes_that_flush(micro: Any, kind: str) -> None:
    cases = combinations(numbers("f16", 1), numbers("f16", 2))
    expected = [extreme(kind, flush(a, "f16"), flush(b, "f16"), False) for a, b in cases]
    check(micro, f"{kind}.ftz.TYPE $d, $a, $b;", "f16", cases, expected)


@pytest.mark.parametrize("name", HALVES)
def test_signs(micro: Any, name: str) -> None:
    cases = [(x,) for x in numbers(name)]
    check(micro, "abs.TYPE $d, $a;", name, cases, [abs(x) for (x,) in cases])
    check(micro, "neg.TYPE $d, $a;", name, cases, [-x for (x,) in cases])
    if name == "f16":
        check(micro, "abs.ftz.TYPE $d, $a;", name, cases, [abs(flush(x, name)) for (x,) in cases])
        check(micro, "neg.ftz.TYPE $d, $a;", name, cases, [-flush(x, name) for (x,) in cases])


ARITHMETIC = [
    ("f16", kind, extra) for kind in ("add", "sub", "mul", "fma") for extra in ("", ".ftz", ".sat", ".ftz.sat")
]
ARITHMETIC += [("f16", "fma", ".relu"), ("f16", "fma", ".ftz.relu"), ("bf16", "fma", ""), ("bf16", "fma", ".relu")]


@pytest.mark.parametrize(("name", "kind", "extra"), ARITHMETIC)
def test_arithmetic(micro: Any, name: str, kind: str, extra: str) -> None:
    count = 3 if kind == "fma" else 2
    cases = combinations(*(numbers(name, seed=i + 1) for i in range(count)), limit=900)
    flags = [flag in extra for flag in (".ftz", ".sat", ".relu")]
    expected = [expect(kind, name, case, "rn", *flags) for case in cases]
    check(micro, f"{kind}.rn{extra}.TYPE $d, {', '.join('$' + x for x in 'abc'[:count])};", name, cases, expected)


@pytest.mark.parametrize("kind", ["add", "sub", "mul"])
def test_arithmetic_of_bf16(micro: Any, kind: str) -> None:
    cases = combinations(numbers("bf16", 1), numbers("bf16", 2), limit=900)
    expected = [expect(kind, "bf16", case, "rn", False, False, False) for case in cases]
    with later(micro):
        check(micro, f"{kind}.rn.TYPE $d, $a, $b;", "bf16", cases, expected)


FUNCTIONS = [("ex2.approx", "f16", np.exp2, 2.0**-9.9)]
FUNCTIONS += [("tanh.approx", "f16", np.tanh, 2.0**-10.987), ("ex2.approx.ftz", "bf16", np.exp2, 2.0**-7)]
FUNCTIONS += [("tanh.approx", "bf16", np.tanh, 2.0**-8)]


@pytest.mark.parametrize(("text", "name", "function", "bound"), FUNCTIONS, ids=[f"{r[0]}.{r[1]}" for r in FUNCTIONS])
def test_functions(micro: Any, text: str, name: str, function: Any, bound: float) -> None:
    """Within the ISA's errors: relative, for tanh of f16 absolute; alone and packed; special values."""
    part = later(micro) if name == "bf16" else nullcontext()
    x = from_bits(to_bits(np.linspace(-8, 8, 800), name), name)
    with part:
        for packed in (False, True):
            kind = name + "x2" * packed
            found = micro.each(f"{text}.{kind} $d, $a;", kind, [kind], columns([(v,) for v in x], name, packed))
            low = from_bits(found.astype(np.uint16), name)
            expected = function(x)
            absolute = text.startswith("tanh") and name == "f16"
            assert (np.abs(low - expected) <= bound * (1 if absolute else np.abs(expected))).all()
            if packed:
                assert same(from_bits((found >> 16).astype(np.uint16), name), np.roll(low, -2)).all()
        special = np.array([0.0, -0.0, math.inf, -math.inf, math.nan])
        found = micro.each(f"{text}.{name} $d, $a;", name, [name], [to_bits(special, name)])
        wanted = [1.0, 1.0, math.inf, 0.0, math.nan] if "ex2" in text else [0.0, -0.0, 1.0, -1.0, math.nan]
        assert same(from_bits(found, name), np.array(wanted)).all()


COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def compares(name: str, a: float, b: float) -> bool:
    nan = math.isnan(a) or math.isnan(b)
    if name in ("num", "nan"):
        return nan == (name == "nan")
    base = name[:2]
    ordered = {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[base]
    return nan if nan and name.endswith("u") else (not nan and ordered)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("comparison", [*COMPARISONS, *(f"{n}u" for n in COMPARISONS), "num", "nan"])
def test_packed_comparisons(micro: Any, comparison: str, name: str) -> None:
    """setp of a pair writes a predicate for each half; set writes ones or 1.0 in each (set of bf16 from 9.0 on)."""
    cases = combinations(numbers(name, 1), numbers(name, 1), limit=700)
    a, b = columns(cases, name, True)
    low = [compares(comparison, *c) for c in cases]
    high = low[2:] + low[:2]
    kind = f"{name}x2"
    with later(micro) if name == "bf16" else nullcontext():
        text = (
            f".reg .pred %x, %y; setp.{comparison}.{kind} %x|%y, $a, $b; selp.u32 $d, 1, 0, %x; @%y or.b32 $d, $d, 2;"
        )
        found = micro.each(text, "u32", [kind, kind], [a, b])
        assert found.tolist() == [x + 2 * y for x, y in zip(low, high)]
        found = micro.each(f"set.{comparison}.{kind}.{kind} $d, $a, $b;", kind, [kind, kind], [a, b])
        one = int(to_bits(np.array([1.0]), name)[0])
        assert found.tolist() == [one * x | (one * y) << 16 for x, y in zip(low, high)]


@pytest.mark.parametrize("name", HALVES)
def test_widening_and_back(micro: Any, name: str) -> None:
    """bf16 converts to f32 and f64, from and to integers, from 9.0 on; f16 does always."""
    cases = numbers(name, count=200)
    finite = [x for x in cases if math.isfinite(x)]
    with later(micro) if name == "bf16" else nullcontext():
        found = micro.each(f"cvt.f32.{name} $d, $a;", "f32", [name], [to_bits(np.array(cases), name)])
        assert same(found, np.array(cases)).all()
        found = micro.each(f"cvt.rzi.s32.{name} $d, $a;", "s32", [name], [to_bits(np.array(finite), name)])
        assert found.tolist() == [max(-(2**31), min(2**31 - 1, math.trunc(x))) for x in finite]
        whole = np.array([0, 1, -1, 255, 257, 259, 2049, -4099, 65519, 65520, 2**30 + 1, -(2**31)], np.int32)
        found = micro.each(f"cvt.rn.{name}.s32 $d, $a;", name, ["s32"], [whole])
        expected = [FORMATS[name].round(Fraction(int(x))) for x in whole]
        assert same(from_bits(found, name), np.array(expected)).all()


def test_saturating_conversions(micro: Any) -> None:
    """cvt.sat to a float clamps to [0, 1], and what is not a number becomes 0; relu keeps it."""
    cases = numbers("f32", count=200) + [0.25, 0.999999, 1.0000001, -1e-9]
    bits = to_bits(np.array(cases), "f32")
    found = micro.each("cvt.rn.sat.f16.f32 $d, $a;", "f16", ["f32"], [bits])
    clamped = [0.0 if not x > 0 else min(x, 1.0) for x in map(float, bits)]
    assert same(from_bits(found, "f16"), np.array([FORMATS["f16"].round(x) for x in clamped])).all()
    found = micro.each("cvt.sat.f32.f32 $d, $a;", "f32", ["f32"], [bits])
    assert same(found, np.array(clamped)).all()
    for name in HALVES:
        found = micro.each(f"cvt.rn.relu.{name}.f32 $d, $a;", name, ["f32"], [bits])
        expected = [FORMATS[name].round(x) if x > 0 or math.isnan(x) else 0.0 for x in map(float, bits)]
        assert same(from_bits(found, name), np.array(expected)).all()
