"""Every form of setp, set and slct that sm_80 has: types, .ftz, what it is joined with, results as numbers and as masks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from test_ops_convert import ORDERED, compare
from vgpu_exact import FORMATS, combinations, integers, numbers, signed, to_bits

JOINS = {"": lambda x, c: x, ".and": lambda x, c: x and c, ".or": lambda x, c: x or c, ".xor": lambda x, c: x != c}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
WIDTH = {"f16": 16, "f32": 32, "f64": 64, "f16x2": 32} | {f"{k}{n}": n for k in "bsu" for n in (16, 32, 64)}
SOURCES = [(k, ftz) for k in ("f16", "f32", "f64", "f16x2") for ftz in ("", ".ftz") if k != "f64" or not ftz]
SOURCES += [(f"{k}{n}", "") for k in "bsu" for n in (16, 32, 64)]
# Results of set: what true is, by type.
TRUE = {"u16": 0xFFFF, "s16": 0xFFFF, "u32": 0xFFFFFFFF, "s32": 0xFFFFFFFF, "f32": 0x3F800000, "f16": 0x3C00}


def flushed(x: float, kind: str) -> float:
    return x * 0.0 if x and abs(x) < 2.0 ** FORMATS[kind].smallest else x


def names(kind: str) -> list[str]:
    if kind[0] == "f":
        return [*ORDERED, *(f"{name}u" for name in ORDERED), "num", "nan"]
    return ["eq", "ne"] if kind[0] == "b" else [*ORDERED, *(UNSIGNED if kind[0] == "u" else ())]


def pairs(kind: str, ftz: str) -> tuple[list[np.ndarray], list[tuple[Any, Any]]]:
    """Two columns of operands, and the numbers that an instruction compares."""
    if kind[0] == "f":
        base = kind[:3]
        small = 2.0 ** FORMATS[base].smallest
        extra = [small, -small, small / 2, -small / 2, small / 4]
        cases = combinations(numbers(base, 1, 12) + extra, numbers(base, 1, 12) + extra)
        columns = [to_bits(np.array(c), base) for c in zip(*cases)]
        return columns, [(flushed(a, base), flushed(b, base)) if ftz else (a, b) for a, b in cases]
    width = WIDTH[kind]
    cases = combinations(integers(width, 1, 8), integers(width, 1, 8))
    columns = [np.array(c, f"u{width // 8}") for c in zip(*cases)]
    return columns, [(signed(a, width), signed(b, width)) for a, b in cases] if kind[0] == "s" else cases


def both_halves(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Pairs whose upper half is the case of the lower one from the other end."""
    return [c.astype(np.uint32) | c[::-1].astype(np.uint32) << 16 for c in columns]


def outcomes(name: str, cases: list[tuple[Any, Any]]) -> list[bool]:
    return [bool(compare(UNSIGNED.get(name, name), a, b)) for a, b in cases]


@pytest.mark.parametrize(("kind", "ftz"), SOURCES)
def test_setp(micro: Any, kind: str, ftz: str) -> None:
    """Both predicates: the comparison and its opposite (f16: it alone), of a pair the lower and the upper half; joined."""
    columns, cases = pairs(kind, ftz)
    if kind == "f16x2":
        columns = both_halves(columns)
    third = np.arange(len(cases), dtype=np.uint32) % 2
    for name, (join, function) in itertools.product(names(kind), JOINS.items()):
        source = ", $c" if join else ""
        to = "%x" if kind == "f16" else "%x|%y"
        text = f".reg .pred %x, %y; setp.{name}{join}{ftz}.{kind} {to}, $a, $b{source}; selp.u32 $d, 1, 0, %x;"
        text += "" if kind == "f16" else " @%y or.b32 $d, $d, 2;"
        found = micro.each(text, "u32", [kind, kind, "pred"], [*columns, third])
        first = outcomes(name, cases)
        second = first[::-1] if kind == "f16x2" else [not x for x in first]
        twice = 0 if kind == "f16" else 2
        expected = [function(x, bool(c)) + twice * function(y, bool(c)) for x, y, c in zip(first, second, third)]
        assert found.tolist() == expected, text


def results(kind: str) -> list[str]:
    if kind == "f16x2":
        return ["f16x2", "u32", "s32"]
    return ["u32", "s32", "f16", *(["u16", "s16"] if kind == "f16" else ["f32"])]


@pytest.mark.parametrize(("kind", "ftz"), SOURCES)
def test_set(micro: Any, kind: str, ftz: str) -> None:
    """True is 1.0 or all ones, of a pair in each half."""
    columns, cases = pairs(kind, ftz)
    if kind == "f16x2":
        columns = both_halves(columns)
    third = np.arange(len(cases), dtype=np.uint32) % 2
    joins = itertools.cycle(JOINS.items())
    for result, name in itertools.product(results(kind), names(kind)):
        join, function = next(joins)
        source = ", $c" if join else ""
        text = f"set.{name}{join}{ftz}.{result}.{kind} $d, $a, $b{source};"
        found = micro.each(text, result, [kind, kind, "pred"], [*columns, third]).view(f"u{WIDTH[result] // 8}")
        first = outcomes(name, cases)
        low = [function(x, bool(c)) for x, c in zip(first, third)]
        if kind == "f16x2":
            one = 0x3C00 if result == "f16x2" else 0xFFFF
            high = [function(x, bool(c)) for x, c in zip(first[::-1], third)]
            expected = [one * x | one * y << 16 for x, y in zip(low, high)]
        else:
            expected = [TRUE[result] * x for x in low]
        assert found.tolist() == expected, text


@pytest.mark.parametrize("kind", [f"{k}{n}" for k in "bsuf" for n in (16, 32, 64) if (k, n) != ("f", 16)])
@pytest.mark.parametrize("selector", ["s32", "f32", "ftz"])
def test_slct(micro: Any, selector: str, kind: str) -> None:
    """a where c >= 0, minus zero included; what is not a number selects b; .ftz makes zeros of subnormal numbers first."""
    if selector == "s32":
        choices = integers(32, 1, 20)
        bits, chosen = np.array(choices, np.uint32), [signed(c, 32) >= 0 for c in choices]
    else:
        floats = numbers("f32", 1, 20) + [-(2.0**-127), 2.0**-127, -(2.0**-149)]
        bits = to_bits(np.array(floats), "f32")
        chosen = [(flushed(c, "f32") if selector == "ftz" else c) >= 0 for c in floats]
    text = f"slct{'.ftz' if selector == 'ftz' else ''}.{kind}.{'s32' if selector == 's32' else 'f32'} $d, $a, $b, $c;"
    count, whole = len(bits), f"u{WIDTH[kind] // 8}"
    a = np.arange(1, count + 1).astype(whole) * 257
    operand = kind.replace("f", "b")
    found = micro.each(text, operand, [operand, operand, "b32"], [a, ~a, bits])
    assert found.view(whole).tolist() == [int(x if c else ~x) for x, c in zip(a, chosen)]
