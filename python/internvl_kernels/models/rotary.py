"""Rotary tables of a language model, by the forms of ``RopeScaling``.

  default   f_i = theta^(-2i/d)
  linear    f_i / factor
  dynamic   theta of a length n past the published one, m: theta ((factor n / m) - (factor - 1))^(d / (d - 2))
  yarn      f_i (1 - r_i) + f_i / factor r_i;  r_i = clamp((i - low) / (high - low), 0, 1), low and high where a frequency
            makes beta_fast and beta_slow turns within original_positions: d ln(original / (2 pi beta)) / (2 ln theta)
  longrope  f_i / short_i of sequences up to original_positions, f_i / long_i of longer ones

Cosines and sines are times attention_factor. All in float64, rounded once.

The length of a sequence is that of its whole prompt in positions, so that no chunk and no neighbour changes a bit. Where an
answer outgrows it, dynamic takes the length at each new token, as the family's code does (keys keep the rotation that they
were given); longrope keeps its choice, so that all keys of an answer share one rotation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._lazy import torch
from ..config import LanguageConfig, RopeScaling

if TYPE_CHECKING:
    from torch import Tensor


class Rotary:
    """``(cos, sin)`` of rows by position and length."""

    def __init__(self, config: LanguageConfig, **run: Any) -> None:
        self._dim, self._theta, self._run = config.head_dim, config.rope_theta, run
        self._scaling = config.rope_scaling
        self._fixed = None if self._scaling is None else self._of_all_lengths(self._scaling)

    def __call__(self, positions: Tensor, lengths: Tensor) -> tuple[Any, Any]:
        """positions ``[rows]``, integer or float; lengths int64 ``[rows]``: of the prompt that a row belongs to."""
        s = self._scaling
        if s is None:
            return ops.rope_table(positions, self._dim, self._theta, **self._run)
        frequencies = self._fixed
        if s.kind == "longrope":
            short, long = (
                self._powers(self._theta) / torch.tensor(f).double() for f in (s.short_factors, s.long_factors)
            )
            frequencies = torch.where(lengths.cpu()[:, None] > s.original_positions, long, short)
        elif s.kind == "dynamic":
            reached = torch.maximum(lengths.cpu(), positions.cpu().ceil().long() + 1)
            frequencies = self._dynamic(reached, s)
        kept = frequencies if frequencies is None else frequencies.to(positions.device)
        return ops.rope_table(
            positions, self._dim, self._theta, frequencies=kept, scale=s.attention_factor, **self._run
        )

    def _powers(self, theta: float) -> Tensor:
        return torch.from_numpy(theta ** (-2.0 / self._dim * np.arange(self._dim // 2)))

    def _of_all_lengths(self, s: RopeScaling) -> Tensor | None:
        plain = self._powers(self._theta)
        if s.kind == "linear":
            return plain / s.factor
        if s.kind != "yarn":
            return None

        def where(turns: float) -> float:
            return self._dim * math.log(s.original_positions / (turns * 2 * math.pi)) / (2 * math.log(self._theta))

        low, high = where(s.beta_fast), where(s.beta_slow)
        if s.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self._dim - 1)
        high += 0.001 if low == high else 0.0
        ramp = ((torch.arange(self._dim // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
        return plain * (1 - ramp) + plain / s.factor * ramp

    def _dynamic(self, lengths: Tensor, s: RopeScaling) -> Tensor:
        """Rows of a length share one table, up to the published one all."""
        published = s.original_positions
        known, of = torch.unique(lengths.clamp(min=published), return_inverse=True)
        tables = []
        for n in known.tolist():
            growth = s.factor * n / published - (s.factor - 1)
            tables.append(self._powers(self._theta * growth ** (self._dim / (self._dim - 2))))
        return torch.stack(tables)[of] if tables else torch.empty(0, self._dim // 2, dtype=torch.float64)


__all__ = ["Rotary"]
