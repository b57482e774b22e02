"""Conversions and comparisons: every pair of types, every rounding, NaN and what does not fit."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from vgpu_exact import FORMATS, combinations, from_bits, integers, numbers, same, signed, to_bits
from vgpu_micro import CudaError

INTEGERS = [f"{k}{n}" for n in (8, 16, 32, 64) for k in "us"]
INTEGRAL = {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}


def value(bits: int, kind: str) -> int:
    return signed(bits, int(kind[1:])) if kind[0] == "s" else bits


def limits(kind: str) -> tuple[int, int]:
    n = int(kind[1:])
    return (-(1 << (n - 1)), (1 << (n - 1)) - 1) if kind[0] == "s" else (0, (1 << n) - 1)


def unsigned(kind: str) -> np.dtype:
    return np.dtype(f"u{int(kind[1:]) // 8}")


def integer_cases(kind: str) -> list[int]:
    return integers(int(kind[1:]), count=60)


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("to", INTEGERS)
def test_integer_to_integer(micro: Any, to: str, source: str) -> None:
    cases = integer_cases(source)
    bits = np.array(cases, unsigned(source))
    (low, high), (least, most) = limits(to), limits(source)
    for saturated in (False, True):
        if saturated and low <= least and most <= high:
            with pytest.raises(CudaError):  # the ISA has it only where values may not fit
                micro.each(f"cvt.sat.{to}.{source} $d, $a;", to, [source], [bits])
            continue
        texts = f"cvt{'.sat' if saturated else ''}.{to}.{source} $d, $a;"
        found = micro.each(texts, to, [source], [bits]).view(unsigned(to))
        wide = [value(c, source) for c in cases]
        expected = [min(max(x, low), high) if saturated else x for x in wide]
        assert [int(x) for x in found] == [x % (1 << int(to[1:])) for x in expected], texts


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("to", ["f16", "f32", "f64"])
def test_integer_to_float(micro: Any, to: str, source: str, mode: str) -> None:
    cases = integer_cases(source)
    found = micro.each(f"cvt.{mode}.{to}.{source} $d, $a;", to, [source], [np.array(cases, unsigned(source))])
    expected = [FORMATS[to].round(Fraction(value(c, source)), mode) for c in cases]
    assert same(from_bits(found, to), np.array(expected)).all()


def whole(x: float, mode: str) -> int:
    if mode == "rni":
        return round(Fraction(x))
    return {"rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}[mode](x)


@pytest.mark.parametrize("mode", INTEGRAL)
@pytest.mark.parametrize("source", ["f16", "f32", "f64"])
@pytest.mark.parametrize("to", [k for k in INTEGERS if k[1:] != "8"])
def test_float_to_integer(micro: Any, to: str, source: str, mode: str) -> None:
    edges = [float(x + d) for x in limits(to) for d in (-1, -0.5, 0, 0.5, 1)] + [k + 0.5 for k in range(-5, 6)]
    rounded = [FORMATS[source].round(x) for x in edges]
    cases = numbers(source) + rounded
    found = micro.each(f"cvt.{mode}.{to}.{source} $d, $a;", to, [source], [to_bits(np.array(cases), source)])
    low, high = limits(to)
    # A NaN gives zero, but the sign bit alone where 64 bits are on either side.
    nan = 1 << (int(to[1:]) - 1) if source == "f64" or to[1:] == "64" else 0
    for x, bits in zip(cases, found.view(unsigned(to))):
        if math.isnan(x):
            expected = nan
        elif math.isinf(x):
            expected = high if x > 0 else low
        else:
            expected = min(max(whole(x, mode), low), high)
        assert int(bits) == expected % (1 << int(to[1:])), (x, hex(bits), hex(expected))


FLOATS = [("f32", "f64", m) for m in ("rn", "rz", "rm", "rp")] + [("f16", s, "rn") for s in ("f32", "f64")]
FLOATS += [("f16", "f32", "rz"), ("bf16", "f32", "rn"), ("bf16", "f32", "rz")]


@pytest.mark.parametrize(("to", "source", "mode"), FLOATS)
def test_float_to_narrower(micro: Any, to: str, source: str, mode: str) -> None:
    edge = float(FORMATS[to].largest)
    cases = numbers(source, count=400) + [
        FORMATS[source].round(edge * f) for f in (1, 1.0001, 1.002, 1.01, -1.0001, -1.01)
    ]
    cases += numbers(to, count=100)
    cases += [FORMATS[source].round(x * (1 + 2.0 ** -FORMATS[to].precision)) for x in numbers(to, count=100)]
    found = micro.each(f"cvt.{mode}.{to}.{source} $d, $a;", to, [source], [to_bits(np.array(cases), source)])
    expected = np.array([FORMATS[to].round(x, mode) for x in cases])
    wrong = np.flatnonzero(~same(from_bits(found, to), expected))
    assert not len(wrong), [(cases[i].hex(), hex(found[i])) for i in wrong[:4]]


@pytest.mark.parametrize(("to", "source"), [("f64", "f32"), ("f32", "f16"), ("f64", "f16")])
def test_float_to_wider(micro: Any, to: str, source: str) -> None:
    cases = numbers(source, count=200)
    found = micro.each(f"cvt.{to}.{source} $d, $a;", to, [source], [to_bits(np.array(cases), source)])
    assert same(from_bits(found, to), np.array(cases)).all()


@pytest.mark.parametrize("name", ["f32", "f64", "f16"])
@pytest.mark.parametrize("mode", INTEGRAL)
def test_to_integral_float(micro: Any, mode: str, name: str) -> None:
    cases = numbers(name, count=100) + [k / 2 for k in range(-9, 10)]
    found = micro.each(f"cvt.{mode}.{name}.{name} $d, $a;", name, [name], [to_bits(np.array(cases), name)])
    expected = [x if not math.isfinite(x) else math.copysign(float(whole(x, mode)), x) for x in cases]
    assert same(from_bits(found, name), np.array(expected)).all()


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("mode", ["rn", "rz"])
def test_to_pairs(micro: Any, mode: str, relu: str, name: str) -> None:
    """The first source goes to the upper half."""
    cases = combinations(numbers("f32", 1), numbers("f32", 2), limit=800)
    columns = [to_bits(np.array(c), "f32") for c in zip(*cases)]
    found = micro.each(f"cvt.{mode}{relu}.{name}x2.f32 $d, $a, $b;", f"{name}x2", ["f32", "f32"], columns)
    for part, shift in ((0, 16), (1, 0)):
        expected = [FORMATS[name].round(c[part], mode) for c in cases]
        if relu:
            expected = [x if x > 0 or math.isnan(x) else 0.0 for x in expected]
        assert same(from_bits((found >> shift).astype(np.uint16), name), np.array(expected)).all()


ORDERED = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def compare(name: str, a: float, b: float) -> bool:
    nan = math.isnan(a) or math.isnan(b)
    if name in ("num", "nan"):
        return nan == (name == "nan")
    if name in ORDERED:
        return not nan and ORDERED[name](a, b)
    return nan or ORDERED[name[:-1]](a, b)


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_compare_integers(micro: Any, kind: str) -> None:
    cases = combinations(integers(int(kind[1:]), 1), integers(int(kind[1:]), 2))
    columns = [np.array(c, unsigned(kind)) for c in zip(*cases)]
    names = ORDERED | (
        {} if kind[0] == "s" else {"lo": ORDERED["lt"], "ls": ORDERED["le"], "hi": ORDERED["gt"], "hs": ORDERED["ge"]}
    )
    for name, function in names.items():
        found = micro.each(f"setp.{name}.{kind} $d, $a, $b;", "pred", [kind, kind], columns)
        assert [bool(x) for x in found] == [function(value(a, kind), value(b, kind)) for a, b in cases], name


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_compare_floats(micro: Any, kind: str) -> None:
    cases = combinations(numbers(kind, 1), numbers(kind, 1))
    columns = [to_bits(np.array(c), kind) for c in zip(*cases)]
    part, capability = ("h100", 90) if kind == "bf16" else ("a100", 80)
    header = f".version 9.0\n.target sm_{capability}\n.address_size 64\n"
    for name in (*ORDERED, *(f"{n}u" for n in ORDERED), "num", "nan"):
        with micro.part(part, capability):
            found = micro.each(f"setp.{name}.{kind} $d, $a, $b;", "pred", [kind, kind], columns, header=header)
        assert [bool(x) for x in found] == [compare(name, a, b) for a, b in cases], name


@pytest.mark.parametrize("join", ["and", "or", "xor"])
def test_compare_and_join(micro: Any, join: str) -> None:
    """Both results: (a < b) join c, and not (a < b) join c; with a negated source."""
    cases = combinations(integers(32, 1), integers(32, 2), [0, 1])
    columns = [np.array(c, np.uint32) for c in zip(*cases)]
    function = {"and": lambda x, y: x and y, "or": lambda x, y: x or y, "xor": lambda x, y: x != y}[join]
    text = f".reg .pred %x, %y; setp.lt.{join}.s32 %x|%y, $a, $b, !$c; selp.u32 $d, 1, 0, %x; @%y or.b32 $d, $d, 2;"
    found = micro.each(text, "u32", ["u32", "u32", "pred"], columns)
    for (a, b, c), bits in zip(cases, found):
        less = signed(a, 32) < signed(b, 32)
        assert int(bits) == function(less, not c) + 2 * function(not less, not c)


def test_select(micro: Any) -> None:
    cases = combinations(integers(32, 1), integers(32, 2), integers(32, 3), limit=900)
    columns = [np.array(c, np.uint32) for c in zip(*cases)]
    found = micro.each("slct.u32.s32 $d, $a, $b, $c;", "u32", ["u32", "u32", "s32"], columns)
    assert [int(x) for x in found] == [a if signed(c, 32) >= 0 else b for a, b, c in cases]
    mixed = combinations(integers(32, 1), integers(32, 2), numbers("f32"), limit=900)
    columns = [np.array([m[0] for m in mixed], np.uint32), np.array([m[1] for m in mixed], np.uint32)]
    found = micro.each(
        "slct.u32.f32 $d, $a, $b, $c;", "u32", ["u32", "u32", "f32"], [*columns, to_bits([m[2] for m in mixed], "f32")]
    )
    assert [int(x) for x in found] == [a if c >= 0 else b for a, b, c in mixed]
    for kind, true in (("u32", 0xFFFFFFFF), ("f32", 0x3F800000)):
        pairs = combinations(numbers("f32", 1), numbers("f32", 2))
        floats = [to_bits(np.array(c), "f32") for c in zip(*pairs)]
        found = micro.each(f"set.lt.{kind}.f32 $d, $a, $b;", "u32", ["f32", "f32"], floats)
        assert [int(x) for x in found] == [true * (a < b) for a, b in pairs]
