"""Every synchronisation of a double-buffered GEMM tile is needed, or it is known why not: found when it is missing or
altered, in every schedule."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from door import Door
from mutation import FOUND, MODES, SAME, SYNC, TILE, judge
from vgpu_micro import HEADER

import vgpu

TILES = 5
# The kernel's synchronisations in order.
PLACES = [
    "cp.async.commit_group",
    "cp.async.commit_group",
    "cp.async.wait_group 1",
    "bar.sync 0",
    "bar.sync 0",
    "cp.async.wait_all",
    "shfl.sync.bfly.b32 %r21, %r20, 1, 31, 0xffffffff",
]
# (place, what stands there instead) -> verdict; for SAME the reason.
MUTANTS = {
    (0, ""): FOUND,
    (1, ""): FOUND,
    (2, ""): FOUND,
    (2, "cp.async.wait_group 2;"): FOUND,
    (2, "cp.async.wait_group 0;"): SAME,  # waits for more than it needs
    (2, "cp.async.wait_all;"): SAME,  # likewise
    (3, ""): FOUND,
    (3, "bar.sync 0, 32;"): FOUND,  # one warp meets itself
    (3, "bar.arrive 0, 64;"): FOUND,  # nobody waits
    (3, "bar.sync 5;"): SAME,  # any number does
    (3, "bar.warp.sync -1;"): FOUND,
    (4, ""): FOUND,
    (4, "bar.sync 0, 32;"): FOUND,
    (4, "bar.arrive 0, 64;"): FOUND,
    (4, "bar.warp.sync -1;"): FOUND,
    (4, "bar.sync 0; bar.sync 0;"): SAME,  # once more does no harm
    (5, ""): SAME,  # the last iteration has waited for every group but its own, and that one is empty
    (6, ""): FOUND,  # the sum takes in a register that nobody wrote
    (6, "shfl.sync.bfly.b32 %r21, %r20, 1, 31, 0xfffffffe;"): FOUND,  # lane 0 is not in its mask
    (6, "shfl.sync.bfly.b32 %r21, %r20, 1, 31, 0x0000ffff;"): FOUND,
}
SWAPPED = {(2, 3): FOUND, (1, 2): FOUND}  # the barrier before the wait; the wait before the commit


def places(ptx: str) -> list[re.Match[str]]:
    return [m for m in re.finditer(r"^[^\n@]*;", ptx, re.M) if SYNC.match(m[0])]


def replaced(at: dict[int, str]) -> str:
    text = TILE
    for index, match in reversed(list(enumerate(places(TILE)))):
        if index in at:
            text = text[: match.start()] + at[index] + text[match.end() :]
    return text


def run(engine: Any, ptx: str, mode: vgpu.Mode) -> tuple[set[str], bytes]:
    door = Door(engine, ptx)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, (16, 16 * TILES)).astype(ml_dtypes.bfloat16) for _ in range(2))
    pa, pb, pc, ps = door.put(a), door.put(b), door.allocate(1024), door.allocate(256)
    options = " ".join(f"{k}={v}" for k, v in mode.options.items() if k != "host")
    result = door.launch("tile", [pa, pb, pc, ps, np.uint32(TILES)], block=64, options=options)
    c = door.get(pc, (16, 16), np.float32)
    if ptx == TILE and "mutate" not in mode.options:
        assert (c == a.astype(np.float32) @ b.astype(np.float32).T).all()
    return result.codes, c.tobytes() + door.get(ps, 64, np.float32).tobytes()


@pytest.fixture(scope="module")
def intact(engine: Any) -> bytes:
    results = {run(engine, TILE, mode)[1] for mode in vgpu.FULL}
    assert len(results) == 1
    assert all(run(engine, TILE, mode)[0] == set() for mode in vgpu.FULL)
    return results.pop()


def test_the_places_are_known() -> None:
    assert [m[0].rstrip(";") for m in places(TILE)] == PLACES
    assert {place for place, _ in MUTANTS} == set(range(len(PLACES)))


@pytest.mark.parametrize(("place", "instead"), MUTANTS)
def test_mutant(engine: Any, intact: bytes, place: int, instead: str) -> None:
    ptx = replaced({place: instead})
    verdict = judge(lambda mode: run(engine, ptx, mode), intact)
    assert verdict.name == MUTANTS[place, instead], verdict
    assert verdict.reported_everywhere == (verdict.name == FOUND), verdict


@pytest.mark.parametrize(("first", "second"), SWAPPED)
def test_swapped(engine: Any, intact: bytes, first: int, second: int) -> None:
    ptx = replaced({first: PLACES[second] + ";", second: PLACES[first] + ";"})
    verdict = judge(lambda mode: run(engine, ptx, mode), intact)
    assert verdict.name == SWAPPED[first, second], verdict
    assert verdict.reported_everywhere, verdict


def test_deleting_by_option_is_deleting_in_the_text(engine: Any, intact: bytes) -> None:
    """Options::mutate, which the tests of shipped kernels use, does what an edit of the PTX does."""
    lines = (HEADER + TILE).splitlines()
    for index, place in enumerate(PLACES):
        line = [n + 1 for n, text in enumerate(lines) if SYNC.match(text)][index]
        for change, instead in (("delete", ""), ("+1", "cp.async.wait_group 2;"), ("-1", "cp.async.wait_group 0;")):
            if "shfl" in place or (change != "delete" and "wait_group" not in place):
                continue
            for mode in MODES:
                changed = vgpu.Mode("changed", mode.options | {"mutate": f"tile@{line}:{change}"})
                edited = run(engine, replaced({index: instead}), mode)
                assert run(engine, TILE, changed)[0] == edited[0], (place, change)
    shuffle = next(n + 1 for n, text in enumerate(lines) if text.startswith("shfl"))
    for line in (1, shuffle):  # no instruction; one whose result would be missing
        assert run(engine, TILE, vgpu.Mode("x", {"mutate": f"tile@{line}:delete"}))[0] == {"launch"}
    assert run(engine, TILE, vgpu.Mode("x", {"mutate": "other@1:delete"})) == (set(), intact)
