"""pytest plugin: seconds per folder at the end, beside what the time ledger of CI allows; IVK_LEDGER=FILE takes them too.

Tests that run on the virtual GPU count there, whatever folder they lie in, and so does building it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

MINUTES = {"CPU tests": 10, "virtual GPU": 14}  # of two cores


class Ledger:
    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.virtual: set[str] = set()
        self.seconds: Counter[tuple[str, str]] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            fixtures = set(getattr(item, "fixturenames", ()))
            if {"cuda_backend", "_vgpu", "vgpu_build"} & fixtures or "/vgpu/" in item.nodeid:
                self.virtual.add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        parts = Path(report.nodeid.partition("::")[0]).parts
        folder = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        stage = "virtual GPU" if report.nodeid in self.virtual else "CPU tests"
        self.seconds[stage, folder] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        whole = time.monotonic() - self.begin
        total = {stage: sum(s for (of, _), s in self.seconds.items() if of == stage) for stage in MINUTES}
        terminalreporter.section("time ledger")
        for stage, minutes in MINUTES.items():
            over = "  OVER" if total[stage] > 60 * minutes else ""
            terminalreporter.line(f"{stage:<24}{total[stage]:8.1f} s of {60 * minutes} s{over}")
            for (of, folder), seconds in sorted(self.seconds.items()):
                if of == stage:
                    terminalreporter.line(f"  {folder:<22}{seconds:8.1f} s")
        terminalreporter.line(f"{'whole run':<24}{whole:8.1f} s")
        if os.environ.get("IVK_LEDGER"):
            with open(os.environ["IVK_LEDGER"], "a") as file:
                file.writelines(f"{stage}\t{total[stage]:.0f}\t{60 * MINUTES[stage]}\n" for stage in MINUTES)
                file.write(f"pytest\t{whole:.0f}\t0\n")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Ledger(), "ledger-of-seconds")
