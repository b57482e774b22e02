"""Control flow, calls, selection by table, and what unknown instructions do, through the runtime front."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

LANES = np.arange(32, dtype=np.uint32)
RANDOM = np.random.default_rng(2)
HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"


def collatz(n: int) -> int:
    steps = 0
    while n != 1:
        n, steps = (3 * n + 1 if n % 2 else n // 2), steps + 1
    return steps


def test_divergent_loops(micro: Any) -> None:
    code = """mov.u32 %n, $a; mov.u32 $0, 0;
    LOOP: setp.eq.u32 %q, %n, 1; @%q bra DONE; and.b32 %m, %n, 1; setp.eq.u32 %q, %m, 0; @%q bra EVEN;
    mad.lo.u32 %n, %n, 3, 1; bra NEXT; EVEN: shr.u32 %n, %n, 1; NEXT: add.u32 $0, $0, 1; bra LOOP; DONE:"""
    found = micro.words(code, [LANES + 1], registers=".reg .b32 %n, %m; .reg .pred %q;")
    assert found[0].tolist() == [collatz(i + 1) for i in range(32)]


def test_predicated_exit_and_return(micro: Any) -> None:
    for leave in ("ret", "exit"):
        ptx = f"""{HEADER}.visible .entry k(.param .u64 out) {{ .reg .b64 %p, %o; .reg .b32 %t; .reg .pred %q;
        mov.u32 %t, %tid.x; ld.param.u64 %p, [out]; mul.wide.u32 %o, %t, 4; add.u64 %p, %p, %o;
        st.global.u32 [%p], 1; setp.lt.u32 %q, %t, 9; @%q {leave}; st.global.u32 [%p], 2; bar.warp.sync 0xfffffe00; ret; }}"""
        (found,) = micro.launch(ptx, [np.zeros(32, np.uint32)])
        assert found.tolist() == [1] * 9 + [2] * 23


def test_jump_tables(micro: Any) -> None:
    code = """ts: .branchtargets A, B, C, D; and.b32 %n, $a, 3; brx.idx %n, ts;
    A: mov.u32 $0, 100; bra OUT; B: mov.u32 $0, 200; bra OUT; C: mov.u32 $0, 300; bra OUT; D: mov.u32 $0, 400; OUT:"""
    values = RANDOM.integers(0, 1000, 32).astype(np.uint32)
    assert (micro.words(code, [values], registers=".reg .b32 %n;")[0] == (values % 4 + 1) * 100).all()


FUNCTIONS = """
.func (.param .b32 out) square(.param .b32 x) { .reg .b32 %x; ld.param.b32 %x, [x]; mul.lo.u32 %x, %x, %x;
    st.param.b32 [out], %x; ret; }
.func (.param .b64 out) spread(.param .align 8 .b8 pair[16], .param .b32 times) {
    .reg .b64 %a, %b; .reg .b32 %n;
    ld.param.b64 %a, [pair]; ld.param.b64 %b, [pair+8]; ld.param.b32 %n, [times]; cvt.u64.u32 %b, %n;
    mad.lo.u64 %a, %a, %b, %b; st.param.b64 [out], %a; ret; }
.func (.param .b32 out) factorial(.param .b32 n) {
    .reg .b32 %n, %m, %r; .reg .pred %q;
    ld.param.b32 %n, [n]; mov.u32 %r, 1; setp.lt.u32 %q, %n, 2; @%q bra DONE; mov.u32 %r, %n;
    LOOP: sub.u32 %n, %n, 1; setp.lt.u32 %q, %n, 2; @%q bra DONE; mul.lo.u32 %r, %r, %n; bra LOOP;
    DONE: st.param.b32 [out], %r; ret; }
"""


def test_calls(micro: Any) -> None:
    code = """{ .param .b32 x; .param .b32 r; st.param.b32 [x], $a; call (r), square, (x); ld.param.b32 $0, [r]; }
    { .param .align 8 .b8 pair[16]; .param .b32 times; .param .b64 r;
      mov.b64 %w, 7; st.param.b64 [pair], %w; st.param.b64 [pair+8], %w; st.param.b32 [times], $a;
      call.uni (r), spread, (pair, times); ld.param.b64 %w, [r]; }
    cvt.u32.u64 $1, %w; mov.u32 $2, 0; setp.gt.u32 %q, %t, 9; @%q bra OUT;
    { .param .b32 n; .param .b32 r; st.param.b32 [n], %t; call (r), factorial, (n); ld.param.b32 $2, [r]; } OUT:"""
    values = RANDOM.integers(0, 1000, 32).astype(np.uint32)
    registers = ".reg .b64 %w; .reg .pred %q;"
    found = micro.words(code, [values], outputs=3, registers=registers, outside=FUNCTIONS)
    assert (found[0] == values**2).all()
    assert (found[1] == 7 * values + values).all()
    assert found[2].tolist() == [int(np.prod(np.arange(1, i + 1))) if i < 10 else 0 for i in range(32)]


def test_every_table_of_lop3(micro: Any) -> None:
    a, b, c = (RANDOM.integers(0, 2**32, 32, dtype=np.uint32) for _ in range(3))
    for begin in range(0, 256, 32):
        code = " ".join(f"lop3.b32 ${i}, $a, $b, $c, {begin + i};" for i in range(32))
        found = micro.words(code, [a, b, c], outputs=32)
        for i, row in enumerate(found):
            expected = np.zeros(32, np.uint32)
            for index in range(8):
                if begin + i >> index & 1:
                    terms = [v if index & bit else ~v for v, bit in ((a, 4), (b, 2), (c, 1))]
                    expected |= terms[0] & terms[1] & terms[2]
            assert (row == expected).all(), begin + i


def permuted(a: int, b: int, selector: int, mode: str) -> int:
    """The tables of prmt: bytes of {b, a} by index; the top bit of a selector replicates the sign."""
    pool = [(a | b << 32) >> 8 * i & 255 for i in range(8)]
    s = selector & 3
    if mode == "":
        out = []
        for i in range(4):
            nibble = selector >> 4 * i & 15
            byte = pool[nibble & 7]
            out.append((255 if byte & 128 else 0) if nibble & 8 else byte)
    else:
        index = {
            "f4e": [s + i for i in range(4)],
            "b4e": [(s - i) % 8 for i in range(4)],
            "rc8": [s] * 4,
            "ecl": [max(i, s) for i in range(4)],
            "ecr": [min(i, s) for i in range(4)],
            "rc16": [2 * (s & 1), 2 * (s & 1) + 1] * 2,
        }[mode]
        out = [pool[i] for i in index]
    return sum(byte << 8 * i for i, byte in enumerate(out))


@pytest.mark.parametrize("mode", ["", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"])
def test_prmt(micro: Any, mode: str) -> None:
    a, b = (RANDOM.integers(0, 2**32, 32, dtype=np.uint32) for _ in range(2))
    selectors = RANDOM.integers(0, 2**16, 32).astype(np.uint32)
    dot = f".b32.{mode}" if mode else ".b32"
    found = micro.words(f"prmt{dot} $0, $a, $b, $c;", [a, b, selectors])[0]
    assert found.tolist() == [permuted(int(x), int(y), int(s), mode) for x, y, s in zip(a, b, selectors)]


def test_special_registers(micro: Any) -> None:
    names = [
        "tid.x",
        "ntid.x",
        "ctaid.x",
        "nctaid.x",
        "laneid",
        "warpid",
        "lanemask_eq",
        "lanemask_lt",
        "lanemask_ge",
        "tid.z",
    ]
    code = " ".join(f"mov.u32 ${i}, %{name};" for i, name in enumerate(names))
    found = micro.words(code, [np.zeros(96, np.uint32)], outputs=len(names), block=96)
    t = np.arange(96)
    lane = t % 32
    expected = [t, 96, 0, 1, lane, t // 32, 1 << lane, (1 << lane) - 1, 0xFFFFFFFF - ((1 << lane) - 1), 0]
    for name, row, want in zip(names, found, expected):
        assert (row == want).all(), name


def test_sleep_and_events_go_on(micro: Any) -> None:
    assert (micro.words("nanosleep.u32 100; pmevent 3; mov.u32 $0, 5;", [LANES])[0] == 5).all()


@pytest.mark.parametrize(("code", "name"), [("trap;", "trap"), ("brkpt;", "trap|brkpt")])
def test_traps_fail_the_launch(micro: Any, virtual_only: None, code: str, name: str) -> None:
    with pytest.raises(RuntimeError, match=name):
        micro.words(f"setp.eq.u32 %q, %t, 7; @%q {code} mov.u32 $0, 1;", [LANES], registers=".reg .pred %q;")


UNKNOWN = ["frobnicate.u32 $0, $a;", "add.u128 $0, $a, $a;", "tex.1d.v4.f32.s32 {$0, $0, $0, $0}, [x, {$a}];"]


@pytest.mark.parametrize("code", UNKNOWN, ids=lambda c: c.split()[0])
def test_an_unknown_instruction_is_a_failure_that_names_it(micro: Any, virtual_only: None, code: str) -> None:
    """Through the whole stack: the launch fails and the report has the instruction and its line; nothing is skipped."""
    with pytest.raises(RuntimeError, match=code.split()[0]):
        micro.words(code, [LANES])


def test_what_is_not_reached_counts_too(micro: Any, virtual_only: None) -> None:
    """Behind a branch that is never taken: still refused, because a kernel is decoded whole."""
    with pytest.raises(RuntimeError, match="frobnicate"):
        micro.words("bra OUT; frobnicate.u32 $0, $a; OUT: mov.u32 $0, 1;", [LANES])


def test_slct_and_set(micro: Any) -> None:
    pairs = list(itertools.product([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], repeat=2))
    a, b = (np.resize(np.array(v, np.uint32), 32) for v in zip(*pairs))
    code = "slct.u32.s32 $0, 11, 22, $a; set.lt.u32.s32 $1, $a, $b; set.ge.f32.u32 $2, $a, $b;"
    found = micro.words(code, [a, b], outputs=3)
    assert (found[0] == np.where(a.view(np.int32) >= 0, 11, 22)).all()
    assert (found[1] == np.where(a.view(np.int32) < b.view(np.int32), 0xFFFFFFFF, 0)).all()
    assert (found[2] == np.where(a >= b, 0x3F800000, 0)).all()
