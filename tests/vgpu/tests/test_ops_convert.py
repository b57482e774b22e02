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
@pytest.mark.parametrize("to", INTEGERS)
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


def small(x: float) -> float:
    return math.copysign(0.0, x) if abs(x) < 2.0**-126 else x


@pytest.mark.parametrize(("to", "source"), [("f32", "f64"), ("f64", "f32"), ("f16", "f32"), ("f32", "f16")])
def test_flushed(micro: Any, to: str, source: str) -> None:
    """.ftz flushes f32 alone: its subnormals as operands and as results."""
    cases = numbers(source, count=100) + [
        FORMATS[source].round(s * 2.0**e) for s in (1, -1.5) for e in range(-151, -120)
    ]
    mode = ".rn" if FORMATS[to].precision < FORMATS[source].precision else ""
    found = micro.each(f"cvt{mode}.ftz.{to}.{source} $d, $a;", to, [source], [to_bits(np.array(cases), source)])
    inputs = [small(x) if source == "f32" else x for x in cases]
    expected = [FORMATS[to].round(x) for x in inputs]
    expected = [small(x) if to == "f32" else x for x in expected]
    assert same(from_bits(found, to), np.array(expected)).all()


def test_flushed_to_integers(micro: Any) -> None:
    bits = to_bits(np.array([1e-40, -1e-40, 2.0**-126, -(2.0**-126), 0.0, 1.5]), "f32")
    found = micro.each("cvt.rpi.ftz.s32.f32 $d, $a;", "s32", ["f32"], [bits])
    assert found.tolist() == [0, 0, 1, 0, 0, 2]
    found = micro.each("cvt.rmi.ftz.f32.f32 $d, $a;", "f32", ["f32"], [bits])
    assert same(found, np.array([0.0, -0.0, 0.0, -1.0, 0.0, 1.0])).all()


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


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_compare_flushed(micro: Any, kind: str) -> None:
    """.ftz: subnormals are zeros in comparisons, in setp and set."""
    tiny = float(FORMATS[kind].round(Fraction(2) ** (FORMATS[kind].smallest - 3)))
    cases = combinations([0.0, -0.0, tiny, -tiny, 2 * tiny, 1.0], [0.0, tiny, -tiny, 1.0, -1.0])
    columns = [to_bits(np.array(c), kind) for c in zip(*cases)]
    flushed = [tuple(0.0 if abs(x) < 1 else x for x in c) for c in cases]
    for name in (*ORDERED, "ltu", "num"):
        found = micro.each(f"setp.{name}.ftz.{kind} $d, $a, $b;", "pred", [kind, kind], columns)
        assert [bool(x) for x in found] == [compare(name, a, b) for a, b in flushed], name
        if name in ORDERED:
            found = micro.each(f"set.{name}.ftz.u32.{kind} $d, $a, $b;", "u32", [kind, kind], columns)
            assert [int(x) for x in found] == [0xFFFFFFFF * compare(name, a, b) for a, b in flushed], name


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


def test_logic_of_predicates(micro: Any) -> None:
    """With negated sources too."""
    a, b = (np.array(x, np.uint32) for x in ([0, 0, 1, 1], [0, 1, 0, 1]))
    texts = {"and.pred $d, $a, $b;": a & b, "or.pred $d, $a, $b;": a | b, "xor.pred $d, $a, $b;": a ^ b}
    texts |= {"not.pred $d, $a;": 1 - a, "and.pred $d, !$a, $b;": (1 - a) & b, "or.pred $d, $a, !$b;": a | (1 - b)}
    for text, expected in texts.items():
        kinds = ["pred", "pred"] if "$b" in text else ["pred"]
        assert micro.each(text, "pred", kinds, [a, b][: len(kinds)]).tolist() == expected.tolist(), text


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
    tiny = to_bits([1e-40, -1e-40, -0.0, -1.0, math.nan, 0.5, -(2.0**-126)], "f32")
    ones = np.ones(7, np.uint32)
    for ftz, expected in (("", [1, 3, 1, 3, 3, 1, 3]), (".ftz", [1, 1, 1, 3, 3, 1, 3])):
        for width in (32, 64):
            wide = ones.astype(f"u{width // 8}")
            kinds = [f"b{width}", f"b{width}", "f32"]
            found = micro.each(f"slct{ftz}.b{width}.f32 $d, $a, $b, $c;", f"b{width}", kinds, [wide, 3 * wide, tiny])
            assert found.tolist() == expected
    for kind, true in (("u32", 0xFFFFFFFF), ("f32", 0x3F800000)):
        pairs = combinations(numbers("f32", 1), numbers("f32", 2))
        floats = [to_bits(np.array(c), "f32") for c in zip(*pairs)]
        found = micro.each(f"set.lt.{kind}.f32 $d, $a, $b;", "u32", ["f32", "f32"], floats)
        assert [int(x) for x in found] == [true * (a < b) for a, b in pairs]
