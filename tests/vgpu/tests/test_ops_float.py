"""f32 and f64 against exact fractions: every rounding with every flush and saturation, signs of zero and infinity.

Pairs and halves: test_ops_half.py. Functions that are only near: test_ops_approximate.py.
"""

from __future__ import annotations

import math
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


ARITHMETIC = ("add", "sub", "mul", "fma")
FLAGS = ("", ".ftz", ".sat", ".ftz.sat")
ROWS = [(k, m, x, "f32") for k in ARITHMETIC for m in MODES for x in FLAGS]
ROWS += [(k, m, x, "f32") for k in ("div", "sqrt", "rcp") for m in MODES for x in ("", ".ftz")]
ROWS += [(k, m, "", "f64") for k in (*ARITHMETIC, "div", "sqrt", "rcp") for m in MODES]
# Without a rounding: to nearest.
ROWS += [(k, "", x, "f32") for k in ("add", "sub", "mul") for x in FLAGS]
ROWS += [(k, "", "", "f64") for k in ("add", "sub", "mul")]


@pytest.mark.parametrize(("kind", "mode", "extra", "name"), ROWS, ids=["-".join(filter(None, r)) for r in ROWS])
def test_arithmetic(micro: Any, kind: str, mode: str, extra: str, name: str) -> None:
    count = {"fma": 3, "sqrt": 1, "rcp": 1}.get(kind, 2)
    cases = combinations(*(numbers(name, seed=i + 1) for i in range(count)), limit=1500)
    text = f"{kind}{'.' + mode if mode else ''}{extra}.{name} $d, {', '.join('$' + x for x in 'abc'[:count])};"
    expected = [expect(kind, name, case, mode or "rn", ".ftz" in extra, ".sat" in extra, False) for case in cases]
    check(micro, text, name, cases, expected)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_mad_is_fma(micro: Any, name: str) -> None:
    cases = combinations(*(numbers(name, seed=i + 1) for i in range(3)), limit=500)
    expected = [expect("fma", name, case, "rn", False, False, False) for case in cases]
    check(micro, f"mad.rn.{name} $d, $a, $b, $c;", name, cases, expected)


def extreme(kind: str, a: float, b: float, nan: bool) -> float:
    """A number wins against what is none, unless .NaN says otherwise."""
    if math.isnan(a) or math.isnan(b):
        return math.nan if nan or (math.isnan(a) and math.isnan(b)) else a if math.isnan(b) else b
    if a == b == 0:  # +0 is above -0
        return zero(negative(a) or negative(b)) if kind == "min" else zero(negative(a) and negative(b))
    return min(a, b) if kind == "min" else max(a, b)


def signed_extreme(kind: str, a: float, b: float) -> float:
    return math.copysign(extreme(kind, abs(a), abs(b), False), math.copysign(1, a) * math.copysign(1, b))


EXTREMES = [("f32", f + n + x) for f in ("", ".ftz") for n in ("", ".NaN") for x in ("", ".xorsign.abs")] + [
    ("f64", "")
]


@pytest.mark.parametrize(("name", "extra"), EXTREMES)
@pytest.mark.parametrize("kind", ["min", "max"])
def test_extremes(micro: Any, kind: str, name: str, extra: str) -> None:
    """.xorsign.abs (8.6 and later): of the absolute values, with the product's sign."""
    cases = combinations(numbers(name, 1), numbers(name, 2))
    given = [tuple(flush(x, name) for x in case) if ".ftz" in extra else case for case in cases]
    text = f"{kind}{extra}.{name} $d, $a, $b;"
    if "xorsign" not in extra:
        check(micro, text, name, cases, [extreme(kind, a, b, "NaN" in extra) for a, b in given])
        return
    cases, given = zip(*(pair for pair in zip(cases, given) if not any(map(math.isnan, pair[0]))))  # their sign is open
    expected = [signed_extreme(kind, a, b) for a, b in given]
    with micro.part(86) as header:
        check(micro, text, name, list(cases), expected, header)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_signs(micro: Any, name: str) -> None:
    cases = [(x,) for x in numbers(name)]
    check(micro, f"abs.{name} $d, $a;", name, cases, [abs(x) for (x,) in cases])
    check(micro, f"neg.{name} $d, $a;", name, cases, [-x for (x,) in cases])
    if name == "f32":
        check(micro, "abs.ftz.f32 $d, $a;", name, cases, [abs(flush(x, name)) for (x,) in cases])
        check(micro, "neg.ftz.f32 $d, $a;", name, cases, [-flush(x, name) for (x,) in cases])
    pairs = combinations(*([x for x in numbers(name, seed) if not math.isnan(x)] for seed in (1, 2)))
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
