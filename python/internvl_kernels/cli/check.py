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


def bench() -> None:
    """x"""
