"""The CUDA kernels on this machine's GPU beside torch, torch.compile, FlashAttention and xFormers: one run, interleaved, medians.

python bench/gpu.py [--out FOLDER] [--tiles 1 13] [--dtype bfloat16 float16] [--op NAME]
python bench/gpu.py --virtual      # the same cases at small shapes on the virtual GPU: results are compared, nothing is timed

Before anything is timed every contender's result is compared. Times are CUDA events around one call, after a write that empties
L2; a round lets each contender run once. The peaks (a large torch product, a large copy) are measured in the same run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gpu_cases import Absent, Case, cases

ROUNDS = 30
WARM = 5
WORST = {"bfloat16": 2e-2, "float16": 3e-3}  # relative L2 of any contender against wider arithmetic
HEADS = ("op", "shape", "contender", "us", "± us", "rate", "of measured peak", "x best peer", "relative L2")


def on_gpu(t: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.cuda() for name, tensor in t.items()}


def distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    found, exact = found.double().flatten(), exact.double().flatten()
    return float((found - exact).norm() / exact.norm())


class Clock:
    """Microseconds of single calls on the current stream, L2 emptied before each."""

    def __init__(self) -> None:
        self._flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Callable[[], Any]) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        return float(first.elapsed_time(last) * 1e3)


def peaks(clock: Clock) -> dict[str, float]:
    """FLOP/us of a large bf16 product and bytes/us of a large copy, both torch's."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    big = torch.empty(1 << 29, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(big)
    product = min(clock(lambda: a @ a) for _ in range(20))
    copy = min(clock(lambda: other.copy_(big)) for _ in range(20))
    return {"flops": 2 * 8192**3 / product, "bytes": 2 * big.numel() / copy}


def measure(
    case: Case, dtype: str, clock: Clock, peak: dict[str, float]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    t = on_gpu(case.inputs)
    wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in t.items()}
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: case.ours(t)}
    absent: dict[str, str] = {}
    for name, make in case.peers.items():
        try:
            calls[name] = make(t)
            calls[name]()
        except (Absent, ImportError, RuntimeError, NotImplementedError) as why:
            absent[name] = str(why).partition("\n")[0][:160]
            calls.pop(name, None)
    exact = case.exact(wide)
    errors = {name: distance(call(), exact) for name, call in calls.items()}
    for name, error in errors.items():
        if error > WORST[dtype]:
            raise SystemExit(f"{case.op} {case.shape}: {name} is {error:.1e} from wider arithmetic; nothing was timed")
    for call in calls.values():
        for _ in range(WARM):
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for round_ in range(ROUNDS):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            samples[name].append(clock(calls[name]))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    others = [value for name, value in medians.items() if name != "ours"]
    bound = case.flops / peak["flops"] >= case.bytes / peak["bytes"]
    rows = []
    for name, us in medians.items():
        quartiles = statistics.quantiles(samples[name], n=4)
        work, unit = (case.flops / us / 1e6, "TFLOP/s") if bound else (case.bytes / us / 1e3, "GB/s")
        share = case.flops / us / peak["flops"] if bound else case.bytes / us / peak["bytes"]
        ratio = min(others) / us if name == "ours" and others else None
        rows.append({"op": case.op, "shape": case.shape, "dtype": dtype, "contender": name, "us": us, "spread": quartiles[2] - quartiles[0],
                     "rate": f"{work:.1f} {unit}", "share": share, "ratio": ratio, "error": errors[name]})  # fmt: skip
    return rows, absent


def cells(row: dict[str, Any]) -> list[str]:
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return [row["op"], f"{row['shape']} {row['dtype']}", row["contender"], f"{row['us']:.1f}", f"{row['spread']:.1f}", row["rate"],
            f"{row['share']:.0%}", ratio, f"{row['error']:.1e}"]  # fmt: skip


def plot(rows: list[dict[str, Any]], title: str) -> str:
    """Share of the measured peak by contender, one bar each, as SVG."""
    height, parts = 18, []
    for number, row in enumerate(rows):
        y, color = 40 + number * height, "#1a7f5a" if row["contender"] == "ours" else "#a9b4c2"
        label = f"{row['op']} {row['shape']} {row['dtype']}, {row['contender']}"
        parts.append(f'<text x="520" y="{y + 12}" text-anchor="end">{label}</text>')
        parts.append(
            f'<rect x="530" y="{y + 2}" width="{row["share"] * 400:.1f}" height="{height - 5}" fill="{color}"/>'
        )
        parts.append(f'<text x="{536 + row["share"] * 400:.1f}" y="{y + 12}">{row["share"]:.0%}</text>')
    size = f'width="1000" height="{60 + len(rows) * height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return head + f'<text x="20" y="22">{title}</text>' + "".join(parts) + "</svg>\n"


def write(folder: Path, rows: list[dict[str, Any]], absent: dict[str, str], about: dict[str, Any]) -> Path:
    day = datetime.date.today().isoformat()
    stem = folder / f"{day}-gpu"
    stem.with_suffix(".json").write_text(json.dumps({"about": about, "absent": absent, "rows": rows}, indent=1) + "\n")
    stem.with_suffix(".svg").write_text(plot(rows, f"Share of the measured peak, {about['device']}, {day}"))
    facts = "; ".join(f"{key} {value}" for key, value in about.items())
    lines = [
        f"# GPU, {day}",
        "",
        f"`python bench/gpu.py {' '.join(sys.argv[1:])}`",
        "",
        f"{facts}. Medians of {ROUNDS} interleaved calls.",
        "",
    ]
    lines += [
        f"![share of the peak]({day}-gpu.svg)",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|---|---|---" + "|---:" * (len(HEADS) - 3) + "|",
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    lines += ["", *(f"- absent: {name}: {why}" for name, why in absent.items())]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return stem.with_suffix(".md")


def real(o: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        raise SystemExit(
            "gpu.py: this torch finds no GPU; allowed: a CUDA build of torch on a machine with one, or --virtual"
        )
    clock = Clock()
    peak, rows, absent = peaks(clock), [], {}
    found = [
        (dtype, case) for dtype in o.dtype for case in cases(dtype, tuple(o.tiles), False) if o.op in (None, case.op)
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("cases", total=len(found))
        for dtype, case in found:
            progress.update(task, description=f"{case.op} {case.shape} {dtype}")
            made, missing = measure(case, dtype, clock, peak)
            rows += made
            absent |= missing
            torch.cuda.empty_cache()
            progress.advance(task)
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "python": platform.python_version(),
             "products": f"{peak['flops'] / 1e6:.0f} TFLOP/s", "copies": f"{peak['bytes'] / 1e3:.0f} GB/s"}  # fmt: skip
    table = Table(*HEADS, title="; ".join(f"{k} {v}" for k, v in about.items()))
    for row in rows:
        table.add_row(*cells(row))
    Console(width=200).print(table)
    print(write(Path(o.out), rows, absent, about))


def virtual(o: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "vgpu"))
    import vgpu

    vgpu.activate(device="a100", print=False)
    from internvl_kernels.ops._device import DeviceArray

    table = Table("op", "shape", "launches", "relative L2", title="virtual GPU, every check on: compared, not timed")
    for dtype in o.dtype:
        for case in cases(dtype, (2,), True):
            if o.op not in (None, case.op):
                continue
            vgpu.reset()
            found = case.ours({name: DeviceArray(tensor) for name, tensor in case.inputs.items()})
            result = torch.empty(found.shape, dtype=getattr(torch, found.dtype))
            found.copy_to(result)
            vgpu.assert_clean()
            wide = {n: t.double() if t.is_floating_point() else t for n, t in case.inputs.items()}
            error = distance(result, case.exact(wide))
            table.add_row(case.op, f"{case.shape} {dtype}", str(len(vgpu.counters())), f"{error:.1e}")
            if error > WORST[dtype]:
                raise SystemExit(f"{case.op} {case.shape} {dtype}: {error:.1e} from float64")
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--virtual", action="store_true")
    parser.add_argument("--out", default="bench/results", metavar="FOLDER")
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 13])
    parser.add_argument("--dtype", nargs="+", choices=sorted(WORST), default=["bfloat16", "float16"])
    parser.add_argument("--op")
    options = parser.parse_args()
    (virtual if options.virtual else real)(options)


if __name__ == "__main__":
    main()
