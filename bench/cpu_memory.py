"""What one forward of the tower takes beside its weights, ours and transformers', each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpu_cases import Settings

# The peak of private memory over a forward, from what was private before the first one: so what a forward keeps counts, and
# code and mapped weights, which the first one touches, do not.
METER = r"""
import ctypes, sys, torch
kind, folder, count, side, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
tiles = torch.randn(count, 3, side, side)
if kind == "ours":
    import internvl_kernels as ivk
    model = ivk.load_vision(folder, backend="cpu", threads=threads, progress=False)
    run = lambda: model.vision(tiles)
else:
    from transformers import InternVLForConditionalGeneration
    made = InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    tower = made.model.vision_tower.eval()
    run = lambda: tower(tiles).last_hidden_state
def field(name):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))
with torch.inference_mode():
    ctypes.CDLL(None).malloc_trim(0)
    before = field("RssAnon")
    run()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    run()
    print(field("VmHWM") - field("RssFile") - field("RssShmem") - before)
"""


def tower_memory(s: Settings, folder: Path, side: int, counts: Iterator[int]) -> list[dict[str, Any]]:
    """Bytes by tile count: ``{"tiles", "ours", "transformers sdpa"}``; without transformers' among the peers none."""
    if "transformers" not in s.peers:
        return []
    found = []
    for count in counts:
        row: dict[str, Any] = {"tiles": count}
        for kind in ("ours", "transformers sdpa"):
            s.step(f"memory of {count} tiles: {kind}")
            command = [sys.executable, "-c", METER, kind.split()[0], str(folder), *map(str, (count, side, s.threads))]
            run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
            if run.returncode != 0:
                raise RuntimeError(f"memory of {kind}: {run.stderr.strip().splitlines()[-1]}")
            row[kind] = int(run.stdout.split()[-1])
        found.append(row)
    return found
