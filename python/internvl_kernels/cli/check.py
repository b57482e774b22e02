"""Commands that measure and check this machine: bench, verify."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..errors import UnsupportedError
from ._common import FAILED, Json, console, print_json

STRIPS = 3  # held-out pictures that verify reads


def verify(
    op: Annotated[
        list[str] | None, typer.Option(help="Only this op or family; repeatable. Leaves the model out.")
    ] = None,
    isa: Annotated[list[str] | None, typer.Option(help="Only this instruction set; repeatable.")] = None,
    model: Annotated[bool, typer.Option(help="Also run the demo model on both backends.")] = True,
    as_json: Json = False,
) -> None:
    """Check every op and the demo model on this machine against plain PyTorch.

    Each op runs on every instruction set that the machine has, in float32, bfloat16 and float16, on awkward shapes; its
    error must stay inside the table of tolerances, and its bits must not depend on threads. The demo model must agree with
    the reference in hidden states, logits and answers. Exit code 1 when anything fails.
    """
    from ..testing import parity
    from ..testing import verify as checks

    begin = time.perf_counter()
    levels = checks.isas()
    unknown = [name for name in isa or () if name not in levels]
    if unknown:
        raise UnsupportedError(f"--isa: {unknown[0]!r}; allowed here: {', '.join(levels)}")
    levels = tuple(isa or levels)
    problems = list(parity.problems())
    names = {p.op for p in problems} | {p.family for p in problems}
    unknown = [name for name in op or () if name not in names]
    if unknown:
        raise UnsupportedError(f"--op: {unknown[0]!r}; allowed: {', '.join(sorted(names))}")
    chosen = [p for p in problems if not op or p.op in op or p.family in op]
    screen = console(stderr=as_json)
    with screen.status("") as status:
        findings = checks.verify_ops(chosen, levels, status.update)
        if model and not op:
            from ..demo import QUESTION, checkpoint_path
            from .demo import held_out_strip

            pictures = [(held_out_strip(seed)[0], f"strip {seed}") for seed in range(STRIPS)]
            findings += checks.verify_model(checkpoint_path(), QUESTION, pictures, status.update)
    report = checks.Report(levels, findings, time.perf_counter() - begin)
    if as_json:
        print_json(report.to_dict())
    else:
        screen.print(report)
        for finding in findings:
            for text in finding.problems[:3]:
                screen.print(f"[red]{finding.name}[/red] {text}", soft_wrap=True)
            if len(finding.problems) > 3:
                screen.print(f"[red]{finding.name}[/red] and {len(finding.problems) - 3} more")
        verdict = "[bold green]all ok[/]" if report.ok else f"[bold red]FAILED[/]: {', '.join(report.failed_families)}"
        screen.print(verdict)
    if not report.ok:
        raise typer.Exit(FAILED)


def bench(
    op: Annotated[list[str] | None, typer.Option(help="Only this op; repeatable.")] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Repeatable [dim](default: float32 and bfloat16)[/dim].")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Repeatable [dim](default: 1)[/dim].")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Samples of each call; the median counts.")] = 15,
    as_json: Json = False,
) -> None:
    """Time the ops on this machine against what a PyTorch user would write.

    Both run in turn, so that a disturbance meets both. Bandwidth stands beside that of a plain copy. Each row carries the
    command that measures it again (--json).
    """
    from ..options import DTYPES
    from ..testing import bench as timing
    from ..testing.cases import CASES

    known = sorted({case.op for case in CASES})
    for name in op or ():
        if name not in known:
            raise UnsupportedError(f"--op: {name!r}; allowed: {', '.join(known)}")
    dtypes, counts = dtype or ["float32", "bfloat16"], threads or [1]
    for name in dtypes:
        if name not in DTYPES:
            raise UnsupportedError(f"--dtype: {name!r}; allowed: {', '.join(DTYPES)}")
    if min(counts) < 1:
        raise UnsupportedError(f"--threads: {min(counts)}; allowed: 1 and more")
    chosen = [case for case in CASES if not op or case.op in op]
    screen = console(stderr=as_json)
    with screen.status("") as status:
        rows, machine = timing.run(chosen, dtypes, counts, rounds, status.update)
    if as_json:
        print_json({"machine": machine, "rows": rows})
    else:
        screen.print(timing.table(rows, machine))
