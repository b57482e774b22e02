"""What a run says at its end: a table on the terminal, and the log."""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import PIL
import safetensors
import sentencepiece
import tokenizers
import torch
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fuzz.run import Tally

_HEADS = ("surface", "inputs", "accepted", "refused", "crashes", "hangs", "finds", "inputs/s", "peak MB")


def _rows(tallies: list[Tally]) -> list[list[str]]:
    rows = []
    for t in tallies:
        rate = f"{t.tried / t.seconds:.0f}" if t.seconds else ""
        numbers = (t.tried, t.accepted, t.refused, t.crashes, t.hangs, len(t.finds))
        rows.append([t.name, *(f"{n:,}" for n in numbers), rate, f"{t.rss / 1e6:.0f}"])
    sums = (sum(getattr(t, name) for t in tallies) for name in ("tried", "accepted", "refused", "crashes", "hangs"))
    rows.append(["all", *(f"{n:,}" for n in sums), f"{sum(len(t.finds) for t in tallies):,}", "", ""])
    return rows


def print_tallies(console: Console, tallies: list[Tally]) -> None:
    table = Table(*_HEADS)
    for row in _rows(tallies):
        table.add_row(*row)
    console.print(table)
    for found in _finds(tallies):
        console.print(f"[bold red]{found['kind']}[/] {found['where']}, {len(found['seeds'])} inputs", highlight=False)
        console.print(f"  {_again(found)}\n", highlight=False)
        console.print(found["text"][:1500], markup=False, highlight=False)


def _finds(tallies: list[Tally]) -> list[dict[str, Any]]:
    return [found for tally in tallies for found in sorted(tally.finds.values(), key=lambda f: -len(f["seeds"]))]


def _again(found: dict[str, Any]) -> str:
    return f"python tests/fuzz/run.py --replay {found['surface']}:{found['seeds'][0]}"


def write_log(file: Path, tallies: list[Tally], options: argparse.Namespace, seconds: float) -> None:
    """Markdown: what ran, on what, what came of it, and every find with the command that replays it."""
    versions = {
        module.__name__: module.__version__ for module in (torch, numpy, PIL, safetensors, tokenizers, sentencepiece)
    }
    lines = [
        f"# Hostile input, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python tests/fuzz/run.py --count {options.count} --seed {options.seed}`: each input is accepted with the right answer, or",
        f"refused with one of the package's errors, within {options.limit:g} s of processor time and {options.memory} MiB of address",
        "space; anything else is a find. Surfaces and their checks: `tests/fuzz/surfaces`.",
        "",
        f"- {platform.machine()}, Python {platform.python_version()}, {', '.join(f'{n} {v}' for n, v in versions.items())}",
        f"- {seconds / 60:.0f} minutes, {options.jobs} surface(s) at a time",
        "",
        "| " + " | ".join(_HEADS) + " |",
        "| --- |" + " ---: |" * (len(_HEADS) - 1),
        *("| " + " | ".join(row) + " |" for row in _rows(tallies)),
        "",
    ]
    found = _finds(tallies)
    lines.append("No finds." if not found else "Finds:")
    for one in found:
        seeds = ", ".join(map(str, one["seeds"][:8]))
        lines += [
            "",
            f"## {one['surface']}: {one['kind']}, {one['where']}",
            "",
            f"{len(one['seeds'])} inputs, seeds {seeds}: `{_again(one)}`",
            "",
        ]
        lines += ["```", one["text"][:1200].rstrip(), "```"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
