"""Races between accesses of 1 to 16 bytes, for random programs of two warps: exactly those that their bytes have.

Sixteen aligned bytes share one entry of the race checker until something smaller comes, and may share it again later.
"""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass

import numpy as np
import pytest
from door import HEADER, Door

PROGRAMS, BYTES = 400, 48
FORMS = {1: "u8", 2: "u16", 4: "u32", 8: "v2.u32", 16: "v4.u32"}


@dataclass(frozen=True)
class Touch:
    width: int
    at: int
    write: bool

    @property
    def bytes(self) -> set[int]:
        return set(range(self.at, self.at + self.width))

    def races(self, other: Touch) -> bool:
        return bool(self.bytes & other.bytes) and (self.write or other.write)

    def ptx(self, space: str, guard: str) -> str:
        value = {8: "{%r1, %r2}", 16: "{%r1, %r2, %r3, %r4}"}.get(self.width, "%r1")
        place, form = f"[%rd1+{self.at}]", f"{space}.{FORMS[self.width]}"
        return f"{guard} st.{form} {place}, {value};" if self.write else f"{guard} ld.{form} {value}, {place};"


def touch(rng: random.Random) -> Touch:
    width = rng.choice([1, 2, 4, 4, 8, 16, 16, 16, 16])
    return Touch(width, rng.randrange(BYTES // width) * width, rng.random() < 0.5)


# A program: phases that a barrier ends; in each, what either warp touches, in order.
Program = list[tuple[list[Touch], list[Touch]]]


def program(rng: random.Random) -> Program:
    def lists() -> tuple[list[Touch], list[Touch]]:  # either warp may come first
        both = [touch(rng) for _ in range(2)], [touch(rng) for _ in range(rng.randrange(2))]
        return both if rng.random() < 0.5 else both[::-1]

    return [lists() for _ in range(2)]


def racy(phases: Program) -> bool:
    return any(a.races(b) for ours, theirs in phases for a in ours for b in theirs)


def entry(name: str, phases: Program, space: str) -> str:
    memory = f".shared .align 16 .b8 s[{BYTES}];" if space == "shared" else ""
    start = "mov.u64 %rd1, s;" if space == "shared" else "ld.param.u64 %rd1, [out];"
    lines = [Touch(16, at, True).ptx(space, "@%p") for at in range(0, BYTES, 16)]
    for ours, theirs in phases:
        lines += ["bar.sync 0;", *(t.ptx(space, "@%p") for t in ours), *(t.ptx(space, "@%q") for t in theirs)]
    code = "\n".join(lines)
    return f"""
.visible .entry {name}(.param .u64 out) {{
.reg .pred %p, %q; .reg .b32 %r<5>; .reg .b64 %rd<2>; {memory}
{start}
mov.u32 %r1, %tid.x; setp.eq.u32 %p, %r1, 0; setp.eq.u32 %q, %r1, 32;
mov.u32 %r2, 2; mov.u32 %r3, 3; mov.u32 %r4, 4;
{code}
ret; }}"""


@pytest.mark.parametrize("space", ["shared", "global"])
def test_a_race_is_found_where_there_is_one(engine: ctypes.CDLL, space: str) -> None:
    rng = random.Random(space)
    programs = [program(rng) for _ in range(PROGRAMS)]
    door = Door(engine, HEADER + "".join(entry(f"k{i}", phases, space) for i, phases in enumerate(programs)))
    wrong = []
    for i, phases in enumerate(programs):
        out = door.put(np.zeros(BYTES, np.uint8))  # its granules are still whole
        codes = door.launch(f"k{i}", [out], block=64).codes
        if codes != ({"race"} if racy(phases) else set()):
            wrong.append((i, racy(phases), codes, phases))
    assert not wrong, wrong[:3]
    assert 30 < sum(map(racy, programs)) < PROGRAMS - 30, "both kinds are there"
