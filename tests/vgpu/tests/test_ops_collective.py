"""What lanes of a warp do together, whole or parted: shfl, vote, match, redux, elect, activemask, bar.warp.sync.

By the ISA's pseudocode. Barriers of a block: test_ops_barrier.py.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import reduce
from typing import Any

import numpy as np
import pytest
from vgpu_exact import signed
from vgpu_lanes import lanes
from vgpu_micro import CudaError

ALL = 0xFFFFFFFF
# Member masks that split a warp: every lane belongs to exactly one of each list.
SPLITS = [
    [ALL],
    [0x0000FFFF, 0xFFFF0000],
    [0x55555555, 0xAAAAAAAA],
    [0x80000000, 0x7FFFFFFF],
    [0x00000001, 0x000000FE, 0x0F0F0F00, 0xF0F0F000],
]


def members() -> np.ndarray:
    """For every split a warp, its lanes' member masks."""
    return np.array([next(m for m in split if m >> i & 1) for split in SPLITS for i in range(32)], np.uint32)


def groups() -> list[list[int]]:
    """The threads of each group of the warps of members()."""
    return [[32 * k + i for i in range(32) if m >> i & 1] for k, split in enumerate(SPLITS) for m in split]


def run(micro: Any, text: str, inputs: list[np.ndarray], results: list[str], **options: Any) -> list[np.ndarray]:
    """One instruction in warps of every split, their member masks in %a; each group on its own path, then all at once."""
    masks = members()
    together = lanes(micro, text, [masks, *inputs], results, block=len(masks), **options)
    # A lane's group takes the branch of its number: the first lane of the mask tells the groups apart.
    start = "brev.b32 %u, %a; clz.b32 %u, %u; setp.lt.u32 %q, %u, 8; @%q bra LOW;"
    apart = f"{start} {text} bra END; LOW: {text} END: bar.warp.sync -1;"
    divergent = lanes(micro, apart, [masks, *inputs], results, block=len(masks), **options)
    for a, b in zip(together, divergent, strict=True):
        assert (a == b).all()
    return together


def shuffle(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """Source lane and predicate: the pseudocode of shfl.sync."""
    bval, cval, segmask = b & 31, c & 31, c >> 8 & 31
    max_lane, min_lane = (lane & segmask) | (cval & ~segmask), lane & segmask
    j = {"up": lane - bval, "down": lane + bval, "bfly": lane ^ bval, "idx": min_lane | bval & ~segmask}[mode]
    inside = j >= max_lane if mode == "up" else j <= max_lane
    return (j if inside else lane), inside


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl(micro: Any, mode: str) -> None:
    # Segments of every width, clamps inside and at the edge of a segment, and bits of b and c that must not count.
    clamps = (0, 1, 7, 30, 31, 0xE0 | 31)
    controls = [(32 - width) << 8 | clamp for width in (1, 2, 4, 8, 16, 32) for clamp in clamps] + [0x0500 | 31, 0xFFFF]
    cases = [(b, c) for b in (*range(32), 32, 33, 0xFFFFFFFF) for c in controls]
    values = np.random.default_rng(1).integers(0, 2**32, 32 * len(cases), np.uint32)
    b, c = (np.repeat(np.array(x, np.uint32), 32) for x in zip(*cases))
    text = f"shfl.sync.{mode}.b32 %d0|%q, %a, %b, %c, -1; selp.b32 %d1, 1, 0, %q;"
    got, inside = lanes(micro, text, [values, b, c], ["b32", "b32"], block=32, grid=len(cases))
    for k, (bits, control) in enumerate(cases):
        want = [shuffle(mode, lane, bits, control) for lane in range(32)]
        warp = slice(32 * k, 32 * k + 32)
        assert (inside[warp] == [p for _, p in want]).all(), (mode, bits, hex(control))
        assert (got[warp] == values[warp][[j for j, _ in want]]).all(), (mode, bits, hex(control))


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl_with_b_and_c_per_lane(micro: Any, mode: str) -> None:
    rng = np.random.default_rng(2)
    b, c, values = (rng.integers(0, n, 1024, np.uint32) for n in (32, 0x2000, 2**32))
    text = f"shfl.sync.{mode}.b32 %d0|%q, %a, %b, %c, -1; selp.b32 %d1, 1, 0, %q;"
    got, inside = lanes(micro, text, [values, b, c], ["b32", "b32"], block=1024)
    (alone,) = lanes(micro, f"shfl.sync.{mode}.b32 %d0, %a, %b, %c, -1;", [values, b, c], ["b32"], block=1024)
    assert (alone == got).all()  # without the predicate
    want = [shuffle(mode, i % 32, int(b[i]), int(c[i])) for i in range(1024)]
    assert (inside == [p for _, p in want]).all()
    assert (got == [values[i // 32 * 32 + j] for i, (j, _) in enumerate(want)]).all()


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl_partial_masks(micro: Any, mode: str) -> None:
    masks = members()
    values = np.random.default_rng(3).integers(0, 2**32, len(masks), np.uint32)
    for b in (0, 1, 2, 8, 24):
        want = [shuffle(mode, i % 32, b, 0 if mode == "up" else 31) for i in range(len(masks))]
        # What a lane outside the member mask gives is undefined.
        known = np.array([masks[i] >> j & 1 for i, (j, _) in enumerate(want)], np.uint32)
        text = f"""shfl.sync.{mode}.b32 %d0|%r, %b, {b}, {0 if mode == "up" else 31}, %a; selp.b32 %d1, 1, 0, %r;
            setp.ne.u32 %r, %c, 0; selp.b32 %d0, %d0, 0, %r;"""
        got, inside = run(micro, text, [values, known], ["b32", "b32"])
        assert (inside == [p for _, p in want]).all()
        assert (got == [values[i // 32 * 32 + j] * known[i] for i, (j, _) in enumerate(want)]).all()


def predicates(seed: int) -> list[np.ndarray]:
    count = 32 * len(SPLITS)
    rng = np.random.default_rng(seed)
    one = np.zeros(count, np.uint32)
    one[::32] = 1
    return [np.zeros_like(one), np.ones_like(one), one, 1 - one, *rng.integers(0, 2, (4, count), np.uint32)]


@pytest.mark.parametrize("negated", ["", "!"])
@pytest.mark.parametrize("mode", ["all", "any", "uni", "ballot"])
def test_vote(micro: Any, mode: str, negated: str) -> None:
    text = "setp.ne.u32 %r, %b, 0; "
    if mode == "ballot":
        text += f"vote.sync.ballot.b32 %d0, {negated}%r, %a;"
    else:
        text += f"vote.sync.{mode}.pred %r, {negated}%r, %a; selp.b32 %d0, 1, 0, %r;"
    for given in predicates(4):
        (got,) = run(micro, text, [given], ["b32"])
        for group in groups():
            said = [bool(given[i]) != bool(negated) for i in group]
            ballot = sum(1 << i % 32 for i, x in zip(group, said) if x)
            want = {"all": all(said), "any": any(said), "uni": len(set(said)) == 1, "ballot": ballot}[mode]
            assert (got[group] == want).all()


@pytest.mark.parametrize("n", [32, 64])
def test_match(micro: Any, n: int) -> None:
    count = 32 * len(SPLITS)
    rng = np.random.default_rng(5)
    few = rng.integers(0, 4, count).astype(f"u{n // 8}") << (n - 3)  # differ in the highest bits alone
    for values in (few, np.full(count, 7, few.dtype), rng.integers(0, 2**n, count, few.dtype)):
        text = f"match.any.sync.b{n} %d0, %b, %a; match.all.sync.b{n} %d1|%r, %b, %a; selp.b32 %d2, 1, 0, %r;"
        some, everyone, same = run(micro, text, [values], ["b32"] * 3)
        for group in groups():
            mask = sum(1 << i % 32 for i in group)
            alike = len({int(values[i]) for i in group}) == 1
            assert (everyone[group] == (mask if alike else 0)).all()
            assert (same[group] == alike).all()
            for i in group:
                assert some[i] == sum(1 << j % 32 for j in group if values[j] == values[i])


def bits(function: Any) -> Any:
    return lambda values: reduce(function, values)


REDUX = {"add.u32": sum, "min.u32": min, "max.u32": max, "add.s32": sum, "min.s32": min, "max.s32": max}
REDUX |= {"and.b32": bits(lambda a, b: a & b), "or.b32": bits(lambda a, b: a | b), "xor.b32": bits(lambda a, b: a ^ b)}


@pytest.mark.parametrize("op", REDUX)
def test_redux(micro: Any, op: str) -> None:
    values = np.random.default_rng(6).integers(0, 2**32, 32 * len(SPLITS), np.uint32)
    values[::7] = [0, 0x80000000, 0x7FFFFFFF, ALL] * (len(values[::7]) // 4) + [1] * (len(values[::7]) % 4)
    (got,) = run(micro, f"redux.sync.{op} %d0, %b, %a;", [values], ["b32"])
    for group in groups():
        numbers = [signed(int(values[i]), 32) if op.endswith("s32") else int(values[i]) for i in group]
        assert (got[group] == REDUX[op](numbers) % 2**32).all()


@pytest.mark.parametrize("mask", [ALL, 0x0000FFFF, 0x80000001, 0x55555555], ids=hex)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elect(micro: Any, mask: int, seed: int) -> None:
    """One member of the mask, the same in every one of them (9.0 and later)."""
    text = f"""mov.u32 $0, 99; mov.u32 $1, 0; shr.u32 %m, {mask}, %t; and.b32 %m, %m, 1; setp.eq.u32 %q, %m, 0; @%q bra OUT;
        elect.sync $0|%q, {mask}; selp.u32 $1, 1, 0, %q; OUT:"""
    with micro.part(90) as header, micro.option("seed", str(seed), "0") if micro.virtual else nullcontext():
        leader, chosen = micro.words(text, [], outputs=2, registers=".reg .b32 %m; .reg .pred %q;", header=header)
    inside = [i for i in range(32) if mask >> i & 1]
    assert chosen.sum() == 1
    assert chosen.argmax() in inside
    assert (leader[inside] == chosen.argmax()).all()
    assert (np.delete(leader, inside) == 99).all()


def test_activemask(micro: Any) -> None:
    """Lanes of the other path are never in it, the asking lane always is; how many stay together is the machine's."""
    text = "setp.lt.u32 %q, %t, 11; activemask.b32 %d0; @%q bra LOW; activemask.b32 %d1; bra END; LOW: activemask.b32 %d1; END:"
    whole, part = lanes(micro, text, [], ["b32", "b32"])
    assert (whole == ALL).all()
    for i in range(32):
        side = (1 << 11) - 1 if i < 11 else ALL ^ (1 << 11) - 1
        assert part[i] & 1 << i
        assert part[i] | side == side


@pytest.mark.parametrize(
    "text",
    [
        "elect.sync %d0|%q, -1;",  # sm_90
        "shfl.idx.b32 %d0, %i, 0, 31;",  # without .sync: gone from sm_70 on
        "vote.ballot.b32 %d0, 1;",
        "redux.sync.add.f32 %d0, %i, -1;",  # has no such type
        "redux.sync.and.u32 %d0, %i, -1;",
    ],
)
def test_not_on_this_architecture(micro: Any, text: str) -> None:
    with pytest.raises(CudaError):
        lanes(micro, f"mov.u32 %d0, 0; {text}", [], ["b32"])


@pytest.mark.parametrize("whole", [True, False])
def test_warp_barrier_orders_shared_memory(micro: Any, whole: bool) -> None:
    text = """shl.b32 %u, %t, 2; mov.u32 %s, m; add.u32 %u, %u, %s; setp.lt.u32 %q, %t, 16; @%q st.shared.u32 [%u], %i;
        bar.warp.sync %a; mov.u32 %d0, 0; xor.b32 %v, %t, 16; shl.b32 %v, %v, 2; add.u32 %v, %v, %s;
        @!%q ld.shared.u32 %d0, [%v];"""
    masks = np.array([ALL if whole else 0x000F000F if i % 16 < 4 else 0xFFF0FFF0 for i in range(32)], np.uint32)
    (got,) = lanes(micro, text, [masks], ["b32"], registers=".reg .b32 %s; .shared .align 4 .b8 m[128];")
    assert (got == [0] * 16 + list(range(16))).all()
