"""The released models: sizes, what a tile costs, what fits a memory, and README's table of them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import Json, console, print_json

if TYPE_CHECKING:
    from ..registry import Release

# The request that --memory plans for.
TILES, TEXT, ANSWER = 12, 512, 512
_CODE_BITS = 4.25  # of AWQ in groups of 128: codes, and a share of scale and zero


def models(
    only_supported: Annotated[bool, typer.Option("--supported", help="Only those that this version runs.")] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            help=f"Which fit so much memory, with {TILES} tiles, {TEXT} tokens of text and {ANSWER} of answer: '24GB'."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="README's table.")] = False,
    as_json: Json = False,
) -> None:
    """The released models: tower, language model, sizes, what a tile costs, and whether this version runs them."""
    from ..errors import UnsupportedError
    from ..plan import parse_bytes
    from ..registry import RELEASES

    limit = parse_bytes(memory, "memory")
    if markdown and (as_json or limit is not None):
        raise UnsupportedError("--markdown: goes without --json and --memory")
    releases = [r for r in RELEASES if r.blocker is None or not only_supported]
    if markdown:
        typer.echo(markdown_table(releases))
        return
    rows = [facts(r, limit) for r in releases]
    if as_json:
        print_json(rows)
        return
    _print(releases, rows, limit)


def facts(release: Release, limit: int | None = None) -> dict[str, Any]:
    """What is known of a release; sizes and costs where its configuration is."""
    from dataclasses import asdict

    from .. import registry

    found: dict[str, Any] = {**asdict(release), "architecture": release.architecture}
    count = registry.parameters(release)
    found |= {"parameters": count, "runs": release.blocker is None, "why_not": release.blocker}
    if release.blocker is None:
        found |= _costs(release, limit)
    return found


def _costs(release: Release, limit: int | None) -> dict[str, Any]:
    from .. import costs, registry

    config = registry.config_of(release.name)
    count, language = costs.model_parameters(config), costs.language_parameters(config.language)
    tables = 2 * config.language.vocab_size * config.language.hidden_size
    projector = 2 * costs.projector_parameters(config) * config.tokens_per_tile
    tile = costs.vision_flops(config.vision, 1) + projector
    found: dict[str, Any] = {
        "bytes": {
            "float32": 4 * count,
            "bfloat16": 2 * count,
            # Codes of the language model's matrices; embeddings, head, tower and projector stay in 16 bits.
            "awq": int(2 * (count - language + tables) + (language - tables) * _CODE_BITS / 8),
        },
        "tokens_per_tile": config.tokens_per_tile,
        "flops_per_tile": tile,
        "prefill_flops_per_tile": costs.language_flops(config.language, config.tokens_per_tile),
        "context": config.language.context,
    }
    if limit is not None:
        found["peak_bytes"] = {dtype: _peak(config, dtype) for dtype in ("float32", "bfloat16")}
        found["fits"] = [dtype for dtype, peak in found["peak_bytes"].items() if peak <= limit]
    return found


def _peak(config: Any, stored: str) -> int:
    """Of the cpu backend in float32, with weights and keys and values stored as ``stored``."""
    from .._lazy import torch
    from ..options import DEFAULT_WORKSPACE
    from ..plan import make_plan, parse_bytes

    limit = parse_bytes(DEFAULT_WORKSPACE)
    assert limit is not None
    tiles = TILES if config.tiling.max_tiles > 1 else 1
    return make_plan(
        config, [("", None, tiles)], itemsize=4, stored=4 if stored == "float32" else 2, kv_dtype=stored, backend="cpu", limit=limit,
        threads=torch.get_num_threads(), text_tokens=TEXT, new_tokens=ANSWER,
    ).peak_bytes  # fmt: skip


def _print(releases: list[Release], rows: list[dict[str, Any]], limit: int | None) -> None:
    from rich import box
    from rich.table import Table

    screen = console()
    wide = screen.width >= 100
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in ("model", "language model"):
        table.add_column(column, no_wrap=True)
    numbers = ["size", "bf16 GB", "TFLOP a tile"] if wide else ["size"]
    for column in numbers + (["fits"] if limit is not None else []):
        table.add_column(column, justify="right", no_wrap=True, min_width=max(len(column), 7))
    table.add_column("runs", no_wrap=True, min_width=4)
    for release, row in zip(releases, rows):
        cells = [release.name, release.language]
        size = f"{float(release.published):.3g} B" if release.published else "-"
        known = row["runs"]
        costs = (
            [f"{row['bytes']['bfloat16'] / 1e9:.1f}", f"{row['flops_per_tile'] / 1e12:.2f}"] if known else ["-", "-"]
        )
        cells += [size, *(costs if wide else [])]
        if limit is not None:
            cells.append(_fits(row))
        table.add_row(*cells, "[green]yes[/green]" if known else "[dim]no[/dim]")
    screen.print(table)
    for reason, count in Counter(r.blocker for r in releases if r.blocker).items():
        screen.print(f"[dim]{count} do not run: {reason}[/dim]")
    if limit is not None:
        screen.print(
            f"[dim]fits: weights so stored, a request of {TILES} tiles (1 where there is no tiling), {TEXT} tokens of text and "
            f"{ANSWER} of answer on the cpu backend; plan MODEL has the parts[/dim]"
        )
    screen.print("[dim]A tile: tower and projector; 256 tokens. Notes, and what is unverified: models --json[/dim]")


def _fits(row: dict[str, Any]) -> str:
    if not row["runs"]:
        return "-"
    return {2: "[green]float32[/green]", 1: "[green]bfloat16[/green]", 0: "[red]no[/red]"}[len(row["fits"])]


def markdown_table(releases: list[Release]) -> str:
    """A row for each release: what it is made of, its size, and what of it is not verified."""
    lines = [
        "| model | tower | language model | template | parameters | runs on | unverified |",
        "|---|---|---|---|---|---|---|",
    ]
    for release in releases:
        row = facts(release)
        tower = re.sub(r"InternViT-|-\d+px", "", release.tower).replace("-", " ")
        size = f"{row['parameters'] / 1e9:.2f} B" if row["parameters"] else "–"
        runs = "reference, cpu" if release.blocker is None else f"no: {release.blocker}"
        marked = [part for part in release.notes.split(";") if "UNVERIFIED" in part]
        unverified = "; ".join(" ".join(part.replace("UNVERIFIED", "").split()) for part in marked) or "–"
        cells = (release.name, tower, f"{release.language} ({release.architecture})", release.template or "–")
        lines.append("| " + " | ".join((*cells, size, runs, unverified)) + " |")
    return "\n".join(lines)


__all__ = ["facts", "markdown_table", "models"]
