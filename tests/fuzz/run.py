"""Fuzz the public surface: ``python tests/fuzz/run.py --count 1000000``; a find again: ``python tests/fuzz/run.py --replay SURFACE:SEED``.

Inputs are made from consecutive seeds and tried in processes of limited memory and time. Each must be accepted with the right answer,
or refused with one of the package's errors; everything else is a find, printed with its seed and written to a log in tests/logs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parents[1] / "python")]

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn  # noqa: E402

from fuzz import engine, report  # noqa: E402
from fuzz.worker import PLACE  # noqa: E402

SLICE = 20_000  # inputs of a process: a new one begins without what the last one left behind
STUCK_SECONDS = 120.0  # without a word from a process; a busy one is stopped by its processor time


@dataclass
class Tally:
    """What came of one surface."""

    name: str
    wanted: int
    tried: int = 0
    accepted: int = 0
    refused: int = 0
    wrong: int = 0
    crashes: int = 0
    hangs: int = 0
    rss: int = 0
    seconds: float = 0.0
    finds: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    def take(self, found: dict[str, Any]) -> None:
        known = self.finds.setdefault((found["surface"], found["kind"], found["where"]), {**found, "seeds": []})
        known["seeds"].append(found["seed"])
        self.hangs += found["kind"] == "hang"
        self.crashes += found["kind"] == "crash"


class Worker:
    """One process and its slice of seeds."""

    def __init__(
        self, name: str, seed: int, count: int, seconds: float, options: argparse.Namespace, scratch: Path
    ) -> None:
        self.name, self.place, self.errors = name, scratch / "place", scratch / "errors"
        self.place.write_bytes(bytes(PLACE.size))
        job = {"surface": name, "seed": seed, "count": count, "seconds": seconds, "limit": options.limit}
        job |= {"memory": options.memory << 20, "place": str(self.place)}
        quiet = {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "RUST_BACKTRACE": "0",
            "IVK_FUZZ_SCRATCH": str(scratch),
        }
        with self.errors.open("wb") as errors:
            command = [sys.executable, str(FOLDER / "worker.py"), json.dumps(job)]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **quiet})
        self.stuck = False
        self.finds: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.finds.append(json.loads(line))

    def now(self) -> tuple[int, int, int, int, int]:
        """The seed at hand plus 1, inputs accepted, refused and wrong, bytes resident."""
        seed, accepted, refused, wrong, rss = PLACE.unpack(self.place.read_bytes())
        return seed, accepted, refused, wrong, rss

    def wait(self, told: Callable[[], None]) -> None:
        """Until it ends; killed if it stands still."""
        seen, heard = self.now(), time.monotonic()
        while self.process.poll() is None:
            time.sleep(0.2)
            told()
            if (now := self.now()) != seen:
                seen, heard = now, time.monotonic()
            elif time.monotonic() - heard > STUCK_SECONDS:
                self.stuck = True
                self.process.kill()
        self._reader.join()

    def died(self) -> dict[str, Any] | None:
        """The find of a process that came to a bad end."""
        code = self.process.returncode
        if code == 0:
            return None
        tail = self.errors.read_bytes()[-3000:].decode("utf-8", "replace")
        kind = "hang" if self.stuck else "crash"
        name = "blocked" if self.stuck else signal.Signals(-code).name if code < 0 else f"exit status {code}"
        frames = re.findall(r'internvl_kernels/([\w/]+\.py)", line \d+ in (\w+)', tail)
        where = f"{name} in {frames[0][0]}:{frames[0][1]}" if frames else name
        return {"surface": self.name, "seed": self.now()[0] - 1, "kind": kind, "where": where, "text": tail}


def fuzz(tally: Tally, options: argparse.Namespace, progress: Progress, task: TaskID, scratch: Path) -> None:
    """All inputs of a surface, slice by slice."""
    begin, seed = time.monotonic(), options.seed
    while tally.tried < tally.wanted:
        left = options.seconds - (time.monotonic() - begin) if options.seconds else 1e9
        if left <= 0:
            break
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        worker = Worker(tally.name, seed, min(SLICE, tally.wanted - tally.tried), left, options, scratch)
        worker.wait(
            lambda w=worker: progress.update(task, completed=tally.tried + sum(w.now()[1:4]), finds=len(tally.finds))
        )
        at, accepted, refused, wrong, rss = worker.now()
        bad = worker.died()
        done = accepted + refused + wrong + (bad is not None and at > 0)
        tally.accepted, tally.refused, tally.wrong = (
            tally.accepted + accepted,
            tally.refused + refused,
            tally.wrong + wrong,
        )
        tally.tried, tally.rss, seed = tally.tried + done, max(tally.rss, rss), seed + done
        for found in [*worker.finds, *([bad] if bad else [])]:
            tally.take(found)
        if bad is not None and at == 0:  # before its first input
            break
    tally.seconds = time.monotonic() - begin
    progress.update(task, completed=tally.tried, finds=len(tally.finds))


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--surface", action="append", choices=engine.surface_names(), help="one or several; default: all"
    )
    parser.add_argument("--count", type=int, default=100_000, help="inputs, shared out by the surfaces' weights")
    parser.add_argument("--seconds", type=float, default=0.0, help="at most so long for each surface; 0: no limit")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="surfaces at a time")
    parser.add_argument("--limit", type=float, default=engine.CPU_SECONDS, help="processor seconds of one input")
    parser.add_argument("--memory", type=int, default=3072, help="MiB of address space beyond what an idle process has")
    parser.add_argument("--log", type=Path, help="the log (default: tests/logs/DATE-fuzz.md; none: no log)")
    parser.add_argument("--replay", metavar="SURFACE:SEED", help="try one input here, and say what it is")
    parser.add_argument(
        "--guided", action="store_true", help="atheris, where it is installed, on the surfaces of pure Python"
    )
    return parser.parse_args(arguments)


def replay(text: str, limit: float) -> int:
    name, _, seed = text.rpartition(":")
    engine.quiet(name)
    module = engine.surface(name)
    given = engine.make(module, int(seed))
    print(getattr(module, "show", repr)(given))
    found = engine.attempt(name, int(seed), limit)
    print(found if isinstance(found, str) else f"{found.kind}: {found.text}")
    return 0 if isinstance(found, str) else 1


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    if options.replay:
        return replay(options.replay, options.limit)
    names = options.surface or engine.surface_names()
    if options.guided:
        from fuzz import guided

        return guided.run(names, options)
    weights = {name: engine.surface(name).WEIGHT for name in names}
    tallies = [Tally(name, -(-options.count * weights[name] // sum(weights.values()))) for name in names]
    scratch = Path(tempfile.mkdtemp(prefix="ivk-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    console, begin = Console(stderr=True), time.monotonic()
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[finds]} finds"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as progress:
            waiting = list(tallies)
            tasks = {tally.name: progress.add_task(tally.name, total=tally.wanted, finds=0) for tally in tallies}

            def work() -> None:
                while waiting:
                    tally = waiting.pop(0)
                    fuzz(tally, options, progress, tasks[tally.name], scratch / tally.name)

            threads = [threading.Thread(target=work) for _ in range(max(options.jobs, 1))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report.print_tallies(console, tallies)
    file = options.log or FOLDER.parent / "logs" / f"{time.strftime('%Y-%m-%d')}-fuzz.md"
    if str(file) != "none":
        report.write_log(file, tallies, options, time.monotonic() - begin)
        console.print(f"log: {file}")
    return 1 if any(tally.finds for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
