"""Asynchronous copies whose data is used, or whose place is reused, before a wait and a barrier say that it may be."""

from __future__ import annotations

from planted_races import SHARED, race

COMMIT, WAIT, ALL_DONE = "cp.async.commit_group;", "cp.async.wait_group {};", "cp.async.wait_all;"
LATE = "HERE COPY"  # the copy itself is the later of the two accesses

CASES = {
    "no wait": race(
        f"HERE COPY {COMMIT} bar.sync 0; HERE ld.shared.u32 %r6, [$S]; {ALL_DONE}",
        f"COPY {COMMIT} {WAIT.format(0)} bar.sync 0; ld.shared.u32 %r6, [$S];",
        **SHARED,
    ),
    "wait for too few": race(
        f"HERE COPY {COMMIT} {WAIT.format(1)} HERE ld.shared.u32 %r6, [$S]; {ALL_DONE}",
        f"COPY {COMMIT} {COMMIT} {WAIT.format(1)} ld.shared.u32 %r6, [$S];",
        **SHARED,
    ),
    "no commit": race(
        f"HERE COPY {WAIT.format(0)} HERE ld.shared.u32 %r6, [$S]; {ALL_DONE}",
        f"COPY {COMMIT} {WAIT.format(0)} ld.shared.u32 %r6, [$S];",
        **SHARED,
    ),
    "wait after the barrier": race(
        f"HERE COPY {COMMIT} bar.sync 0; {WAIT.format(0)} PEER HERE ld.shared.u32 %r6, [%r5];",
        f"COPY {COMMIT} {WAIT.format(0)} bar.sync 0; PEER ld.shared.u32 %r6, [%r5];",
        **SHARED,
    ),
    "no barrier": race(
        f"HERE COPY {ALL_DONE} PEER HERE ld.shared.u32 %r6, [%r5];",
        f"COPY {ALL_DONE} bar.sync 0; PEER ld.shared.u32 %r6, [%r5];",
        **SHARED,
    ),
    "half the lanes wait": race(
        f"HERE COPY and.b32 %r4, %r1, 16; setp.eq.u32 %p, %r4, 0; @%p {ALL_DONE} bar.sync 0; PEER "
        f"HERE ld.shared.u32 %r6, [%r5]; bar.sync 0; {ALL_DONE}",
        f"COPY and.b32 %r4, %r1, 16; setp.eq.u32 %p, %r4, 0; @%p {ALL_DONE} @!%p {ALL_DONE} bar.sync 0; PEER "
        "ld.shared.u32 %r6, [%r5];",
        **SHARED,
    ),
    "half the lanes wait, then read their own": race(
        f"HERE COPY and.b32 %r4, %r1, 16; setp.eq.u32 %p, %r4, 0; @%p {ALL_DONE} HERE @!%p ld.shared.u32 %r6, [$S]; {ALL_DONE}",
        f"COPY and.b32 %r4, %r1, 16; setp.eq.u32 %p, %r4, 0; @%p {ALL_DONE} @%p ld.shared.u32 %r6, [$S]; {ALL_DONE}",
        **SHARED,
    ),
    "into a stage still read": race(
        f"st.shared.u32 [$S], %r1; bar.sync 0; PEER HERE ld.shared.u32 %r6, [%r5]; {LATE} {ALL_DONE}",
        f"st.shared.u32 [$S], %r1; bar.sync 0; PEER ld.shared.u32 %r6, [%r5]; bar.sync 0; COPY {ALL_DONE}",
        **SHARED,
    ),
    "store to its destination": race(
        f"HERE COPY {COMMIT} HERE st.shared.u32 [$S], %r1; {ALL_DONE}",
        f"COPY {COMMIT} {ALL_DONE} st.shared.u32 [$S], %r1;",
        **SHARED,
    ),
    "two to one place": race(f"HERE COPY HERE COPY {ALL_DONE}", f"COPY {ALL_DONE} COPY {ALL_DONE}", **SHARED),
    "its source is overwritten": race(
        f"cp.async.ca.shared.global [$S], [$OUT], 4; {COMMIT} HERE st.global.u32 [$OUT], %r1; {ALL_DONE}",
        f"cp.async.ca.shared.global [$S], [$OUT], 4; {COMMIT} {ALL_DONE} st.global.u32 [$OUT], %r1;",
        **SHARED,
    ),
}
