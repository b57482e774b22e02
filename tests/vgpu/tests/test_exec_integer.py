"""Integer, logic, shift, bit field, compare and move rows against Python integers, edge inputs included."""

from __future__ import annotations

import numpy as np
import pytest
from door import Door, lane_kernel

M32, M64 = 2**32 - 1, 2**64 - 1
EDGE32 = [
    0,
    1,
    2,
    5,
    31,
    32,
    33,
    0x7FFFFFFF,
    0x80000000,
    0x80000001,
    0xFFFFFFFF,
    0xFFFFFFFE,
    0x12345678,
    0xDEADBEEF,
    0xFFFF,
    0x10000,
]
EDGE64 = [
    0,
    1,
    3,
    63,
    64,
    65,
    2**31,
    2**32,
    2**63 - 1,
    2**63,
    M64,
    M64 - 1,
    0x123456789ABCDEF0,
    0xFFFFFFFF,
    0xDEADBEEFCAFEF00D,
    7,
]


def signed(x: int, bits: int) -> int:
    return x - (1 << bits) if x >> (bits - 1) & 1 else x


def s(x: int) -> int:
    return signed(x, 32)


def s64(x: int) -> int:
    return signed(x, 64)


def truncated_quotient(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return -q if (a < 0) != (b < 0) else q


def clamp(x: int, bits: int = 32) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, x))


def run(engine, code, expect, *, width="b32", inputs=2, pools=None, registers="", options=""):
    """Every lane of several blocks of 32: inputs drawn from edge pools and at random."""
    size = 32 if width == "b32" else 64
    rng = np.random.default_rng(1)
    edge = EDGE32 if width == "b32" else EDGE64
    columns = []
    for i in range(inputs):
        pool = pools[i] if pools and pools[i] else edge + [int(v) for v in rng.integers(0, 2**63, 16)]
        columns.append([int(v) & ((1 << size) - 1) for v in rng.choice(np.array(pool, dtype=object), 1024)])
    dtype = np.uint32 if size == 32 else np.uint64
    door = Door(engine, lane_kernel(code, width=width, inputs=inputs, registers=registers), "h100")
    pointers = [door.put(np.array(c, dtype)) for c in columns]
    out = door.allocate(1024 * size // 8)
    result = door.launch("k", [*pointers, out], block=1024, options=options)
    assert result.clean, result.reports
    got = door.get(out, 1024, dtype)
    for lane, values in enumerate(zip(*columns)):
        want = expect(*values) & ((1 << size) - 1)
        assert int(got[lane]) == want, (code, [hex(v) for v in values], hex(int(got[lane])), hex(want))


TWO32 = {
    "add.s32 %d, %a, %b;": lambda a, b: a + b,
    "sub.u32 %d, %a, %b;": lambda a, b: a - b,
    "add.sat.s32 %d, %a, %b;": lambda a, b: clamp(s(a) + s(b)),
    "sub.sat.s32 %d, %a, %b;": lambda a, b: clamp(s(a) - s(b)),
    "mul.lo.s32 %d, %a, %b;": lambda a, b: a * b,
    "mul.hi.u32 %d, %a, %b;": lambda a, b: a * b >> 32,
    "mul.hi.s32 %d, %a, %b;": lambda a, b: s(a) * s(b) >> 32,
    "mul24.lo.u32 %d, %a, %b;": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "mul24.hi.s32 %d, %a, %b;": lambda a, b: signed(a & 0xFFFFFF, 24) * signed(b & 0xFFFFFF, 24) >> 16,
    "min.s32 %d, %a, %b;": lambda a, b: min(s(a), s(b)),
    "max.u32 %d, %a, %b;": max,
    "and.b32 %d, %a, %b;": lambda a, b: a & b,
    "or.b32 %d, %a, %b;": lambda a, b: a | b,
    "xor.b32 %d, %a, %b;": lambda a, b: a ^ b,
    "shl.b32 %d, %a, %b;": lambda a, b: a << min(b, 32),
    "shr.u32 %d, %a, %b;": lambda a, b: a >> min(b, 32),
    "shr.s32 %d, %a, %b;": lambda a, b: s(a) >> min(b, 31),
    "abs.s32 %d, %a;": lambda a, b: abs(s(a)),
    "neg.s32 %d, %a;": lambda a, b: -s(a),
    "not.b32 %d, %a;": lambda a, b: ~a,
    "cnot.b32 %d, %a;": lambda a, b: int(a == 0),
    "popc.b32 %d, %a;": lambda a, b: bin(a).count("1"),
    "clz.b32 %d, %a;": lambda a, b: 32 - a.bit_length(),
    "brev.b32 %d, %a;": lambda a, b: int(f"{a:032b}"[::-1], 2),
    "bfind.u32 %d, %a;": lambda a, b: a.bit_length() - 1,
    "bfind.s32 %d, %a;": lambda a, b: (a if s(a) >= 0 else ~a & M32).bit_length() - 1,
    "bfind.shiftamt.u32 %d, %a;": lambda a, b: 32 - a.bit_length() if a else M32,
    "bmsk.clamp.b32 %d, %a, %b;": lambda a, b: 0 if a >= 32 else ((1 << min(b, 32)) - 1) << a,
    "szext.clamp.s32 %d, %a, %b;": lambda a, b: a if b >= 32 else 0 if b == 0 else signed(a & ((1 << b) - 1), b),
    "dp4a.u32.s32 %d, %a, %b, 7;": lambda a, b: (
        7 + sum((a >> 8 * i & 255) * signed(b >> 8 * i & 255, 8) for i in range(4))
    ),
    "dp2a.hi.s32.u32 %d, %a, %b, 7;": lambda a, b: (
        7 + sum(signed(a >> 16 * i & 65535, 16) * (b >> (16 + 8 * i) & 255) for i in range(2))
    ),
    "add.u16x2 %d, %a, %b;": lambda a, b: (a + b & 0xFFFF) | ((a >> 16) + (b >> 16) & 0xFFFF) << 16,
    "min.s16x2 %d, %a, %b;": lambda a, b: sum(
        (min(signed(a >> k & 65535, 16), signed(b >> k & 65535, 16)) & 65535) << k for k in (0, 16)
    ),
    "add.cc.u32 %d, %a, %b; addc.u32 %d, 0, 0;": lambda a, b: a + b >> 32,
    "sub.cc.u32 %d, %a, %b; subc.u32 %d, 5, 0;": lambda a, b: 5 - (a < b),
    "mad.lo.cc.u32 %d, %a, %b, %a; madc.hi.u32 %d, %a, %b, 0;": lambda a, b: (a * b + a) >> 32,
    "mad.wide.u32 %w, %a, %b, 9; cvt.u32.u64 %d, %w;": lambda a, b: a * b + 9,
    "mul.wide.s32 %w, %a, %b; shr.s64 %w, %w, 32; cvt.u32.u64 %d, %w;": lambda a, b: s(a) * s(b) >> 32,
    "mul.wide.u16 %d, %h, %h2;": lambda a, b: (a & 65535) * (b & 65535),
    "setp.lt.s32 %q, %a, %b; selp.u32 %d, 3, 9, %q;": lambda a, b: 3 if s(a) < s(b) else 9,
    "setp.hs.u32 %q, %a, %b; selp.u32 %d, 3, 9, !%q;": lambda a, b: 9 if a >= b else 3,
    "setp.ne.u32 %q, %a, 0; setp.lt.and.u32 %q|%q2, %a, %b, !%q; selp.u32 %d, 1, 2, %q2;": lambda a, b: (
        1 if a == 0 and not a < b else 2
    ),
    "set.gt.u32.s32 %d, %a, %b;": lambda a, b: M32 if s(a) > s(b) else 0,
    "set.le.f32.u32 %d, %a, %b;": lambda a, b: 0x3F800000 if a <= b else 0,
    "slct.u32.s32 %d, 1, 2, %a;": lambda a, b: 1 if s(a) >= 0 else 2,
    "cvt.s32.s8 %d, %h;": lambda a, b: signed(a & 255, 8),
    "cvt.u16.u32 %h, %a; cvt.s32.s16 %d, %h;": lambda a, b: signed(a & 65535, 16),
    "cvt.sat.s8.s32 %h, %a; cvt.s32.s16 %d, %h;": lambda a, b: max(-128, min(127, s(a))),
    "cvt.sat.u8.s32 %h, %a; cvt.u32.u16 %d, %h;": lambda a, b: max(0, min(255, s(a))),
    "cvt.sat.u32.s32 %d, %a;": lambda a, b: max(0, s(a)),
    "mov.b32 {%h, %h2}, %a; mov.b32 %d, {%h2, %h};": lambda a, b: (a >> 16) | a << 16,
    "mov.b64 %w, {%a, %b}; mov.b64 {_, %d}, %w;": lambda a, b: b,
}


@pytest.mark.parametrize("code", TWO32)
@pytest.mark.parametrize("options", ["", "definedness=0 counters=0 races=0"])
def test_two_operands(engine, code, options):
    extra = ".reg .pred %q, %q2; .reg .b16 %h, %h2; .reg .b64 %w;"
    before = "cvt.u16.u32 %h, %a; cvt.u16.u32 %h2, %b;\n"
    run(engine, before + code, TWO32[code], registers=extra, options=options)


@pytest.mark.parametrize(
    ("name", "expect"),
    {
        "div.u32": lambda a, b: a // b,
        "rem.u32": lambda a, b: a % b,
        "div.s32": lambda a, b: truncated_quotient(s(a), s(b)),
        "rem.s32": lambda a, b: s(a) - s(b) * truncated_quotient(s(a), s(b)),
    }.items(),
)
def test_division(engine, name, expect):
    run(engine, f"{name} %d, %a, %b;", expect, pools=[None, EDGE32[1:]])


def funnel(a: int, b: int, n: int, left: bool, clamp_: bool) -> int:
    n = min(n, 32) if clamp_ else n & 31
    both = b << 32 | a
    return (both << n) >> 32 if left else both >> n


def prmt(a: int, b: int, c: int) -> int:
    both = (b << 32 | a).to_bytes(8, "little")
    out = 0
    for i in range(4):
        sel = c >> 4 * i & 15
        byte = both[sel & 7]
        out |= ((255 if byte & 128 else 0) if sel & 8 else byte) << 8 * i
    return out


def bfe(a: int, pos: int, length: int, bits: int, sign: bool) -> int:
    pos, length, msb = pos & 255, length & 255, bits - 1
    top = a >> min(pos + length - 1, msb) & 1 if sign and length else 0
    out = 0
    for i in range(bits):
        out |= ((a >> (pos + i) & 1) if i < length and pos + i <= msb else top) << i
    return out


def bfi(a: int, b: int, pos: int, length: int, bits: int) -> int:
    pos, length = pos & 255, length & 255
    for i in range(length):
        if pos + i < bits:
            b = b & ~(1 << (pos + i)) | (a >> i & 1) << (pos + i)
    return b


SMALL = [0, 1, 3, 4, 8, 15, 16, 31, 32, 33, 40, 63, 64, 65, 255, 256, 300]
THREE32 = {
    "mad.lo.s32 %d, %a, %b, %c;": lambda a, b, c: a * b + c,
    "mad.hi.s32 %d, %a, %b, %c;": lambda a, b, c: (s(a) * s(b) >> 32) + s(c),
    "mad.hi.sat.s32 %d, %a, %b, %c;": lambda a, b, c: clamp((s(a) * s(b) >> 32) + s(c)),
    "sad.s32 %d, %a, %b, %c;": lambda a, b, c: c + abs(s(a) - s(b)),
    "sad.u32 %d, %a, %b, %c;": lambda a, b, c: c + abs(a - b),
    "lop3.b32 %d, %a, %b, %c, 0x96;": lambda a, b, c: a ^ b ^ c,
    "lop3.b32 %d, %a, %b, %c, 0xE8;": lambda a, b, c: a & b | a & c | b & c,
    "lop3.b32 %d, %a, %b, %c, 0x1A;": lambda a, b, c: sum(
        (0x1A >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32)
    ),
    "shf.l.wrap.b32 %d, %a, %b, %c;": lambda a, b, c: funnel(a, b, c, True, False),
    "shf.r.wrap.b32 %d, %a, %b, %c;": lambda a, b, c: funnel(a, b, c, False, False),
    "shf.l.clamp.b32 %d, %a, %b, %c;": lambda a, b, c: funnel(a, b, c, True, True),
    "shf.r.clamp.b32 %d, %a, %b, %c;": lambda a, b, c: funnel(a, b, c, False, True),
    "prmt.b32 %d, %a, %b, %c;": prmt,
    "prmt.b32.f4e %d, %a, %b, %c;": lambda a, b, c: (b << 32 | a) >> 8 * (c & 3),
    "prmt.b32.rc16 %d, %a, %b, %c;": lambda a, b, c: (a >> 16 * (c & 1) & 65535) * 0x10001,
    "bfe.u32 %d, %a, %b, %c;": lambda a, b, c: bfe(a, b, c, 32, False),
    "bfe.s32 %d, %a, %b, %c;": lambda a, b, c: bfe(a, b, c, 32, True),
    "bfi.b32 %d, %a, 0x55AA55AA, %b, %c;": lambda a, b, c: bfi(a, 0x55AA55AA, b, c, 32),
}


@pytest.mark.parametrize("code", THREE32)
def test_three_operands(engine, code):
    small = code[:3] in ("bfe", "bfi")
    run(engine, code, THREE32[code], inputs=3, pools=[None, SMALL if small else None, SMALL if small else None])


TWO64 = {
    "add.s64 %d, %a, %b;": lambda a, b: a + b,
    "mul.lo.u64 %d, %a, %b;": lambda a, b: a * b,
    "mul.hi.u64 %d, %a, %b;": lambda a, b: a * b >> 64,
    "mul.hi.s64 %d, %a, %b;": lambda a, b: s64(a) * s64(b) >> 64,
    "min.s64 %d, %a, %b;": lambda a, b: min(s64(a), s64(b)),
    "max.u64 %d, %a, %b;": max,
    "xor.b64 %d, %a, %b;": lambda a, b: a ^ b,
    "shl.b64 %d, %a, %t;": lambda a, b: a << (b & 127) if (b & 127) < 64 else 0,
    "abs.s64 %d, %a;": lambda a, b: abs(s64(a)),
    "brev.b64 %d, %a;": lambda a, b: int(f"{a:064b}"[::-1], 2),
    "bfe.s64 %d, %a, 60, 9;": lambda a, b: bfe(a, 60, 9, 64, True),
    "bfi.b64 %d, %a, %b, 40, 30;": lambda a, b: bfi(a, b, 40, 30, 64),
    "popc.b64 %t, %a; cvt.u64.u32 %d, %t;": lambda a, b: bin(a).count("1"),
    "clz.b64 %t, %a; cvt.u64.u32 %d, %t;": lambda a, b: 64 - a.bit_length(),
    "setp.gt.s64 %q, %a, %b; selp.b64 %d, %a, %b, %q;": lambda a, b: a if s64(a) > s64(b) else b,
    "add.cc.u64 %d, %a, %b; addc.u64 %d, 0, 0;": lambda a, b: a + b >> 64,
    "mad.hi.u64 %d, %a, %b, 3;": lambda a, b: (a * b >> 64) + 3,
    "cvt.s64.s32 %d, %t;": lambda a, b: s(b & M32 & 127),
}


@pytest.mark.parametrize("code", TWO64)
def test_wide(engine, code):
    before = "cvt.u32.u64 %t, %b; and.b32 %t, %t, 127;\n"
    run(engine, before + code, TWO64[code], width="b64", registers=".reg .pred %q;")
