"""Schedules: they differ in what runs when, and in nothing that a correct kernel shows; which of them tests run under."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from door import Door, Result
from test_checks import CHECKS
from test_exec_first import REDUCE

import vgpu


def engine_options(mode: vgpu.Mode) -> str:
    return " ".join(f"{key}={value}" for key, value in mode.options.items() if key != "host")


# Each block and each warp notes when it ran.
ORDER = """
.visible .global .align 4 .u32 next;
.visible .entry order(.param .u64 out) {
.reg .pred %p; .reg .b32 %r<8>; .reg .b64 %rd<4>;
ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;
and.b32 %r4, %r1, 31; setp.ne.u32 %p, %r4, 0; @%p bra DONE;
atom.global.add.u32 %r5, [next], 1;
mad.lo.u32 %r6, %r2, %r3, %r1; shr.u32 %r6, %r6, 5; mul.wide.u32 %rd2, %r6, 4; add.s64 %rd2, %rd2, %rd1;
st.global.u32 [%rd2], %r5;
DONE: ret; }
"""


def order(engine: Any, options: str, grid: int, block: int) -> list[int]:
    door = Door(engine, ORDER)
    out = door.allocate(4 * grid * block // 32)
    assert door.launch("order", [out], grid=grid, block=block, options=options).clean
    return list(door.get(out, grid * block // 32, np.uint32))


def test_seeds_change_the_order_of_blocks_and_warps(engine: Any) -> None:
    assert order(engine, "", 6, 32) == order(engine, "async=eager", 6, 32) == [0, 1, 2, 3, 4, 5]
    for grid, block in ((6, 32), (1, 192)):
        seen = {tuple(order(engine, f"seed={seed}", grid, block)) for seed in range(1, 9)}
        assert len(seen) >= 6
        assert order(engine, "seed=3", grid, block) == order(engine, "seed=3", grid, block), "a seed is repeatable"


@pytest.mark.parametrize("starved", [0, 1, 4])
def test_a_starved_block_comes_last(engine: Any, starved: int) -> None:
    for seed in (0, 1, 2):
        assert order(engine, f"seed={seed} starve={starved}", 6, 32)[starved] == 5


def test_a_starved_block_runs_when_the_others_wait_for_it(engine: Any) -> None:
    """Blocks that wait for the starved one give way to it in the end."""
    case = CHECKS["barriers: budget: waits for a block that never writes"]
    door = Door(engine, planted.twin(case))  # block 1 writes what both wait for
    pout = door.put(np.zeros(planted.WORDS, np.uint32))
    result = door.launch("k", [pout, pout, np.uint32(0)], grid=2, block=32, options="starve=1 budget=200000")
    assert result.clean, result.reports


# Lanes that a branch has parted: the one side waits in a loop for what the other writes behind it.
PARTED = """
.visible .entry parted(.param .u64 out) {
.shared .align 4 .b8 s[8]; .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %rd<4>;
ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; st.volatile.shared.u32 [s], 0; st.volatile.shared.u32 [s+4], 0;
bar.warp.sync -1;
setp.lt.u32 %p, %r1, 16; @%p bra A;
atom.shared.add.u32 %r2, [s], 1; bra.uni OUT;
A: atom.shared.add.u32 %r2, [s], 1;
OUT: mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd2, %rd1; st.global.u32 [%rd2], %r2;
ret; }
"""


def test_split_runs_parted_lanes_in_any_order(engine: Any) -> None:
    first = set()
    for seed in range(8):
        door = Door(engine, PARTED)
        out = door.allocate(128)
        assert door.launch("parted", [out], options=f"split=1 seed={seed}").clean
        got = door.get(out, 32, np.uint32)
        assert sorted(got) == list(range(32))
        first.add(bool(got[0] < got[31]))
    assert first == {True, False}


def launch_reduce(engine: Any, sync: str, mode: vgpu.Mode) -> tuple[Result, bytes]:
    door = Door(engine, REDUCE.replace("{sync}", sync))
    values = np.random.default_rng(0).standard_normal(2048).astype(np.float32)
    pin, pout = door.put(values), door.allocate(32)
    result = door.launch("reduce", [pin, pout], grid=8, block=256, options=engine_options(mode))
    return result, door.get(pout, 8, np.float32).tobytes()


def test_results_are_the_same_bits_in_every_mode(engine: Any) -> None:
    outcomes = [launch_reduce(engine, "bar.sync 0;", mode) for mode in vgpu.FULL]
    assert all(result.clean for result, _ in outcomes)
    assert len({values for _, values in outcomes}) == 1
    without = [launch_reduce(engine, "", mode) for mode in vgpu.FULL]
    assert all("race" in result.codes for result, _ in without)
    assert len({values for _, values in without}) > 1, "no mode shows the wrong sums of a missing barrier"


@pytest.mark.parametrize("name", CHECKS)
def test_verdicts_are_the_same_in_every_mode(engine: Any, name: str) -> None:
    case = CHECKS[name]
    for mode in vgpu.FULL:
        for ptx, source in ((planted.bug(case), case.source), (planted.twin(case), "data")):
            door = Door(engine, ptx)
            pin = planted.place(door, case, source)
            pout = door.put(np.zeros(planted.WORDS, np.uint32))
            options = f"{case.options} {engine_options(mode)}"
            args = [pin, pout, np.uint32(0)]
            codes = door.launch("k", args, grid=case.grid, block=case.block, smem=case.smem, options=options).codes
            assert (case.code in codes) if ptx == planted.bug(case) else not codes, (str(mode), codes)


CHOSEN = """
import pytest, vgpu
def test_all(vgpu_mode): pass
@pytest.mark.modes(vgpu.LAZY)
def test_one(vgpu_mode): pass
"""


@pytest.mark.parametrize(("select", "modes"), [("not slow", vgpu.SMALL), ("slow or not slow", vgpu.FULL)])
def test_the_small_matrix_by_default_and_the_full_one_when_slow_tests_run(
    tmp_path: Path, vgpu_build: Path, select: str, modes: tuple[vgpu.Mode, ...]
) -> None:
    (tmp_path / "test_chosen.py").write_text(CHOSEN)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    env = os.environ | {"PYTHONPATH": str(Path(vgpu.__file__).parent), "VGPU_BUILD": str(vgpu_build)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "vgpu_pytest",
        "-q",
        "-m",
        select,
        "--collect-only",
        "test_chosen.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    listed = [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]
    assert listed == [*(f"test_all[{mode}]" for mode in modes), "test_one[lazy]"], done.stdout


def test_the_matrices_hold_what_they_must() -> None:
    for modes in (vgpu.SMALL, vgpu.FULL):
        assert {mode.options["async"] for mode in modes} == {"lazy", "eager", "random"}
        assert {mode.options["host"] for mode in modes} == {"lazy", "eager", "random"}
        assert any(mode.options["starve"] != "-1" for mode in modes)
        assert any(mode.options["split"] == "1" for mode in modes)
    assert len({mode.options["seed"] for mode in vgpu.FULL} - {"0"}) >= 8
    for asynchrony in ("lazy", "eager", "random"):
        assert any(mode.options["async"] == asynchrony and mode.options["seed"] != "0" for mode in vgpu.FULL)
