"""What a thread keeps between products and attentions is what the contracts, and so plan(), say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

METER = """
import torch
from internvl_kernels import ops
from internvl_kernels.ops._backend import cpu

def private():
    with open("/proc/self/status") as status:
        return 1024 * int(next(line for line in status if line.startswith("RssAnon")).split()[1])

weight = ops.pack_weight(torch.ones(1024, 12800))
x, y = torch.ones(96, 12800), torch.ones(96, 1024)
ops.linear(x[:2, :16].contiguous(), torch.ones(4, 16), threads=1)
before = private()
cpu().gemm(x, weight.data, 1024, None, None, None, y, "linear", 1)
print(private() - before, cpu().gemm_scratch(12800, True))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_thread_keeps_what_the_contract_says() -> None:
    run = subprocess.run([sys.executable, "-c", METER], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    kept, stated = map(int, run.stdout.split())
    assert stated == 4 * (96 * (12800 + 32 * 32) + 32 * 256)
    assert abs(kept - stated) < 500_000
