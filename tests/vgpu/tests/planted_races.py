"""Two accesses to one place that nothing orders: between warps, between lanes, between blocks."""

from __future__ import annotations

from planted import Case

SHARED = {"shared": 512}


def race(bug: str, twin: str, **settings: object) -> Case:
    return Case("race", bug, twin, **settings)


def lanes(bug: str, twin: str, **settings: object) -> Case:
    return Case("warp-race", bug, twin, **{"shared": 128, "block": 32, **settings})


def warps(*bodies: str) -> str:
    """One body per warp; each ends at DONE."""
    jumps = " ".join(f"setp.eq.u32 %p, %r7, {w}; @%p bra W{w};" for w in range(1, len(bodies)))
    code = f"shr.u32 %r7, %r1, 5; {jumps} {bodies[0]} bra.uni DONE; "
    return code + " ".join(f"W{w}: {body} bra.uni DONE;" for w, body in enumerate(bodies) if w)


READ = "HERE ld.shared.u32 %r6, [s];"
WRITE = "HERE st.shared.u32 [s], %r7;"
# Every warp reads a word; all but warp 1 meet; warp 2 writes the word.
EIGHT = (
    READ + "bar.sync 1, 224;",
    READ,
    READ + "bar.sync 1, 224; setp.eq.u32 %p, %r1, 64; HERE @%p st.shared.u32 [s], 1;",
)
ALL = (READ + "bar.sync 1, 256;", READ + "bar.arrive 1, 256;", READ + "bar.sync 1, 256; st.shared.u32 [s], 1;")
# Two blocks, one flag: block 0 writes data and says so, block 1 waits for the word and reads.
FLAG = (
    "setp.ne.u32 %p, %r2, 0; @%p bra W; HERE st.global.u32 [%rd2+4], 7; {say} bra.uni DONE; "
    "W: {look} setp.eq.u32 %p, %r4, 0; @%p bra W; {seen} HERE ld.global.u32 %r6, [%rd2+4];"
)
PAIR = {"grid": 2, "block": 1}
# The last of four blocks reads what all wrote.
LAST = (
    "mul.wide.u32 %rd6, %r2, 4; add.s64 %rd6, %rd6, %rd2; HERE st.global.u32 [%rd6+16], %r2; {fence} "
    "atom.global.add.u32 %r4, [%rd2], 1; setp.ne.u32 %p, %r4, 3; @%p bra DONE; {fence} "
    "HERE ld.global.u32 %r5, [%rd2+16]; HERE ld.global.u32 %r6, [%rd2+20]; HERE ld.global.u32 %r6, [%rd2+24]; "
    "HERE ld.global.u32 %r6, [%rd2+28];"
)

CASES = {
    "write, read": race(
        "HERE st.shared.u32 [$S], %r1; PEER HERE ld.shared.u32 %r6, [%r5];",
        "st.shared.u32 [$S], %r1; bar.sync 0; PEER ld.shared.u32 %r6, [%r5];",
        **SHARED,
    ),
    "read, write": race(
        "st.shared.u32 [$S], %r1; bar.sync 0; PEER HERE ld.shared.u32 %r6, [%r5]; HERE st.shared.u32 [$S], %r6;",
        "st.shared.u32 [$S], %r1; bar.sync 0; PEER ld.shared.u32 %r6, [%r5]; bar.sync 0; st.shared.u32 [$S], %r6;",
        **SHARED,
    ),
    "write, write": race("shr.u32 %r7, %r1, 5; HERE st.shared.u32 [s], %r7;", "st.shared.u32 [$S], %r1;", **SHARED),
    "halves of a word": race(
        "HERE st.shared.u16 [s], %r1;",
        "shr.u32 %r4, %r1, 5; mov.u32 %r5, s; mad.lo.u32 %r5, %r4, 2, %r5; st.shared.u16 [%r5], %r1;",
        **SHARED,
    ),
    # The other half of the word is written in between, by the same lanes and by others.
    "two warps write the same row of halves": race(
        "and.b32 %r4, %r1, 31; mov.u32 %r5, s; mad.lo.u32 %r5, %r4, 2, %r5; HERE st.shared.u16 [%r5], %r1;",
        "mov.u32 %r5, s; mad.lo.u32 %r5, %r1, 2, %r5; st.shared.u16 [%r5], %r1;",
        **SHARED,
    ),
    "bytes of four warps in a word": race(
        warps(*(f"HERE st.shared.u8 [s+{w % 4}], 1;" for w in range(5))),
        warps(*(f"HERE st.shared.u8 [s+{w}], 1;" for w in range(5))),
        block=160,
        **SHARED,
    ),
    # Accesses of several widths to 16 bytes.
    "a vector, then a byte of it": race(
        warps("HERE st.shared.v4.u32 [s+16], {%r1, %r1, %r1, %r1};", "HERE ld.shared.u8 %h, [s+27];"),
        warps("st.shared.v4.u32 [s+16], {%r1, %r1, %r1, %r1};", "ld.shared.u8 %h, [s+32];"),
        **SHARED,
    ),
    "a byte, then a vector over it": race(
        warps("HERE st.shared.u8 [s+29], 1;", "HERE ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [s+16];"),
        warps("st.shared.u8 [s+32], 1;", "ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [s+16];"),
        **SHARED,
    ),
    "a vector read, then a half of it": race(
        warps("HERE ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [s+16];", "HERE st.shared.u16 [s+20], 1;"),
        warps("ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [s+16];", "st.shared.u16 [s+14], 1;"),
        **SHARED,
    ),
    "bytes, a vector, a word": race(
        warps(
            "st.shared.u8 [s+17], 1; bar.warp.sync -1; HERE st.shared.v4.u32 [s+16], {%r1, %r1, %r1, %r1}; bar.arrive 1, 96;",
            "bar.sync 1, 96; ld.shared.u32 %r6, [s+16]; bar.warp.sync -1; st.shared.u8 [s+17], 2;",
            "HERE ld.shared.u32 %r6, [s+28]; bar.arrive 1, 96;",
        ),
        warps(
            "st.shared.u8 [s+17], 1; bar.warp.sync -1; st.shared.v4.u32 [s+16], {%r1, %r1, %r1, %r1}; bar.arrive 1, 96;",
            "bar.sync 1, 96; ld.shared.u32 %r6, [s+16]; bar.warp.sync -1; st.shared.u8 [s+17], 2;",
            "ld.shared.u32 %r6, [s+32]; bar.arrive 1, 96;",
        ),
        block=96,
        **SHARED,
    ),
    "blocks: a vector, then a byte of it": race(
        "setp.eq.u32 %p, %r2, 0; @%p bra A; HERE ld.global.u8 %h, [%rd2+27]; bra.uni DONE; "
        "A: HERE st.global.v4.u32 [%rd2+16], {%r1, %r1, %r1, %r1};",
        "setp.eq.u32 %p, %r2, 0; @%p bra A; ld.global.u8 %h, [%rd2+32]; bra.uni DONE; "
        "A: st.global.v4.u32 [%rd2+16], {%r1, %r1, %r1, %r1};",
        grid=2,
        block=1,
    ),
    "blocks: a half, then a vector over it": race(
        "setp.eq.u32 %p, %r2, 0; @%p bra A; HERE st.global.v4.u32 [%rd2+16], {%r1, %r1, %r1, %r1}; bra.uni DONE; "
        "A: HERE st.global.u16 [%rd2+30], %r1;",
        "setp.eq.u32 %p, %r2, 0; @%p bra A; st.global.v4.u32 [%rd2+16], {%r1, %r1, %r1, %r1}; bra.uni DONE; "
        "A: st.global.u16 [%rd2+32], %r1;",
        grid=2,
        block=1,
    ),
    "an atomic after a plain read": race(
        "st.shared.u32 [$S], 0; bar.sync 0; "
        + warps(
            "red.shared.add.u32 [s], 1; bar.sync 1, 64; HERE red.shared.add.u32 [s], 1;",
            "bar.sync 1, 64; HERE ld.shared.u32 %r6, [s];",
        ),
        "st.shared.u32 [$S], 0; bar.sync 0; "
        + warps(
            "red.shared.add.u32 [s], 1; bar.sync 1, 64; bar.sync 1, 64; red.shared.add.u32 [s], 1;",
            "bar.sync 1, 64; ld.shared.u32 %r6, [s]; bar.sync 1, 64;",
        ),
        **SHARED,
    ),
    "a plain read after atomics": race(
        "st.shared.u32 [$S], 0; bar.sync 0; HERE red.shared.add.u32 [s], 1; HERE ld.shared.u32 %r6, [s];",
        "st.shared.u32 [$S], 0; bar.sync 0; red.shared.add.u32 [s], 1; bar.sync 0; ld.shared.u32 %r6, [s];",
        **SHARED,
    ),
    "a plain write to a word that others poll": race(
        "st.shared.u32 [$S], 0; bar.sync 0; "
        + warps("HERE ld.volatile.shared.u32 %r6, [s];", "HERE st.shared.u32 [s], 1;"),
        "st.shared.u32 [$S], 0; bar.sync 0; "
        + warps("ld.volatile.shared.u32 %r6, [s];", "st.volatile.shared.u32 [s], 1;"),
        **SHARED,
    ),
    "more readers than are noted": race(
        "st.shared.u32 [$S], 0; bar.sync 0; " + warps(*EIGHT, *[EIGHT[0]] * 5),
        "st.shared.u32 [$S], 0; bar.sync 0; " + warps(*ALL, *[ALL[0]] * 5),
        block=256,
        shared=1024,
    ),
    "another named barrier": race(
        warps("HERE st.shared.u32 [s], 1; bar.arrive 1, 64;", "bar.sync 2, 32; HERE ld.shared.u32 %r6, [s];"),
        warps("st.shared.u32 [s], 1; bar.arrive 1, 64;", "bar.sync 1, 64; ld.shared.u32 %r6, [s];"),
        **SHARED,
    ),
    "a barrier of too few": race(
        warps(
            "bar.sync 1, 64; HERE ld.shared.u32 %r6, [s];",
            "bar.sync 1, 64; HERE ld.shared.u32 %r6, [s];",
            "HERE st.shared.u32 [s], 1;",
        ),
        warps(
            "bar.sync 1, 96; ld.shared.u32 %r6, [s];",
            "bar.sync 1, 96; ld.shared.u32 %r6, [s];",
            "st.shared.u32 [s], 1; bar.sync 1, 96;",
        ),
        block=96,
        **SHARED,
    ),
    # Lanes of one warp: they need bar.warp.sync, whatever order a schedule gives them.
    "lanes: write, read": lanes(
        "HERE st.shared.u32 [$S], %r1; LANE HERE ld.shared.u32 %r6, [%r5];",
        "st.shared.u32 [$S], %r1; bar.warp.sync -1; LANE ld.shared.u32 %r6, [%r5];",
    ),
    "lanes: read, write": lanes(
        "st.shared.u32 [$S], %r1; bar.warp.sync -1; LANE HERE ld.shared.u32 %r6, [%r5]; HERE st.shared.u32 [$S], %r6;",
        "st.shared.u32 [$S], %r1; bar.warp.sync -1; LANE ld.shared.u32 %r6, [%r5]; bar.warp.sync -1; "
        "st.shared.u32 [$S], %r6;",
    ),
    "lanes: two sides of a branch": lanes(
        "st.shared.u32 [$S], %r1; bar.warp.sync -1; setp.lt.u32 %p, %r1, 16; @%p bra A; HERE ld.shared.u32 %r6, [s]; "
        "bra.uni DONE; A: HERE st.shared.u32 [$S], 5;",
        "st.shared.u32 [$S], %r1; bar.warp.sync -1; setp.lt.u32 %p, %r1, 16; @%p bra A; ld.shared.u32 %r6, [s]; "
        "bar.warp.sync -1; bra.uni DONE; A: bar.warp.sync -1; st.shared.u32 [$S], 5;",
    ),
    "lanes: one writes for all": lanes(
        "setp.eq.u32 %p, %r1, 0; @%p bra A; bra.uni B; A: HERE st.shared.u32 [s], 5; B: nop; HERE ld.shared.u32 %r6, [s];".replace(
            "nop; ", ""
        ),
        "setp.eq.u32 %p, %r1, 0; @%p bra A; bra.uni B; A: st.shared.u32 [s], 5; B: bar.warp.sync -1; ld.shared.u32 %r6, [s];",
    ),
    "lanes: a shuffle is no barrier for memory": lanes(
        "HERE st.shared.u32 [$S], %r1; shfl.sync.bfly.b32 %r7, %r1, 1, 31, -1; LANE HERE ld.shared.u32 %r6, [%r5];",
        "shfl.sync.bfly.b32 %r7, %r1, 1, 31, -1; st.shared.u32 [$S], %r1; bar.warp.sync -1; LANE ld.shared.u32 %r6, [%r5];",
    ),
    # The hardware picks one of the values: no race of two instructions.
    "lanes: one instruction writes a word twice": lanes(
        "and.b32 %r4, %r1, 1; mov.u32 %r5, s; mad.lo.u32 %r5, %r4, 4, %r5; HERE st.shared.u32 [%r5], 1; "
        "HERE st.shared.u32 [s], 2;",
        "st.shared.u32 [s], 1;",
    ),
    # Blocks.
    "blocks: write, write": race(
        "HERE st.global.u32 [%rd2], %r2;",
        "mul.wide.u32 %rd6, %r2, 4; add.s64 %rd6, %rd6, %rd2; setp.ne.u32 %p, %r1, 0; @!%p st.global.u32 [%rd6], %r2;",
        grid=2,
    ),
    "blocks: write, read": race(
        "setp.eq.u32 %p, %r2, 0; @%p bra A; HERE ld.global.u32 %r6, [%rd2]; bra.uni DONE; A: HERE st.global.u32 [%rd2], 1;",
        "setp.eq.u32 %p, %r2, 0; @%p bra A; ld.global.u32 %r6, [%rd2+4]; bra.uni DONE; A: st.global.u32 [%rd2], 1;",
        grid=2,
        block=32,
    ),
    "blocks: the same row of halves": race(
        "mul.wide.u32 %rd6, %r1, 2; add.s64 %rd6, %rd6, %rd2; HERE st.global.u16 [%rd6], %r1;",
        "mad.lo.u32 %r4, %r2, 64, %r1; mul.wide.u32 %rd6, %r4, 2; add.s64 %rd6, %rd6, %rd2; st.global.u16 [%rd6], %r1;",
        grid=2,
    ),
    "blocks: a half, after its neighbour": race(
        "setp.eq.u32 %p, %r2, 1; cvt.u64.u32 %rd6, %r2; selp.u64 %rd6, 2, 0, %p; add.s64 %rd6, %rd6, %rd2; "
        "HERE st.global.u16 [%rd6], %r2;",
        "mul.wide.u32 %rd6, %r2, 2; add.s64 %rd6, %rd6, %rd2; st.global.u16 [%rd6], %r2;",
        grid=3,
        block=1,
    ),
    "blocks: warps of one": race(
        "HERE st.global.u32 [$OUT], %r1; xor.b32 %r4, %r1, 32; mul.wide.u32 %rd6, %r4, 4; add.s64 %rd6, %rd6, %rd2; "
        "HERE ld.global.u32 %r6, [%rd6];",
        "st.global.u32 [$OUT], %r1; bar.sync 0; xor.b32 %r4, %r1, 32; mul.wide.u32 %rd6, %r4, 4; "
        "add.s64 %rd6, %rd6, %rd2; ld.global.u32 %r6, [%rd6];",
    ),
    "blocks: plain and atomic": race(
        "HERE st.global.u32 [%rd2], %r2; HERE red.global.add.u32 [%rd2], 1;", "red.global.add.u32 [%rd2], 1;", grid=3
    ),
    "blocks: the last one without fences": race(
        LAST.format(fence=""), LAST.format(fence="membar.gl;"), grid=4, block=1
    ),
    "blocks: the last one with half the order": race(
        LAST.format(fence="").replace("atom.global", "atom.acquire.gpu.global"),
        LAST.format(fence="").replace("atom.global", "atom.acq_rel.gpu.global"),
        grid=4,
        block=1,
    ),
    "blocks: relaxed flag": race(
        FLAG.format(say="st.relaxed.gpu.global.u32 [%rd2], 1;", look="ld.acquire.gpu.global.u32 %r4, [%rd2];", seen=""),
        FLAG.format(say="st.release.gpu.global.u32 [%rd2], 1;", look="ld.acquire.gpu.global.u32 %r4, [%rd2];", seen=""),
        **PAIR,
    ),
    "blocks: relaxed look": race(
        FLAG.format(say="st.release.gpu.global.u32 [%rd2], 1;", look="ld.relaxed.gpu.global.u32 %r4, [%rd2];", seen=""),
        FLAG.format(
            say="membar.gl; st.relaxed.gpu.global.u32 [%rd2], 1;",
            look="ld.relaxed.gpu.global.u32 %r4, [%rd2];",
            seen="fence.acq_rel.gpu;",
        ),
        **PAIR,
    ),
}
