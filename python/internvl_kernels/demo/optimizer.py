"""AdamW, with orthogonalised momentum (Muon) for hidden matrices: a small transformer needs about half the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_EDGES = ("patch", "positions", "embed", "head", "router", "cells")  # matrices at the rim, and vectors: AdamW


class Optimizer:
    """Steps every tensor of ``parameters`` by its gradient; ``rate`` scales both learning rates (the schedule)."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        matrix_rate: float,
        other_rate: float,
        decay: float,
        clip: float = 1.0,
    ) -> None:
        def hidden(name: str, p: Tensor) -> bool:
            return p.ndim >= 2 and not any(part in _EDGES for part in name.split("."))

        self._all = list(parameters.values())
        self._matrices = [p for name, p in parameters.items() if hidden(name, p)]
        self._momenta = [torch.zeros_like(p) for p in self._matrices]
        others = [p for name, p in parameters.items() if not hidden(name, p)]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(groups, lr=other_rate, betas=(0.9, 0.98))
        self._matrix_rate, self._other_rate, self._decay, self._clip = matrix_rate, other_rate, decay, clip

    def step(self, rate: float) -> None:
        given = [p for p in self._all if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(given, self._clip)
        for group in self._adam.param_groups:
            group["lr"] = rate * self._other_rate
        self._adam.step()
        with torch.no_grad():
            for p, momentum in zip(self._matrices, self._momenta):
                if p.grad is None:
                    continue
                momentum.mul_(0.95).add_(p.grad)
                update = _orthogonal(p.grad + 0.95 * momentum)
                scale = 0.2 * math.sqrt(max(p.shape[-2:]))  # the size of an AdamW step
                p.mul_(1 - rate * self._matrix_rate * self._decay).add_(update, alpha=-rate * self._matrix_rate * scale)
        for p in self._all:
            p.grad = None


def _orthogonal(g: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: five steps of a quintic Newton-Schulz iteration. ``[..., m, n]``."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()  # precise enough, and fast
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return (x.mT if tall else x).float()
