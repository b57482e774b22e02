"""Train the demo model: ``python -m internvl_kernels.demo.train --out DIR``. Needs the ``train`` extra (scikit-learn).

What is trained is the package's own reference model on its canonical weights. A temporary head on the visual tokens, which
names the digit in each token's part of a tile, helps the tower to start; it is not part of the result.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._lazy import torch
from ..config import ModelConfig
from ..io.checkpoint import save_checkpoint
from ..models import LanguageModel, Projector, VisionTower
from ..models.language import DenseAttention
from .examples import Batch, Prompts, stream
from .mixed import Bfloat16Products
from .optimizer import Optimizer
from .recipe import CONFIG, HELD_OUT, SPLIT_SEED, Recipe, initial_weights
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
    answer: Tensor | None  # next token, over the answers
    cells: Tensor  # digit of each visual token
    balance: Tensor | None  # 1 when all experts are equally busy
    right: float  # share of answer tokens


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
            return Losses(None, cells, None, 0.0)
        language, (rows, length) = self._language, batch.ids.shape
        language.scores = []
        h = language.embed(batch.ids, visual.flatten(0, 1), self.image_token_id).flatten(0, 1)
        y = language.forward(h, torch.arange(length).repeat(rows), DenseAttention(rows, length, backend="reference"))
        asked = batch.labels.flatten() != -100
        logits, labels = language.head(y[asked]).float(), batch.labels.flatten()[asked]
        right = (logits.argmax(-1) == labels).float().mean().item()
        return Losses(cross_entropy(logits, labels), cells, self._balance(), right)

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


def train(recipe: Recipe, scans: Scans, config: ModelConfig = CONFIG, *, log: Any = print, keep: Path | None = None) -> dict[str, Tensor]:
    """The trained canonical weights, float32: an average over the last part of the run."""
    scans.bend(np.random.default_rng(recipe.seed), recipe.bends)
    prompts = Prompts(config)
    learner = Learner(config, initial_weights(config, recipe.seed), prompts.image_token_id)
    optimizer = Optimizer(
        {**learner.parameters, **learner.extra},
        matrix_rate=recipe.matrix_rate, other_rate=recipe.other_rate, decay=recipe.decay,
    )  # fmt: skip
    plan = [(step, recipe.strips, min(1.0, max(0.0, (step - 100) / (recipe.varied - 100)))) for step in range(recipe.steps)]
    average: dict[str, Tensor] = {}
    means: dict[str, float] = {}
    start, first = time.perf_counter(), time.process_time()
    for step, drawn in enumerate(stream(scans, config, recipe.seed, plan)):
        answers = step >= recipe.tower_only
        with Bfloat16Products() if BF16 else contextlib.nullcontext():
            losses = learner(prompts.batch(drawn), answers=answers)
        loss = losses.cells
        if losses.answer is not None:
            loss = losses.answer + recipe.cells * losses.cells + recipe.balance * losses.balance
        loss.backward()
        rate = min(1.0, (step + 1) / recipe.warm_up) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / recipe.steps)))
        optimizer.step(rate)
        if step >= recipe.average_from * recipe.steps:
            for name, p in learner.parameters.items():
                average.setdefault(name, p.detach().clone()).lerp_(p.detach(), 0.01)
        now = {"cells": losses.cells, "answer": losses.answer, "balance": losses.balance, "right": losses.right}
        for key, value in now.items():
            if value is not None:
                value = float(value.detach()) if torch.is_tensor(value) else value
                means[key] = 0.95 * means.get(key, value) + 0.05 * value
        if step % 50 == 0:
            log(f"{step} {time.perf_counter() - start:.0f}s cpu {time.process_time() - first:.0f}s " + " ".join(f"{k} {v:.4f}" for k, v in means.items()))
        if keep and step % 200 == 199:
            torch.save(({n: p.detach() for n, p in learner.parameters.items()}, average), keep)
    return average
BF16 = True
