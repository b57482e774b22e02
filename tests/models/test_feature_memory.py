"""The memory of features: what ``plan_tower`` says is what a call takes, at any size, for layers, pools and maps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_kernels.testing.checkpoints import write_tower

# Each call runs twice, and the second one is measured: the first one makes the table of positions, which stays.
METER = """
import json, sys, threading, time
import torch
import internvl_kernels as ivk
path, calls = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
models = {
    "cpu": ivk.load_vision(path, backend="cpu", threads=1, progress=False),
    "reference": ivk.load_vision(path, backend="reference", max_workspace="60MB", threads=1, progress=False),
}

def private():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) * 1024

def run(model, count, height, width, **how):
    tiles = torch.zeros(count, height, width, 3, dtype=torch.uint8)
    plan = model.plan_tower(count, height=height, width=width, **{**how, "layers": len(how.get("layers", [0]))})
    peak, done, before = [0], threading.Event(), private()

    def sample():
        while not done.is_set():
            peak[0] = max(peak[0], private())
            time.sleep(0.0005)

    thread = threading.Thread(target=sample)
    thread.start()
    result = model.vision(tiles, **how)
    done.set()
    thread.join()
    passes, rows = -(-count // plan.micro_batch), 1 + height * width // 14**2
    table = 0 if height == width == model.config.vision.image_size else rows * model.config.vision.hidden_size * 4
    return {"measured": peak[0] - before, "bytes": plan.bytes, "passes": passes, "table": table}

found = {}
for name, call in calls.items():
    model = models[call.pop("backend", "cpu")]
    for _ in range(2):
        found[name] = run(model, **call)
before = private()
for rows in range(20, 60, 2):
    models["cpu"].vision(torch.zeros(1, 14 * rows, 336, 3, dtype=torch.uint8), pool="cls")
print(json.dumps({**found, "twenty sizes": private() - before}))
"""
SLACK = 1e6  # bytes beside the tensors: threads' stacks, Python, the allocator's rounding
OTHER = {"height": 336, "width": 448}
CALLS: dict[str, dict[str, Any]] = {
    "own size": {"count": 8, "height": 224, "width": 224},
    "a larger size": {"count": 4, **OTHER},
    "layers": {"count": 4, "layers": [0, 1, -1], **OTHER},
    "maps": {"count": 4, "dense": True, **OTHER},
    "pooled": {"count": 40, "pool": "cls", **OTHER},
    "one pass": {"count": 1, "layers": [0, -1], "height": 672, "width": 672},
    "reference": {"count": 4, "pool": "mean", "backend": "reference", **OTHER},
}

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    size = {"hidden_size": 512, "num_heads": 8, "intermediate_size": 2048, "image_size": 224, "num_layers": 2}
    path = write_tower(tmp_path_factory.mktemp("tower") / "model", vision_overrides=size)
    # Every larger block is mapped, and given back when freed, so that what is resident is what is in use.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", METER, str(path), json.dumps(CALLS)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=env)
    assert run.returncode == 0, run.stderr
    measured: dict[str, Any] = json.loads(run.stdout)
    return measured


@pytest.mark.parametrize("name", CALLS)
def test_a_call_takes_what_the_plan_says(found: dict[str, Any], name: str) -> None:
    """Tables and the threads' scratch were there before. The last part of the result is not written while a pass runs."""
    b, passes = found[name]["bytes"], found[name]["passes"]
    assert (passes == 1) == (name == "one pass")
    waiting = 0 if passes == 1 else b["features"] / passes
    planned = b["tower workspace"] + b["features"] - found[name]["table"] - waiting
    least = 0.8 if name == "reference" else 0.97
    assert least * planned - SLACK < found[name]["measured"] < 1.03 * planned + SLACK, (found[name], planned)


def test_tables_are_few(found: dict[str, Any]) -> None:
    """Of twenty sizes, of which each has a table of one to three megabytes, no more is left than eight of the tower's own."""
    assert found["twenty sizes"] < 8 * 257 * 512 * 4 + SLACK
