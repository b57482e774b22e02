"""Floating arithmetic against exact fractions: every rounding, flush, saturation, and the signs of zero and infinity."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from vgpu_exact import FORMATS, combinations, from_bits, numbers, same, to_bits
from vgpu_micro import HEADER

MODES = ("rn", "rz", "rm", "rp")


def zero(negative: bool) -> float:
    return -0.0 if negative else 0.0


def negative(x: float) -> bool:
    return math.copysign(1, x) < 0


def exact(kind: str, values: tuple[float, ...], mode: str) -> tuple[Fraction | float, bool]:
    """The result before rounding, and whether a zero is negative."""
    if any(math.isnan(x) for x in values):
        return math.nan, False
    a, b, c = (*values, 0.0, 0.0)[:3]
    if kind in ("add", "sub"):
        b = -b if kind == "sub" else b
        if math.isinf(a) or math.isinf(b):
            return a + b, False
        both = negative(a) and negative(b) if a == 0 and b == 0 and negative(a) == negative(b) else mode == "rm"
        return Fraction(a) + Fraction(b), both
    if kind == "mul":
        if math.isinf(a) or math.isinf(b):
            return a * b, False
        return Fraction(a) * Fraction(b), negative(a) != negative(b)
    if kind == "fma":
        product, sign = exact("mul", (a, b), mode)
        if isinstance(product, float) or math.isinf(c):
            return (product if isinstance(product, float) else 0.0) + c, False
        if product == 0 and c == 0:
            return Fraction(0), sign if sign == negative(c) else mode == "rm"
        return product + Fraction(c), mode == "rm"
    if kind == "div":
        sign = negative(a) != negative(b)
        if math.isinf(a):
            return (math.nan if math.isinf(b) else -math.inf if sign else math.inf), sign
        if math.isinf(b):
            return Fraction(0), sign
        if b == 0:
            return (math.nan if a == 0 else -math.inf if sign else math.inf), sign
        return Fraction(a) / Fraction(b), sign
    if kind == "rcp":
        return exact("div", (1.0, a), mode)
    raise ValueError(kind)


def root(a: float, name: str, mode: str) -> float:
    """The square root with enough bits and a sticky one behind them, rounded once."""
    if a == 0 or math.isnan(a) or a == math.inf:
        return a
    if a < 0:
        return math.nan
    value = Fraction(a)
    whole = value.numerator * value.denominator * 4**1200
    floor = math.isqrt(whole)
    found = Fraction(2 * floor + (floor * floor != whole), 2 * value.denominator * 2**1200)
    return FORMATS[name].round(found, mode)


def flush(x: float, name: str) -> float:
    return zero(negative(x)) if 0 < abs(x) < float(Fraction(2) ** FORMATS[name].smallest) else x


def expect(kind: str, name: str, values: tuple[float, ...], mode: str, ftz: bool, sat: bool, relu: bool) -> float:
    if ftz:
        values = tuple(flush(x, name) for x in values)
    if kind == "sqrt":
        result = root(values[0], name, mode)
    else:
        value, sign = exact(kind, values, mode)
        result = FORMATS[name].round(value, mode, negative_zero=sign)
    if ftz:
        result = flush(result, name)
    if sat:
        result = 0.0 if not result > 0 else min(result, 1.0)
    if relu:
        result = result if result > 0 or math.isnan(result) else 0.0
    return result


def check(
    micro: Any, text: str, name: str, cases: list[tuple[float, ...]], expected: list[float], header: str = HEADER
) -> None:
    columns = [to_bits(np.array(column), name) for column in zip(*cases)]
    found = from_bits(micro.each(text, name, [name] * len(columns), columns, header=header), name)
    wrong = np.flatnonzero(~same(found, np.array(expected)))
    assert not len(wrong), [(cases[i], float(found[i]).hex(), float(expected[i]).hex()) for i in wrong[:4]]


ROWS = [
    (kind, name, mode, "")
    for kind in ("add", "sub", "mul", "fma", "div", "sqrt", "rcp")
    for name in ("f32", "f64")
    for mode in MODES
]
ROWS += [(kind, "f32", "rn", extra) for kind in ("add", "sub", "mul", "fma") for extra in (".ftz", ".sat", ".ftz.sat")]
ROWS += [(kind, "f32", "rz", ".ftz") for kind in ("add", "mul", "fma", "div", "sqrt", "rcp")]
ROWS += [(kind, "f16", "rn", extra) for kind in ("add", "sub", "mul", "fma") for extra in ("", ".ftz", ".sat")]
ROWS += [("fma", "f16", "rn", ".relu"), ("fma", "bf16", "rn", ""), ("fma", "bf16", "rn", ".relu")]


@pytest.mark.parametrize(("kind", "name", "mode", "extra"), ROWS, ids=["-".join(r).rstrip("-") for r in ROWS])
def test_arithmetic(micro: Any, kind: str, name: str, mode: str, extra: str) -> None:
    count = {"fma": 3, "sqrt": 1, "rcp": 1}.get(kind, 2)
    cases = combinations(*(numbers(name, seed=i + 1) for i in range(count)), limit=1500)
    text = f"{kind}.{mode}{extra}.{name} $d, {', '.join('$' + x for x in 'abc'[:count])};"
    ftz, sat, relu = (flag in extra for flag in (".ftz", ".sat", ".relu"))
    check(micro, text, name, cases, [expect(kind, name, case, mode, ftz, sat, relu) for case in cases])


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_mad_is_fma(micro: Any, name: str) -> None:
    cases = combinations(*(numbers(name, seed=i + 1) for i in range(3)), limit=500)
    expected = [expect("fma", name, case, "rn", False, False, False) for case in cases]
    check(micro, f"mad.rn.{name} $d, $a, $b, $c;", name, cases, expected)


PACKED = [*((kind, "f16x2") for kind in ("add", "sub", "mul", "fma")), ("fma", "bf16x2")]  # the rest needs sm_90


@pytest.mark.parametrize(("kind", "name"), PACKED)
def test_packed(micro: Any, kind: str, name: str) -> None:
    half = name[:-2]
    count = 3 if kind == "fma" else 2
    cases = combinations(*(numbers(half, seed=i + 1) for i in range(2 * count)), limit=1500)
    columns = [to_bits(np.array(column), half).astype(np.uint32) for column in zip(*cases)]
    packed = [columns[2 * i] | columns[2 * i + 1] << 16 for i in range(count)]
    found = micro.each(
        f"{kind}.rn.{name} $d, {', '.join('$' + x for x in 'abc'[:count])};", name, [name] * count, packed
    )
    for part in range(2):
        bits = (found >> 16 * part).astype(np.uint16)
        expected = [expect(kind, half, case[part::2], "rn", False, False, False) for case in cases]
        assert same(from_bits(bits, half), np.array(expected)).all()


def extreme(kind: str, a: float, b: float, nan: bool) -> float:
    if math.isnan(a) or math.isnan(b):
        return math.nan if nan or (math.isnan(a) and math.isnan(b)) else a if math.isnan(b) else b
    if a == b == 0:  # +0 is above -0
        return zero(negative(a) or negative(b)) if kind == "min" else zero(negative(a) and negative(b))
    return min(a, b) if kind == "min" else max(a, b)


EXTREMES = [(k, n, e) for k in ("min", "max") for n in ("f32", "f16", "bf16") for e in ("", ".NaN")]
EXTREMES += [
    (k, "f32", f"{ftz}{nan}.xorsign.abs") for k in ("min", "max") for ftz in ("", ".ftz") for nan in ("", ".NaN")
]
EXTREMES += [(k, "f64", "") for k in ("min", "max")] + [
    (k, "f32", e) for k in ("min", "max") for e in (".ftz", ".ftz.NaN")
]


@pytest.mark.parametrize(("kind", "name", "extra"), EXTREMES)
def test_extremes(micro: Any, kind: str, name: str, extra: str) -> None:
    cases = combinations(numbers(name, 1), numbers(name, 2))
    if "xorsign" in extra:  # the sign of what is not a number is open
        cases = [case for case in cases if not any(map(math.isnan, case))]
    inputs = [tuple(flush(x, name) for x in case) if ".ftz" in extra else case for case in cases]
    if "xorsign" in extra:
        signs = [math.copysign(1, a) * math.copysign(1, b) for a, b in inputs]
        results = [extreme(kind, abs(a), abs(b), False) for a, b in inputs]
        expected = [math.copysign(x, sign) for x, sign in zip(results, signs)]
        with micro.part("l4", 86):
            check(micro, f"{kind}{extra}.{name} $d, $a, $b;", name, cases, expected, HEADER.replace("sm_80", "sm_86"))
        return
    check(
        micro,
        f"{kind}{extra}.{name} $d, $a, $b;",
        name,
        cases,
        [extreme(kind, a, b, "NaN" in extra) for a, b in inputs],
    )


@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_signs(micro: Any, name: str) -> None:
    cases = [(x,) for x in numbers(name)]
    check(micro, f"abs.{name} $d, $a;", name, cases, [abs(x) for (x,) in cases])
    check(micro, f"neg.{name} $d, $a;", name, cases, [-x for (x,) in cases])
    if name == "f32":
        check(micro, "abs.ftz.f32 $d, $a;", name, cases, [abs(flush(x, name)) for (x,) in cases])
        check(micro, "neg.ftz.f32 $d, $a;", name, cases, [-flush(x, name) for (x,) in cases])
    if name in ("f32", "f64"):
        pairs = combinations(numbers(name, 1), [x for x in numbers(name, 2) if not math.isnan(x)])
        pairs = [(a, b) for a, b in pairs if not math.isnan(a)]
        check(micro, f"copysign.{name} $d, $a, $b;", name, pairs, [math.copysign(b, a) for a, b in pairs])


def classify(x: float, name: str) -> dict[str, bool]:
    subnormal = 0 < abs(x) < float(Fraction(2) ** FORMATS[name].smallest)
    return {
        "finite": math.isfinite(x),
        "infinite": math.isinf(x),
        "number": not math.isnan(x),
        "notanumber": math.isnan(x),
        "normal": math.isfinite(x) and not subnormal,  # zeros count as normal
        "subnormal": subnormal,
    }


@pytest.mark.parametrize("test", ["finite", "infinite", "number", "notanumber", "normal", "subnormal"])
@pytest.mark.parametrize("name", ["f32", "f64"])
def test_testp(micro: Any, name: str, test: str) -> None:
    values = numbers(name)
    found = micro.each(f"testp.{test}.{name} $d, $a;", "pred", [name], [to_bits(np.array(values), name)])
    assert [bool(x) for x in found] == [classify(x, name)[test] for x in values]


# Instruction, function, inputs, bound relative to the result, bound absolute: the ISA's figures.
APPROXIMATE: list[tuple[str, Callable[[np.ndarray], np.ndarray], np.ndarray, float, float]] = [
    ("rcp.approx.f32", lambda x: 1 / x, np.geomspace(1e-30, 1e30, 900), 2**-23, 0),
    ("rcp.approx.ftz.f32", lambda x: 1 / x, -np.geomspace(1e-30, 1e30, 900), 2**-23, 0),
    ("sqrt.approx.f32", np.sqrt, np.geomspace(1e-30, 1e30, 900), 2**-23, 0),
    ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), np.geomspace(1e-30, 1e30, 900), 2**-22.9, 0),
    ("rsqrt.approx.ftz.f32", lambda x: 1 / np.sqrt(x), np.geomspace(1e-30, 1e30, 900), 2**-22.9, 0),
    ("sin.approx.f32", np.sin, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("cos.approx.f32", np.cos, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("lg2.approx.f32", np.log2, np.linspace(0.51, 1.99, 900), 0, 2**-22),
    ("lg2.approx.f32", np.log2, np.geomspace(2.1, 1e30, 900), 2**-22, 0),
    ("ex2.approx.f32", np.exp2, np.linspace(-120, 120, 900), 2**-22, 0),
    ("ex2.approx.ftz.f32", np.exp2, np.linspace(-120, 120, 900), 2**-22, 0),
    ("tanh.approx.f32", np.tanh, np.linspace(-9, 9, 900), 2**-11, 0),
    ("sqrt.approx.ftz.f32", np.sqrt, np.geomspace(1e-30, 1e30, 900), 2**-23, 0),
    ("sin.approx.ftz.f32", np.sin, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("cos.approx.ftz.f32", np.cos, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("lg2.approx.ftz.f32", np.log2, np.geomspace(2.1, 1e30, 900), 2**-22, 0),
]


@pytest.mark.parametrize(("text", "function", "inputs", "relative", "absolute"), APPROXIMATE)
def test_approximations(
    micro: Any, text: str, function: Any, inputs: np.ndarray, relative: float, absolute: float
) -> None:
    x = inputs.astype(np.float32)
    found = micro.each(f"{text} $d, $a;", "f32", ["f32"], [x]).astype(np.float64)
    expected = function(x.astype(np.float64))
    assert (np.abs(found - expected) <= relative * np.abs(expected) + absolute).all()


@pytest.mark.parametrize(("text", "function"), [("rcp", lambda x: 1 / x), ("rsqrt", lambda x: 1 / np.sqrt(x))])
def test_gross_f64(micro: Any, text: str, function: Any) -> None:
    """The upper 32 bits of the operand count, the lower 32 of the result are zero; an error of 2^-20 and a bit."""
    x = np.geomspace(1e-200, 1e200, 900)
    found = micro.each(f"{text}.approx.ftz.f64 $d, $a;", "f64", ["f64"], [x])
    assert (found.view(np.uint64) & 0xFFFFFFFF == 0).all()
    assert (np.abs(found - function(x)) <= 2.0**-19 * function(x)).all()


N, I = math.nan, math.inf
SPECIAL = [
    ("rcp.approx.f32", [0.0, -0.0, I, -I, N], [I, -I, 0.0, -0.0, N]),
    ("sqrt.approx.f32", [0.0, -0.0, I, -1.0, N], [0.0, -0.0, I, N, N]),
    ("rsqrt.approx.f32", [0.0, -0.0, I, -1.0, N], [I, -I, 0.0, N, N]),
    ("lg2.approx.f32", [0.0, -0.0, I, -1.0, N, 1.0], [-I, -I, I, N, N, 0.0]),
    ("ex2.approx.f32", [0.0, -0.0, I, -I, N], [1.0, 1.0, I, 0.0, N]),
    ("tanh.approx.f32", [0.0, -0.0, I, -I, N], [0.0, -0.0, 1.0, -1.0, N]),
    ("sin.approx.f32", [0.0, -0.0, I, -I, N], [0.0, -0.0, N, N, N]),
    ("cos.approx.f32", [0.0, -0.0, I, -I, N], [1.0, 1.0, N, N, N]),
    ("ex2.approx.ftz.f32", [1e-40, -130.0], [1.0, 0.0]),
    ("rcp.approx.ftz.f32", [1e-40, -1e-40], [I, -I]),
    ("sqrt.approx.ftz.f32", [1e-40, -1e-40, I], [0.0, -0.0, I]),
    ("rsqrt.approx.ftz.f32", [1e-40, -1e-40], [I, -I]),
    ("lg2.approx.ftz.f32", [1e-40, -1e-40], [-I, -I]),
    ("sin.approx.ftz.f32", [1e-40, -1e-40], [0.0, -0.0]),
    ("cos.approx.ftz.f32", [1e-40], [1.0]),
]


@pytest.mark.parametrize(("text", "inputs", "expected"), SPECIAL, ids=[row[0] for row in SPECIAL])
def test_special_values_of_approximations(micro: Any, text: str, inputs: list[float], expected: list[float]) -> None:
    found = micro.each(f"{text} $d, $a;", "f32", ["f32"], [np.array(inputs, np.float32)])
    assert same(found, np.array(expected)).all(), list(zip(inputs, found, expected))


@pytest.mark.parametrize(("text", "bound"), [("div.approx.f32", 2**-22), ("div.full.f32", 2**-22)])
def test_quick_division(micro: Any, text: str, bound: float) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.uniform(1, 2, 1000) * 2.0 ** rng.integers(-60, 60, 1000) for _ in range(2))
    a, b = a.astype(np.float32), b.astype(np.float32)
    found = micro.each(f"{text} $d, $a, $b;", "f32", ["f32", "f32"], [a, b]).astype(np.float64)
    expected = a.astype(np.float64) / b
    assert (np.abs(found - expected) <= bound * np.abs(expected)).all()
