"""CUDA tests run on a GPU or on the virtual one: tests/vgpu/vgpu_pytest.py has the fixtures. tests/ledger.py adds up the seconds."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "vgpu"), str(TESTS / "vgpu" / "tests")]

pytest_plugins = ["vgpu_pytest", "ledger"]
