"""Barriers that do not fit together, lanes that never meet, waits without an end, and kernels that stop themselves."""

from __future__ import annotations

from planted import Case
from planted_races import warps

HALF = "and.b32 %r4, %r1, 16; setp.eq.u32 %p, %r4, 0; "

CASES = {
    "barrier: half a warp": Case(
        "barrier", f"{HALF} @%p bra X; HERE bar.sync 0; X: HERE bar.sync 0;", f"{HALF} @%p bra X; X: bar.sync 0;"
    ),
    "barrier: half a warp by its guard": Case("barrier", f"{HALF} HERE @%p bar.sync 0;", "bar.sync 0;"),
    "barrier: two of them for the lanes of a warp": Case(
        "barrier",
        "and.b32 %r4, %r1, 1; HERE bar.sync %r4;",
        "shr.u32 %r4, %r1, 5; add.u32 %r4, %r4, 1; bar.sync %r4, 32;",
    ),
    "barrier: a count that is no multiple of a warp": Case("barrier", "HERE bar.sync 0, 48;", "bar.sync 0, 64;"),
    "barrier: a count above the block": Case("barrier", "HERE bar.sync 0, 96;", "bar.sync 0, 64;"),
    "barrier: number 16": Case("barrier", "mov.u32 %r4, 16; HERE bar.sync %r4;", "mov.u32 %r4, 15; bar.sync %r4;"),
    "barrier: two counts": Case(
        "barrier",
        warps("HERE bar.sync 1, 96;", "HERE bar.sync 1, 64;", "HERE bar.sync 1, 96;"),
        warps("bar.sync 1, 96;", "bar.sync 1, 96;", "bar.sync 1, 96;"),
        block=96,
    ),
    "barrier: a warp arrives twice": Case(
        "barrier", "bar.arrive 3, 64; HERE bar.arrive 3, 64; HERE bar.sync 3, 64;", "bar.sync 3, 64; bar.sync 3, 64;"
    ),
    # Warps that have left are not waited for, unless a count names them.
    "deadlock: a warp that was counted has left": Case(
        "deadlock", warps("", "HERE bar.sync 1, 64;"), warps("", "bar.sync 1;")
    ),
    "deadlock: nobody else comes": Case(
        "deadlock", warps("HERE bar.sync 1, 64;", "HERE bar.sync 2, 64;"), warps("bar.sync 1, 64;", "bar.sync 1, 64;")
    ),
    "deadlock: each at a barrier of its own": Case(
        "deadlock", warps("HERE bar.sync 0;", "HERE bar.sync 1;"), warps("bar.sync 0;", "bar.sync 0;")
    ),
    "deadlock: crosswise": Case(
        "deadlock",
        warps("HERE bar.sync 1, 64; bar.arrive 2, 64;", "HERE bar.sync 2, 64; bar.arrive 1, 64;"),
        warps("bar.arrive 2, 64; bar.sync 1, 64;", "bar.sync 2, 64; bar.arrive 1, 64;"),
    ),
    "deadlock: one round more": Case(
        "deadlock", warps("bar.sync 1, 64; HERE bar.sync 1, 64;", "bar.sync 1, 64;"), warps(*["bar.sync 1, 64;"] * 2)
    ),
    "deadlock: lanes of a partial warp count as a warp": Case(
        "deadlock",
        warps("HERE barrier.sync 1, 64;", ""),
        "barrier.sync 0; barrier.sync 1, 64;",
        block=48,
    ),
    "collective: a lane stays away": Case(
        "collective",
        "setp.eq.u32 %p, %r1, 3; @%p bra X; HERE shfl.sync.idx.b32 %r4, %r1, 0, 31, -1; bra.uni DONE; "
        "X: HERE shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;",
        "setp.eq.u32 %p, %r1, 3; @%p bra DONE; shfl.sync.idx.b32 %r4, %r1, 0, 31, 0xfffffff7;",
        block=32,
    ),
    "collective: a lane is not in its mask": Case(
        "collective",
        "HERE shfl.sync.idx.b32 %r4, %r1, 0, 31, 0xfffffffe;",
        "shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;",
        block=32,
        thread=0,
    ),
    "collective: a guard": Case(
        "collective",
        f"{HALF} HERE @%p vote.sync.any.pred %q, %p, -1;",
        f"{HALF} vote.sync.any.pred %q, %p, -1;",
        block=32,
    ),
    "collective: bar.warp.sync without all": Case(
        "collective",
        f"{HALF} @%p bra X; HERE bar.warp.sync -1; bra.uni DONE; X: HERE shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;",
        f"{HALF} @%p bra X; bar.warp.sync -1; bra.uni DONE; X: bar.warp.sync -1;",
        block=32,
    ),
    "collective: ldmatrix in half a warp": Case(
        "collective",
        f"st.shared.u32 [$S], %r1; {HALF} @%p bra DONE; mov.u32 %r5, s; HERE ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r6}}, [%r5];",
        "st.shared.u32 [$S], %r1; bar.warp.sync -1; mov.u32 %r5, s; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5];",
        shared=128,
        block=32,
    ),
    "async: copies in flight at the end": Case(
        "async",
        "COPY cp.async.commit_group; HERE ret;",
        "COPY cp.async.commit_group; cp.async.wait_group 0; ret;",
        shared=256,
    ),
    "async: source size above the copy": Case(
        "async",
        "mov.u32 %r4, 5; HERE cp.async.ca.shared.global [$S], [$IN], 4, %r4; cp.async.wait_all;",
        "mov.u32 %r4, 4; cp.async.ca.shared.global [$S], [$IN], 4, %r4; cp.async.wait_all;",
        shared=256,
    ),
    "trap": Case("trap", "setp.eq.u32 %p, %r1, 5; HERE @%p trap;", "setp.eq.u32 %p, %r1, 500; @%p trap;", thread=5),
    "breakpoint": Case(
        "brkpt", "setp.eq.u32 %p, %r1, 5; HERE @%p brkpt;", "setp.eq.u32 %p, %r1, 500; @%p brkpt;", thread=5
    ),
    "budget: never ends": Case(
        "budget",
        "L: HERE add.u32 %r4, %r1, 1; HERE bra.uni L;",
        "mov.u32 %r4, 0; L: add.u32 %r4, %r4, 1; setp.lt.u32 %p, %r4, 100; @%p bra L;",
        options="budget=100000",
        hardware=702,
    ),
    "budget: waits for a block that never writes": Case(
        "budget",
        "L: HERE ld.volatile.global.u32 %r4, [%rd2]; HERE setp.eq.u32 %p, %r4, 0; HERE @%p bra L;",
        "setp.ne.u32 %p, %r2, 1; @!%p st.volatile.global.u32 [%rd2], 1; "
        "L: ld.volatile.global.u32 %r4, [%rd2]; setp.eq.u32 %p, %r4, 0; @%p bra L;",
        options="budget=200000",
        grid=2,
        block=32,
        hardware=702,
    ),
}
