"""Loading holds little more private memory than the weights in their final dtype."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_kernels.io.checkpoint import save_checkpoint
from internvl_kernels.testing.checkpoints import random_weights, tiny_config

# A thread samples RssAnon while the load runs; VmHWM, where the kernel lets it be reset, also counts mapped file pages.
METER = """
import json, sys, threading, time
from pathlib import Path
import torch
from internvl_kernels.io.checkpoint import load_weights, read_config
from internvl_kernels.models import storage
path, dtype, loader = sys.argv[1:]
torch.set_num_threads(1)

def status(key):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key + ":"))
    return int(line.split()[1]) * 1024

def plain(path, dtype):  # the control: everything in the stored dtype first, then everything converted
    from safetensors.torch import load
    stored = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        stored |= load(file.read_bytes())
    return {name: tensor.to(getattr(torch, dtype)) for name, tensor in stored.items()}

config = read_config(path)
torch.zeros(8, dtype=torch.bfloat16).float()
peak, done = [0], threading.Event()

def sample():
    while not done.is_set():
        peak[0] = max(peak[0], status("RssAnon"))
        time.sleep(0.0005)

try:
    Path("/proc/self/clear_refs").write_text("5")
    resets = True
except OSError:
    resets = False
before, before_all = status("RssAnon"), status("VmRSS")
thread = threading.Thread(target=sample)
thread.start()
place = storage(config, getattr(torch, dtype)) if loader == "packed" else None
weights = plain(path, dtype) if loader == "plain" else load_weights(path, config, dtype, progress=False, storage=place)
done.set()
thread.join()
held = [getattr(t, "data", t) for t in weights.values()]
size = sum(t.numel() * t.element_size() for t in held)
result = {"size": size, "anonymous": max(peak[0], status("RssAnon")) - before}
result["all"] = status("VmHWM") - before_all if resets else None
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """About 40 million weights: 80 MB as stored in bfloat16, 160 MB as float32."""
    text = {"hidden_size": 512, "num_layers": 5, "num_experts": 8, "expert_size": 512, "vocab_size": 8000}
    config = tiny_config("qwen3_moe", text_overrides=text)
    path = tmp_path_factory.mktemp("memory") / "model"
    save_checkpoint(random_weights(config, dtype="bfloat16"), config, path, max_shard_bytes=20_000_000)
    return path


def measure(path: Path, dtype: str, loader: str = "ours") -> dict[str, int]:
    run = subprocess.run(
        [sys.executable, "-c", METER, str(path), dtype, loader], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("loader", ["ours", "packed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_anonymous_memory(checkpoint, dtype, loader):
    found = measure(checkpoint, dtype, loader)
    assert found["size"] > 70e6
    assert found["size"] * 0.9 < found["anonymous"] < found["size"] * 1.2, found
    if found["all"] is not None:
        assert found["all"] < found["size"] * 1.2 + 20e6, found  # the files' pages do not pile up either


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_meter_sees_a_wasteful_loader(checkpoint):
    found = measure(checkpoint, "float32", "plain")
    assert found["anonymous"] > found["size"] * 1.3, found
