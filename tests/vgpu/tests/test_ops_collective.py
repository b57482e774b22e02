"""Exchanges, votes and barriers of a warp or a block, against the ISA's definitions written out lane by lane."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

LANES = np.arange(32, dtype=np.uint32)
RANDOM = np.random.default_rng(7)
WORDS = RANDOM.integers(0, 2**32, 32, dtype=np.uint32)
FEW = RANDOM.integers(0, 4, 32).astype(np.uint32)
MASKS = [0xFFFFFFFF, 0x0000FFFF, 0x80000001, 0x55555555, 0x00000001, 0xFFFE7FFF]
PRED = ".reg .pred %q, %z;"


def members(mask: int) -> list[int]:
    return [i for i in range(32) if mask >> i & 1]


def among(mask: int, code: str) -> str:
    """``code`` by the lanes of ``mask`` alone."""
    return f"""mov.u32 $0, 0; mov.u32 $1, 0; shr.u32 %m, {mask}, %t; and.b32 %m, %m, 1; setp.eq.u32 %z, %m, 0;
    @%z bra OUT; {code}
    OUT: bar.warp.sync 0xffffffff;"""


def source_lane(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The pseudo-code of shfl.sync: the lane read from, and the predicate."""
    b, cval, segmask = b & 31, c & 31, c >> 8 & 31
    most = (lane & segmask) | (cval & ~segmask & 31)
    least = lane & segmask
    if mode == "up":
        j, inside = lane - b, lane - b >= most
    elif mode == "down":
        j, inside = lane + b, lane + b <= most
    elif mode == "bfly":
        j, inside = lane ^ b, (lane ^ b) <= most
    else:
        j = least | (b & ~segmask & 31)
        inside = j <= most
    return (j if inside else lane), inside


# c as the compiler writes it: (32 - width) << 8 | 31 for widths 32, 16, 8, 4, and | 0 for up
SEGMENTS = [width_bits << 8 | clamp for width_bits in (0, 16, 24, 28, 31) for clamp in (31, 0)]


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl(micro: Any, mode: str) -> None:
    for c in SEGMENTS:
        for b in (0, 1, 2, 5, 16, 31, 33):
            code = f"shfl.sync.{mode}.b32 $0|%q, $a, {b}, {c}, 0xffffffff; selp.u32 $1, 1, 0, %q;"
            found = micro.words(code, [WORDS], outputs=2, registers=PRED)
            expected = [source_lane(mode, lane, b, c) for lane in range(32)]
            assert (found[0] == [WORDS[j] for j, _ in expected]).all(), (b, c)
            assert (found[1] == [inside for _, inside in expected]).all(), (b, c)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl_with_operands_of_each_lane(micro: Any, mode: str) -> None:
    distance = RANDOM.integers(0, 32, 32).astype(np.uint32)
    c = 0 if mode == "up" else 31
    found = micro.words(f"shfl.sync.{mode}.b32 $0, $a, $b, {c}, 0xffffffff;", [WORDS, distance], registers=PRED)
    assert (found[0] == [WORDS[source_lane(mode, i, int(distance[i]), c)[0]] for i in range(32)]).all()


@pytest.mark.parametrize("mask", MASKS, ids=hex)
def test_votes(micro: Any, mask: int) -> None:
    inside = members(mask)
    for values in (FEW, np.zeros(32, np.uint32), np.full(32, 3, np.uint32)):
        code = f"""setp.gt.u32 %q, $a, 1;
        vote.sync.ballot.b32 $0, %q, {mask}; vote.sync.all.pred %z, %q, {mask}; selp.u32 $1, 1, 0, %z;
        vote.sync.any.pred %z, %q, {mask}; selp.u32 %n, 2, 0, %z; or.b32 $1, $1, %n;
        vote.sync.uni.pred %z, %q, {mask}; selp.u32 %n, 4, 0, %z; or.b32 $1, $1, %n;
        vote.sync.all.pred %z, !%q, {mask}; selp.u32 %n, 8, 0, %z; or.b32 $1, $1, %n;"""
        found = micro.words(among(mask, code), [values], outputs=2, registers=PRED + ".reg .b32 %m, %n;")
        true = [bool(values[i] > 1) for i in inside]
        ballot = sum(1 << i for i, t in zip(inside, true) if t)
        flags = all(true) + 2 * any(true) + 4 * (all(true) or not any(true)) + 8 * (not any(true))
        for lane in range(32):
            assert tuple(found[:, lane]) == ((ballot, flags) if lane in inside else (0, 0)), lane


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("mask", MASKS, ids=hex)
def test_match(micro: Any, mask: int, width: int) -> None:
    inside = members(mask)
    letter, dtype = ("$a", np.uint32) if width == 32 else ("$A", np.uint64)
    for values in (FEW.astype(dtype) << (width - 8), np.full(32, 9, dtype)):
        code = f"""match.any.sync.b{width} $0, {letter}, {mask};
        match.all.sync.b{width} $1|%q, {letter}, {mask}; selp.u32 $2, 1, 0, %q;"""
        found = micro.words("mov.u32 $2, 0;" + among(mask, code), [values], outputs=3, registers=PRED + ".reg .b32 %m;")
        same = all(values[i] == values[inside[0]] for i in inside)
        for lane in inside:
            assert found[0, lane] == sum(1 << i for i in inside if values[i] == values[lane])
            assert found[1, lane] == (mask if same else 0)
            assert found[2, lane] == same


def signed(x: int) -> int:
    return x - 2**32 if x >> 31 else x


REDUX: dict[str, Callable[[int, int], int]] = {
    "add.u32": lambda a, b: (a + b) % 2**32,
    "add.s32": lambda a, b: (a + b) % 2**32,
    "min.u32": min,
    "max.u32": max,
    "min.s32": lambda a, b: min(a, b, key=signed),
    "max.s32": lambda a, b: max(a, b, key=signed),
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("op", REDUX)
def test_redux(micro: Any, op: str) -> None:
    for mask in MASKS:
        code = among(mask, f"redux.sync.{op} $0, $a, {mask};")
        found = micro.words(code, [WORDS], outputs=2, registers=PRED + ".reg .b32 %m;")
        expected = functools.reduce(REDUX[op], [int(WORDS[i]) for i in members(mask)])
        assert (found[0] == [expected if mask >> i & 1 else 0 for i in range(32)]).all(), hex(mask)


def test_activemask_in_divergence(micro: Any) -> None:
    code = "setp.lt.u32 %q, $a, 2; @%q bra LOW; activemask.b32 $0; bra OUT; LOW: activemask.b32 $0; OUT:"
    found = micro.words(code, [FEW], registers=PRED)[0]
    for lane in range(32):  # any set of lanes on the same side that holds the lane itself
        assert found[lane] >> lane & 1
        assert all((FEW[i] < 2) == (FEW[lane] < 2) for i in members(int(found[lane])))


def test_elect_takes_one_member(micro: Any) -> None:
    header = ".version 9.0\n.target sm_90\n.address_size 64\n"
    for mask in MASKS[:4]:
        code = among(mask, f"elect.sync $0|%q, {mask}; selp.u32 $1, 1, 0, %q;")
        with micro.part("h100", 90):
            found = micro.words(code, [WORDS], outputs=2, registers=PRED + ".reg .b32 %m;", header=header)
        assert found[1].sum() == 1
        assert (found[0][members(mask)] == int(found[1].argmax())).all()
        assert mask >> int(found[1].argmax()) & 1


BLOCK = 96
THREADS = np.arange(BLOCK, dtype=np.uint32)


@pytest.mark.parametrize("form", ["barrier.cta.red", "bar.red"])
def test_barriers_that_reduce(micro: Any, form: str) -> None:
    for limit in (0, 1, 40, 95, 96):
        code = f"""setp.lt.u32 %q, %t, {limit};
        {form}.popc{".aligned" if "cta" in form else ""}.u32 $0, 0, %q;
        {form}.and{".aligned" if "cta" in form else ""}.pred %z, 1, {BLOCK}, %q; selp.u32 $1, 1, 0, %z;
        {form}.or{".aligned" if "cta" in form else ""}.pred %z, 2, !%q; selp.u32 $2, 1, 0, %z;"""
        found = micro.words(code, [THREADS], outputs=3, block=BLOCK, registers=PRED)
        assert (found[0] == limit).all()
        assert (found[1] == (limit == BLOCK)).all()
        assert (found[2] == (limit < BLOCK)).all()


def test_named_barriers_join_some_warps(micro: Any) -> None:
    """Warps 0 and 1 meet at barrier 3; warp 2 arrives at barrier 4 for warp 0 to wait there."""
    code = """mov.u32 %s, m; mad.lo.u32 %s, %t, 4, %s; st.shared.u32 [%s], $a; mov.u32 $0, 0; mov.u32 %s, m;
    setp.ge.u32 %q, %t, 64; @%q bra THIRD; bar.sync 3, 64;
    xor.b32 %n, %t, 32; mad.lo.u32 %n, %n, 4, %s; ld.shared.u32 $0, [%n];
    setp.ge.u32 %q, %t, 32; @%q bra OUT; bar.sync 4, 64; add.u32 %n, %t, 64; mad.lo.u32 %n, %n, 4, %s;
    ld.shared.u32 %n, [%n]; add.u32 $0, $0, %n; bra OUT;
    THIRD: bar.arrive 4, 64; OUT:"""
    values = RANDOM.integers(0, 1000, BLOCK).astype(np.uint32)
    registers = PRED + f".reg .b32 %s, %n; .shared .align 4 .b8 m[{4 * BLOCK}];"
    found = micro.words(code, [values], block=BLOCK, registers=registers)[0]
    assert (found[:32] == values[32:64] + values[64:96]).all()
    assert (found[32:64] == values[:32]).all()
    assert (found[64:] == 0).all()


def test_warp_barrier_orders_shared_memory(micro: Any) -> None:
    code = """mov.u32 %s, m; mad.lo.u32 %n, %t, 4, %s; st.shared.u32 [%n], $a; bar.warp.sync 0xffffffff;
    xor.b32 %n, %t, 31; mad.lo.u32 %n, %n, 4, %s; ld.shared.u32 $0, [%n];"""
    found = micro.words(code, [WORDS], registers=".reg .b32 %s, %n; .shared .align 4 .b8 m[128];")
    assert (found[0] == WORDS[::-1]).all()
