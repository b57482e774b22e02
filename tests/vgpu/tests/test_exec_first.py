"""Whole kernels through the engine: addressing, loops, divergence, barriers, calls, also of the device runtime."""

from __future__ import annotations

import numpy as np
import pytest
from door import Door

VECTOR_ADD = """
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n) {
.reg .pred %p; .reg .b32 %r<6>; .reg .b64 %rd<8>; .reg .f32 %f<4>;
ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u32 %r1, [n];
mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
mad.lo.s32 %r5, %r2, %r3, %r4;
setp.ge.s32 %p, %r5, %r1;
@%p bra DONE;
cvta.to.global.u64 %rd1, %rd1;
mul.wide.s32 %rd4, %r5, 4;
add.s64 %rd5, %rd1, %rd4; add.s64 %rd6, %rd2, %rd4; add.s64 %rd7, %rd3, %rd4;
ld.global.f32 %f1, [%rd5]; ld.global.f32 %f2, [%rd6];
add.f32 %f3, %f1, %f2;
st.global.f32 [%rd7], %f3;
DONE: ret; }
"""

# Tree sum of 256 values in shared memory; `sync` is the barrier of each level.
REDUCE = """
.visible .entry reduce(.param .u64 in, .param .u64 out) {
.shared .align 4 .b8 buffer[1024];
.reg .pred %p; .reg .b32 %r<9>; .reg .b64 %rd<6>; .reg .f32 %f<4>;
ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
mov.u32 %r1, %tid.x; mov.u32 %r7, %ctaid.x; mad.lo.u32 %r8, %r7, 256, %r1;
mul.wide.u32 %rd3, %r8, 4; add.s64 %rd4, %rd1, %rd3; ld.global.f32 %f1, [%rd4];
mov.u32 %r2, buffer; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3;
st.shared.f32 [%r4], %f1;
mov.u32 %r5, 128;
LOOP: {sync}
setp.ge.u32 %p, %r1, %r5;
@%p bra SKIP;
shl.b32 %r6, %r5, 2; add.u32 %r6, %r6, %r4;
ld.shared.f32 %f1, [%r4]; ld.shared.f32 %f2, [%r6]; add.f32 %f3, %f1, %f2; st.shared.f32 [%r4], %f3;
SKIP: shr.u32 %r5, %r5, 1;
setp.ne.u32 %p, %r5, 0;
@%p bra LOOP;
setp.ne.u32 %p, %r1, 0;
@%p bra DONE;
ld.shared.f32 %f1, [buffer]; mul.wide.u32 %rd3, %r7, 4; add.s64 %rd5, %rd2, %rd3; st.global.f32 [%rd5], %f1;
DONE: ret; }
"""

CALL = """
.func (.param .b32 result) square_plus(.param .b32 x, .param .b32 y) {
.reg .b32 %r<4>;
ld.param.u32 %r1, [x]; ld.param.u32 %r2, [y]; mad.lo.u32 %r3, %r1, %r1, %r2; st.param.b32 [result], %r3; ret; }
.visible .entry k(.param .u64 out) {
.reg .pred %p; .reg .b32 %r<5>; .reg .b64 %rd<4>;
ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r3, 7; and.b32 %r2, %r1, 1; setp.eq.u32 %p, %r2, 0;
@%p bra EVEN;
{ .param .b32 p0; .param .b32 p1; .param .b32 r0;
st.param.b32 [p0], %r1; st.param.b32 [p1], 5; call.uni (r0), square_plus, (p0, p1); ld.param.b32 %r3, [r0]; }
EVEN: mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r3; ret; }
"""

MODES = ["", "seed=1", "seed=2 async=random", "seed=3 starve=0", "threads=2", "async=eager"]


@pytest.mark.parametrize("options", MODES)
def test_vector_add(engine, options):
    door = Door(engine, VECTOR_ADD)
    a, b = np.arange(1000, dtype=np.float32), np.linspace(-3, 3, 1000, dtype=np.float32)
    pa, pb, pc = door.put(a), door.put(b), door.allocate(4000)
    result = door.launch("add", [pa, pb, pc, np.uint32(1000)], grid=8, block=128, options=options)
    assert result.clean, result.reports
    assert (door.get(pc, 1000, np.float32) == a + b).all()
    assert result.counters["unique_bytes_read"] == 8000
    assert result.counters["unique_bytes_written"] == 4000
    assert result.counters["global_load_sectors"] == result.counters["global_load_sectors_min"] == 250


@pytest.mark.parametrize("options", MODES)
def test_reduction(engine, options):
    door = Door(engine, REDUCE.replace("{sync}", "bar.sync 0;"))
    x = np.random.default_rng(0).integers(-9, 9, 1024).astype(np.float32)
    pin, pout = door.put(x), door.allocate(16)
    result = door.launch("reduce", [pin, pout], grid=4, block=256, options=options)
    assert result.clean, result.reports
    assert (door.get(pout, 4, np.float32) == x.reshape(4, 256).sum(1)).all()
    assert result.counters["bank_conflicts"] == 0
    assert result.counters["barriers"] == 4 * 8 * 8


@pytest.mark.parametrize("options", ["", "seed=1", "seed=5"])
def test_reduction_without_barrier_is_a_race(engine, options):
    door = Door(engine, REDUCE.replace("{sync}", ""))
    pin, pout = door.put(np.ones(256, np.float32)), door.allocate(4)
    result = door.launch("reduce", [pin, pout], block=256, options=options)
    assert "race" in result.codes
    report = next(r for r in result.reports if r["code"] == "race")
    assert report["kernel"] == "reduce"
    assert report["opcode"].endswith("shared.f32")
    assert report["ptx_line"] > 0


def test_divergent_call(engine):
    door = Door(engine, CALL)
    out = door.allocate(256)
    result = door.launch("k", [out], block=64)
    assert result.clean, result.reports
    lanes = np.arange(64, dtype=np.uint32)
    assert (door.get(out, 64, np.uint32) == np.where(lanes % 2, lanes * lanes + 5, 7)).all()


def test_printf_and_assert(engine):
    text = """.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);
.global .align 1 .b8 fmt[18] = {118, 61, 37, 100, 32, 102, 61, 37, 46, 50, 102, 32, 37, 115, 10, 0};
.global .align 1 .b8 word[3] = {111, 107, 0};
.visible .entry k(.param .u32 bad) { .local .align 8 .b8 l[24]; .reg .b64 %rd<9>; .reg .b32 %r<9>; .reg .pred %p;
.reg .f64 %fd;
mov.u32 %r1, %tid.x; mov.u64 %rd1, l; cvta.local.u64 %rd2, %rd1; st.local.u32 [%rd1], %r1;
mov.f64 %fd, 0d3FF8000000000000; st.local.f64 [%rd1+8], %fd;
mov.u64 %rd3, word; st.local.u64 [%rd1+16], %rd3; mov.u64 %rd4, fmt;
{ .param .b64 p0; .param .b64 p1; .param .b32 r0; st.param.b64 [p0], %rd4; st.param.b64 [p1], %rd2;
call.uni (r0), vprintf, (p0, p1); ld.param.b32 %r2, [r0]; }
ld.param.u32 %r3, [bad]; setp.eq.u32 %p, %r3, 0; @%p bra DONE;
{ .param .b64 p0; .param .b64 p1; .param .b32 p2; .param .b64 p3; .param .b64 p4; st.param.b64 [p0], %rd3;
st.param.b64 [p1], %rd3; st.param.b32 [p2], 42; st.param.b64 [p3], %rd3; st.param.b64 [p4], 1;
call.uni __assertfail, (p0, p1, p2, p3, p4); }
DONE: ret; }"""
    door = Door(engine, text)
    result = door.launch("k", [np.uint32(0)], block=2)
    assert result.clean
    assert result.printed == "v=0 f=1.50 ok\nv=1 f=1.50 ok\n"
    result = door.launch("k", [np.uint32(1)], block=2)
    assert result.codes == {"assert"}
    assert "ok:42" in result.reports[0]["text"]
