"""setp, set, selp, slct and predicates: every type that sm_80 has and bf16 from 9.0 on, .ftz, joins, results as numbers and as masks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from vgpu_exact import FORMATS, combinations, integers, numbers, signed, to_bits

ORDERED = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
JOINS = {"": lambda x, c: x, ".and": lambda x, c: x and c, ".or": lambda x, c: x or c, ".xor": lambda x, c: x != c}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
WIDTH = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "f16x2": 32, "bf16x2": 32}
WIDTH |= {f"{k}{n}": n for k in "bsu" for n in (16, 32, 64)}
SOURCES = [(k, ftz) for k in ("f16", "f32", "f64", "f16x2") for ftz in ("", ".ftz") if k != "f64" or not ftz]
SOURCES += [(k, "") for k in ("bf16", "bf16x2", *(f"{k}{n}" for k in "bsu" for n in (16, 32, 64)))]
# Results of set: what true is, by type.
TRUE = {
    "u16": 0xFFFF,
    "s16": 0xFFFF,
    "u32": 0xFFFFFFFF,
    "s32": 0xFFFFFFFF,
    "f32": 0x3F800000,
    "f16": 0x3C00,
    "bf16": 0x3F80,
}


def compare(name: str, a: float, b: float) -> bool:
    nan = math.isnan(a) or math.isnan(b)
    if name in ("num", "nan"):
        return nan == (name == "nan")
    if name in ORDERED:
        return not nan and ORDERED[name](a, b)
    return nan or ORDERED[name[:-1]](a, b)


def flushed(x: float, kind: str) -> float:
    return x * 0.0 if x and abs(x) < 2.0 ** FORMATS[kind].smallest else x


def names(kind: str) -> list[str]:
    if "f" in kind:
        return [*ORDERED, *(f"{name}u" for name in ORDERED), "num", "nan"]
    return ["eq", "ne"] if kind[0] == "b" else [*ORDERED, *(UNSIGNED if kind[0] == "u" else ())]


def pairs(kind: str, ftz: str) -> tuple[list[np.ndarray], list[tuple[Any, Any]]]:
    """Two columns of operands and one of predicates, and the numbers that an instruction compares. Of a pair they are
    the lower half; the upper one is the same from the other end."""
    width = WIDTH[kind]
    if "f" in kind:
        base = kind.removesuffix("x2")
        small = 2.0 ** FORMATS[base].smallest
        extra = [small, -small, small / 2, -small / 2, small / 4]
        cases = combinations(numbers(base, 1, 12) + extra, numbers(base, 1, 12) + extra)
        columns = [to_bits(np.array(c), base) for c in zip(*cases)]
        given = [(flushed(a, base), flushed(b, base)) if ftz else (a, b) for a, b in cases]
    else:
        cases = combinations(integers(width, 1, 12), integers(width, 2, 12))
        columns = [np.array(c, f"u{width // 8}") for c in zip(*cases)]
        given = [(signed(a, width), signed(b, width)) for a, b in cases] if kind[0] == "s" else cases
    if kind.endswith("x2"):
        columns = [c.astype(np.uint32) | c[::-1].astype(np.uint32) << 16 for c in columns]
    return [*columns, np.arange(len(cases), dtype=np.uint32) % 2], given


def outcomes(name: str, cases: list[tuple[Any, Any]]) -> list[bool]:
    return [bool(compare(UNSIGNED.get(name, name), a, b)) for a, b in cases]


@pytest.mark.parametrize(("kind", "ftz"), SOURCES)
def test_setp(micro: Any, kind: str, ftz: str) -> None:
    """Both predicates: the comparison and its opposite (halves: it alone), of a pair the lower and the upper half; joined."""
    columns, cases = pairs(kind, ftz)
    alone = kind in ("f16", "bf16")
    negations = itertools.cycle(["", "!", "!", ""])
    for (join, function), name in itertools.product(JOINS.items(), names(kind)):
        negated = next(negations)
        source = f", {negated}$c" if join else ""
        to = "%x" if alone else "%x|%y"
        text = f".reg .pred %x, %y; setp.{name}{join}{ftz}.{kind} {to}, $a, $b{source}; selp.u32 $d, 1, 0, %x;"
        text += "" if alone else " @%y or.b32 $d, $d, 2;"
        with micro.part(90 if kind.startswith("bf16") else 80) as header:
            found = micro.each(text, "u32", [kind, kind, "pred"], columns, header=header)
        first = outcomes(name, cases)
        second = first[::-1] if kind.endswith("x2") else [not x for x in first]
        third, twice = columns[2] != bool(negated), 0 if alone else 2
        expected = [function(x, bool(c)) + twice * function(y, bool(c)) for x, y, c in zip(first, second, third)]
        assert found.tolist() == expected, text


def results(kind: str) -> list[str]:
    if kind.endswith("x2"):
        return [kind, "u32", "s32"]
    return ["u32", "s32", "u16", "s16", kind] if kind in ("f16", "bf16") else ["u32", "s32", "f16", "f32"]


@pytest.mark.parametrize(("kind", "ftz"), SOURCES)
def test_set(micro: Any, kind: str, ftz: str) -> None:
    """True is 1.0 or all ones, of a pair in each half. Each comparison alone and joined, by turns with each."""
    columns, cases = pairs(kind, ftz)
    joins = itertools.cycle(list(JOINS.items())[1:])
    for result, name, alone in itertools.product(results(kind), names(kind), (True, False)):
        join, function = ("", JOINS[""]) if alone else next(joins)
        source = ", $c" if join else ""
        text = f"set.{name}{join}{ftz}.{result}.{kind} $d, $a, $b{source};"
        with micro.part(90 if kind.startswith("bf16") else 80) as header:
            found = micro.each(text, result, [kind, kind, "pred"], columns, header=header)
        first = outcomes(name, cases)
        low = [function(x, bool(c)) for x, c in zip(first, columns[2])]
        if kind.endswith("x2"):
            one = TRUE[kind[:-2]] if result == kind else 0xFFFF
            high = [function(x, bool(c)) for x, c in zip(first[::-1], columns[2])]
            expected = [one * x | one * y << 16 for x, y in zip(low, high)]
        else:
            expected = [TRUE[result] * x for x in low]
        assert found.view(f"u{WIDTH[result] // 8}").tolist() == expected, text


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


def test_logic_of_predicates(micro: Any) -> None:
    """With negated sources too."""
    a, b = (np.array(x, np.uint32) for x in ([0, 0, 1, 1], [0, 1, 0, 1]))
    texts = {"and.pred $d, $a, $b;": a & b, "or.pred $d, $a, $b;": a | b, "xor.pred $d, $a, $b;": a ^ b}
    texts |= {"not.pred $d, $a;": 1 - a, "and.pred $d, !$a, $b;": (1 - a) & b, "or.pred $d, $a, !$b;": a | (1 - b)}
    for text, expected in texts.items():
        kinds = ["pred", "pred"] if "$b" in text else ["pred"]
        assert micro.each(text, "pred", kinds, [a, b][: len(kinds)]).tolist() == expected.tolist(), text


@pytest.mark.parametrize("negated", ["", "!"])
@pytest.mark.parametrize("kind", [f"{k}{n}" for k in "bsuf" for n in (16, 32, 64) if (k, n) != ("f", 16)])
def test_selp(micro: Any, kind: str, negated: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2 ** WIDTH[kind], (2, 64), f"u{WIDTH[kind] // 8}")
    chosen = rng.integers(0, 2, 64, np.uint32)
    operand = kind.replace("f", "b")
    found = micro.each(f"selp.{kind} $d, $a, $b, {negated}$c;", operand, [operand, operand, "pred"], [a, b, chosen])
    assert (found.view(a.dtype) == np.where(chosen != bool(negated), a, b)).all()
