"""Every opcode that the engine claims has a row in the tests before this file, and a place in the README's table."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest
from door import Door

HERE = Path(__file__).parent
# Ahead of their time: decoded for sm_90 already, tested with the rest of it.
LATER = {"griddepcontrol"}


@pytest.fixture
def claimed(engine: ctypes.CDLL) -> set[str]:
    door = Door(engine, ".visible .entry k() { ret; }")
    return set(engine.vgpu_door_opcodes(door.handle).decode().split())


def test_every_opcode_has_a_row(request: pytest.FixtureRequest, micro: Any, claimed: set[str]) -> None:
    files = {item.path.name for item in request.session.items}
    missing = {path.name for path in HERE.glob("test_ops_*.py")} - files
    if missing:
        pytest.skip(f"needs all rows in one run; {', '.join(sorted(missing))} not chosen")
    assert claimed
    left = sorted(claimed - micro.seen - LATER)
    assert not left, f"no row for {left}"


def test_the_readme_names_every_opcode(claimed: set[str]) -> None:
    named = set(re.findall(r"[a-z]\w*", (HERE.parent / "README.md").read_text()))
    left = sorted(claimed - named)
    assert not left, f"the README does not name {left}"
