"""The report of bench/cpu.py: tables on the terminal, and markdown, JSON and an SVG plot in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """about: machine and command; a row for each contender of each case; contenders that are absent, with the reason; the
    tower's memory (cpu_memory.py); goals (cpu_targets.py)."""

    about: dict[str, Any]
    rows: list[Row]
    absent: list[dict[str, str]]
    memory: list[dict[str, Any]]
    goals: list[Row]


INK, FAINT, OURS, THEIRS, LIMIT = "#1f2328", "#8a9099", "#1a7f5a", "#a9b4c2", "#c4472d"


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    cases: dict[str, list[Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    return cases


def cells(row: Row) -> list[str]:
    peers = row["ratios"]
    best = min(peers, key=peers.__getitem__) if peers else None
    return [
        row["contender"],
        number(row["ms"]),
        number(row["spread_ms"]),
        f"{number(row['rate'])} {row['unit']}",
        "" if row["share"] is None else f"{row['share']:.0%}",
        "" if best is None else f"{peers[best]:.2f} ({best})",
        f"{row['max_error']:.1e}",
    ]


HELD = (
    "Held to the instruction set {level} (AVX2 and FMA): ours, torch, its oneDNN and MKL, and the loop of multiply-adds. ONNX "
    "Runtime and OpenVINO have no switch for that and are left out."
)
HEADS = ("contender", "ms", "± ms", "rate", "of peak", "× best peer", "max error")


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def machine_line(about: dict[str, Any]) -> str:
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['isa']}, {about['threads']} thread(s): multiply-adds "
        f"{about['fma_gflop_per_s']:.0f} GFLOP/s ({8 * about['fma_vector_bytes']}-bit vectors), reads {about['read_gb_per_s']:.1f} GB/s"
    )


def goal_cells(goal: Row) -> list[str]:
    sign = "≤" if goal["most"] else "≥"
    return [goal["text"], f"{sign} {goal['wanted']:.2f}", f"{goal['reached']:.2f}", "yes" if goal["met"] else "no"]


GOAL_HEADS = ("target", "wanted", "reached", "met")


def memory_lines(memory: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"InternViT-300M, {row['tiles']} tile{'s' * (row['tiles'] > 1)}, peak beside the weights: ours {row['ours'] / 2**20:.0f} MiB, "
        f"transformers sdpa {row['transformers sdpa'] / 2**20:.0f} MiB"
        for row in memory
    ]


def show(console: Console, report: Report) -> None:
    about, rows = report.about, report.rows
    console.print(machine_line(about))
    console.print(versions(about), style="dim")
    for case in grouped(rows).values():
        table = Table(title=case[0]["title"], title_justify="left", caption=case[0]["command"], caption_justify="left")
        for i, head in enumerate(HEADS):
            table.add_column(head, justify="left" if i in (0, 5) else "right", no_wrap=True)
        for row in case:
            table.add_row(*cells(row), style="bold" if row["ours"] else "")
        console.print(table)
        for row in (row for row in case if row["ratios"]):
            console.print(f"  {row['contender']}: {ratios(row)}")
    for line in memory_lines(report.memory):
        console.print(line, highlight=False)
    if report.goals:
        table = Table(*GOAL_HEADS, title="Targets", title_justify="left")
        for goal in report.goals:
            table.add_row(*goal_cells(goal), style="" if goal["met"] else "yellow")
        console.print(table)
    for reason, names in missing(report.absent).items():
        console.print(f"absent: {'; '.join(names)}: {reason}", highlight=False, markup=False)


def ratios(row: Row) -> str:
    return ", ".join(f"{ratio:.2f} × {name}" for name, ratio in row["ratios"].items())


def versions(about: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in about["versions"].items())


def missing(absent: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Reason -> 'contender (cases)'."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in absent:
        found.setdefault((entry["reason"], entry["contender"]), []).append(entry["case"])
    reasons: dict[str, list[str]] = {}
    for (reason, name), cases in found.items():
        reasons.setdefault(reason, []).append(f"{name} ({', '.join(cases)})")
    return reasons


def write(folder: Path, report: Report) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    level = report.about["held_to"]
    stem = f"{report.about['date'][:10]}-cpu{f'-{level}' if level else ''}"
    paths = [folder / f"{stem}.{kind}" for kind in ("md", "json", "svg")]
    paths[0].write_text(markdown(report, paths[2].name))
    found = {
        "machine": report.about,
        "rows": report.rows,
        "absent": report.absent,
        "memory": report.memory,
        "targets": report.goals,
    }
    paths[1].write_text(json.dumps(found, indent=1) + "\n")
    paths[2].write_text(plot(report.about, report.rows))
    return paths


def goal_section(goals: Sequence[Row]) -> list[str]:
    if not goals:
        return []
    lines = ["", "## Targets", "", "| " + " | ".join(GOAL_HEADS) + " |", "|---|---:|---:|---|"]
    return [*lines, *("| " + " | ".join(goal_cells(goal)) + " |" for goal in goals)]


def memory_section(memory: Sequence[dict[str, Any]]) -> list[str]:
    if not memory:
        return []
    about = (
        "Private memory at its peak over a forward, less what was private before the first one; processes of their own."
    )
    return ["", "## Memory of the tower", "", about, "", *(f"- {line}" for line in memory_lines(memory))]


def markdown(report: Report, picture: str) -> str:
    about, rows, absent = report.about, report.rows, report.absent
    lines = [
        f"# CPU, {about['date'][:10]}" + (" (quick: small shapes, no figures to keep)" if about["quick"] else ""),
        "",
        f"`{about['command']}`",
        "",
        f"Machine: {machine_line(about)}; {about['memory_gb']} GB; {about['system']}; Python {about['python']}; extension by "
        f"{about['compiler']}. Versions: {versions(about)}.",
        "",
        f"Medians of {about['least_rounds']} to {about['rounds']} interleaved rounds, {about['date']}. ± is the distance of the "
        "quartiles. The peak is the bare loop of multiply-adds (GFLOP/s) or of reads (GB/s, of the weights alone), timed in the same "
        "rounds on the same threads. The "
        "largest absolute error is against the first row; every contender holds the same weights. fp32 products everywhere unless "
        "the name says bfloat16; \"weights\" names what is stored. Peers that keep no keys and values (torch.compile, ONNX Runtime and "
        "OpenVINO in prefill; ONNX Runtime and OpenVINO while decoding) do that much less.",
        "",
        *([HELD.format(level=about["held_to"]), ""] if about["held_to"] else []),
        f"![speed]({picture})",
        *goal_section(report.goals),
        *memory_section(report.memory),
    ]  # fmt: skip
    for case in grouped(rows).values():
        lines += ["", f"## {case[0]['title']}", "", f"`{case[0]['command']}`", ""]
        lines += ["| " + " | ".join(HEADS) + " |", "|---|" + "---:|" * 4 + "---|---:|"]
        for row in case:
            parts = cells(row)
            lines.append("| " + " | ".join([f"**{parts[0]}**" if row["ours"] else parts[0], *parts[1:]]) + " |")
        lines += ["", *(f"- {row['contender']}: {ratios(row)}" for row in case if row["ratios"])]
    if absent:
        lines += ["", "## Absent", "", *(f"- {'; '.join(names)}: {why}" for why, names in missing(absent).items())]
    return "\n".join(lines) + "\n"


def plot(about: dict[str, Any], rows: Sequence[Row]) -> str:
    """A bar per contender, its length the speed; a line where the machine's loop stands for float32 weights."""
    left, wide, bar, top = 250, 460, 17, 64
    parts: list[str] = []

    def text(x: float, y: float, value: str, fill: str = INK, anchor: str = "start", weight: str = "400") -> None:
        parts.append(
            f'<text x="{x:.0f}" y="{y:.0f}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{escape(value)}</text>'
        )

    y = float(top)
    for case in grouped(rows).values():
        limit = case[0]["limit_ms"]
        fastest = min([row["ms"] for row in case] + ([limit] if limit else []))
        text(16, y + 12, case[0]["title"], weight="600")
        if limit:
            at = left + wide * fastest / limit
            text(
                at,
                y + 12,
                f"{number(limit)} ms, the {'loop of reads' if case[0]['unit'] == 'GB/s' else 'loop of multiply-adds'}",
                LIMIT,
                "end",
            )
        y += 20
        begin = y
        for row in case:
            length = wide * fastest / row["ms"]
            text(left - 8, y + 12, row["contender"], INK if row["ours"] else FAINT, "end")
            fill = OURS if row["ours"] else THEIRS
            parts.append(
                f'<rect x="{left}" y="{y + 2:.0f}" width="{length:.1f}" height="{bar - 4}" rx="2" fill="{fill}"/>'
            )
            text(left + length + 6, y + 12, f"{number(row['ms'])} ms")
            y += bar
        if limit:
            parts.append(f'<path d="M{at:.1f} {begin:.0f}V{y:.0f}" stroke="{LIMIT}" stroke-dasharray="3 3"/>')
        y += 16
    width, height = left + wide + 190, int(y + 8)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    )
    titles: list[str] = []
    titles, parts = parts, titles
    text(
        16,
        24,
        f"CPU, {about['date'][:10]}: longer bars are faster",
        weight="600",
    )
    text(16, 42, machine_line(about) + "; dashed: that loop at the float32 work", FAINT)
    return "\n".join([head, *parts, *titles, "</svg>"]) + "\n"


__all__ = ["Report", "Row", "grouped", "show", "write"]
