"""Full-size towers on the cpu backend: one tile, weights in bfloat16, beside the reference streamed layer by layer from the same
file, and the memory that was taken beside what ``plan_tower`` says.

    python tests/full_size.py InternVL3-1B InternVL2-26B --log tests/logs/DATE-full-size-towers.md

The towers are those of the models named: InternViT-300M and InternViT-6B. Random weights; 0.6 and 11 GB on the disk, and as much
memory beside the reference's few hundred megabytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from internvl_kernels import registry
from internvl_kernels.config import ModelConfig
from internvl_kernels.io.checkpoint import save_checkpoint
from internvl_kernels.io.config import read_tower_config
from internvl_kernels.io.layouts import Naming, parameters
from internvl_kernels.io.quantized import Sources, read_sources
from internvl_kernels.models import VisionTower
from internvl_kernels.models._space import Space
from internvl_kernels.synthetic import RandomWeights, shrunk

CHILD = """
import json, sys, threading, time
import torch
import internvl_kernels as ivk
from internvl_kernels import ops

def private():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) * 1024

path, out = sys.argv[1:]
tiles = torch.randint(0, 256, (1, 448, 448, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ops.linear(torch.ones(1, 8), torch.ones(8, 8))  # what the first kernel of a process takes once
before = private()
model = ivk.load_vision(path, backend="cpu", weights="bfloat16", progress=False)
loaded, peak, done = private(), [0], threading.Event()

def sample():
    while not done.is_set():
        peak[0] = max(peak[0], private())
        time.sleep(0.002)

thread = threading.Thread(target=sample)
thread.start()
begin = time.perf_counter()
states = model.vision(tiles)
seconds = time.perf_counter() - begin
done.set()
thread.join()
torch.save(states, out)
plan = model.plan_tower(1)
print(json.dumps({"taken": peak[0] - before, "loaded": loaded - before, "seconds": seconds, "plan": plan.to_dict()}))
"""


def write(name: str, folder: Path) -> ModelConfig:
    """The whole tower of a model, and a language model of next to nothing."""
    whole = registry.config_of(name)
    small = shrunk(whole, 0.002)
    config = replace(
        whole, language=small.language, projector=replace(whole.projector, hidden_size=small.language.hidden_size)
    )
    save_checkpoint(RandomWeights(config, "bfloat16", 0), config, folder)
    return config


@torch.no_grad()
def streamed(folder: Path) -> torch.Tensor:
    """The last hidden state by the reference in float32, with one layer's weights in memory at a time."""
    config = read_tower_config(folder)
    stored, sources = read_sources(folder), Sources()
    described = {p.name: p for p in parameters(config, Naming(), ("vision",))}

    def read(prefix: str, to: str) -> dict[str, Any]:
        found = {}
        for name, parameter in described.items():
            if name.startswith(prefix) and (prefix != "vision." or ".layers." not in name):
                (piece,) = parameter.pieces
                block = sources.read(stored[piece.name], piece.begin, piece.size)
                found[to + name.removeprefix(prefix)] = block.float().view(parameter.shape)
        return found

    one = replace(config.vision, num_layers=1)
    stem, tiling = read("vision.", "vision."), config.tiling
    tiles = torch.randint(0, 256, (1, 448, 448, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    h = None
    for i in range(config.vision.num_layers):
        weights = stem | read(f"vision.layers.{i}.", "vision.layers.0.")
        tower = VisionTower(one, weights, mean=tiling.mean, std=tiling.std, backend="reference")
        h = tower.embed(tiles) if h is None else h
        layer = tower._layers[0]
        h = tower._mlp(layer, tower._attention(layer, h, Space()), Space())
    assert h is not None
    return h


def measure(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="full-size-") as folder:
        path, out = Path(folder) / "model", Path(folder) / "states.pt"
        config = write(name, path)
        run = subprocess.run([sys.executable, "-c", CHILD, str(path), str(out)], capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(f"{name}: {run.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(run.stdout)
        begin = time.perf_counter()
        expected, ours = streamed(path), torch.load(out)
        found["reference seconds"] = time.perf_counter() - begin
        found["relative L2"] = float((ours.double() - expected.double()).norm() / expected.double().norm())
        found["tower"] = (
            f"{registry.find(name).tower}: {config.vision.num_layers} layers of {config.vision.hidden_size}"
        )
        # The caller's tile is there before the first measurement.
        found["planned"] = found["plan"]["peak_bytes"] - found["plan"]["bytes"]["tiles"]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# Full-size towers on the cpu backend", "",
        f"`python tests/full_size.py {' '.join(arguments.names)}`: random weights stored in bfloat16, computed in float32, one "
        "tile of 448 x 448. Memory: private pages of the process beside `plan_tower`'s peak. Reference: PyTorch, by layers.",
        "", "| tower | relative L2 | memory taken | planned | taken / planned | seconds a tile | reference |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    bad = False
    for name in arguments.names:
        f = measure(name)
        ratio = f["taken"] / f["planned"]
        bad |= not (f["relative L2"] < 2e-4 and 0.95 < ratio < 1.05)
        lines.append(
            f"| {f['tower']} | {f['relative L2']:.1e} | {f['taken'] / 1e6:,.0f} MB | {f['planned'] / 1e6:,.0f} MB | {ratio:.3f} | "
            f"{f['seconds']:.1f} | {f['reference seconds']:.0f} s |"
        )
        print(lines[-1], flush=True)
    if arguments.log:
        arguments.log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    raise SystemExit("a tower is off by more than 2e-4, or its memory by more than 5 %" if bad else 0)


if __name__ == "__main__":
    main()
