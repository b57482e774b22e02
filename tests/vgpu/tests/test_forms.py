"""The engine takes an instruction just where ptxas takes it: opcode, modifiers, types, widths of operands, the part."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest
from door import Door
from vgpu_forms import REGISTERS, disturbed, instructions

PARTS = {80: "a100", 89: "l4", 90: "h100"}
# What ptxas takes for sm_80 and the engine refuses. README.md, "Limits", says the same.
NOT_THERE = {
    "128 bits": r"(ld|ldu|st|mov)\b.*\.b128 .*",
    "vectors of 8, which the ISA has from sm_100 on": r"(ld|st)\b.*\.v8\..*",
    "packing with saturation": r"cvt\.pack\..*",
    "fences of a proxy": r"(membar|fence)\.proxy\..*",
}
# What ptxas takes and the ISA does not tell of.
UNDOCUMENTED = {
    "roundings of bf16, which ptxas drops for pairs": r"fma\.r[zmp](\.relu)?\.bf16.*",
    "carries of 16 bits, and with saturation": r"(addc|subc|madc)\.(lo\.|hi\.)?([us]16|sat\.s32) .*",
    "testp of nothing": r"testp\.f(32|64) .*",
    "vectors from one register": r"mov\.v[24]\..*",
}


def module(lines: list[str], part: int) -> str:
    """One line each, from line 5 on, in a kernel that never gets to them."""
    header = f".version 9.0\n.target sm_{part}\n.address_size 64\n.visible .entry k() {{ {REGISTERS} bra END;\n"
    return header + "\n".join(lines) + "\nEND: ret; }"


def ptxas_refuses(toolkit: Any, folder: Path, lines: list[str], part: int) -> set[str]:
    """It names every line that it refuses. The last one it must: so it has read them all, and makes no code."""
    source = folder / f"forms_{part}_{len(lines)}.ptx"
    source.write_text(module([*lines, "add.b8 %h0, %h1, %h2;"], part))
    with pytest.raises(AssertionError) as error:
        toolkit.run("ptxas", "-arch", f"sm_{part}", source, "-o", source.with_suffix(".cubin"))
    found = {int(number) - 5 for number in re.findall(r"line (\d+); error", str(error.value))}
    assert len(lines) in found, str(error.value)[-1000:]
    return {lines[i] for i in found - {len(lines)}}


def engine_refuses(engine: ctypes.CDLL, lines: list[str], part: int) -> set[str]:
    return {lines[number - 5] for number in Door(engine, module(lines, part), PARTS[part]).refused()}


@pytest.fixture(scope="module")
def every() -> list[str]:
    found = list(instructions())
    assert len(found) > 250_000
    return found


def test_every_opcode_is_asked_about(engine: ctypes.CDLL, every: list[str]) -> None:
    door = Door(engine, ".visible .entry k() { ret; }")  # held: the answer is its memory
    claimed = set(engine.vgpu_door_opcodes(door.handle).decode().split())
    assert claimed - {re.split(r"[. ]", text)[0] for text in every} == {"mma", "brx", "call"}


def test_the_engine_takes_what_ptxas_takes(engine: ctypes.CDLL, toolkit: Any, every: list[str], tmp_path: Path) -> None:
    ptxas, vgpu = ptxas_refuses(toolkit, tmp_path, every, 80), engine_refuses(engine, every, 80)
    taken = [text for text in every if text not in ptxas]
    assert len(taken) > 7000
    assert sorted(ptxas - vgpu) == []
    left = vgpu - ptxas
    for why, pattern in (NOT_THERE | UNDOCUMENTED).items():
        found = {text for text in left if re.fullmatch(pattern, text)}
        assert found, f"the list of what is not there names {why}, and it is there"
        assert not [text for text in taken if text not in vgpu and re.fullmatch(pattern, text)], why
        left -= found
    assert sorted(left) == []
    # One modifier more, and in another order. ptxas lets some pass that mean nothing, such as add.finite.f32.
    more = disturbed([text for text in taken if text not in vgpu])
    assert sorted(ptxas_refuses(toolkit, tmp_path, more, 80) - engine_refuses(engine, more, 80)) == []


@pytest.mark.parametrize("part", [89, 90])
def test_forms_of_later_parts(engine: ctypes.CDLL, toolkit: Any, every: list[str], part: int, tmp_path: Path) -> None:
    """The other direction is not held here: much of sm_90 is not there yet."""
    refused = engine_refuses(engine, every, part)
    taken = [text for text in every if text not in refused]
    assert len(taken) > 7000
    assert sorted(ptxas_refuses(toolkit, tmp_path, taken, part)) == []


def test_what_came_with_a_part_is_refused_before(engine: ctypes.CDLL) -> None:
    texts = {
        "add.bf16 %h0, %h1, %h2;": 90,
        "cvt.rn.satfinite.e4m3x2.f32 %h0, %r1, %r2;": 89,
        "elect.sync %r0|%p0, %r1;": 90,
    }
    for part in PARTS:
        assert engine_refuses(engine, list(texts), part) == {text for text, least in texts.items() if part < least}


def test_a_refusal_says_why(engine: ctypes.CDLL) -> None:
    lines = [
        "add.approx.f16 %h0, %h1, %h2;",
        "add.rn.f32 %r0, %r1, %r2;",
        "set.eq.f64.f32 %q0, %r1, %r2;",
        "mul.rn.bf16 %h0, %h1, %h2;",
    ]
    assert Door(engine, module(lines, 80)).refused() == {
        5: "add.approx.f16: no such form: modifiers and types do not go together",
        7: "set.eq.f64.f32: no such form: modifiers and types do not go together",
        8: "mul.rn.bf16: not before sm_90, and .target is sm_80",
    }
