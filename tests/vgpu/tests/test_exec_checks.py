"""Each check proven by a planted bug it must find and a correct twin it must not flag, in several schedules."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from door import Door

SCHEDULES = ["", "async=eager", "seed=1 async=random", "seed=7 async=random starve=0", "seed=2 threads=2"]
REGISTERS = ".reg .pred %p, %q; .reg .b16 %h; .reg .b32 %r<20>; .reg .b64 %rd<10>; .reg .f32 %f<4>;"


def entry(body: str, *, shared: int = 0, extra: str = "") -> str:
    """Kernel k(in, out, n): %rd1, %rd2, %r0; %r1 = tid, %r2 = ctaid, %rd3 = 4 * tid; shared memory `s`, %r3 its address + 4 tid."""
    memory = f".shared .align 16 .b8 s[{shared}];" if shared else ""
    base = "mov.u32 %r3, s; mad.lo.u32 %r3, %r1, 4, %r3;" if shared else ""
    return f"""{extra}
.visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n) {{
{REGISTERS} {memory}
ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u32 %r0, [n];
mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd3, %r1, 4; {base}
{body}
DONE: ret; }}"""


def run(
    engine,
    body,
    *,
    shared=0,
    n=0,
    options="",
    block=64,
    grid=1,
    smem=0,
    words=256,
    source=None,
    extra="",
    out_defined=True,
):
    door = Door(engine, entry(body, shared=shared, extra=extra))
    pin = door.put(np.arange(words, dtype=np.uint32)) if source is None else source(door)
    pout = door.put(np.zeros(words, np.uint32)) if out_defined else door.allocate(4 * words)
    result = door.launch("k", [pin, pout, np.uint32(n)], grid=grid, block=block, smem=smem, options=options)
    return result, door.get(pout, words, np.uint32)


ADDRESS = "add.s64 %rd4, %rd1, %rd3; add.s64 %rd5, %rd2, %rd3;"
COPY = f"{ADDRESS} ld.global.u32 %r4, [%rd4]; st.global.u32 [%rd5], %r4;"
SYNC_COPY = "cp.async.ca.shared.global [%r3], [%rd4], 4;"

# name: (code of the report, kernel with the bug, correct twin, settings)
CASES = {
    "read past the end": (
        "oob",
        f"{ADDRESS} ld.global.u32 %r4, [%rd4+772];",
        f"{ADDRESS} ld.global.u32 %r4, [%rd4+768];",
        {},
    ),
    "read before the start": ("oob", f"{ADDRESS} ld.global.u32 %r4, [%rd4+-4];", COPY, {}),
    "write far away": ("oob", f"{ADDRESS} st.global.u32 [%rd5+40000], %r1;", COPY, {}),
    "vector across the end": (
        "oob",
        "ld.global.v2.u32 {%r4, %r5}, [%rd1+1020];".replace("1020", "1024"),
        "ld.global.v2.u32 {%r4, %r5}, [%rd1+1016];",
        {},
    ),
    "null pointer": ("oob", "mov.u64 %rd4, 0; ld.global.u32 %r4, [%rd4];", COPY, {}),
    "misaligned vector": (
        "misaligned",
        "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+8];",
        "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+16];",
        {},
    ),
    "misaligned shared": ("misaligned", "st.shared.u32 [%r3+2], %r1;", "st.shared.u32 [%r3], %r1;", {"shared": 512}),
    "beyond static shared": ("oob", "st.shared.u32 [%r3+260], %r1;", "st.shared.u32 [%r3], %r1;", {"shared": 256}),
    "beyond dynamic shared": (
        "oob",
        "mov.u32 %r4, d; mad.lo.u32 %r4, %r1, 8, %r4; st.shared.u32 [%r4], %r1;",
        "mov.u32 %r4, d; mad.lo.u32 %r4, %r1, 4, %r4; st.shared.u32 [%r4], %r1;",
        {"smem": 256, "extra": ".extern .shared .align 16 .b8 d[];"},
    ),
    "null shared address": ("oob", "mov.u32 %r4, 0; ld.shared.u32 %r4, [%r4];", COPY, {}),
    "beyond local memory": (
        "oob",
        ".local .align 8 .b8 l[16]; mov.u64 %rd4, l; st.local.u32 [%rd4+16], %r1;",
        ".local .align 8 .b8 l[16]; mov.u64 %rd4, l; st.local.u32 [%rd4+12], %r1;",
        {},
    ),
    "write to constants": (
        "oob",
        "mov.u64 %rd4, c; cvta.const.u64 %rd4, %rd4; ld.const.u32 %r4, [c+8];",
        "ld.const.u32 %r4, [c+4];",
        {"extra": ".const .align 4 .b8 c[8];"},
    ),
    "undefined shared memory stored": (
        "undefined",
        "ld.shared.u32 %r4, [%r3]; add.u32 %r4, %r4, 1; add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r4;",
        "st.shared.u32 [%r3], %r1; ld.shared.u32 %r4, [%r3]; add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r4;",
        {"shared": 256},
    ),
    "undefined shared memory, discarded": (
        "undefined",
        "ld.shared.u32 %r4, [%r3]; setp.lt.u32 %p, %r1, 64; selp.u32 %r4, %r4, 5, %p; "
        "add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r4;",
        "ld.shared.u32 %r4, [%r3]; setp.gt.u32 %p, %r1, 64; selp.u32 %r4, %r4, 5, %p; "
        "add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r4;",
        {"shared": 256},
    ),
    "undefined branch": (
        "undefined",
        "ld.shared.u32 %r4, [%r3]; setp.eq.u32 %p, %r4, 0; @%p bra DONE;",
        "setp.eq.u32 %p, %r1, 0; @%p bra DONE;",
        {"shared": 256},
    ),
    "undefined address": (
        "undefined",
        "ld.shared.u32 %r4, [%r3]; and.b32 %r4, %r4, 4; cvt.u64.u32 %rd4, %r4; "
        "add.s64 %rd4, %rd4, %rd1; ld.global.u32 %r5, [%rd4];",
        "and.b32 %r4, %r1, 4; cvt.u64.u32 %rd4, %r4; add.s64 %rd4, %rd4, %rd1; ld.global.u32 %r5, [%rd4];",
        {"shared": 256},
    ),
    "race: write, read": (
        "race",
        "st.shared.u32 [%r3], %r1; xor.b32 %r4, %r1, 32; mov.u32 %r5, s; mad.lo.u32 %r5, %r4, 4, %r5; "
        "ld.shared.u32 %r6, [%r5];",
        "st.shared.u32 [%r3], %r1; bar.sync 0; xor.b32 %r4, %r1, 32; mov.u32 %r5, s; "
        "mad.lo.u32 %r5, %r4, 4, %r5; ld.shared.u32 %r6, [%r5];",
        {"shared": 256},
    ),
    "race: read, write": (
        "race",
        "st.shared.u32 [%r3], %r1; bar.sync 0; xor.b32 %r4, %r1, 32; mov.u32 %r5, s; "
        "mad.lo.u32 %r5, %r4, 4, %r5; ld.shared.u32 %r6, [%r5]; st.shared.u32 [%r3], %r6;",
        "st.shared.u32 [%r3], %r1; bar.sync 0; xor.b32 %r4, %r1, 32; mov.u32 %r5, s; "
        "mad.lo.u32 %r5, %r4, 4, %r5; ld.shared.u32 %r6, [%r5]; bar.sync 0; st.shared.u32 [%r3], %r6;",
        {"shared": 256},
    ),
    "race: write, write": (
        "race",
        "shr.u32 %r4, %r1, 5; st.shared.u32 [s], %r4;",
        "st.shared.u32 [%r3], %r1;",
        {"shared": 256},
    ),
    "race: halves of a word": (
        "race",
        "mov.u32 %r4, s; cvt.u16.u32 %h, %r1; st.shared.u16 [s], %h;",
        "shr.u32 %r4, %r1, 5; shl.b32 %r4, %r4, 1; mov.u32 %r5, s; add.u32 %r5, %r5, %r4; "
        "cvt.u16.u32 %h, %r1; st.shared.u16 [%r5], %h;",
        {"shared": 256},
    ),
    "race: wrong named barrier": (
        "race",
        "setp.ge.u32 %p, %r1, 32; @%p bra B; st.shared.u32 [s], %r1; bar.arrive 1, 64; bra.uni DONE; "
        "B: bar.sync 2, 32; ld.shared.u32 %r4, [s];",
        "setp.ge.u32 %p, %r1, 32; @%p bra B; st.shared.u32 [%r3], %r1; bar.arrive 1, 64; bra.uni DONE; "
        "B: bar.sync 1, 64; ld.shared.u32 %r4, [s];",
        {"shared": 256},
    ),
    "race between blocks": (
        "race",
        "st.global.u32 [%rd2], %r2;",
        "mul.wide.u32 %rd4, %r2, 4; add.s64 %rd4, %rd4, %rd2; setp.ne.u32 %p, %r1, 0; @!%p st.global.u32 [%rd4], %r2;",
        {"grid": 2},
    ),
    "atomics do not race": (
        "race",
        "st.global.u32 [%rd2], %r2; red.global.add.u32 [%rd2], 1;",
        "red.global.add.u32 [%rd2], 1;",
        {"grid": 3},
    ),
    "last block reads all": (
        "race",
        "mul.wide.u32 %rd4, %r2, 4; add.s64 %rd4, %rd4, %rd2; st.global.u32 [%rd4+16], %r2; "
        "atom.global.add.u32 %r4, [%rd2], 1;"
        "setp.ne.u32 %p, %r4, 3; @%p bra DONE; ld.global.u32 %r5, [%rd2+16]; ld.global.u32 %r6, [%rd2+28];",
        "mul.wide.u32 %rd4, %r2, 4; add.s64 %rd4, %rd4, %rd2; st.global.u32 [%rd4+16], %r2; membar.gl; "
        "atom.global.add.u32 %r4, [%rd2], 1;"
        "setp.ne.u32 %p, %r4, 3; @%p bra DONE; membar.gl; ld.global.u32 %r5, [%rd2+16]; ld.global.u32 %r6, [%rd2+28];",
        {"grid": 4, "block": 1},
    ),
    "flag between blocks": (
        "race",
        "setp.ne.u32 %p, %r2, 0; @%p bra W; st.global.u32 [%rd2+4], 7; "
        "st.relaxed.gpu.global.u32 [%rd2], 1; bra.uni DONE;"
        "W: ld.acquire.gpu.global.u32 %r4, [%rd2]; setp.eq.u32 %p, %r4, 0; @%p bra W; ld.global.u32 %r5, [%rd2+4];",
        "setp.ne.u32 %p, %r2, 0; @%p bra W; st.global.u32 [%rd2+4], 7; "
        "st.release.gpu.global.u32 [%rd2], 1; bra.uni DONE;"
        "W: ld.acquire.gpu.global.u32 %r4, [%rd2]; setp.eq.u32 %p, %r4, 0; @%p bra W; ld.global.u32 %r5, [%rd2+4];",
        {"grid": 2, "block": 1},
    ),
    "copy without a wait": (
        "race",
        f"{ADDRESS} {SYNC_COPY} cp.async.commit_group; bar.sync 0; ld.shared.u32 %r4, [%r3]; cp.async.wait_group 0;",
        f"{ADDRESS} {SYNC_COPY} cp.async.commit_group; cp.async.wait_group 0; bar.sync 0; ld.shared.u32 %r4, [%r3];",
        {"shared": 256},
    ),
    "copy with a wait for too few": (
        "race",
        f"{ADDRESS} {SYNC_COPY} cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r4, [%r3]; "
        "cp.async.wait_all;",
        f"{ADDRESS} {SYNC_COPY} cp.async.commit_group; cp.async.commit_group; cp.async.wait_group 1; "
        "ld.shared.u32 %r4, [%r3];",
        {"shared": 256},
    ),
    "copy without a barrier": (
        "race",
        f"{ADDRESS} {SYNC_COPY} cp.async.wait_all; xor.b32 %r4, %r1, 32; mov.u32 %r5, s; "
        "mad.lo.u32 %r5, %r4, 4, %r5; ld.shared.u32 %r6, [%r5];",
        f"{ADDRESS} {SYNC_COPY} cp.async.wait_all; bar.sync 0; xor.b32 %r4, %r1, 32; mov.u32 %r5, s; "
        "mad.lo.u32 %r5, %r4, 4, %r5; ld.shared.u32 %r6, [%r5];",
        {"shared": 256},
    ),
    "copy into a buffer still read": (
        "race",
        f"{ADDRESS} st.shared.u32 [%r3], %r1; bar.sync 0; ld.shared.u32 %r4, [s]; {SYNC_COPY} cp.async.wait_all;",
        f"{ADDRESS} st.shared.u32 [%r3], %r1; bar.sync 0; ld.shared.u32 %r4, [s]; bar.sync 0; "
        f"{SYNC_COPY} cp.async.wait_all;",
        {"shared": 256},
    ),
    "barrier by half a warp": (
        "barrier",
        "setp.lt.u32 %p, %r1, 16; @%p bra DONE; bar.sync 0;".replace("bra DONE", "bra X") + " X: bar.sync 0;",
        "setp.lt.u32 %p, %r1, 32; @%p bra DONE; bar.sync 0;",
        {},
    ),
    "barrier count": ("barrier", "bar.sync 0, 48;", "bar.sync 0, 64;", {}),
    "barrier with two counts": (
        "barrier",
        "setp.lt.u32 %p, %r1, 32; @%p bra A; bar.sync 1, 96; bra.uni DONE; A: bar.sync 1, 64;",
        "bar.sync 1, 96;",
        {"block": 96},
    ),
    "barrier too many": (
        "barrier",
        "bar.arrive 3, 64; bar.arrive 3, 64; bar.sync 3, 64;",
        "bar.sync 3, 64; bar.sync 3, 64;",
        {},
    ),
    "nobody comes": ("deadlock", "setp.lt.u32 %p, %r1, 32; @%p bra DONE; bar.sync 1, 64;", "bar.sync 1, 64;", {}),
    "lane missing from a shuffle": (
        "collective",
        "setp.eq.u32 %p, %r1, 3; @%p bra X; shfl.sync.idx.b32 %r4, %r1, 0, 31, -1; X: bar.warp.sync -1; "
        "shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;".replace("X: bar.warp.sync -1; ", "bra.uni DONE; X: "),
        "setp.eq.u32 %p, %r1, 3; @%p bra DONE; shfl.sync.idx.b32 %r4, %r1, 0, 31, 0xfffffff7;",
        {"block": 32},
    ),
    "lane not in its mask": (
        "collective",
        "shfl.sync.idx.b32 %r4, %r1, 0, 31, 0xfffffffe;",
        "shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;",
        {"block": 32},
    ),
    "value of an absent lane": (
        "undefined",
        "setp.gt.u32 %p, %r1, 15; @%p bra DONE; shfl.sync.idx.b32 %r4, %r1, 20, 31, 0xffff; "
        "add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r4;",
        "setp.gt.u32 %p, %r1, 15; @%p bra DONE; shfl.sync.idx.b32 %r4, %r1, 2, 31, 0xffff; "
        "add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r4;",
        {"block": 32},
    ),
    "copies in flight at the end": (
        "async",
        f"{ADDRESS} {SYNC_COPY} cp.async.commit_group;",
        f"{ADDRESS} {SYNC_COPY} cp.async.wait_all;",
        {"shared": 256, "modes": ["", "seed=3"]},
    ),
    "trap": ("trap", "setp.eq.u32 %p, %r1, 5; @%p trap;", "setp.eq.u32 %p, %r1, 500; @%p trap;", {}),
    "never ends": (
        "budget",
        "L: bra.uni L;",
        "mov.u32 %r4, 0; L: add.u32 %r4, %r4, 1; setp.lt.u32 %p, %r4, 100; @%p bra L;",
        {"options": "budget=100000"},
    ),
    "waits for a block that never writes": (
        "budget",
        "L: ld.volatile.global.u32 %r4, [%rd2]; setp.eq.u32 %p, %r4, 0; @%p bra L;",
        "setp.ne.u32 %p, %r2, 1; @!%p st.volatile.global.u32 [%rd2], 1; "
        "L: ld.volatile.global.u32 %r4, [%rd2]; setp.eq.u32 %p, %r4, 0; @%p bra L;",
        {"options": "budget=200000", "grid": 2, "block": 32},
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", CASES)
def test_planted_bug_and_twin(engine, name, schedule):
    code, bug, twin, settings = CASES[name]
    settings = dict(settings)
    modes = settings.pop("modes", None)
    if modes and schedule not in modes:
        pytest.skip("this schedule completes the copy")
    settings["options"] = f"{settings.get('options', '')} {schedule}"
    result, _ = run(engine, twin, **settings)
    assert result.clean, [r["text"] for r in result.reports]
    result, _ = run(engine, bug, **settings)
    assert code in result.codes, (result.codes, [r["text"] for r in result.reports])
    found = next(r for r in result.reports if r["code"] == code)
    assert found["kernel"] == "k"
    assert found["ptx_line"] > 0
    assert found["opcode"]


def test_use_after_free(engine):
    def freed(door):
        pointer = door.put(np.zeros(256, np.uint32))
        door.release(pointer)
        return pointer

    result, _ = run(engine, COPY, source=freed)
    assert result.codes == {"use-after-free"}
    assert "released" in result.reports[0]["text"]


def test_host_pointer(engine):
    keep = (ctypes.c_uint32 * 256)()
    result, _ = run(engine, COPY, source=lambda door: ctypes.addressof(keep))
    assert result.codes == {"host-pointer"}


def test_undefined_device_memory(engine):
    result, _ = run(engine, COPY, source=lambda door: door.allocate(1024))
    assert result.codes == {"undefined"}
    result, _ = run(
        engine,
        "ld.global.u32 %r4, [%rd1]; st.shared.u32 [%r3], %r4;",
        shared=256,
        source=lambda door: door.allocate(1024),
    )
    assert result.clean


def test_checks_can_be_switched_off(engine):
    race = CASES["race: write, read"][1]
    assert not run(engine, race, shared=256)[0].clean
    assert run(engine, race, shared=256, options="races=0")[0].clean
    assert run(engine, COPY, source=lambda door: door.allocate(1024), options="definedness=0")[0].clean
    with pytest.raises(ValueError, match="races"):
        run(engine, race, shared=256, options="races=maybe")


def test_strict_warp(engine):
    exchange = (
        "st.shared.u32 [%r3], %r1; {} xor.b32 %r4, %r1, 1; mov.u32 %r5, s; mad.lo.u32 %r5, %r4, 4, %r5; "
        "ld.shared.u32 %r6, [%r5];"
    )
    assert run(engine, exchange.format(""), shared=128, block=32)[0].clean
    assert run(engine, exchange.format(""), shared=128, block=32, options="strict_warp=1")[0].codes == {"warp-race"}
    assert run(engine, exchange.format("bar.warp.sync -1;"), shared=128, block=32, options="strict_warp=1")[0].clean


@pytest.mark.parametrize(
    "body",
    [
        "frobnicate.u32 %r4, %r1;",
        "add.v2.u32 %r4, %r1, %r1;",
        "add.zz.u32 %r4, %r1, %r1;",
        "mul.u32 %r4, %r1, %r1;",
        "tcgen05.wait::ld.sync.aligned;",
    ],
)
def test_unsupported_instruction_is_named(engine, body):
    result, _ = run(engine, body)
    assert result.codes == {"unsupported"}
    report = result.reports[0]
    assert report["opcode"] == body.split()[0].rstrip(";")
    assert report["ptx_line"] > 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"block": 1025}, "1025"),
        ({"block": (1, 1, 65)}, "65"),
        ({"smem": 200000}, "shared memory"),
        ({"grid": 0}, "empty"),
        ({"grid": (1, 70000)}, "grid"),
    ],
)
def test_bad_launch(engine, settings, text):
    result, _ = run(engine, COPY, **settings)
    assert result.codes == {"launch"}
    assert text in result.reports[0]["text"]


def test_reports_say_where(engine):
    result, _ = run(engine, CASES["nobody comes"][1])
    text = result.reports[0]["text"]
    assert "warp 1" in text
    assert "barrier 1: 32 of 64" in text
    result, _ = run(engine, "setp.ne.u32 %p, %r1, 37; @%p bra DONE; ld.global.u32 %r4, [%rd1+4096];", grid=1)
    report = result.reports[0]
    assert report["thread"] == [37, 0, 0]
    assert "3072 bytes past its end" in report["text"]
