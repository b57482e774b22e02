"""Each check: a planted bug that it finds in every schedule, at its place, and a correct twin that it leaves alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import planted
import planted_barriers
import planted_bounds
import planted_copies
import planted_defined
import planted_races
import pytest
from door import Door, Result
from planted import SCHEDULES, WORKERS, Case

CHECKS: dict[str, Case] = {
    f"{group}: {name}": case
    for group, cases in {
        "bounds": planted_bounds.CASES,
        "defined": planted_defined.CASES,
        "races": planted_races.CASES,
        "copies": planted_copies.CASES,
        "barriers": planted_barriers.CASES,
    }.items()
    for name, case in cases.items()
}


def run(engine: Any, ptx: str, case: Case, source: str, schedule: str) -> Result:
    door = Door(engine, ptx)
    pin = planted.place(door, case, source)
    pout = door.put(np.zeros(planted.WORDS, np.uint32))
    options = f"{case.options} {(SCHEDULES | WORKERS)[schedule]}"
    args = [pin, pout, np.uint32(0)]
    return door.launch("k", args, grid=case.grid, block=case.block, smem=case.smem, options=options)


@pytest.mark.parametrize("name", CHECKS)
def test_planted_bug_and_twin(engine: Any, name: str) -> None:
    case = CHECKS[name]
    wrong, right = planted.bug(case), planted.twin(case)
    for schedule in SCHEDULES | WORKERS:
        clean = run(engine, right, case, "data", schedule)
        assert clean.clean, (schedule, clean.reports)
    for schedule in SCHEDULES:
        result = run(engine, wrong, case, case.source, schedule)
        found = [report for report in result.reports if report["code"] == case.code]
        assert found, (schedule, result.reports)
        for report in found:
            planted.check_place(case, wrong, report)


def test_every_code_has_a_case() -> None:
    """Codes of checks/report.h that a kernel can bring about; the others belong to calls (test_runtime_errors.py)."""
    text = (Path(__file__).parent.parent / "checks" / "report.h").read_text()
    listed = text[text.index("// Codes:") : text.index("struct Report")]
    codes = {code for names in re.findall(r"^//   ([a-z, -]+?)(?:  |$)", listed, re.M) for code in names.split(", ")}
    elsewhere = {"unsupported", "launch", "assert"}
    assert {case.code for case in CHECKS.values()} | elsewhere == codes
