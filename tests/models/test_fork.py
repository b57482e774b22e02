"""A child of fork answers as its parent does: no thread that it lacks is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_kernels.testing.checkpoints import write_tiny

CHAT = """
import os, signal, sys
import numpy as np
import internvl_kernels as ivk
model = ivk.load(sys.argv[1], backend="cpu", dtype=sys.argv[2], threads=2, progress=False)
picture = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
run = lambda: model.chat("What is it? " * 20, picture, max_new_tokens=8, stop_token_ids=[])
answer = run()
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(0 if run() == answer else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_forked_child_answers(tmp_path: Path, dtype: str) -> None:
    folder = write_tiny(tmp_path / "model", "qwen3_moe")
    command = [sys.executable, "-c", CHAT, str(folder), dtype]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )
    assert run.returncode == 0, run.stderr
