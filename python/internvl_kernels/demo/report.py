"""What a training run shows while it goes on, and the report it leaves."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from .heldout import table

if TYPE_CHECKING:
    from .recipe import Recipe

_COLUMNS = ("cells", "answer", "right", "balance")
_EVERY = 50  # steps between lines where no terminal shows the bar
_ROWS = 40  # of the curve in the report


class Report:
    """Called with the running means of every step; a context manager around the run."""

    def __init__(self, recipe: Recipe, scans: int, threads: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._recipe, self._scans, self._threads = recipe, scans, threads
        self._console = Console()
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task("", total=recipe.steps)
        self._lines: list[dict[str, float]] = []
        self._begin, self._begin_cpu, self._seconds, self._cpu = 0.0, 0.0, 0.0, 0.0

    def __enter__(self) -> Report:
        self._begin, self._begin_cpu = time.perf_counter(), _cpu_seconds()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._seconds, self._cpu = time.perf_counter() - self._begin, _cpu_seconds() - self._begin_cpu

    def __call__(self, line: dict[str, float]) -> None:
        line = {**line, "seconds": time.perf_counter() - self._begin}
        self._lines.append(line)
        text = "  ".join(f"{name} {line[name]:.4f}" for name in _COLUMNS if name in line)
        self._progress.update(self._task, advance=1, description=text)
        if self._progress.disable and (len(self._lines) - 1) % _EVERY == 0:
            print(f"step {len(self._lines) - 1:5d}  {line['seconds']:6.0f} s  {text}", flush=True)

    def show(self, result: dict[str, Any]) -> None:
        self._console.print(f"trained in {self._seconds / 60:.1f} minutes ({self._cpu / 60:.1f} of processor time)")
        self._console.print(table(result))

    def markdown(self, result: dict[str, Any]) -> str:
        from rich.console import Console

        console = Console(width=100, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
        console.print(table(result))
        recipe = "\n".join(f"    {name} = {value}" for name, value in asdict(self._recipe).items())
        step = max(1, len(self._lines) // _ROWS)
        chosen = [*self._lines[::step], *([] if (len(self._lines) - 1) % step == 0 else self._lines[-1:])]
        curve = "\n".join(
            f"| {line['step']:.0f} | {line['seconds']:.0f} | "
            + " | ".join(f"{line[c]:.4f}" if c in line else "" for c in _COLUMNS)
            + " |"
            for line in chosen
        )
        return f"""# Training run of the demo model, {date.today().isoformat()}

`python -m internvl_kernels.demo.train`, {self._seconds / 60:.1f} minutes ({self._cpu / 60:.1f} minutes of processor time).

- machine: {_processor()}, {os.cpu_count()} cores, {self._threads} threads for torch and a process that draws strips
- Python {sys.version.split()[0]}, torch {torch.__version__}
- data: {self._scans} training scans, split by scan

## Recipe

{recipe}

## Held-out strips

```
{console.export_text().rstrip()}
```

## Curve

Running means. cells: cross entropy of the temporary head on visual tokens. answer: cross entropy of the answers' tokens, right: share
of them that are right. balance: 1 when the experts are equally busy.

| step | seconds | {" | ".join(_COLUMNS)} |
|---|---|{"---|" * len(_COLUMNS)}
{curve}
"""


def _cpu_seconds() -> float:
    """Of this process; its children count once they have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.machine()
