"""What reports say, what a launch may not be, and switches of the checks (planted bugs: test_checks.py)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import planted
import pytest
from door import Door, Result
from planted import Case
from test_checks import CHECKS, run

FINE = Case("", "", "ld.global.u32 %r6, [$IN]; st.global.u32 [$OUT], %r6;")


def launch(engine: Any, body: str, *, source: str = "data", options: str = "", **settings: Any) -> Result:
    return run(engine, planted.entry(body), Case("", "", "", options=options, **settings), source, "lazy")


def test_checks_can_be_switched_off(engine: Any) -> None:
    def bug(name: str, options: str) -> Result:
        case = CHECKS[name]
        changed = Case(case.code, case.bug, case.twin, shared=case.shared, block=case.block, options=options)
        return run(engine, planted.bug(case), changed, case.source, "lazy")

    for name, switch in (
        ("races: write, read", "races"),
        ("defined: device memory", "definedness"),
        ("races: lanes: write, read", "strict_warp"),
    ):
        assert not bug(name, f"{switch}=1").clean
        assert bug(name, f"{switch}=0").clean
    with pytest.raises(ValueError, match="races"):
        bug("races: write, read", "races=maybe")


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
def test_unsupported_instruction_is_named(engine: Any, body: str) -> None:
    ptx = planted.entry(f"HERE {body}")
    result = run(engine, ptx, FINE, "data", "lazy")
    assert result.codes == {"unsupported"}
    report = result.reports[0]
    assert report["opcode"] == body.split()[0].rstrip(";")
    assert report["ptx_line"] in planted.marked(ptx)
    assert (report["source_file"], report["source_line"]) == (planted.SOURCE, planted.LINE)


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
def test_bad_launch(engine: Any, settings: dict[str, Any], text: str) -> None:
    result = launch(engine, FINE.twin, **settings)
    assert result.codes == {"launch"}
    assert text in result.reports[0]["text"]


def test_a_deadlock_says_who_waits_where(engine: Any) -> None:
    case = CHECKS["barriers: deadlock: crosswise"]
    ptx = planted.bug(case)
    report = run(engine, ptx, case, "data", "lazy").reports[0]
    first, second = sorted(planted.marked(ptx))
    for warp, line in ((0, first), (1, second)):
        assert (
            f"warp {warp}; lanes 0xffffffff at PTX line {line} `bar.sync` waiting at a block barrier" in report["text"]
        )
    assert "barrier 1: 32 of 64 threads arrived" in report["text"]
    assert "barrier 2: 32 of 64 threads arrived" in report["text"]
    half = CHECKS["barriers: barrier: half a warp"]
    text = run(engine, planted.bug(half), half, "data", "lazy").reports[0]["text"]
    assert re.search(
        r"warp 0; lanes 0xffff0000 at PTX line \d+ `bar.sync` waiting for lanes 0xffff; lanes 0xffff at", text
    )


def test_reports_say_how_far_outside(engine: Any) -> None:
    result = launch(engine, "setp.ne.u32 %p, %r1, 37; @%p bra DONE; ld.global.u32 %r4, [%rd1+4096];")
    assert result.reports[0]["thread"] == [37, 0, 0]
    assert "(test, 1024 bytes at" in result.reports[0]["text"]
    assert "3072 bytes past its end" in result.reports[0]["text"]


def test_races_say_with_whom(engine: Any) -> None:
    text = launch(engine, "st.global.u32 [%rd2], %r2;", grid=2, block=1).reports[0]["text"]
    assert re.fullmatch(
        r"write to global memory at 0x\w+ is not ordered after the write by warp 0 of block \(0,0,0\)", text
    )


def test_findings_of_one_instruction_are_counted(engine: Any) -> None:
    result = launch(engine, "st.global.u32 [%rd2], %r2;", grid=50, block=32)
    assert [(r["code"], r["count"]) for r in result.reports] == [("race", 49)]


def test_an_access_of_an_earlier_launch_is_no_race_however_long_ago(engine: Any) -> None:
    """Launches are numbered modulo 4095: after so many a word still holds an access under the same number."""
    body = "setp.ne.u32 %p, %r2, %r0; @%p bra DONE; st.global.u32 [%rd2], %r2;"  # block n writes
    door = Door(engine, planted.entry(body) + ".visible .entry nothing() { ret; }")
    pout = door.put(np.zeros(1, np.uint32))
    assert door.launch("k", [pout, pout, np.uint32(0)], grid=2, block=1).clean
    for _ in range(4094):
        door.launch("nothing", [])
    assert door.launch("k", [pout, pout, np.uint32(1)], grid=2, block=1).clean


def test_reports_name_block_and_thread_in_three_dimensions(engine: Any) -> None:
    ptx = """
.visible .entry k(.param .u64 p) {
.reg .pred %q; .reg .b32 %r<9>; .reg .b64 %rd<2>;
ld.param.u64 %rd1, [p];
mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y;
mov.u32 %r6, %ctaid.z;
mad.lo.u32 %r1, %r2, 10, %r1; mad.lo.u32 %r1, %r3, 100, %r1; mad.lo.u32 %r1, %r4, 1000, %r1;
mad.lo.u32 %r1, %r5, 10000, %r1; mad.lo.u32 %r1, %r6, 100000, %r1;
setp.eq.u32 %q, %r1, 121413;
@%q st.global.u32 [%rd1+4], %r1;
ret; }"""
    door = Door(engine, ptx)
    for options in planted.SCHEDULES.values():
        result = door.launch("k", [door.allocate(4)], grid=(3, 4, 2), block=(5, 3, 6), options=options)
        report = result.reports[0]
        assert (report["kernel"], report["block"], report["thread"]) == ("k", [1, 2, 1], [3, 1, 4])
