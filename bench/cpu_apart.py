"""Runs bench/cpu.py once for each group of cases and puts their figures together."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def apart(groups: Sequence[str]) -> dict[str, Any]:
    """Each group in a process of its own: what peers keep of one does not stand in the next one's way. One that fails is
    named under "failed", and does not take the others' figures with it."""
    whole: dict[str, Any] = {"rows": [], "absent": [], "memory": [], "loops": {"fma": [], "read": []}, "width": 0}
    whole["failed"] = []
    with tempfile.TemporaryDirectory(prefix="ivk-bench-") as folder:
        for group in groups:
            part = Path(folder) / f"{group}.json"
            code = subprocess.run([sys.executable, *sys.argv, "--case", group, "--part", str(part)]).returncode
            if code != 0:
                whole["failed"].append(group)
                whole["absent"].append({"case": group, "contender": "all", "reason": f"its process ended with {code}"})
                continue
            found = json.loads(part.read_text())
            for name in ("rows", "absent", "memory"):
                whole[name] += found[name]
            for loop, values in found["loops"].items():
                whole["loops"][loop] += values
            whole["width"] = found["width"]
    if not whole["rows"]:
        raise SystemExit("bench/cpu.py: no case ran")
    return whole
