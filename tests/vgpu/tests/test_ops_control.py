"""Branches, loops, calls, exits, sleeps and traps with lanes on paths of their own; and what is refused, by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from vgpu_lanes import lanes
from vgpu_micro import CudaError

LANES = np.arange(32)
RANDOM = np.random.default_rng(1).integers(0, 2**32, (4, 128), np.uint32)

MIX = """
.func (.param .align 8 .b8 r[16]) mix(.param .align 8 .b8 s[16], .param .b32 k, .param .b64 w, .param .b16 h, .param .b8 c) {
    .reg .b32 %x<4>; .reg .b64 %y<2>;
    ld.param.u32 %x0, [s]; ld.param.u32 %x1, [s+4]; ld.param.u64 %y0, [s+8]; ld.param.u32 %x2, [k]; ld.param.s16 %x3, [h];
    mad.lo.u32 %x0, %x0, %x2, %x3; ld.param.u8 %x3, [c]; xor.b32 %x1, %x1, %x3; ld.param.u64 %y1, [w]; add.u64 %y0, %y0, %y1;
    st.param.b32 [r], %x1; st.param.v2.u32 [r+8], {%x0, %x1}; st.param.u32 [r+4], %x2; ret; }
"""


def test_call_by_value(micro: Any) -> None:
    """Structures, all widths of scalars with their signs, and a structure back; the argument block stays the caller's."""
    text = """{ .param .align 8 .b8 s[16]; .param .b32 k; .param .b64 w; .param .b16 h; .param .b8 c; .param .align 8 .b8 r[16];
        .reg .b16 %h; st.param.v2.u32 [s], {%a, %b}; mov.b64 %w, {%c, %a}; st.param.b64 [s+8], %w; st.param.b32 [k], %e;
        st.param.u64 [w], %w; cvt.u16.u32 %h, %b; st.param.u16 [h], %h; st.param.u8 [c], %c;
        call.uni (r), mix, (s, k, w, h, c);
        ld.param.u32 %d0, [r]; ld.param.u32 %d1, [r+4]; ld.param.u64 %w, [r+8]; mov.b64 {%d2, %d3}, %w; }"""
    a, b, c, e = RANDOM
    got = lanes(micro, text, [a, b, c, e], ["u32"] * 4, before=MIX, block=128)
    mixed = a * e + b.astype(np.int16).astype(np.int32).view(np.uint32)
    for found, expected in zip(got, (b ^ (c & 255), e, mixed, b ^ (c & 255)), strict=True):
        assert (found == expected).all()


NESTED = """
.func (.param .b32 r) collatz(.param .b32 n) {
    .reg .b32 %n, %k, %o; .reg .pred %p; ld.param.u32 %n, [n]; mov.u32 %k, 0;
    AGAIN: setp.le.u32 %p, %n, 1; st.param.u32 [r], %k; @%p ret;
    add.u32 %k, %k, 1; and.b32 %o, %n, 1; setp.eq.u32 %p, %o, 0; @%p bra HALF; mad.lo.u32 %n, %n, 3, 1; bra.uni AGAIN;
    HALF: shr.u32 %n, %n, 1; bra.uni AGAIN; }
.func (.param .b32 r) twice(.param .b32 n) {
    .local .align 8 .b8 keep[64]; .reg .b32 %n, %x, %y, %i, %at; .reg .b64 %l; .reg .pred %p;
    ld.param.u32 %n, [n]; mov.u32 %i, 0; mov.u32 %at, keep;
    FILL: add.u32 %x, %n, %i; st.local.u32 [%at], %x; add.u32 %at, %at, 4; add.u32 %i, %i, 1; setp.lt.u32 %p, %i, 16; @%p bra FILL;
    { .param .b32 a; .param .b32 v; st.param.u32 [a], %n; call (v), collatz, (a); ld.param.u32 %x, [v]; }
    { .param .b32 a; .param .b32 v; st.param.u32 [a], %x; call (v), collatz, (a); ld.param.u32 %y, [v]; }
    mad.lo.u32 %x, %x, 1000, %y; ld.local.u32 %y, [keep+60]; shl.b32 %y, %y, 20; add.u32 %x, %x, %y; st.param.u32 [r], %x; ret; }
"""


def collatz(n: int) -> int:
    steps = 0
    while n > 1:
        n, steps = n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1
    return steps


def test_divergent_and_nested_calls(micro: Any) -> None:
    """Lanes in different functions, loops of different lengths with early returns; local memory of a frame is kept."""
    text = """{ .param .b32 a; .param .b32 v; st.param.u32 [a], %a; and.b32 %u, %t, 1; setp.eq.u32 %q, %u, 0; setp.gt.u32 %r, %t, 99;
        mov.u32 %d0, 7; @%r bra OUT; @%q bra EVEN; call (v), collatz, (a); ld.param.u32 %d0, [v]; bra OUT;
        EVEN: call (v), twice, (a); ld.param.u32 %d0, [v]; OUT: }"""
    n = (RANDOM[0] % 5000 + 1).astype(np.uint32)
    (got,) = lanes(micro, text, [n], ["u32"], before=NESTED, block=128)
    for i in range(128):
        steps = collatz(int(n[i]))
        twice = 1000 * steps + collatz(steps) + ((int(n[i]) + 15) << 20)
        assert got[i] == (7 if i > 99 else twice % 2**32 if i % 2 == 0 else steps), i


def test_predicated_call_and_exit_inside_a_function(micro: Any) -> None:
    leave = """.func leave(.param .b32 n) { .reg .b32 %n; .reg .pred %p; ld.param.u32 %n, [n]; setp.gt.u32 %p, %n, 9; @%p exit;
        setp.eq.u32 %p, %n, 5; @!%p ret; trap; }"""
    text = """{ .param .b32 n; st.param.u32 [n], %t; setp.ne.u32 %q, %t, 5; setp.gt.u32 %r, %t, 20; mov.u32 %d0, 1;
        @%r exit; @%q call leave, (n); mov.u32 %d0, 2; }"""
    (got,) = lanes(micro, text, [], ["u32"], before=leave)
    assert (got == np.where(LANES <= 9, 2, 0)).all()  # the others leave before they store anything


def test_divergent_loops(micro: Any) -> None:
    """Euclid's algorithm by subtraction inside a loop over divisors, with continue and break; then the warp is whole."""
    text = """mov.u32 %d0, 0; mov.u32 %v, 0;
        OUTER: add.u32 %v, %v, 1; setp.gt.u32 %q, %v, %b; @%q bra DONE; and.b32 %u, %v, 3; setp.eq.u32 %q, %u, 2; @%q bra OUTER;
        mov.u32 %x, %a; mov.u32 %y, %v;
        INNER: setp.eq.u32 %q, %x, %y; @%q bra FOUND; setp.gt.u32 %q, %x, %y; @%q sub.u32 %x, %x, %y; @!%q sub.u32 %y, %y, %x;
        bra INNER; FOUND: add.u32 %d0, %d0, %x; setp.gt.u32 %r, %d0, 60; @!%r bra OUTER;
        DONE: bar.warp.sync -1; vote.sync.ballot.b32 %d1, 1, -1;"""
    a, b = (RANDOM[0, :32] % 100 + 1).astype(np.uint32), (RANDOM[1, :32] % 40).astype(np.uint32)
    got, whole = lanes(micro, text, [a, b], ["u32", "u32"], registers=".reg .b32 %x, %y;")
    for i in range(32):
        total = 0
        for v in range(1, int(b[i]) + 1):
            if v % 4 != 2 and total <= 60:
                total += math.gcd(int(a[i]), v)
        assert got[i] == total
    assert (whole == 0xFFFFFFFF).all()


@pytest.mark.parametrize("form", ["brx.idx", "brx.idx.uni"])
def test_brx(micro: Any, form: str) -> None:
    """A table with repeated labels, from one index per lane or one for all, in a loop that walks it."""
    table = [0, 1, 2, 1, 3, 0, 2, 3]
    labels = ", ".join("ABCD"[k] for k in table)
    text = f"""TABLE: .branchtargets {labels}; mov.u32 %d0, 0; mov.u32 %v, 0;
        NEXT: and.b32 %u, %a, 7; shr.u32 %a, %a, 3; {form} %u, TABLE;
        A: mad.lo.u32 %d0, %d0, 5, 1; bra JOIN; B: mad.lo.u32 %d0, %d0, 5, 2; bra JOIN; C: mad.lo.u32 %d0, %d0, 5, 3; bra JOIN;
        D: mad.lo.u32 %d0, %d0, 5, 4; JOIN: add.u32 %v, %v, 1; setp.lt.u32 %q, %v, 8; @%q bra NEXT;"""
    values = np.full(32, RANDOM[2, 0]) if form.endswith("uni") else RANDOM[2, :32]
    (got,) = lanes(micro, text, [values], ["u32"])
    for i in range(32):
        expected = 0
        for k in range(8):
            expected = (5 * expected + table[int(values[i]) >> 3 * k & 7] + 1) % 2**32
        assert got[i] == expected


GUARDED = ["mov.u32 %d0, 5;", "ld.global.u32 %d0, [%m0];", "add.u32 %d0, %d0, 2;", "atom.global.add.u32 %d0, [%m0+4], 0;",
           "bra SET;", "{ .reg .b32 %n; mov.u32 %n, 5; mov.u32 %d0, %n; }"]  # fmt: skip


@pytest.mark.parametrize("guard", ["@%q", "@!%q"])
@pytest.mark.parametrize("text", GUARDED)
def test_guards(micro: Any, text: str, guard: str) -> None:
    if text.startswith("{"):
        text = text.replace("mov.u32 %d0", f"{guard} mov.u32 %d0")
        guard_text = text
    else:
        guard_text = f"{guard} {text}"
    code = f"mov.u32 %d0, 3; setp.lt.u32 %q, %t, 9; {guard_text} bra OUT; SET: mov.u32 %d0, 5; OUT:"
    got, _ = lanes(micro, code, [], ["u32"], [np.array([5, 5], np.uint32)])
    assert (got == np.where((LANES < 9) == (guard == "@%q"), 5, 3)).all()


@pytest.mark.parametrize("end", ["ret;", "exit;", "ret.uni;", "@%q ret;", "@%q exit;", "@!%q exit;"])
def test_ret_and_exit_of_the_kernel(micro: Any, end: str) -> None:
    stay = {"@%q": LANES >= 9, "@!%q": LANES < 9}.get(end.split()[0], LANES < 0)
    (got,) = lanes(micro, f"setp.lt.u32 %q, %t, 9; mov.u32 %d0, 1; {end}", [], ["u32"])
    assert (got == stay).all()


@pytest.mark.parametrize("leave", ["ret", "exit"])
def test_barrier_of_those_that_stay(micro: Any, leave: str) -> None:
    text = f"""mov.u32 %u, 1; setp.lt.u32 %q, %t, 9; mul.wide.u32 %w, %t, 4; add.u64 %w, %w, %m0; st.global.u32 [%w], %u;
        @%q {leave}; st.global.u32 [%w], 2; bar.warp.sync 0xfffffe00;"""
    (found,) = lanes(micro, text, [], [], [np.zeros(32, np.uint32)])
    assert found.tolist() == [1] * 9 + [2] * 23


def test_nanosleep(micro: Any) -> None:
    """Sleeping is no barrier and changes no value: a warp that sleeps in a loop sees another one's store."""
    text = """mov.u32 %d0, 1; mov.u32 %u, 8; setp.eq.u32 %q, %t, 0; @%q bra TELL; setp.lt.u32 %q, %t, 32; @%q bra END;
        WAIT: nanosleep.u32 %u; ld.acquire.cta.global.u32 %d0, [%m0]; setp.eq.u32 %q, %d0, 0; @%q bra WAIT; bra END;
        TELL: nanosleep.u32 2000; st.release.cta.global.u32 [%m0], 4; nanosleep.u32 0; END:"""
    got, _ = lanes(micro, text, [], ["u32"], [np.zeros(1, np.uint32)], block=64)
    assert (got == [1] * 32 + [4] * 32).all()


def test_events_and_dependent_launches_change_nothing(micro: Any) -> None:
    """griddepcontrol, from 9.0 on: without a launch that waits for it, or that it waits for, it goes on."""
    (got,) = lanes(micro, "mov.u32 %d0, 5; pmevent 3;", [], ["u32"])
    assert (got == 5).all()
    with micro.part(90) as header:
        text = "griddepcontrol.wait; add.u32 $0, $a, 1; griddepcontrol.launch_dependents;"
        assert (micro.words(text, [LANES.astype(np.uint32)], header=header)[0] == LANES + 1).all()


@pytest.mark.parametrize(("text", "says"), [("trap;", "trap"), ("brkpt;", "brkpt"), ("@%q trap;", "trap")])
def test_traps(micro: Any, virtual_only: None, text: str, says: str) -> None:
    with pytest.raises(CudaError, match=says):
        lanes(micro, f"setp.eq.u32 %q, %t, 17; {text}", [], [])
    (got,) = lanes(micro, f"setp.eq.u32 %q, %t, 99; @%q {text.split()[-1]} mov.u32 %d0, 1;", [], ["u32"])
    assert (got == 1).all()


# What is not in the ISA or not on this part, or what the virtual GPU has not, and how the refusal names it.
REFUSED = {
    "frobnicate.u32 %u, %t;": "frobnicate.u32",
    "bra OUT; frobnicate.u32 %u, %t; OUT:": "frobnicate.u32",  # never reached: a kernel is decoded whole
    "add.u128 %u, %t, %t;": "add.u128",
    "tex.1d.v4.f32.s32 {%u, %u, %u, %u}, [x, {%t}];": "tex.1d.v4.f32.s32",
    "griddepcontrol.wait;": "griddepcontrol",
    "{ .param .b32 n; st.param.u32 [n], %t; call again, (n); }": "recursive",
    "{ .reg .b64 %f; mov.u64 %f, again; }": "address of a function",
}
AGAIN = """
.func again(.param .b32 n) { .reg .b32 %n; .reg .pred %p; .param .b32 m; ld.param.u32 %n, [n];
    setp.eq.u32 %p, %n, 0; @%p ret; sub.u32 %n, %n, 1; st.param.u32 [m], %n; call again, (m); ret; }
"""


@pytest.mark.parametrize("text", REFUSED)
def test_refused_by_name(micro: Any, virtual_only: None, text: str) -> None:
    with pytest.raises(CudaError, match=REFUSED[text]):
        lanes(micro, f"setp.eq.u32 %r, %t, 0; {text}", [], [], before=AGAIN)
