"""CUDA tests run on a GPU or on the virtual one: tests/vgpu/vgpu_pytest.py has the fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "vgpu"))

pytest_plugins = ["vgpu_pytest"]
