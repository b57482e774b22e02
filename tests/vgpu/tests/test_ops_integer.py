"""Integer instructions, each type and modifier as the PTX ISA's pseudocode has it, on edges and random patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from vgpu_exact import combinations, integers, signed
from vgpu_lanes import lanes
from vgpu_micro import NUMPY

Function = Callable[..., int]
ROWS: list[tuple[str, str, tuple[str, ...], Function]] = []
ONES = 0xFFFFFFFF


def row(text: str, result: str, operands: str, function: Function) -> None:
    ROWS.append((text, result, tuple(operands.split()), function))


def value(bits: int, kind: str) -> int:
    return signed(bits, int(kind[1:])) if kind[0] == "s" else bits


def typed(kind: str, function: Function) -> Function:
    """The function of the operands' values as that type reads them."""
    return lambda *bits: function(*(value(b, kind) for b in bits))


def clamp(number: int, kind: str) -> int:
    width = int(kind[1:])
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if kind[0] == "s" else (0, (1 << width) - 1)
    return min(max(number, low), high)


def quotient(a: int, b: int) -> int:
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


for n in (16, 32, 64):
    for k in (f"u{n}", f"s{n}"):
        two, three, wide = f"{k} {k}", f"{k} {k} {k}", f"{k[0]}{2 * n}"
        row(f"add.{k} $d, $a, $b;", k, two, typed(k, lambda a, b: a + b))
        row(f"sub.{k} $d, $a, $b;", k, two, typed(k, lambda a, b: a - b))
        row(f"mul.lo.{k} $d, $a, $b;", k, two, typed(k, lambda a, b: a * b))
        row(f"mul.hi.{k} $d, $a, $b;", k, two, typed(k, lambda a, b, n=n: a * b >> n))
        row(f"mad.lo.{k} $d, $a, $b, $c;", k, three, typed(k, lambda a, b, c: a * b + c))
        row(f"mad.hi.{k} $d, $a, $b, $c;", k, three, typed(k, lambda a, b, c, n=n: (a * b >> n) + c))
        if n < 64:
            row(f"mul.wide.{k} $d, $a, $b;", wide, two, typed(k, lambda a, b: a * b))
            row(
                f"mad.wide.{k} $d, $a, $b, $c;",
                wide,
                f"{k} {k} {wide}",
                lambda a, b, c, k=k: value(a, k) * value(b, k) + c,
            )
        row(f"div.{k} $d, $a, $b;", k, two, typed(k, quotient))
        row(f"rem.{k} $d, $a, $b;", k, two, typed(k, lambda a, b: a - b * quotient(a, b)))
        row(f"min.{k} $d, $a, $b;", k, two, typed(k, min))
        row(f"max.{k} $d, $a, $b;", k, two, typed(k, max))
        row(f"sad.{k} $d, $a, $b, $c;", k, three, typed(k, lambda a, b, c: c + abs(a - b)))
        row(
            f"shr.{k} $d, $a, $b;",
            k,
            f"{k} u32",
            lambda a, b, k=k, n=n: value(a, k) >> min(b, n) if k[0] == "u" else value(a, k) >> min(b, n - 1),
        )
    s, b = f"s{n}", f"b{n}"
    row(f"abs.{s} $d, $a;", s, s, typed(s, abs))
    row(f"neg.{s} $d, $a;", s, s, typed(s, lambda a: -a))
    row(f"and.{b} $d, $a, $b;", b, f"{b} {b}", lambda a, b: a & b)
    row(f"or.{b} $d, $a, $b;", b, f"{b} {b}", lambda a, b: a | b)
    row(f"xor.{b} $d, $a, $b;", b, f"{b} {b}", lambda a, b: a ^ b)
    row(f"not.{b} $d, $a;", b, b, lambda a: ~a)
    row(f"cnot.{b} $d, $a;", b, b, lambda a: a == 0)
    row(f"shl.{b} $d, $a, $b;", b, f"{b} u32", lambda a, b, n=n: a << b if b < n else 0)
row("add.sat.s32 $d, $a, $b;", "s32", "s32 s32", lambda a, b: clamp(signed(a, 32) + signed(b, 32), "s32"))
row("sub.sat.s32 $d, $a, $b;", "s32", "s32 s32", lambda a, b: clamp(signed(a, 32) - signed(b, 32), "s32"))
row(
    "mad.hi.sat.s32 $d, $a, $b, $c;",
    "s32",
    "s32 s32 s32",
    lambda a, b, c: clamp((signed(a, 32) * signed(b, 32) >> 32) + signed(c, 32), "s32"),
)


def carry(a: int, b: int, n: int = 32) -> int:
    return a + b >> n


row("add.cc.u32 %t, $a, $b; addc.u32 $d, $c, 0;", "u32", "u32 u32 u32", lambda a, b, c: c + carry(a, b))
row("add.cc.u64 %p, $a, $b; addc.u64 $d, $c, 0;", "u64", "u64 u64 u64", lambda a, b, c: c + carry(a, b, 64))
row("sub.cc.u32 %t, $a, $b; subc.u32 $d, $c, 0;", "u32", "u32 u32 u32", lambda a, b, c: c - (a < b))
row("mad.lo.cc.u32 %t, $a, $b, $c; madc.hi.u32 $d, $a, $b, 0;", "u32", "u32 u32 u32", lambda a, b, c: a * b + c >> 32)
row(
    "add.cc.u32 %t, $a, $b; addc.cc.u32 %t, $c, $a; addc.u32 $d, 0, 0;",
    "u32",
    "u32 u32 u32",
    lambda a, b, c: c + a + carry(a, b) >> 32,
)

for k in ("u32", "s32"):

    def low24(bits: int, k: str = k) -> int:
        return signed(bits, 24) if k == "s32" else bits & 0xFFFFFF

    two, three = f"{k} {k}", f"{k} {k} {k}"
    row(f"mul24.lo.{k} $d, $a, $b;", k, two, lambda a, b, f=low24: f(a) * f(b))
    row(f"mul24.hi.{k} $d, $a, $b;", k, two, lambda a, b, f=low24: f(a) * f(b) >> 16)
    row(f"mad24.lo.{k} $d, $a, $b, $c;", k, three, lambda a, b, c, f=low24: f(a) * f(b) + c)
    row(f"mad24.hi.{k} $d, $a, $b, $c;", k, three, lambda a, b, c, f=low24: (f(a) * f(b) >> 16) + c)

for n in (32, 64):
    row(f"popc.b{n} $d, $a;", "u32", f"b{n}", lambda a: a.bit_count())
    row(f"clz.b{n} $d, $a;", "u32", f"b{n}", lambda a, n=n: n - a.bit_length())
    row(f"brev.b{n} $d, $a;", f"b{n}", f"b{n}", lambda a, n=n: int(f"{a:0{n}b}"[::-1], 2))
    for k in (f"u{n}", f"s{n}"):

        def highest(bits: int, k: str = k) -> int:
            number = value(bits, k)
            return (~number if number < 0 else number).bit_length() - 1

        row(f"bfind.{k} $d, $a;", "u32", k, highest)
        row(f"bfind.shiftamt.{k} $d, $a;", "u32", k, lambda a, f=highest, n=n: n - 1 - f(a) if f(a) >= 0 else -1)

        def extract(a: int, b: int, c: int, k: str = k, n: int = n) -> int:
            position, length = b & 255, c & 255
            sign = 0 if k[0] == "u" or length == 0 else a >> min(position + length - 1, n - 1) & 1
            return sum((a >> position + i & 1 if i < length and position + i < n else sign) << i for i in range(n))

        row(f"bfe.{k} $d, $a, $b, $c;", k, f"{k} u32 u32", extract)

    def insert(a: int, b: int, c: int, e: int, n: int = n) -> int:
        position, length = c & 255, e & 255
        for i in range(min(length, max(0, n - position))):
            b = b & ~(1 << position + i) | (a >> i & 1) << position + i
        return b

    row(f"bfi.b{n} $d, $a, $b, $c, $e;", f"b{n}", f"b{n} b{n} u32 u32", insert)

row("shf.l.wrap.b32 $d, $a, $b, $c;", "b32", "b32 b32 u32", lambda a, b, c: (b << 32 | a) << (c & 31) >> 32)
row("shf.r.wrap.b32 $d, $a, $b, $c;", "b32", "b32 b32 u32", lambda a, b, c: (b << 32 | a) >> (c & 31))
row("shf.l.clamp.b32 $d, $a, $b, $c;", "b32", "b32 b32 u32", lambda a, b, c: (b << 32 | a) << min(c, 32) >> 32)
row("shf.r.clamp.b32 $d, $a, $b, $c;", "b32", "b32 b32 u32", lambda a, b, c: (b << 32 | a) >> min(c, 32))


def permute(a: int, b: int, c: int, mode: str = "") -> int:
    source = [(b << 32 | a) >> 8 * i & 255 for i in range(8)]
    s = c & 3
    choice = {
        "f4e": [s, s + 1, s + 2, s + 3],
        "b4e": [s, s - 1 & 7, s - 2 & 7, s - 3 & 7],
        "rc8": [s] * 4,
        "ecl": [max(s, 0), max(s, 1), max(s, 2), 3],
        "ecr": [0, min(s, 1), min(s, 2), min(s, 3)],
        "rc16": [0, 1, 0, 1] if not s & 1 else [2, 3, 2, 3],
    }.get(mode)
    if choice:
        return sum(source[x] << 8 * i for i, x in enumerate(choice))
    result = 0
    for i in range(4):
        nibble = c >> 4 * i & 15
        byte = source[nibble & 7]
        result |= (255 * (byte >> 7) if nibble & 8 else byte) << 8 * i
    return result


row("prmt.b32 $d, $a, $b, $c;", "b32", "b32 b32 u32", permute)
for mode in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16"):
    row(f"prmt.b32.{mode} $d, $a, $b, $c;", "b32", "b32 b32 u32", lambda a, b, c, m=mode: permute(a, b, c, m))

for ka in ("u32", "s32"):
    for kb in ("u32", "s32"):

        def part(bits: int, i: int, width: int, kind: str) -> int:
            return value(bits >> width * i & (1 << width) - 1, f"{kind[0]}{width}")

        def dot4(a: int, b: int, c: int, ka: str = ka, kb: str = kb) -> int:
            return c + sum(part(a, i, 8, ka) * part(b, i, 8, kb) for i in range(4))

        def dot2(a: int, b: int, c: int, half: int = 0, ka: str = ka, kb: str = kb) -> int:
            return c + sum(part(a, i, 16, ka) * part(b, i + 2 * half, 8, kb) for i in range(2))

        kind = "u32" if ka == kb == "u32" else "s32"
        row(f"dp4a.{ka}.{kb} $d, $a, $b, $c;", kind, f"{ka} {kb} {kind}", dot4)
        row(f"dp2a.lo.{ka}.{kb} $d, $a, $b, $c;", kind, f"{ka} {kb} {kind}", dot2)
        row(f"dp2a.hi.{ka}.{kb} $d, $a, $b, $c;", kind, f"{ka} {kb} {kind}", lambda a, b, c, f=dot2: f(a, b, c, 1))


def bit_mask(a: int, b: int, clamped: bool) -> int:
    start, length = (min(a, 32), min(b, 32)) if clamped else (a & 31, b & 31)
    return (1 << min(start + length, 32)) - (1 << start) if start < 32 else 0


row("bmsk.clamp.b32 $d, $a, $b;", "b32", "u32 u32", lambda a, b: bit_mask(a, b, True))
row("bmsk.wrap.b32 $d, $a, $b;", "b32", "u32 u32", lambda a, b: bit_mask(a, b, False))
for k in ("u32", "s32"):

    def extend(a: int, b: int, clamped: bool, k: str = k) -> int:
        if clamped and b >= 32:
            return a
        width = b & 31
        return value(a & (1 << width) - 1, f"{k[0]}{width}") if width else 0

    row(f"szext.clamp.{k} $d, $a, $b;", k, f"{k} u32", lambda a, b, f=extend: f(a, b, True))
    row(f"szext.wrap.{k} $d, $a, $b;", k, f"{k} u32", lambda a, b, f=extend: f(a, b, False))


def nth_set(mask: int, base: int, offset: int) -> int:
    offset, base = signed(offset, 32), base & 31
    if offset == 0:
        return base if mask >> base & 1 else -1
    found = [i for i in (range(base, 32) if offset > 0 else range(base, -1, -1)) if mask >> i & 1]
    return found[abs(offset) - 1] if abs(offset) <= len(found) else -1


row("and.b32 $b, $b, 31; fns.b32 $d, $a, $b, $c;", "b32", "b32 b32 s32", nth_set)
SMALL = ("shl", "shr", "shf", "bfe", "bfi", "bmsk", "szext", "fns")  # later operands are small numbers


def operand_values(text: str, operands: tuple[str, ...]) -> list[list[int]]:
    lists = []
    for i, kind in enumerate(operands):
        width = 8 * NUMPY[kind].itemsize
        few = i > 0 and kind in ("u32", "s32") and any(name in text for name in SMALL)
        if text.startswith("prmt") and i == 2:
            lists.append([0x4321, 0xFEDC, ONES, *range(8), *integers(16, seed=3)])
            continue
        small = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 100, 255, 256, 300, ONES, ONES - 1]
        lists.append(small if few else integers(width, seed=i + 1))
    return lists


@pytest.mark.parametrize(("text", "result", "operands", "function"), ROWS, ids=[r[0].split(" $d")[0] for r in ROWS])
def test_integer(micro: Any, text: str, result: str, operands: tuple[str, ...], function: Function) -> None:
    cases = combinations(*operand_values(text, operands))
    if text.startswith(("div", "rem")):  # by zero, and the smallest number by -1, the ISA leaves the result open
        smallest = 1 << 8 * NUMPY[operands[0]].itemsize - 1
        cases = [c for c in cases if c[1] and not (".s" in text and c[0] == smallest and c[1] == 2 * smallest - 1)]
    columns = [np.array(column, dtype=f"u{NUMPY[kind].itemsize}") for column, kind in zip(zip(*cases), operands)]
    found = micro.each(text, result, operands, columns)
    width = 8 * NUMPY[result].itemsize
    expected = np.array([int(function(*case)) % (1 << width) for case in cases], dtype=f"u{width // 8}")
    wrong = np.flatnonzero(found.view(expected.dtype) != expected)
    assert not len(wrong), [([hex(x) for x in cases[i]], hex(found[i]), hex(expected[i])) for i in wrong[:4]]


def test_every_table_of_lop3(micro: Any) -> None:
    """All 256: bit i of the result is the table's entry of the three operands' bits."""
    text = "mul.wide.u32 %w, %i, 4; add.u64 %w, %w, %m0;"
    text += " ".join(f"lop3.b32 %u, %a, %b, %c, {lut}; st.global.u32 [%w+{128 * lut}], %u;" for lut in range(256))
    a, b, c = np.random.default_rng(1).integers(0, 2**32, (3, 32), np.uint32)
    (found,) = lanes(micro, text, [a, b, c], [], [np.zeros(256 * 32, np.uint32)])
    bits = 4 * np.unpackbits(a.view(np.uint8)) + 2 * np.unpackbits(b.view(np.uint8)) + np.unpackbits(c.view(np.uint8))
    for lut, row in enumerate(found.reshape(256, 32)):
        assert (np.unpackbits(row.view(np.uint8)) == lut >> bits & 1).all(), lut


@pytest.mark.parametrize("op", ["add", "min", "max"])
@pytest.mark.parametrize("kind", ["u16x2", "s16x2"])
def test_pairs_of_16_bits(micro: Any, kind: str, op: str) -> None:
    """Two at a time, no carry between them (9.0 and later)."""
    cases = combinations(integers(32, 1), integers(32, 2))
    columns = [np.array(c, np.uint32) for c in zip(*cases)]
    with micro.part(90) as header:
        found = micro.each(f"{op}.{kind} $d, $a, $b;", "b32", ["b32", "b32"], columns, header=header)
    halves = [c.view(np.int16 if kind[0] == "s" else np.uint16).astype(np.int64) for c in columns]
    function = {"add": np.add, "min": np.minimum, "max": np.maximum}[op]
    assert found.view(np.uint16).tolist() == (function(*halves) & 0xFFFF).tolist()


@pytest.mark.parametrize("op", ["min", "max"])
def test_relu(micro: Any, op: str) -> None:
    """min and max of s32 that turn negative results into zero (9.0 and later)."""
    cases = combinations(integers(32, 1), integers(32, 2))
    columns = [np.array(c, np.uint32) for c in zip(*cases)]
    with micro.part(90) as header:
        found = micro.each(f"{op}.relu.s32 $d, $a, $b;", "s32", ["s32", "s32"], columns, header=header)
    function = {"min": np.minimum, "max": np.maximum}[op]
    assert found.tolist() == np.maximum(function(*(c.view(np.int32) for c in columns)), 0).tolist()
