"""cvt between numbers, by fractions: every form that sm_80 has (all roundings with .ftz, .sat, .relu, .satfinite), then bf16 from 9.0 on.

fp8: test_ops_fp8.py.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vgpu_exact import FORMATS, Format, from_bits, integers, numbers, signed, to_bits
from vgpu_micro import HEADER, CudaError

INTEGERS = [f"{k}{n}" for n in (8, 16, 32, 64) for k in "us"]
FLOATS = ["f16", "f32", "f64"]
ROUNDINGS, INTEGRAL = ["rn", "rz", "rm", "rp"], {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}
KINDS = FORMATS | {"tf32": Format("tf32", 11, -126, (2 - Fraction(2) ** -10) * Fraction(2) ** 127, 32)}
Form = tuple[str, str, str, str]  # to, from, rounding, other modifiers


def limits(kind: str) -> tuple[int, int]:
    n = int(kind[1:])
    return (-(1 << (n - 1)), (1 << (n - 1)) - 1) if kind[0] == "s" else (0, (1 << n) - 1)


def forms() -> Iterator[Form]:
    """By the ISA's rules for cvt: what may be rounded, flushed, saturated."""
    for to, source in itertools.product(INTEGERS, INTEGERS):
        yield to, source, "", ""
        (low, high), (least, most) = limits(to), limits(source)
        if least < low or most > high:
            yield to, source, "", ".sat"
    for to, source in (*itertools.product(FLOATS, INTEGERS + FLOATS), *itertools.product(INTEGERS, FLOATS)):
        flushes = ["", ".ftz"] if "f32" in (to, source) else [""]
        if to == source:
            roundings = ["", *INTEGRAL]
        elif to in INTEGERS:
            roundings = list(INTEGRAL)
        else:
            roundings = [""] if source in FLOATS and int(source[1:]) < int(to[1:]) else ROUNDINGS
        for rounding, ftz, sat in itertools.product(roundings, flushes, ("", ".sat")):
            yield to, source, rounding, ftz + sat
    for rounding, ftz in itertools.product(ROUNDINGS, ("", ".ftz")):
        yield "bf16", "f32", rounding, ftz
    yield "f32", "bf16", "", ""
    for to, rounding in itertools.product(("f16", "bf16"), ("rn", "rz")):
        for others in (".relu", ".satfinite", ".relu.satfinite"):
            yield to, "f32", rounding, others
    yield "tf32", "f32", "rna", ""
    yield "tf32", "f32", "rna", ".satfinite"


def text(form: Form) -> str:
    to, source, rounding, others = form
    satfinite = others.endswith(".satfinite") and ".relu" in others
    others = ".satfinite.relu" if satfinite else others  # the order of the ISA's syntax
    return f"cvt{'.' + rounding if rounding else ''}{others}.{to}.{source}"


def whole(x: Fraction, mode: str) -> int:
    return {"rn": round, "rz": math.trunc, "rm": math.floor, "rp": math.ceil}[mode](x)


def flush(x: float, kind: str) -> float:
    return math.copysign(0.0, x) if x and abs(x) < 2.0 ** KINDS[kind].smallest else x


def to_integer(x: float, form: Form) -> int:
    to, source, rounding, _ = form
    low, high = limits(to)
    if math.isnan(x):  # the ISA: zero, but the top bit alone where either side has 64 bits
        return 1 << (int(to[1:]) - 1) if source == "f64" or to[1:] == "64" else 0
    if math.isinf(x):
        return high if x > 0 else low
    return min(max(whole(Fraction(x), INTEGRAL[rounding]), low), high)


def to_float(x: float | int, form: Form) -> float:
    to, _, rounding, others = form
    if isinstance(x, float) and not math.isfinite(x):
        result = x
    elif rounding in INTEGRAL:
        result = math.copysign(float(whole(Fraction(x), INTEGRAL[rounding])), x)
    else:
        negative_zero = isinstance(x, float) and x == 0 and math.copysign(1, x) < 0
        ftz = ".ftz" in others and to == "f32"
        result = KINDS[to].round(Fraction(x), rounding or "rn", ftz=ftz, negative_zero=negative_zero)
    if ".relu" in others and not math.isnan(result):
        result = result if result > 0 else 0.0
    if ".satfinite" in others and math.isinf(result):
        result = math.copysign(float(KINDS[to].largest), result)
    if ".sat" in others and ".satfinite" not in others:
        result = 0.0 if math.isnan(result) else min(max(result, 0.0), 1.0)
    return result


def operands(to: str, source: str) -> list[Any]:
    """Edges of the source, and of the result seen from the source: its limits, halves, midpoints between its numbers."""
    if source in INTEGERS:
        width = int(source[1:])
        return [signed(x, width) if source[0] == "s" else x for x in integers(width, count=60)]
    if to in INTEGERS:
        near = [float(x + d) for x in limits(to) for d in (-1, -0.5, 0, 0.5, 1)] + [k / 2 for k in range(-9, 10)]
    else:
        results = numbers(to.replace("tf", "f"), count=60)
        near = [x * (1 + s * 2.0 ** -KINDS[to].precision) for x in results for s in (0, 1, -1, 0.5)]
        near += [k / 2 for k in range(-9, 10)] + [0.25, 0.999999, 1.0000001, -1e-9]
        near += [s * 2.0**e for s in (1, -1.5) for e in range(-151, -120)]  # where f32 becomes subnormal
    with np.errstate(over="ignore"):
        return numbers(source, count=100) + [FORMATS[source].round(x) for x in near]


def as_bits(values: list[Any], kind: str) -> np.ndarray:
    if kind in INTEGERS:
        width = int(kind[1:])
        return np.array([x % (1 << width) for x in values], f"u{width // 8}")
    return to_bits(np.array(values), kind)


def check(found: np.ndarray, cases: list[Any], expected: list[Any], form: Form) -> None:
    to, _, _, others = form
    if to in INTEGERS:
        wrong = found.view(f"u{int(to[1:]) // 8}") != as_bits(expected, to)
    else:
        got = found.view(np.float32).astype(np.float64) if to == "tf32" else from_bits(found, to)
        want = np.array(expected, np.float64)
        wrong = (got != want) & ~(np.isnan(got) & np.isnan(want))
        if ".sat" not in others or ".satfinite" in others:  # which zero .sat gives is open
            wrong |= (np.signbit(got) != np.signbit(want)) & ~np.isnan(want)
    at = np.flatnonzero(wrong)
    assert not len(at), (text(form), [(cases[i], found[i], expected[i]) for i in at[:4]])


FORMS = sorted(set(forms()))


def convert(micro: Any, form: Form, header: str = HEADER) -> None:
    to, source, *_ = form
    cases = operands(to, source)
    found = micro.each(f"{text(form)} $d, $a;", to, [source], [as_bits(cases, source)], header=header)
    if to in INTEGERS and source in INTEGERS:
        low, high = limits(to)
        expected: list[Any] = [min(max(x, low), high) if form[3] else x for x in cases]
    else:
        given = [flush(x, source) if ".ftz" in form[3] and source == "f32" else x for x in cases]
        expected = [(to_integer if to in INTEGERS else to_float)(x, form) for x in given]
    check(found, cases, expected, form)


@pytest.mark.parametrize(("to", "source"), sorted({form[:2] for form in FORMS}))
def test_cvt(micro: Any, to: str, source: str) -> None:
    for form in FORMS:
        if form[:2] == (to, source):
            convert(micro, form)


@pytest.mark.parametrize("other", [*INTEGERS[2:], "f16", "f64"])
def test_bf16_of_later_parts(micro: Any, other: str) -> None:
    """From 9.0 on bf16 converts from and to all numbers of 16 bits and more; before, from and to f32."""
    forms = [("bf16", other, rounding, "") for rounding in ROUNDINGS]
    forms += [(other, "bf16", rounding, "") for rounding in {"f16": ROUNDINGS, "f64": [""]}.get(other, INTEGRAL)]
    with micro.part(90) as header:
        for form in forms:
            convert(micro, form, header)


@pytest.mark.parametrize(
    ("to", "source"), [pair for pair in itertools.product(INTEGERS, INTEGERS) if (*pair, "", ".sat") not in FORMS]
)
def test_nothing_to_saturate(micro: Any, to: str, source: str) -> None:
    """The ISA has .sat only where values may not fit."""
    with pytest.raises(CudaError):
        micro.each(f"cvt.sat.{to}.{source} $d, $a;", to, [source], [as_bits([0], source)])


@pytest.mark.parametrize("others", ["", ".relu", ".satfinite", ".relu.satfinite"])
@pytest.mark.parametrize("rounding", ["rn", "rz"])
@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_pairs(micro: Any, to: str, rounding: str, others: str) -> None:
    """Two f32 into one register: the first is the upper half."""
    form = (to, "f32", rounding, others)
    cases = operands(to, "f32")
    bits = as_bits(cases, "f32")
    opcode = text(form).replace(f".{to}.", f".{to}x2.")
    found = micro.each(f"{opcode} $d, $a, $b;", f"{to}x2", ["f32", "f32"], [bits, bits[::-1].copy()])
    expected = [to_float(x, form) for x in cases]
    check((found >> 16).astype(np.uint16), cases, expected, form)
    check((found & 0xFFFF).astype(np.uint16)[::-1], cases, expected, form)


def test_these_are_all_that_ptxas_takes(toolkit: Any, tmp_path: Path) -> None:
    """Of all combinations. It also takes roundings of what is exact (cvt.rn.f32.bf16), which the ISA does not."""
    registers = {8: "%h", 16: "%h", 32: "%r", 64: "%q"}
    kinds = [*INTEGERS, *FLOATS, "bf16", "tf32"]
    size = {k: 32 if k == "tf32" else int(re.sub(r"\D+", "", k.replace("bf16", "16"))) for k in kinds}
    modifiers = ["", ".ftz", ".sat", ".ftz.sat", ".relu", ".satfinite", ".relu.satfinite"]
    every = list(itertools.product(kinds, kinds, ["", *ROUNDINGS, *INTEGRAL, "rna"], modifiers))
    lines = [f"{text(f)} {registers[size[f[0]]]}0, {registers[size[f[1]]]}1;" for f in every]
    source = tmp_path / "cvt.ptx"
    declared = ".reg .b16 %h<2>; .reg .b32 %r<2>; .reg .b64 %q<2>;"
    begin = f"{HEADER}.visible .entry k() {{ {declared}\n"
    source.write_text(begin + "\n".join(lines) + "\nret; }")
    with pytest.raises(AssertionError) as error:
        toolkit.run("ptxas", "-arch", "sm_80", source, "-o", tmp_path / "cvt.cubin")
    refused = {int(number) - 5 for number in re.findall(r"line (\d+); error", str(error.value))}
    taken = {form for i, form in enumerate(every) if i not in refused}
    assert set(FORMS) - taken == set()
    assert {form for form in taken - set(FORMS) if form[:2] != ("f32", "bf16")} == set()
