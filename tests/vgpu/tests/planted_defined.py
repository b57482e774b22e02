"""Memory and registers that nobody wrote: a fault when the value reaches a result, a branch or an address, and only then."""

from __future__ import annotations

from planted import Case


def undefined(bug: str, twin: str, **settings: object) -> Case:
    return Case("undefined", bug, twin, **settings)


SHARED = {"shared": 256}
ZERO = ", ".join(["0f00000000"] * 4)
MMA = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%a0, %a1, %a2, %a3}, {%b0, %b1}, "
OPERANDS = " ".join(f"mov.b32 {r}, 0x3f803f80;" for r in ("%a0", "%a1", "%a2", "%a3", "%b0", "%b1"))
WARP = {"shared": 512, "block": 32}
STAGE = "mov.u32 %r5, s; and.b32 %r4, %r1, 15; mad.lo.u32 %r5, %r4, 16, %r5; "
FILL = "st.shared.v4.u32 [%r5], {%r1, %r1, %r1, %r1}; bar.warp.sync -1; "
LOAD = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%b0, %b1}, [%r5]; "
STORE_F = "st.global.f32 [$OUT], %f0;"

CASES = {
    "shared to global": undefined(
        "ld.shared.u32 %r6, [$S]; add.u32 %r6, %r6, 1; HERE KEEP",
        "st.shared.u32 [$S], %r1; ld.shared.u32 %r6, [$S]; add.u32 %r6, %r6, 1; KEEP",
        **SHARED,
    ),
    "shared, one byte of the word": undefined(
        "st.shared.u8 [$S], %r1; st.shared.u8 [$S+1], %r1; st.shared.u8 [$S+3], %r1; ld.shared.u32 %r6, [$S]; HERE KEEP",
        "st.shared.u16 [$S], %r1; st.shared.u16 [$S+2], %r1; ld.shared.u32 %r6, [$S]; KEEP",
        **SHARED,
    ),
    "shared, one thread": undefined(
        "setp.ne.u32 %p, %r1, 50; @%p st.shared.u32 [$S], %r1; ld.shared.u32 %r6, [$S]; HERE KEEP",
        "setp.ne.u32 %p, %r1, 50; @%p st.shared.u32 [$S], %r1; ld.shared.u32 %r6, [$S]; @%p st.global.u32 [$OUT], %r6;",
        thread=50,
        **SHARED,
    ),
    "chosen by selp": undefined(
        "ld.shared.u32 %r4, [$S]; setp.lt.u32 %p, %r1, 64; selp.u32 %r6, %r4, 5, %p; HERE KEEP",
        "ld.shared.u32 %r4, [$S]; setp.gt.u32 %p, %r1, 64; selp.u32 %r6, %r4, 5, %p; KEEP",
        **SHARED,
    ),
    "load that is used, load that is discarded": undefined(
        "ld.shared.u32 %r6, [$S]; HERE KEEP", "ld.shared.u32 %r6, [$S]; mov.u32 %r6, %r1; KEEP", **SHARED
    ),
    "branch": undefined(
        "ld.shared.u32 %r6, [$S]; setp.eq.u32 %p, %r6, 0; HERE @%p bra DONE;",
        "setp.eq.u32 %p, %r1, 0; @%p bra DONE;",
        **SHARED,
    ),
    "guard": undefined(
        "ld.shared.u32 %r6, [$S]; setp.eq.u32 %p, %r6, 0; HERE @%p st.global.u32 [$OUT], %r1;",
        "setp.eq.u32 %p, %r1, 0; @%p st.global.u32 [$OUT], %r1;",
        **SHARED,
    ),
    "address": undefined(
        "ld.shared.u32 %r6, [$S]; and.b32 %r6, %r6, 4; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd6, %rd1; "
        "HERE ld.global.u32 %r6, [%rd6];",
        "and.b32 %r6, %r1, 4; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd6, %rd1; ld.global.u32 %r6, [%rd6];",
        **SHARED,
    ),
    "local memory": undefined(
        ".local .align 4 .b8 l[8]; ld.local.u32 %r6, [l+4]; HERE KEEP",
        ".local .align 4 .b8 l[8]; st.local.u32 [l+4], %r1; ld.local.u32 %r6, [l+4]; KEEP",
    ),
    "register": undefined("HERE KEEP", "mov.u32 %r6, 1; KEEP"),
    "register of one side of a branch": undefined(
        "setp.lt.u32 %p, %r1, 40; @%p bra A; mov.u32 %r6, 1; A: nop; HERE KEEP".replace("nop; ", ""),
        "mov.u32 %r6, 2; setp.lt.u32 %p, %r1, 40; @%p bra A; mov.u32 %r6, 1; A: KEEP",
    ),
    "device memory": undefined(
        "ld.global.u32 %r6, [$IN]; HERE KEEP", "ld.global.u32 %r6, [$IN]; KEEP", source="undefined"
    ),
    "device memory by way of shared memory": undefined(
        "ld.global.u32 %r4, [$IN]; st.shared.u32 [$S], %r4; ld.shared.u32 %r6, [$S]; HERE KEEP",
        "ld.global.u32 %r4, [$IN]; st.shared.u32 [$S], %r4; ld.shared.u32 %r6, [$S]; KEEP",
        source="undefined",
        **SHARED,
    ),
    "device memory by way of cp.async": undefined(
        "COPY cp.async.wait_all; ld.shared.u32 %r6, [$S]; HERE KEEP",
        "COPY cp.async.wait_all; ld.shared.u32 %r6, [$S]; KEEP",
        source="undefined",
        **SHARED,
    ),
    "what cp.async leaves out is zero": undefined(
        "COPY cp.async.wait_all; ld.shared.u32 %r6, [$S+256]; HERE KEEP",
        "cp.async.ca.shared.global [$S], [$IN], 4, 1; cp.async.wait_all; ld.shared.u32 %r6, [$S]; KEEP",
        shared=512,
    ),
    "operand of an atomic": undefined(
        "ld.shared.u32 %r6, [$S]; HERE red.global.add.u32 [%rd2], %r6;", "red.global.add.u32 [%rd2], %r1;", **SHARED
    ),
    "memory of an atomic": undefined(
        "HERE red.shared.add.u32 [s], 1;", "st.shared.u32 [$S], 0; bar.sync 0; red.shared.add.u32 [s], 1;", **SHARED
    ),
    "value of an absent lane": undefined(
        "setp.gt.u32 %p, %r1, 15; @%p bra DONE; shfl.sync.idx.b32 %r6, %r1, 20, 31, 0xffff; HERE KEEP",
        "setp.gt.u32 %p, %r1, 15; @%p bra DONE; shfl.sync.idx.b32 %r6, %r1, 2, 31, 0xffff; KEEP",
        block=32,
    ),
    "vote": undefined(
        "ld.shared.u32 %r4, [s+4]; setp.eq.u32 %p, %r4, 0; vote.sync.ballot.b32 %r6, %p, -1; HERE KEEP",
        "setp.eq.u32 %p, %r1, 0; vote.sync.ballot.b32 %r6, %p, -1; KEEP",
        **SHARED,
    ),
    "vote of the block": undefined(
        "setp.lt.u32 %q, %r1, 32; mov.u32 %r4, 1; @!%q ld.shared.u32 %r4, [s]; setp.eq.u32 %p, %r4, 1; "
        "bar.red.popc.u32 %r6, 0, %p; HERE @%q st.global.u32 [$OUT], %r6;",
        "setp.eq.u32 %p, %r1, 1; bar.red.popc.u32 %r6, 0, %p; KEEP",
        **SHARED,
    ),
    "mma: operand": undefined(
        f"{OPERANDS} ld.shared.u32 %a2, [$S]; {MMA} {{{ZERO}}}; HERE {STORE_F}",
        f"{OPERANDS} {MMA} {{{ZERO}}}; {STORE_F}",
        **WARP,
    ),
    "mma: accumulator": undefined(
        f"{OPERANDS} {MMA} {{%f4, %f5, %f6, %f7}}; HERE {STORE_F}", f"{OPERANDS} {MMA} {{{ZERO}}}; {STORE_F}", **WARP
    ),
    "mma: another element of the accumulator": undefined(
        f"{OPERANDS} {MMA} {{%f4, 0f00000000, 0f00000000, 0f00000000}}; HERE {STORE_F}",
        f"{OPERANDS} {MMA} {{0f00000000, %f4, %f4, %f4}}; {STORE_F}",
        **WARP,
    ),
    "ldmatrix of a stage never filled": undefined(
        f"{STAGE} {OPERANDS} {LOAD} {MMA} {{{ZERO}}}; HERE {STORE_F}",
        f"{STAGE} {FILL} {OPERANDS} {LOAD} {MMA} {{{ZERO}}}; {STORE_F}",
        **WARP,
    ),
    # A pipeline that runs dry loads a stage that was never filled, and does not use it.
    "ldmatrix discarded": undefined(
        f"{STAGE} {LOAD} {OPERANDS.replace('mov.b32 %b1, 0x3f803f80;', '')} {MMA} {{{ZERO}}}; HERE {STORE_F}",
        f"{STAGE} {LOAD} {OPERANDS} {MMA} {{{ZERO}}}; {STORE_F}",
        **WARP,
    ),
}
