"""Train the demo model: ``python -m internvl_kernels.demo.train --out DIR``. Needs the ``train`` extra (scikit-learn).

What is trained is the package's own reference model on its canonical weights. A temporary head on the visual tokens, which
names the digit in each token's part of a tile, helps the tower to start; it is not part of the result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._lazy import torch
from ..config import ModelConfig
from ..io.checkpoint import save_checkpoint
from ..model import load
from ..models import LanguageModel, Projector, VisionTower
from ..models.language import DenseAttention
from .examples import Batch, Prompts, stream
from .heldout import evaluate
from .optimizer import Optimizer
from .recipe import CONFIG, HELD_OUT, SPLIT_SEED, Recipe, initial_weights
from .report import Report
from .strips import Scans
from .vocabulary import build_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


def split() -> tuple[Scans, Scans]:
    """Training and held-out scans of scikit-learn's digits, parted by scan."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels, labels = data.images.astype(np.uint8), data.target.astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    parts = np.sort(order[HELD_OUT:]), np.sort(order[:HELD_OUT])
    training, held_out = (Scans(pixels[rows], labels[rows], rows) for rows in parts)
    return training, held_out


class _Language(LanguageModel):
    """Remembers what its routers said."""

    scores: list[Tensor]

    def _experts(self, y: Tensor, w: Mapping[str, Tensor], *rest: Any) -> Tensor:
        self.scores.append(ops.linear(y, w["router.weight"], backend="reference"))
        return super()._experts(y, w, *rest)


@dataclass
class Losses:
    cells: Tensor  # digit of each visual token
    answer: Tensor | None = None  # next token, over the answers
    balance: Tensor | None = None  # 1 when all experts are equally busy
    right: float = 0.0  # share of answer tokens

    def numbers(self) -> dict[str, float]:
        found = {"cells": self.cells.item()}
        if self.answer is not None and self.balance is not None:
            found |= {"answer": self.answer.item(), "right": self.right, "balance": self.balance.item()}
        return found


class Learner:
    """The reference model on leaf tensors."""

    def __init__(self, config: ModelConfig, weights: dict[str, Tensor], image_token_id: int) -> None:
        self.config, self.image_token_id = config, image_token_id
        self.parameters = {name: w.requires_grad_() for name, w in weights.items()}
        draw = torch.Generator().manual_seed(0)
        cells = torch.randn(11, config.language.hidden_size, generator=draw) * 0.05
        self.extra = {"cells.weight": cells.requires_grad_(), "cells.bias": torch.zeros(11).requires_grad_()}
        run: dict[str, Any] = {"backend": "reference"}
        self._tower = VisionTower(config.vision, weights, mean=config.tiling.mean, std=config.tiling.std, **run)
        self._projector = Projector(config.projector, weights, **run)
        self._language = _Language(config.language, weights, **run)

    def __call__(self, batch: Batch, *, answers: bool) -> Losses:
        hidden = self._tower(batch.tiles)
        assert not isinstance(hidden, list)
        visual = self._projector(hidden).float()
        found = torch.nn.functional.linear(visual, self.extra["cells.weight"], self.extra["cells.bias"]).float()
        cross_entropy = torch.nn.functional.cross_entropy
        cells = cross_entropy(found.flatten(0, 1), batch.cells.flatten(), ignore_index=-100)
        if not answers:
            return Losses(cells)
        language, (rows, length) = self._language, batch.ids.shape
        language.scores = []
        h = language.embed(batch.ids, visual.flatten(0, 1), self.image_token_id).flatten(0, 1)
        positions = torch.arange(length).repeat(rows)
        attend = DenseAttention(rows, length, backend="reference")
        y = language.forward(h, positions, torch.full_like(positions, length), attend)
        asked = batch.labels.flatten() != -100
        logits, labels = language.head(y[asked]).float(), batch.labels.flatten()[asked]
        right = (logits.argmax(-1) == labels).float().mean().item()
        return Losses(cells, cross_entropy(logits, labels), self._balance(), right)

    def _balance(self) -> Tensor:
        """Mean over layers of E * sum(share of choices * mean probability)."""
        c = self.config.language
        total = torch.zeros(())
        for scores in self._language.scores:
            probability = scores.float().softmax(-1)
            chosen = probability.topk(c.experts_per_token, -1).indices
            share = torch.bincount(chosen.flatten(), minlength=c.num_experts) / chosen.numel()
            total = total + c.num_experts * (share * probability.mean(0)).sum()
        return total / len(self._language.scores)


def train(
    recipe: Recipe, scans: Scans, config: ModelConfig = CONFIG, *, log: Callable[[dict[str, float]], None] | None = None
) -> dict[str, Tensor]:
    """The trained canonical weights, float32: an average over the last part of the run. ``log`` gets running means at every step."""
    from .mixed import Bfloat16Products

    scans.bend(np.random.default_rng(recipe.seed), recipe.bends)
    prompts = Prompts(config)
    learner = Learner(config, initial_weights(config, recipe.seed), prompts.image_token_id)
    optimizer = Optimizer(
        {**learner.parameters, **learner.extra},
        matrix_rate=recipe.matrix_rate,
        other_rate=recipe.other_rate,
        decay=recipe.decay,
    )
    average: dict[str, Tensor] = {}
    means: dict[str, float] = {}
    plan = [(step, recipe.strips, recipe.variety(step)) for step in range(recipe.steps)]
    for step, drawn in enumerate(stream(scans, config, recipe.seed, plan)):
        with Bfloat16Products() if recipe.bfloat16 else contextlib.nullcontext():
            losses = learner(prompts.batch(drawn), answers=step >= recipe.tower_only)
        loss = losses.cells
        if losses.answer is not None and losses.balance is not None:
            loss = losses.answer + recipe.cells * losses.cells + recipe.balance * losses.balance
        loss.backward()
        optimizer.step(recipe.rate(step))
        if step >= recipe.average_from * recipe.steps:
            for name, p in learner.parameters.items():
                average.setdefault(name, p.detach().clone()).lerp_(p.detach(), 0.01)
        for name, value in losses.numbers().items():
            means[name] = 0.95 * means.get(name, value) + 0.05 * value
        if log is not None:
            log({"step": step, **means})
    return average


def save(weights: Mapping[str, Tensor], path: Path, config: ModelConfig = CONFIG) -> None:
    """Write a checkpoint in the family's own layout, bfloat16, with its tokenizer."""
    stored = {name: weight.bfloat16() for name, weight in weights.items()}
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": config.language.max_positions,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    files = {
        "tokenizer.json": build_tokenizer().to_str(pretty=True),
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
    }
    save_checkpoint(stored, config, path, extra_files=files, overwrite=True)


def save_held_out(path: Path) -> None:
    """Write the held-out scans: pixels, labels, and their indices in scikit-learn's data set."""
    scans = split()[1]
    arrays = {
        "pixels": scans.pixels,
        "labels": scans.labels.astype(np.uint8),
        "indices": scans.indices.astype(np.int16),
    }
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m internvl_kernels.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint; replaced when it exists")
    parser.add_argument("--log", type=Path, default=None, help="also write the run's report to this file (Markdown)")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=2, help="of torch; one more process draws the strips")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 products (for processors without them)")
    options = parser.parse_args(arguments)
    recipe = Recipe(seed=options.seed, steps=options.steps, bfloat16=not options.float32)
    if recipe.steps <= recipe.tower_only:
        parser.error(f"--steps {recipe.steps}: more than {recipe.tower_only}, the steps without the language model")
    # Torch's threads and the drawing process share the cores: a thread that spins at a barrier holds up the one it waits for.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    torch.set_num_threads(options.threads)
    training, _ = split()
    report = Report(recipe, len(training), options.threads)
    with report:
        weights = train(recipe, training, log=report)
    save(weights, options.out)
    result = evaluate(load(options.out, progress=False))
    report.show(result)
    if options.log is not None:
        options.log.write_text(report.markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
