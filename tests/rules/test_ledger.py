"""The time ledger: seconds by folder at the end of a test run, and .ci/run's table of all parts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ledger

ROOT = Path(__file__).parents[2]


class Terminal:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    line = section


def test_seconds_go_where_the_kernels_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IVK_LEDGER", str(tmp_path / "ledger"))
    book: Any = ledger.Ledger()
    tests = {
        "tests/kernels/test_norm.py::a": (set(), 100.0),
        "tests/kernels/test_norm_cuda.py::b": ({"cuda_backend"}, 800.0),
        "tests/vgpu/tests/test_ptx.py::c": ({"vgpu_build"}, 41.0),
        "tests/cli/test_cli.py::d": (set(), 7.0),
    }
    items = [SimpleNamespace(nodeid=name, fixturenames=used) for name, (used, _) in tests.items()]
    book.pytest_collection_finish(SimpleNamespace(items=items))
    for name, (_, seconds) in tests.items():
        book.pytest_runtest_logreport(SimpleNamespace(nodeid=name, duration=seconds))
    terminal: Any = Terminal()
    book.pytest_terminal_summary(terminal)
    lines = [" ".join(line.split()) for line in terminal.lines]
    assert lines[:7] == [
        "time ledger",
        "CPU tests 107.0 s of 600 s",
        "tests/cli 7.0 s",
        "tests/kernels 100.0 s",
        "virtual GPU 841.0 s of 840 s OVER",
        "tests/kernels 800.0 s",
        "tests/vgpu 41.0 s",
    ]
    assert (tmp_path / "ledger").read_text().splitlines()[:2] == ["CPU tests\t107\t600", "virtual GPU\t841\t840"]


def test_table_of_the_whole_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_text(
        "install and demo\t100\t0\nCPU tests\t107\t600\nvirtual GPU\t841\t840\npytest\t960\t0\ntests\t1200\t0\n"
        "sanitizers\t200\t0\nwheel\t90\t0\n"
    )
    script = (ROOT / ".ci" / "run").read_text()
    function = script[script.index("print_ledger() {") :]
    function = function[: function.index("\n}\n") + 3]
    done = subprocess.run(
        ["bash", "-euc", f"{function}\nledger={path} begin_all=0 SECONDS=1500\nprint_ledger"],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert rows == [
        "== time ledger",
        "build 430 s of 900 s",
        "CPU tests 107 s of 600 s",
        "virtual GPU 841 s of 840 s OVER",
        "sanitizers 200 s of 240 s",
        "whole run 1500 s of 2700 s",
    ]
