"""A load that maps the file of packed weights holds next to no memory of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from internvl_kernels.io.save import save_checkpoint
from internvl_kernels.testing.checkpoints import random_weights, tiny_config

METER = """
import json, sys, threading, time
from pathlib import Path
import torch
from internvl_kernels.encoder import read_weights
from internvl_kernels.io.config import read_config
from internvl_kernels.options import RuntimeOptions
path, cache = Path(sys.argv[1]), sys.argv[2] or None
torch.set_num_threads(1)

def anonymous():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024

config, options = read_config(path), RuntimeOptions.check("cpu", None, None, None, None, 1, cache)
torch.zeros(8, dtype=torch.bfloat16).float()
peak, done = [0], threading.Event()

def sample():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.0005)

before = anonymous()
thread = threading.Thread(target=sample)
thread.start()
weights = read_weights(path, config, options, ("vision", "projector", "language"), False)
done.set()
thread.join()
total = sum(float(w.data.sum()) for w in weights.values())  # every page is touched
size = sum(w.data.nbytes for w in weights.values())
print(json.dumps({"size": size, "peak": peak[0] - before, "held": anonymous() - before, "sum": total}))
"""


def test_private_memory(tmp_path: Path) -> None:
    """About 160 MB of weights; the sum needs room of its own for a matrix at most."""
    text = {"hidden_size": 512, "num_layers": 5, "num_experts": 8, "expert_size": 512, "vocab_size": 8000}
    config = tiny_config("qwen3_moe", text_overrides=text)
    path = tmp_path / "model"
    save_checkpoint(random_weights(config, dtype="bfloat16"), config, path, max_shard_bytes=20_000_000)
    plain, first, second = (
        json.loads(subprocess.run(
            [sys.executable, "-c", METER, str(path), cache], capture_output=True, text=True, timeout=120, check=True
        ).stdout)
        for cache in ("", str(tmp_path / "cache"), str(tmp_path / "cache"))
    )  # fmt: skip
    assert plain["size"] > 140e6
    assert plain["held"] > 0.9 * plain["size"], "the meter sees what is held"
    assert first["peak"] < 0.6 * first["size"], first
    assert max(second["peak"], second["held"]) < 0.05 * second["size"], second
    assert plain["sum"] == first["sum"] == second["sum"]
