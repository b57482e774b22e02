"""This package against transformers, torch.compile, ONNX Runtime and OpenVINO on this processor: one run, side by side.

python bench/cpu.py [--quick] [--case NAME] [--peers transformers,compile,onnxruntime,openvino] [--threads N] [--out FOLDER]

Random weights of the published shapes, the same in every contender: results are compared before anything is timed. A round
lets every contender run once, in changing order, after a pause in which the threads of the one before come to rest; figures
are medians. The machine's own limits, a bare loop of multiply-adds and one of reads, are timed in the same rounds. Peers
come with ``pip install '.[bench]'``; what is absent is listed with the reason.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import cpu_language
import cpu_report
import cpu_vision
from cpu_apart import apart
from cpu_cases import PEERS, PRECISIONS, SIZES, Case, Settings, difference
from cpu_level import BYTES, LEFT_OUT, SWITCHES, held, hold
from cpu_machine import Machine, facts
from cpu_targets import targets

GROUPS: dict[str, Callable[[Settings], Any]] = {
    "tower": cpu_vision.tower_300m,
    "layer6b": cpu_vision.layer_6b,
    "language": cpu_language.language_1b,
    "experts": cpu_language.experts,
    "tiling": cpu_vision.pictures,
}


LEAST_ROUNDS = 3


def check(case: Case) -> dict[str, tuple[float, float]]:
    """Every contender's result against the first one's; those that differ by more than rounding are taken out."""
    errors, base = {}, None
    for name in list(case.contenders):
        case.settings.step(f"{case.title}: result of {name}")
        contender = case.contenders[name]
        try:
            found = contender.result(contender.call())
        except Exception as error:
            if contender.ours:
                raise
            del case.contenders[name]
            case.absent[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
            continue
        base = found if base is None else base
        errors[name] = difference(found, base)
        allowed = case.tolerance if contender.dtype == "float32" else 0.1
        if not errors[name][1] <= allowed:
            if contender.ours:
                raise SystemExit(
                    f"{case.title}: {name} is off by {errors[name][1]:.2g} (relative L2), allowed {allowed}"
                )
            del case.contenders[name]
            case.absent[name] = f"another result: off by {errors[name][1]:.2g} (relative L2)"
    return errors


def turn(call: Callable[[], Any], pause: float, least: float) -> list[float]:
    """Seconds of single calls, ``least`` together; short calls get one unmeasured before, which finds cold caches."""
    time.sleep(pause)
    samples: list[float] = []
    warm = False
    while not samples or sum(samples) < least:
        begin = time.perf_counter()
        call()
        taken = time.perf_counter() - begin
        if warm or taken >= least:
            samples.append(taken)
        warm = True
    return samples


def measure(case: Case, machine: Machine, options: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    errors = check(case)
    names = list(case.contenders)
    yard: list[float] = []
    cores = os.sched_getaffinity(0)
    task = progress.add_task(case.title, total=options.rounds * len(names))
    begin = time.perf_counter()
    for number in range(options.rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() - begin > options.most:
            break
        if case.yard:
            time.sleep(options.pause)
            yard.append(getattr(machine, case.yard)())
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            progress.update(task, description=f"{case.title}: {name}")
            contender = case.contenders[name]
            contender.seconds += turn(contender.call, options.pause, options.least)
            if os.sched_getaffinity(0) != cores:
                os.sched_setaffinity(0, cores)  # a peer that binds its caller would bind whoever follows
            progress.advance(task)
    progress.remove_task(task)
    machine.release()
    case.median = {name: statistics.median(case.contenders[name].seconds) for name in names}
    peak = statistics.median(yard) if yard else None
    return [row(case, name, peak, errors[name], options) for name in names]


def row(
    case: Case, name: str, peak: float | None, error: tuple[float, float], options: argparse.Namespace
) -> dict[str, Any]:
    contender, median = case.contenders[name], case.median[name]
    rate = case.work(SIZES[contender.stored]) / median
    quarters = (
        statistics.quantiles(contender.seconds, n=4, method="inclusive") if len(contender.seconds) > 1 else [median] * 3
    )
    comparable = contender.dtype == "float32" or case.yard == "read"  # bfloat16 products have another peak
    others = [n for n, o in case.contenders.items() if not o.ours and o.dtype in ("float32", contender.dtype)]
    return {
        "case": case.key,
        "title": case.title,
        "contender": name,
        "ours": contender.ours,
        "ms": 1e3 * median,
        "spread_ms": 1e3 * (quarters[2] - quarters[0]),
        "samples": len(contender.seconds),
        "unit": case.unit,
        "rate": rate / (1e6 if case.unit == "MP/s" else 1e9),
        "limit": None if peak is None else peak / 1e9,
        "limit_ms": None if peak is None else 1e3 * case.work(SIZES["float32"]) / peak,
        "share": rate / peak if peak and comparable else None,
        "ratios": {n: case.median[n] / median for n in others} if contender.ours else {},
        "max_error": error[0],
        "relative_l2": error[1],
        "command": command(options, case.key),
    }


def command(options: argparse.Namespace, key: str) -> str:
    """What measures this case again."""
    group, _, number = key.partition("-")
    group = {"prefill": "language", "decode": "language"}.get(group, group)
    parts = ["python bench/cpu.py", *(["--quick"] if options.quick else []), f"--case {group}"]
    parts += [f"--tiles {number}"] if group == "tower" else []
    parts += [f"--isa {options.isa}"] if options.isa else []
    return " ".join([*parts, f"--threads {options.threads} --rounds {options.rounds} --most {options.most:g}"])


def listed(allowed: Any) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r}; allowed: {', '.join(allowed)}")
        return names

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small shapes: shows that everything runs, no figures to keep"
    )
    parser.add_argument("--case", action="append", choices=sorted(GROUPS), help="only this; repeatable")
    parser.add_argument("--peers", type=listed(PEERS), default=list(PEERS), help="comma-separated; default: all")
    parser.add_argument(
        "--precisions", type=listed(PRECISIONS), default=list(PRECISIONS)[:3],
        help="of ours, comma-separated; 'bfloat16' (products too) is not among the default ones and brings a peer's",
    )  # fmt: skip
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=[1, 4, 13], choices=range(1, 65), metavar="T",
        help="of the 300M tower; above 4 only the three fastest run",
    )  # fmt: skip
    parser.add_argument("--isa", choices=list(SWITCHES), help="hold ours, torch and its libraries to this level")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, help="default: 7, quick 2")
    parser.add_argument(
        "--most",
        type=float,
        default=150.0,
        metavar="SECONDS",
        help=f"of a case: fewer rounds then, at least {LEAST_ROUNDS}",
    )
    parser.add_argument("--pause", type=float, help="seconds before a contender's turn; default: 0.2, quick 0")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a report there: markdown, JSON and a plot")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)  # where a process for one group leaves its figures
    options = parser.parse_args()
    if options.part:
        options.case = options.case[-1:]
    options.rounds = options.rounds or (2 if options.quick else 7)
    options.pause = (0.0 if options.quick else 0.2) if options.pause is None else options.pause
    options.least = 0.0 if options.quick else 0.15
    if options.threads < 1 or options.rounds < 1:
        parser.error("--threads and --rounds: at least 1")
    if importlib.util.find_spec("transformers") is None:
        raise SystemExit("bench/cpu.py takes its random models from transformers: pip install '.[bench]'")
    groups = options.case or list(GROUPS)
    if options.part:
        options.part.write_text(json.dumps(run(groups, options)))
        return
    if options.isa:
        hold(options.isa)
    found = apart(groups)
    median = {loop: statistics.median(values) for loop, values in found["loops"].items()}
    about = {
        **facts(options.threads),
        "fma_gflop_per_s": median["fma"] / 1e9,
        "fma_vector_bytes": found["width"],
        "read_gb_per_s": median["read"] / 1e9,
        "rounds": options.rounds,
        "least_rounds": min(LEAST_ROUNDS, options.rounds),
        "quick": options.quick,
        "held_to": options.isa,
        "command": "python " + " ".join(["bench/cpu.py", *sys.argv[1:]]),
    }
    goals = [] if options.quick else targets(found["rows"], found["memory"])
    report = cpu_report.Report(about, found["rows"], found["absent"], found["memory"], goals)
    cpu_report.show(Console(width=max(150, Console().width) if not sys.stdout.isatty() else None), report)
    if options.out:
        for path in cpu_report.write(options.out, report):
            print(path)
    if found["failed"]:
        raise SystemExit(f"bench/cpu.py: failed: {', '.join(found['failed'])}")


def run(groups: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Rows of the groups' cases, what is absent, the tower's memory, and samples of the machine's loops."""
    torch.set_num_threads(options.threads)
    from transformers.utils import logging

    logging.disable_progress_bar()
    rows: list[dict[str, Any]] = []
    absent: list[dict[str, str]] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        tempfile.TemporaryDirectory(prefix="ivk-bench-") as folder,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        whole = progress.add_task("compiling the loops", total=len(groups))
        step: Callable[[str], None] = lambda text: progress.update(whole, description=text)  # noqa: E731
        quick: dict[str, Any] = {"least": 0.0, "read_bytes": 1 << 26} if options.quick else {}
        machine = Machine(Path(folder), options.threads, widest=BYTES.get(options.isa, 64), **quick)
        settings = Settings(
            options.threads,
            options.quick,
            options.precisions,
            held(options.isa, options.peers),
            options.tiles,
            Path(folder),
            step,
            **({"left_out": LEFT_OUT} if options.isa else {}),
        )
        for group in groups:
            for case in GROUPS[group](settings):
                rows += measure(case, machine, options, progress)
                absent += [{"case": case.key, "contender": n, "reason": r} for n, r in case.absent.items()]
                case.contenders.clear()  # what the next case does not use goes before it is built
                del case
                torch._dynamo.reset()
                gc.collect()
            progress.advance(whole)
        for loop in (machine.fma, machine.read):
            loop()
    return {
        "rows": rows,
        "absent": absent,
        "memory": settings.memory,
        "loops": machine.samples,
        "width": machine.width,
    }


if __name__ == "__main__":
    main()
