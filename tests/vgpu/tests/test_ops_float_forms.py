"""The forms of floating arithmetic beside those of test_ops_float: every rounding with every flush and saturation, pairs, defaults."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from test_ops_float import MODES, check, expect, flush
from vgpu_exact import combinations, from_bits, numbers, same, to_bits
from vgpu_micro import HEADER

COUNT = {"fma": 3, "sqrt": 1, "rcp": 1}
ARITHMETIC = ("add", "sub", "mul", "fma")
HALF = ("", ".ftz", ".sat", ".ftz.sat")
FORMS = [(k, m, x, "f32") for k in ARITHMETIC for m in MODES for x in (".ftz", ".sat", ".ftz.sat")]
FORMS += [(k, m, ".ftz", "f32") for k in ("div", "sqrt", "rcp") for m in MODES]
# Without a rounding: to nearest.
FORMS += [(k, "", x, "f32") for k in ("add", "sub", "mul") for x in HALF]
FORMS += [(k, "", "", "f64") for k in ("add", "sub", "mul")]
FORMS += [(k, m, x, f"f16{p}") for k in ("add", "sub", "mul") for m in ("", "rn") for x in HALF for p in ("", "x2")]
FORMS += [("fma", "rn", x, f"f16{p}") for x in (*HALF, ".relu", ".ftz.relu") for p in ("", "x2")]
FORMS += [("fma", "rn", ".relu", f"bf16{p}") for p in ("", "x2")]


def check_pairs(
    micro: Any, text: str, half: str, cases: list[tuple[float, ...]], expected: list[float], header: str = HEADER
) -> None:
    """The case in the lower half, the one from the other end in the upper."""
    columns = [to_bits(np.array(column), half) for column in zip(*cases)]
    words = [c.astype(np.uint32) | c[::-1].astype(np.uint32) << 16 for c in columns]
    found = micro.each(text, f"{half}x2", [f"{half}x2"] * len(words), words, header=header)
    low, high = from_bits((found & 0xFFFF).astype(np.uint16), half), from_bits((found >> 16).astype(np.uint16), half)
    assert same(low, np.array(expected)).all(), text
    assert same(high, np.array(expected[::-1])).all(), text


def either(
    micro: Any, text: str, kind: str, cases: list[tuple[float, ...]], expected: list[float], header: str = HEADER
) -> None:
    if kind.endswith("x2"):
        check_pairs(micro, text, kind[:-2], cases, expected, header)
    else:
        check(micro, text, kind, cases, expected, header)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: "-".join(f))
def test_arithmetic(micro: Any, form: tuple[str, str, str, str]) -> None:
    kind, mode, extra, name = form
    half, count = name.removesuffix("x2"), COUNT.get(kind, 2)
    cases = combinations(*(numbers(half, seed=i + 1, count=20) for i in range(count)), limit=500)
    text = f"{kind}{'.' + mode if mode else ''}{extra}.{name} $d, {', '.join('$' + x for x in 'abc'[:count])};"
    flags = [flag in extra for flag in (".ftz", ".sat", ".relu")]
    either(micro, text, name, cases, [expect(kind, half, case, mode or "rn", *flags) for case in cases])


SIGNS = [(k, x, n) for k in ("abs", "neg") for n in ("f16", "f16x2", "bf16", "bf16x2") for x in ("", ".ftz")]
SIGNS = [form for form in SIGNS if form[1] == "" or form[2][0] == "f"] + [(k, ".ftz", "f32") for k in ("abs", "neg")]


@pytest.mark.parametrize("form", SIGNS, ids=lambda f: "-".join(f))
def test_signs(micro: Any, form: tuple[str, str, str]) -> None:
    kind, extra, name = form
    half = name.removesuffix("x2")
    cases = [(x,) for x in numbers(half)]
    given = [flush(x, half) if extra else x for (x,) in cases]
    either(micro, f"{kind}{extra}.{name} $d, $a;", name, cases, [abs(x) if kind == "abs" else -x for x in given])


def extreme(kind: str, a: float, b: float, nan: bool) -> float:
    """A number wins against what is none, unless .NaN says otherwise; -0 is less than +0."""
    if math.isnan(a) or math.isnan(b):
        return math.nan if nan or (math.isnan(a) and math.isnan(b)) else b if math.isnan(a) else a
    lower, upper = sorted((a, b), key=lambda x: (x, math.copysign(1, x)))
    return lower if kind == "min" else upper


PACKED = [(k, f + n, t) for k in ("min", "max") for f in ("", ".ftz") for n in ("", ".NaN") for t in ("f16", "f16x2")]
PACKED += [(k, n, t) for k in ("min", "max") for n in ("", ".NaN") for t in ("bf16", "bf16x2")]
SIGNED = [
    (k, f"{f}{n}.xorsign.abs", t)
    for (k, f, n), t in itertools.product(
        itertools.product(("min", "max"), ("", ".ftz"), ("", ".NaN")), ("f32", "f16", "f16x2")
    )
]


@pytest.mark.parametrize("form", [*PACKED, *SIGNED], ids=lambda f: "-".join(f))
def test_extremes(micro: Any, form: tuple[str, str, str]) -> None:
    """.xorsign.abs: of the absolute values, with the product's sign (left open for what is not a number)."""
    kind, extra, name = form
    half = name.removesuffix("x2")
    values = numbers(half, 1, 20)
    if "xorsign" in extra:
        values = [x for x in values if not math.isnan(x)]
    cases = combinations(values, values, limit=1000)
    given = [tuple(flush(x, half) for x in case) if ".ftz" in extra else case for case in cases]
    text = f"{kind}{extra}.{name} $d, $a, $b;"
    if "xorsign" not in extra:
        return either(micro, text, name, cases, [extreme(kind, a, b, ".NaN" in extra) for a, b in given])
    signs = [math.copysign(1, a) * math.copysign(1, b) for a, b in given]
    expected = [math.copysign(extreme(kind, abs(a), abs(b), False), sign) for (a, b), sign in zip(given, signs)]
    with micro.part("l4", 86):
        return either(micro, text, name, cases, expected, HEADER.replace("sm_80", "sm_86"))
