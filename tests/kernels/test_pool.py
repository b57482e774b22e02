"""The thread pool: a program that hammers it (pool.cpp, which .ci/sanitize runs under ThreadSanitizer too), and what Python sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from internvl_kernels import ops
from internvl_kernels.ops._backend import cpu

ROOT = Path(__file__).parents[2]


def step(threads: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(2, 512, generator=generator), torch.randn(2048, 512, generator=generator)
    return ops.linear(x, weight, decode=True, threads=threads, backend="cpu")


def test_program_that_hammers_it(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    assert compiler, "a C++ compiler built the extension"
    sources = [ROOT / "csrc/core/parallel.cpp", ROOT / "tests/kernels/pool.cpp"]
    command = [*compiler.split(), "-std=gnu++17", "-O1", "-pthread", f"-I{ROOT / 'csrc'}", *map(str, sources)]
    subprocess.run([*command, "-o", str(tmp_path / "pool")], check=True)
    result = subprocess.run([tmp_path / "pool"], capture_output=True, text=True, timeout=150)
    assert (result.returncode, result.stdout) == (0, "pool: well\n"), result.stderr


def test_forked_child_runs_on_two_threads() -> None:
    expected = step(2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if all(torch.equal(step(2), expected) for _ in range(20)) else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert done, "the child hangs"
    assert status == 0
    assert torch.equal(step(2), expected)


def test_python_threads_call_at_once() -> None:
    expected = [step(1, seed) for seed in range(3)]
    wrong: list[int] = []

    def call(seed: int) -> None:
        for threads in (2, 3, 2, 1) * 5:
            if not torch.equal(step(threads, seed), expected[seed]):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong


def test_other_python_threads_run_during_a_call() -> None:
    # A call that kept the interpreter's lock would be one long step for everybody else.
    logits = torch.randn(64, 151_936, generator=torch.Generator().manual_seed(0))
    uniform = torch.full((64,), 0.5, dtype=torch.float64)
    span: list[float] = []

    def call() -> None:
        span.append(time.perf_counter())
        ops.sample(logits, temperature=1.0, top_k=0, top_p=0.9, uniform=uniform, threads=2, backend="cpu")
        span.append(time.perf_counter())

    caller = threading.Thread(target=call)
    caller.start()
    ticks = []
    while caller.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0)
    begin, end = span
    inside = [t for t in ticks if begin + 0.1 * (end - begin) < t < end - 0.1 * (end - begin)]
    assert len(inside) >= 3, f"{len(inside)} steps of another thread in {end - begin:.3f} s"


def test_cap_of_a_call_that_names_none() -> None:
    before = cpu().default_threads()
    expected = step(1)
    try:
        for cap in (3, 1, 2):
            cpu().set_default_threads(cap)
            assert cpu().default_threads() == cap
            assert torch.equal(step(0), expected)
        for cap in (0, -1, 1025):
            with pytest.raises(ValueError, match=f"threads: {cap}; allowed: 1 to 1024"):
                cpu().set_default_threads(cap)
    finally:
        cpu().set_default_threads(before)


def test_process_ends_while_workers_spin_or_sleep() -> None:
    code = (
        "import sys, time, torch; from internvl_kernels import ops\n"
        "for _ in range(5): ops.linear(torch.ones(2, 512), torch.ones(2048, 512), decode=True, threads=2, backend='cpu')\n"
        "time.sleep(float(sys.argv[1]))"
    )
    for pause in ("0", "0.05"):
        result = subprocess.run([sys.executable, "-c", code, pause], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
