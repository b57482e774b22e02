"""Timing the cases on this machine: medians of interleaved runs against the PyTorch composition, bandwidth, ratio."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..ops._backend import cpu
from .cases import Case

if TYPE_CHECKING:
    from rich.console import RenderableType


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


def run(
    cases: Iterable[Case],
    dtypes: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    step: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measured rows, one per case, dtype and thread count, and the machine's facts. torch's thread count comes back as it was."""
    before = torch.get_num_threads()
    try:
        step("copy bandwidth")
        machine = machine_facts(threads, rounds)
        rows = []
        for case in cases:
            for dtype in dtypes:
                for count in threads:
                    step(f"{case.op} {case.shape} {dtype}, {count} thread(s)")
                    rows.append(measure(case, dtype, count, rounds, machine["copy_bytes_per_s"][count]))
        return rows, machine
    finally:
        torch.set_num_threads(before)


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
        "command": f"internvl-kernels bench --op {case.op} --dtype {dtype} --threads {threads} --rounds {rounds}",
    }


def table(rows: Sequence[dict[str, Any]], machine: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    result = Table(title=f"{machine['cpu']} · {machine['isa']} · torch {machine['torch']}", title_justify="left")
    for name in ("op", "shape", "dtype", "threads", "µs", "± µs", "torch µs", "× torch", "GB/s", "of copy", "GFLOP/s"):
        result.add_column(
            name,
            justify="left" if name in ("op", "shape", "dtype") else "right",
            no_wrap=name != "shape",
            overflow="fold",
        )
    for r in rows:
        result.add_row(
            r["op"], r["shape"], r["dtype"], str(r["threads"]), f"{r['us']:.1f}", f"{r['spread_us']:.1f}", f"{r['torch_us']:.1f}",
            f"{r['ratio']:.2f}", f"{r['gb_per_s']:.1f}", f"{r['share_of_copy']:.0%}", f"{r['gflop_per_s']:.1f}",
        )  # fmt: skip
    copies = ", ".join(f"{gb / 1e9:.1f} GB/s on {t}" for t, gb in machine["copy_bytes_per_s"].items())
    return Group(
        result, f"torch copy, read + written: {copies} thread(s). A row again: [bold]{rows[0]['command']}[/bold]"
    )


def machine_facts(threads: Sequence[int], rounds: int) -> dict[str, Any]:
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


__all__ = ["copy_bandwidth", "interleaved", "machine_facts", "measure", "run", "table"]
