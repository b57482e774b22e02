"""f16 and bf16, alone and as pairs, against exact fractions: arithmetic, extremes, signs, functions; parts of 9.0 have more of bf16."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from test_ops_float import expect, extreme, flush, signed_extreme
from vgpu_exact import combinations, from_bits, numbers, same, to_bits

HALVES = ("f16", "bf16")


@contextmanager
def part(micro: Any, capability: int) -> Iterator[None]:
    """Rows that need a later part than 8.0, and a header that says so."""
    each = micro.each
    with micro.part(capability) as header, mock.patch.object(micro, "each", lambda *a: each(*a, header=header)):
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


EXTREMES = [(name, nan + x) for name in HALVES for nan in ("", ".NaN") for x in ("", ".xorsign.abs")]
EXTREMES += [("f16", ".ftz" + extra) for name, extra in EXTREMES if name == "f16"]


@pytest.mark.parametrize(("name", "extra"), EXTREMES)
@pytest.mark.parametrize("kind", ["min", "max"])
def test_extremes(micro: Any, kind: str, name: str, extra: str) -> None:
    """.xorsign.abs (8.6 and later): of the absolute values, with the product's sign."""
    cases = combinations(numbers(name, 1), numbers(name, 2))
    if "xorsign" in extra:  # the sign of what is not a number is open
        cases = [c for c in cases if not any(map(math.isnan, c))]
    expected = []
    for a, b in ([flush(x, name) for x in case] if ".ftz" in extra else case for case in cases):
        expected.append(signed_extreme(kind, a, b) if "xorsign" in extra else extreme(kind, a, b, "NaN" in extra))
    with part(micro, 86 if "xorsign" in extra else 80):
        check(micro, f"{kind}{extra}.TYPE $d, $a, $b;", name, cases, expected)


@pytest.mark.parametrize("name", HALVES)
def test_signs(micro: Any, name: str) -> None:
    cases = [(x,) for x in numbers(name)]
    check(micro, "abs.TYPE $d, $a;", name, cases, [abs(x) for (x,) in cases])
    check(micro, "neg.TYPE $d, $a;", name, cases, [-x for (x,) in cases])
    if name == "f16":
        check(micro, "abs.ftz.TYPE $d, $a;", name, cases, [abs(flush(x, name)) for (x,) in cases])
        check(micro, "neg.ftz.TYPE $d, $a;", name, cases, [-flush(x, name) for (x,) in cases])


FLAGS = ("", ".ftz", ".sat", ".ftz.sat")
ARITHMETIC = [("f16", kind, mode, x) for kind in ("add", "sub", "mul") for mode in ("", ".rn") for x in FLAGS]
ARITHMETIC += [("f16", "fma", ".rn", x) for x in (*FLAGS, ".relu", ".ftz.relu")]
ARITHMETIC += [("bf16", "fma", ".rn", x) for x in ("", ".relu")]
ARITHMETIC += [("bf16", kind, ".rn", "") for kind in ("add", "sub", "mul")]  # from 9.0 on


@pytest.mark.parametrize(("name", "kind", "mode", "extra"), ARITHMETIC)
def test_arithmetic(micro: Any, name: str, kind: str, mode: str, extra: str) -> None:
    """Without a rounding: to nearest."""
    count = 3 if kind == "fma" else 2
    cases = combinations(*(numbers(name, seed=i + 1) for i in range(count)), limit=1500)
    flags = [flag in extra for flag in (".ftz", ".sat", ".relu")]
    expected = [expect(kind, name, case, "rn", *flags) for case in cases]
    with part(micro, 90 if name == "bf16" and kind != "fma" else 80):
        check(
            micro, f"{kind}{mode}{extra}.TYPE $d, {', '.join('$' + x for x in 'abc'[:count])};", name, cases, expected
        )


FUNCTIONS = [("ex2.approx", "f16", np.exp2, 2.0**-9.9)]
FUNCTIONS += [("tanh.approx", "f16", np.tanh, 2.0**-10.987), ("ex2.approx.ftz", "bf16", np.exp2, 2.0**-7)]
FUNCTIONS += [("tanh.approx", "bf16", np.tanh, 2.0**-8)]


@pytest.mark.parametrize(("text", "name", "function", "bound"), FUNCTIONS, ids=[f"{r[0]}.{r[1]}" for r in FUNCTIONS])
def test_functions(micro: Any, text: str, name: str, function: Any, bound: float) -> None:
    """Within the ISA's errors: relative, for tanh of f16 absolute; alone and packed; special values."""
    x = from_bits(to_bits(np.linspace(-8, 8, 800), name), name)
    with part(micro, 90 if name == "bf16" else 80):
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
