"""Rows that work on a whole warp or block: exchanges, atomics, barriers, calls of the device runtime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from door import HEADER, Door, lane_kernel, words

LANES = np.arange(32)
SM90 = HEADER.replace("sm_80", "sm_90")


def shuffle(mode, values, b, c):
    out, inside = [], []
    for lane in range(32):
        clamp, segment = c & 31, c >> 8 & 31
        top, low = (lane & segment) | (clamp & ~segment & 31), lane & segment
        j, ok = {
            "up": (lane - b, lane - b >= top),
            "down": (lane + b, lane + b <= top),
            "bfly": (lane ^ b, (lane ^ b) <= top),
            "idx": (low | b & ~segment & 31, (low | b & ~segment & 31) <= top),
        }[mode]
        out.append(values[j if ok else lane])
        inside.append(int(ok))
    return np.array(out), np.array(inside)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("b", "c"), [(1, 31), (0, 31), (5, 31), (31, 31), (3, 0x1807), (4, 0x1003), (2, 0), (1, 0)])
def test_shfl(engine, mode, b, c):
    values = np.random.default_rng(0).integers(0, 2**32, 32, np.uint32)
    got = words(
        engine,
        f"shfl.sync.{mode}.b32 %d0|%q, %a, {b}, {c}, -1; selp.b32 %d1, 1, 0, %q;",
        [values],
        outputs=2,
        registers=".reg .pred %q;",
    )
    want, inside = shuffle(mode, values, b, c)
    assert (got[0] == want).all()
    assert (got[1] == inside).all()


def test_vote_match_redux(engine):
    values = np.array([3, 7, 3, 3, 9, 7, 1, 0] * 4, np.uint32)
    code = """setp.gt.u32 %q, %a, 2; vote.sync.ballot.b32 %d0, %q, -1; vote.sync.any.pred %z, %q, -1;
selp.b32 %d1, 1, 0, %z;
    vote.sync.all.pred %z, %q, -1; selp.b32 %d2, 1, 0, %z; vote.sync.uni.pred %z, %q, -1; selp.b32 %d3, 1, 0, %z;
    match.any.sync.b32 %d4, %a, -1; match.all.sync.b32 %d5|%z, %a, -1; selp.b32 %d6, 1, 0, %z;
    redux.sync.add.u32 %d7, %a, -1; redux.sync.max.s32 %d8, %a, -1; redux.sync.xor.b32 %d9, %a, -1; activemask.b32 %d10;"""
    got = words(engine, code, [values], outputs=11, registers=".reg .pred %q, %z;")
    ballot = sum(1 << i for i in range(32) if values[i] > 2)
    assert (got[0] == ballot).all()
    assert (got[1] == 1).all()
    assert (got[2] == 0).all()
    assert (got[3] == 0).all()
    assert (got[4] == [sum(1 << j for j in range(32) if values[j] == v) for v in values]).all()
    assert (got[5] == 0).all()
    assert (got[6] == 0).all()
    assert (got[7] == values.sum()).all()
    assert (got[8] == 9).all()
    assert (got[9] == np.bitwise_xor.reduce(values)).all()
    assert (got[10] == 0xFFFFFFFF).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elect(engine, seed):
    text = f"""{SM90}.visible .entry k(.param .u64 out) {{ .reg .b32 %t, %d, %w; .reg .b64 %p, %o; .reg .pred %q;
    ld.param.u64 %p, [out]; mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 8; add.u64 %p, %p, %o;
    elect.sync %d|%q, -1; selp.b32 %w, 1, 0, %q; st.global.v2.b32 [%p], {{%d, %w}}; ret; }}"""
    door = Door(engine, text)
    out = door.allocate(256)
    assert door.launch("k", [out], options=f"seed={seed}").clean
    leader, chosen = door.get(out, (32, 2), np.uint32).T
    assert (leader == leader[0]).all()
    assert (chosen == (leader[0] == LANES)).all()


def test_divergent_halves_vote_apart(engine):
    code = """setp.lt.u32 %q, %t, 16; @%q bra LOW; vote.sync.ballot.b32 %d0, 1, 0xffff0000; bra.uni END;
    LOW: vote.sync.ballot.b32 %d0, 1, 0xffff; END: bar.warp.sync -1; activemask.b32 %d1;"""
    got = words(engine, code, [LANES.astype(np.uint32)], outputs=2, registers=".reg .pred %q;")
    assert (got[0] == np.where(LANES < 16, 0xFFFF, 0xFFFF0000)).all()
    assert (got[1] == 0xFFFFFFFF).all()


ATOMS = {
    "add.u32": (lambda m, x: int(m) + int(x) & 0xFFFFFFFF, np.uint32),
    "min.s32": (lambda m, x: np.minimum(m, x), np.int32),
    "max.u32": (lambda m, x: np.maximum(m, x), np.uint32),
    "and.b32": (lambda m, x: m & x, np.uint32),
    "or.b32": (lambda m, x: m | x, np.uint32),
    "xor.b32": (lambda m, x: m ^ x, np.uint32),
    "add.f32": (lambda m, x: m + x, np.float32),
}


@pytest.mark.parametrize("op", ATOMS)
@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics(engine, op, space):
    function, dtype = ATOMS[op]
    values = (np.random.default_rng(8).integers(-50, 50, 128)).astype(dtype)
    place = (
        "mov.u32 %s, m; setp.eq.u32 %p, %r1, 0; @%p st.shared.b32 [%s], 0; bar.sync 0;"
        if space == "shared"
        else "mov.u64 %s, g;"
    )
    text = f""".global .align 4 .b8 g[4];
.visible .entry k(.param .u64 in, .param .u64 out) {{ .reg .b64 %rd<5>; .reg .b32 %r<5>; .reg .pred %p;
.reg .{"b32" if space == "shared" else "b64"} %s; .shared .align 4 .b8 m[4];
ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd3, %r1, 4;
add.s64 %rd3, %rd3, %rd1; ld.global.b32 %r2, [%rd3];
{place}
red.{space}.{op} [%s], %r2; bar.sync 0; setp.ne.u32 %p, %r1, 0; @%p bra DONE; ld.{space}.b32 %r3, [%s];
st.global.b32 [%rd2], %r3; DONE: ret; }}"""
    door = Door(engine, text)
    pin, out = door.put(values), door.allocate(4)
    result = door.launch("k", [pin, out], block=128)
    assert result.clean, result.reports
    want = dtype(0)
    for v in values:
        want = dtype(function(want, v))
    assert door.get(out, 1, dtype)[0] == want


def test_cas_exch_inc_and_packed_add(engine):
    text = """.global .align 8 .b8 g[64];
.visible .entry k(.param .u64 out) { .reg .b64 %rd<5>; .reg .b32 %r<9>;
ld.param.u64 %rd1, [out]; mov.u64 %rd2, g; mov.u32 %r1, %tid.x; mul.wide.u32 %rd3, %r1, 4; add.s64 %rd1, %rd1, %rd3;
atom.global.inc.u32 %r2, [%rd2], 9; atom.global.cas.b32 %r3, [%rd2+4], %r1, 77; atom.global.exch.b64 %rd4, [%rd2+8], 5;
mov.b32 %r4, 0x3C003C00; red.global.add.noftz.f16x2 [%rd2+16], %r4; mov.b32 %r4, 0x3F803F80;
atom.global.add.noftz.bf16x2 %r5, [%rd2+20], %r4;
atom.global.dec.u32 %r6, [%rd2+24], 3; st.global.u32 [%rd1], %r2; st.global.u32 [%rd1+128], %r3;
st.global.u32 [%rd1+256], %r6; ret; }"""
    door = Door(engine, SM90 + text)
    out = door.allocate(384)
    assert door.launch("k", [out]).clean
    got = door.get(out, (3, 32), np.uint32)
    assert (got[0] == LANES % 10).all()
    assert (got[1] == np.where(LANES == 0, 0, 77)).all()
    assert (got[2] == [0, *([3, 2, 1, 0] * 8)][:32]).all()
    g = door.get(int(engine.vgpu_door_variable(door.handle, b"g")), 16, np.uint32)
    assert g[0] == 2
    assert g[1] == 77
    assert g[2] == 5
    assert g[4:5].view(np.float16).tolist() == [32, 32]
    assert g[5:6].view(ml_dtypes.bfloat16).astype(int).tolist() == [
        32,
        32,
    ]


def test_bar_red(engine):
    code = """setp.lt.u32 %q, %t, 70; bar.red.popc.u32 %d0, 0, %q; bar.red.and.pred %z, 0, %q;
selp.b32 %d1, 1, 0, %z; bar.red.or.pred %z, 1, 128, %q; selp.b32 %d2, 1, 0, %z;"""
    got = words(
        engine,
        code,
        [np.arange(128, dtype=np.uint32)],
        outputs=3,
        block=128,
        registers=".reg .pred %q, %z;",
        options="seed=3",
    )
    assert (got[0] == 70).all()
    assert (got[1] == 0).all()
    assert (got[2] == 1).all()


def test_generic_addresses(engine):
    code = """mov.u32 %s, m; cvt.u64.u32 %x, %s; cvta.shared.u64 %x, %x; isspacep.shared %q, %x;
selp.b32 %d0, 1, 0, %q; isspacep.global %q, %p; selp.b32 %d1, 1, 0, %q;
    mul.wide.u32 %y, %t, 4; add.s64 %y, %x, %y; st.u32 [%y], %a; ld.u32 %d2, [%y]; ld.u32 %d3, [%p];
setp.lt.u32 %q, %t, 9; selp.b64 %y, %y, %p, %q; ld.u32 %d4, [%y];"""
    got = words(
        engine,
        code,
        [LANES.astype(np.uint32) * 3],
        outputs=5,
        registers=".reg .b32 %s; .reg .b64 %x, %y; .reg .pred %q; .shared .align 4 .b8 m[128];",
    )
    assert (got[0] == 1).all()
    assert (got[1] == 1).all()
    for row in got[2:]:
        assert (row == LANES * 3).all()


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


def test_special_registers(engine):
    code = """mov.u32 %d0, %laneid; mov.u32 %d1, %warpid; mov.u32 %d2, %ntid.x; mov.u32 %d3, %nctaid.y;
mov.u32 %d4, %lanemask_lt; mov.u32 %d5, %clock; mov.u32 %d6, %clock; sub.u32 %d5, %d6, %d5; mov.u32 %d6, %tid.y;"""
    got = words(engine, code, [np.arange(96, dtype=np.uint32)], outputs=7, block=96)
    t = np.arange(96)
    assert (got[0] == t % 32).all()
    assert (got[1] == t // 32).all()
    assert (got[2] == 96).all()
    assert (got[3] == 1).all()
    assert (got[4] == (1 << (t % 32)) - 1).all()
    assert (got[6] == 0).all()


def test_brx(engine):
    code = (
        "ts: .branchtargets A, B, C;\nrem.u32 %u, %t, 3; brx.idx %u, ts; A: mov.u32 %d0, 10; bra.uni E; "
        "B: mov.u32 %d0, 20; bra.uni E; C: mov.u32 %d0, 30; E:"
    )
    got = words(engine, code, [LANES.astype(np.uint32)], registers=".reg .b32 %u;")
    assert (got[0] == (LANES % 3 + 1) * 10).all()


def test_lane_kernel_reads_every_input(engine):
    door = Door(engine, lane_kernel("add.u32 %d, %a, %b;", inputs=2))
    a = door.put(np.arange(32, dtype=np.uint32))
    out = door.allocate(128)
    assert door.launch("k", [a, a, out]).clean
    assert (door.get(out, 32, np.uint32) == 2 * np.arange(32)).all()
