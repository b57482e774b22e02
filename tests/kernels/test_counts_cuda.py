"""bench/cuda.py: the table of counts for people, and the same as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vgpu

BENCH = Path(__file__).parents[2] / "bench"
SCRIPT = BENCH / "cuda.py"


@pytest.mark.modes(vgpu.LAZY)
def test_counts_of_one_op(cuda_backend: str, tmp_path: Path) -> None:
    if cuda_backend == "real":
        pytest.skip("a real GPU does not count by itself")
    out = tmp_path / "counts.json"
    environment = {k: v for k, v in os.environ.items() if k != "VGPU"} | {"VGPU_BUILD": str(vgpu.build().parent)}
    command = [sys.executable, SCRIPT, "--op", "rms_norm", "--json", out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("counts of the virtual GPU as a100, not times") == 3, done.stdout
    rows = json.loads(out.read_text())["rows"]
    assert [row["shape"] for row in rows] == ["rows=1025,cols=1024", "rows=1025,cols=3200", "rows=8,cols=896"]
    for row in rows:
        memory, block = row["memory"], row["block"]
        assert memory["distinct bytes"] == memory["contract's bytes"]
        assert memory["of least"] <= 1.02
        assert memory["bytes asked for"] >= memory["distinct bytes"]
        assert block["bank conflicts"] == block["local bytes"] == 0
        assert block["registers"] > 16
        assert block["resident warps"] * 32 == block["blocks per SM"] * block["threads"]
        classes = dict(row["instructions"])
        assert classes.pop("all") == sum(classes.values()) > 0
        assert classes["float"] > 0


@pytest.mark.modes(vgpu.LAZY)
def test_the_benches_for_hardware_run_but_for_their_timings(cuda_backend: str) -> None:
    """bench/gpu.py --virtual: every case and dtype is made, run and compared."""
    if cuda_backend == "real":
        pytest.skip("there the bench itself runs")
    environment = {k: v for k, v in os.environ.items() if k != "VGPU"} | {"VGPU_BUILD": str(vgpu.build().parent)}
    command = [sys.executable, BENCH / "gpu.py", "--virtual", "--dtype", "bfloat16"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("bfloat16") == 19, done.stdout
