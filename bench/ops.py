"""Every op against its PyTorch composition on this machine: medians of interleaved runs, bandwidth, ratio.

python bench/ops.py [--op NAME] [--dtype float32,bfloat16] [--threads 1,2] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing.cases import CASES, Case


def timed(call: Callable[[], Any], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def interleaved(calls: list[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Seconds of each call, ``rounds`` samples each, taken in turn so that a disturbance meets all of them."""
    repeats = []
    for call in calls:
        call()
        repeats.append(max(1, int(0.005 / max(timed(call, 1), 1e-7))))
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for kept, call, count in zip(samples, calls, repeats):
            kept.append(timed(call, count))
    return samples


def copy_bandwidth(threads: int, rounds: int) -> float:
    """Bytes per second, read plus written, of torch's copy between buffers larger than the caches."""
    torch.set_num_threads(threads)
    source = torch.ones(32 << 20)
    target = torch.zeros_like(source)
    (samples,) = interleaved([lambda: target.copy_(source)], rounds)
    return 2 * source.nbytes / statistics.median(samples)


def measure(case: Case, dtype: str, threads: int, rounds: int, copy: float) -> dict[str, Any]:
    torch.set_num_threads(threads)
    with torch.no_grad():
        ours, theirs = interleaved(list(case.build(dtype, threads)), rounds)
    seconds, baseline = statistics.median(ours), statistics.median(theirs)
    quarters = statistics.quantiles(ours, n=4)
    rate = case.bytes(torch.empty(0, dtype=getattr(torch, dtype)).element_size()) / seconds
    return {
        "op": case.op,
        "shape": case.shape,
        "dtype": dtype,
        "threads": threads,
        "us": seconds * 1e6,
        "spread_us": (quarters[2] - quarters[0]) * 1e6,
        "torch_us": baseline * 1e6,
        "ratio": baseline / seconds,
        "gb_per_s": rate / 1e9,
        "share_of_copy": rate / copy,
        "gflop_per_s": case.flops / seconds / 1e9,
        "command": f"python bench/ops.py --op {case.op} --dtype {dtype} --threads {threads} --rounds {rounds}",
    }


def report(rows: list[dict[str, Any]], machine: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{machine['cpu']} · {machine['isa']} · torch {machine['torch']}", title_justify="left")
    for name in ("op", "shape", "dtype", "threads", "µs", "± µs", "torch µs", "× torch", "GB/s", "of copy", "GFLOP/s"):
        table.add_column(name, justify="left" if name in ("op", "shape", "dtype") else "right", no_wrap=name != "shape")
    for r in rows:
        table.add_row(
            r["op"], r["shape"], r["dtype"], str(r["threads"]), f"{r['us']:.1f}", f"{r['spread_us']:.1f}", f"{r['torch_us']:.1f}",
            f"{r['ratio']:.2f}", f"{r['gb_per_s']:.1f}", f"{r['share_of_copy']:.0%}", f"{r['gflop_per_s']:.1f}",
        )  # fmt: skip
    console.print(table)
    copies = ", ".join(f"{gb / 1e9:.1f} GB/s on {t}" for t, gb in machine["copy_bytes_per_s"].items())
    console.print(f"torch copy, read + written: {copies} thread(s). A row again: [bold]{rows[0]['command']}[/bold]")


def machine_facts(threads: list[int], rounds: int) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": name,
        "isa": cpu().current_isa(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "compiler": cpu().compiler,
        "copy_bytes_per_s": {t: copy_bandwidth(t, rounds) for t in threads},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", choices=sorted({c.op for c in CASES}), help="only this op; repeatable")
    parser.add_argument("--dtype", default="float32,bfloat16", help="comma-separated")
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the rows and the machine's facts there ('-': to stdout)")
    arguments = parser.parse_args()
    threads = [int(t) for t in arguments.threads.split(",")]
    machine = machine_facts(threads, arguments.rounds)
    rows = [
        measure(case, dtype, count, arguments.rounds, machine["copy_bytes_per_s"][count])
        for case in CASES
        if not arguments.op or case.op in arguments.op
        for dtype in arguments.dtype.split(",")
        for count in threads
    ]
    text = json.dumps({"machine": machine, "rows": rows}, indent=1)
    if arguments.json == "-":
        print(text)
        return
    report(rows, machine, Console(width=170))
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
