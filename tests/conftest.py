"""CUDA tests run on a GPU or on the virtual one: tests/vgpu/vgpu_pytest.py has the fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

VGPU = Path(__file__).parent / "vgpu"
sys.path[:0] = [str(VGPU), str(VGPU / "tests")]

pytest_plugins = ["vgpu_pytest"]
