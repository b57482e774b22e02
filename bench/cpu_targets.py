"""What this package wants to reach, beside what bench/cpu.py measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpu_report import Row, grouped


def targets(rows: Sequence[Row], memory: Sequence[dict[str, Any]]) -> list[Row]:
    """What this package wants to reach of what was measured: text, wanted and reached figure, and whether it is met."""
    found: list[Row] = []

    def add(text: str, wanted: float, reached: float | None, most: bool = False) -> None:
        if reached is not None:
            met = reached <= wanted if most else reached >= wanted
            found.append({"text": text, "wanted": wanted, "reached": reached, "most": most, "met": met})

    for case in grouped(rows).values():
        key, ours = case[0]["case"], {row["contender"]: row for row in case if row["ours"]}
        exact = ours.get("ours, float32")
        if exact is None:
            continue
        theirs = {name: ratio for name, ratio in exact["ratios"].items() if name.startswith("transformers")}
        if key.startswith("tower"):
            add(f"{exact['title']}: × best peer", 1.15, min(exact["ratios"].values(), default=None))
            add(f"{exact['title']}: share of the loop of multiply-adds", 0.82, exact["share"])
        elif key == "prefill":
            add(f"{exact['title']}: × transformers", 1.4, min(theirs.values(), default=None))
        elif key == "decode":
            add(f"{exact['title']}: share of the loop of reads", 0.8, exact["share"])
            add(f"{exact['title']}: × transformers", 2.4, min(theirs.values(), default=None))
            halves = ours.get("ours, bfloat16 weights", {"ratios": {}})["ratios"]
            add(
                f"{exact['title']}, bfloat16 weights: × transformers",
                4.0,
                min((halves[n] for n in theirs if n in halves), default=None),
            )
        elif key in ("experts-1", "experts-16"):
            add(f"{exact['title']}: share of the loop of reads", 0.8, exact["share"])
        elif key.startswith("experts"):
            add(f"{exact['title']}: × transformers", 3.0, min(theirs.values(), default=None))
    for row in memory:
        text = f"InternViT-300M, memory of {row['tiles']} tile{'s' * (row['tiles'] > 1)}: share of transformers'"
        add(text, 0.5, row["ours"] / row["transformers sdpa"], most=True)
    return found
