"""How well the demo model reads strips of digits it has never seen: ``python -m internvl_kernels.demo.heldout``.

Every digit is one of the held-out scans in ``heldout.npz``; the answers are greedy. A digit counts when the answer has it in its
place, a strip when the whole answer is right. Beside it stands a support vector machine on the bare 8x8 scans (with scikit-learn).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import QUESTION, checkpoint_path
from .strips import LAYOUTS, Scans, Strip, compose, held_out

if TYPE_CHECKING:
    from ..model import Model

STRIPS = 1000
SEED = 2025
_BATCH = 32  # strips decoded together


def strips(count: int, seed: int = SEED, scans: Scans | None = None) -> list[Strip]:
    """The same strips for the same count and seed; lengths and layouts as in training."""
    rng = np.random.default_rng(seed)
    scans = held_out() if scans is None else scans
    return [compose(rng, scans) for _ in range(count)]


@dataclass(frozen=True)
class Score:
    strips: int
    strips_right: int
    digits: int
    digits_right: int

    @property
    def digit_accuracy(self) -> float:
        return self.digits_right / self.digits

    @property
    def strip_accuracy(self) -> float:
        return self.strips_right / self.strips


def score(texts: Sequence[str], answers: Sequence[str]) -> Score:
    digits = sum(a == b for text, answer in zip(texts, answers) for a, b in zip(text, answer))
    right = sum(text == answer for text, answer in zip(texts, answers))
    return Score(len(texts), right, sum(map(len, texts)), digits)


def read(model: Model, drawn: Sequence[Strip], *, max_tiles: int | None = None) -> list[str]:
    """The model's answers, greedy, in batches."""
    answers: list[str] = []
    for begin in range(0, len(drawn), _BATCH):
        batch = drawn[begin : begin + _BATCH]
        asked = [{"question": QUESTION, "images": s.image, "max_tiles": max_tiles, "max_new_tokens": 8} for s in batch]
        answers += model.batch_chat(asked)
    return answers


def svm_accuracy(scans: Scans) -> tuple[float, list[bool]] | None:
    """A support vector machine trained on all other scans: its accuracy on ``scans``, and which it got right."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.svm import SVC
    except ImportError:
        return None
    data = load_digits()
    training = np.setdiff1d(np.arange(len(data.target)), scans.indices)
    machine = SVC(gamma=0.001, C=10).fit(data.data[training], data.target[training])
    right = machine.predict(scans.pixels.reshape(len(scans), -1).astype(float)) == scans.labels
    return float(right.mean()), right.tolist()


def evaluate(model: Model, count: int = STRIPS, seed: int = SEED) -> dict[str, Any]:
    """Scores as plain data: with tiles, by layout, with a single tile per strip, and of the support vector machine."""
    scans = held_out()
    drawn = strips(count, seed, scans)
    texts = [s.text for s in drawn]
    begin = time.perf_counter()
    answers = read(model, drawn)
    seconds = time.perf_counter() - begin
    by_layout = {}
    for layout in LAYOUTS:
        rows = [i for i, s in enumerate(drawn) if s.layout == layout]
        if rows:
            by_layout[layout] = _data(score([texts[i] for i in rows], [answers[i] for i in rows]))
    svm = svm_accuracy(scans)
    return {
        "tiled": _data(score(texts, answers)),
        "by_layout": by_layout,
        "one_tile": _data(score(texts, read(model, drawn, max_tiles=1))),
        "svm": None if svm is None else {
            "scans": len(scans),
            "scan_accuracy": svm[0],
            "digit_accuracy": float(np.mean([svm[1][i] for s in drawn for i in s.scans])),
        },
        "seed": seed,
        "seconds": seconds,
        "wrong": [
            {"strip": i, "layout": s.layout, "text": s.text, "answer": a, "scans": scans.indices[list(s.scans)].tolist()}
            for i, (s, a) in enumerate(zip(drawn, answers)) if a != s.text
        ],
    }  # fmt: skip


def _data(s: Score) -> dict[str, Any]:
    return {**asdict(s), "digit_accuracy": s.digit_accuracy, "strip_accuracy": s.strip_accuracy}


def table(result: dict[str, Any]) -> Any:
    """The result as a rich table."""
    from rich.table import Table

    view = Table(title=f"{result['tiled']['strips']} held-out strips, seed {result['seed']}, greedy")
    for name in ("", "strips", "digits right", "whole strips right"):
        view.add_column(name, justify="left" if not name else "right")

    def row(name: str, s: dict[str, Any]) -> None:
        view.add_row(name, str(s["strips"]), f"{s['digit_accuracy']:.2%}", f"{s['strip_accuracy']:.2%}")

    row("this model", result["tiled"])
    for layout, s in result["by_layout"].items():
        row(f"  {layout}s", s)
    row("this model, one tile per strip", result["one_tile"])
    svm = result["svm"]
    if svm is None:
        view.add_row("support vector machine", "", "needs scikit-learn", "")
    else:
        view.add_row("support vector machine, the strips' digits one by one", "", f"{svm['digit_accuracy']:.2%}", "")
        view.add_row(
            f"support vector machine, each of the {svm['scans']} scans once", "", f"{svm['scan_accuracy']:.2%}", ""
        )
    return view


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m internvl_kernels.demo.heldout", description=__doc__)
    parser.add_argument("--strips", type=int, default=STRIPS, help="how many strips to draw (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the drawing (default %(default)s)")
    parser.add_argument("--backend", default="auto", help="auto, reference, cpu or cuda (default %(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=None, help="a directory (default: the one in the package)")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    options = parser.parse_args(arguments)
    if options.strips < 1:
        parser.error(f"--strips {options.strips}: at least 1")
    from ..model import load

    result = evaluate(
        load(options.checkpoint or checkpoint_path(), backend=options.backend), options.strips, options.seed
    )
    if options.json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(table(result))
    for wrong in result["wrong"]:
        console.print(
            f"strip {wrong['strip']} ({wrong['layout']}): {wrong['text']} read as {wrong['answer']!r}", highlight=False
        )
    console.print(f"{result['seconds']:.1f} s for {options.strips} strips")


if __name__ == "__main__":
    main()
