"""The plan's peak is what the process takes: private memory measured while the public calls run, on both backends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_kernels import random_checkpoint
from internvl_kernels.testing.checkpoints import byte_tokenizer_files, random_weights, tiny_config

# Each call runs twice; the second is measured: oneDNN keeps its compiled code of every shape, which is no workspace.
METER = """
import json, sys, threading, time
import numpy as np
import torch
import internvl_kernels as ivk
path, backend, dtype, call, limit, threads, count = sys.argv[1:]
torch.set_num_threads(1)
model = ivk.load(path, backend=backend, dtype=dtype, max_workspace=limit, threads=int(threads), progress=False)

def private():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) * 1024

rng = np.random.default_rng(0)
side = model.config.tiling.size
tiles = rng.integers(0, 256, (int(count), side, side, 3), dtype=np.uint8)
per_tile = model.config.tokens_per_tile
image = [model.image_token_id] * (len(tiles) * per_tile)
text = rng.integers(8, 250, 1200).tolist()
runs = {
    "encode_tiles": lambda: model.encode_tiles(tiles),
    "generate": lambda: model.generate([image + text], tiles, max_new_tokens=4, stop_token_ids=[]),
    "logits": lambda: model.logits([text[:600], text[600:1200]]),
}
plan = model.plan([len(tiles)], text_tokens=len(text), max_new_tokens=4)
for _ in range(2):
    peak, done = [0], threading.Event()
    before = private()

    def sample():
        while not done.is_set():
            peak[0] = max(peak[0], private())
            time.sleep(0.0005)

    thread = threading.Thread(target=sample)
    thread.start()
    result = runs[call]()
    done.set()
    thread.join()
    size = result.numel() * result.element_size()
    del result
print(json.dumps({"measured": peak[0] - before, "result": size, "bytes": plan.bytes, "peak": plan.peak_bytes, "rows": plan.prefill_rows}))
"""
SLACK = 6e6  # bytes beside the tensors: threads' stacks, Python, the allocator's rounding


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from internvl_kernels.io.save import save_checkpoint

    text = {
        "hidden_size": 512, "num_layers": 2, "num_heads": 8, "num_kv_heads": 4, "head_dim": 64, "intermediate_size": 1536,
        "vocab_size": 16000, "max_positions": 8192,
    }  # fmt: skip
    tower = {"hidden_size": 256, "num_heads": 4, "intermediate_size": 1024, "image_size": 336, "num_layers": 2}
    config = tiny_config("qwen3", text_overrides=text, vision_overrides=tower)
    path = tmp_path_factory.mktemp("memory") / "model"
    save_checkpoint(random_weights(config, dtype="float32"), config, path, extra_files=byte_tokenizer_files())
    return path


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "InternVL3.5-GPT-OSS-20B-A4B-Preview"
    path = tmp_path_factory.mktemp("gpt_oss") / "model"
    return random_checkpoint(name, path, scale=0.12, dtype="float32", progress=False)


def measure(path: Path, *arguments: str, threads: int = 1, tiles: int = 6) -> dict:
    # Every larger block is mapped, and given back when freed, so that what is resident is what is in use.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", METER, str(path), *arguments, str(threads), str(tiles)],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


@pytest.mark.parametrize(
    ("limit", "dtype"), [("20MB", "float32"), ("60MB", "float32"), ("2GB", "float32"), ("60MB", "bfloat16")]
)
def test_an_answer_on_cpu_takes_what_the_plan_says(checkpoint: Path, limit: str, dtype: str) -> None:
    """Within 10 % and the slack on either side: tower, prefill and decoding, visual tokens and KV cache."""
    found = measure(checkpoint, "cpu", dtype, "generate", limit)
    planned = found["peak"] - found["bytes"]["weights"] - found["bytes"]["tiles"]  # those were there before
    assert 0.9 * planned - SLACK < found["measured"] < 1.1 * planned + SLACK, found
    for stage in ("tower workspace", "prefill workspace", "decode workspace"):
        assert found["bytes"][stage] <= {"20MB": 20e6, "60MB": 60e6, "2GB": 2e9}[limit]
    assert (found["rows"] < 2000) == (limit == "20MB")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("call", ["encode_tiles", "logits", "generate"])
def test_temporaries_keep_the_limit(checkpoint: Path, backend: str, call: str) -> None:
    """Also where scores are materialised. The result is the caller's; a generation also holds visual tokens and KV cache."""
    limit, threads = 40_000_000, 1
    if call == "logits":  # all of a chunk at once would need 38 MB
        limit = 30_000_000
    elif (
        call == "encode_tiles" and backend == "cpu"
    ):  # all six tiles at once, as so many threads would have them, need 21
        limit, threads = 12_000_000, 12
    found = measure(checkpoint, backend, "float32", call, str(limit), threads=threads)
    state = found["result"]
    if call == "generate":
        state = found["bytes"]["visual tokens"] + found["bytes"]["kv cache"]
    assert found["measured"] - state < limit + SLACK, found
    assert found["measured"] - state > limit / 3, "the limit is not used"


def test_forty_tiles_take_what_the_plan_says(checkpoint: Path) -> None:
    """A prompt of 7,104 tokens from 41 tiles: stages keep the limit, and what grows is what the plan says."""
    found = measure(checkpoint, "cpu", "float32", "generate", "20MB", tiles=41)
    planned = found["peak"] - found["bytes"]["weights"] - found["bytes"]["tiles"]
    assert 0.9 * planned - SLACK < found["measured"] < 1.1 * planned + SLACK, found
    for stage in ("tower workspace", "prefill workspace", "decode workspace"):
        assert found["bytes"][stage] <= 20e6


@pytest.mark.parametrize(
    ("backend", "dtype"), [("reference", "float32"), ("reference", "bfloat16"), ("cpu", "float32")]
)
def test_sinks_windows_and_expert_biases_are_in_the_plan(gpt_oss: Path, backend: str, dtype: str) -> None:
    """GPT-OSS: on the reference the sinks cost a copy of the scores."""
    found = measure(gpt_oss, backend, dtype, "generate", "2GB", tiles=1)
    planned = found["peak"] - found["bytes"]["weights"] - found["bytes"]["tiles"]
    assert 0.8 * planned - SLACK < found["measured"] < 1.1 * planned + SLACK, found


def test_the_meter_sees_what_a_limit_saves(checkpoint: Path) -> None:
    tight, loose = (measure(checkpoint, "cpu", "float32", "logits", limit)["measured"] for limit in ("30MB", "2GB"))
    assert loose > tight + 20e6
