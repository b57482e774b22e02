"""Rotary positions of a sequence: one a token, or less for a visual one (V2PE)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .._lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Positions:
    """Positions of a prompt's tokens, and of the new ones behind it.

    A visual token m = 1, 2, … of a run lies ``m * stride`` behind the text before it; the text behind a run goes on at the next
    integer past its last token, plus one. So stride 1 is 0, 1, 2, …
    """

    def __init__(self, length: int, visual: Tensor | None = None, stride: float = 1.0) -> None:
        """visual: bool ``[length]``, read where stride is not 1."""
        self.length = length  # tokens
        self._of_prompt = None if visual is None or stride == 1.0 else _strided(visual, stride)
        # Positions that the prompt takes: its first new token stands at this one.
        self.span = length if self._of_prompt is None else math.ceil(float(self._of_prompt.max())) + 1 if length else 0

    def __call__(self, first: int, last: int) -> list[float] | list[int]:
        """Of tokens ``[first, last)``."""
        shift = self.span - self.length
        if self._of_prompt is None:
            return list(range(first, last))
        own: list[float] = self._of_prompt[first:last].tolist()
        return own + [float(i + shift) for i in range(max(first, self.length), last)]


def _strided(visual: Tensor, stride: float) -> Tensor:
    runs = visual.cpu().long()
    index = torch.arange(len(runs))
    # m of each visual token, and of each text token how many visual ones end right before it
    before = torch.where(runs == 0, index, -1).cummax(0).values
    m = index - before
    ends = torch.zeros(len(runs), dtype=torch.int64)
    ends[1:] = torch.where((runs[:-1] == 1) & (runs[1:] == 0), m[:-1], 0)
    # What a run takes less than its tokens moves everything behind it.
    saved = (ends - torch.ceil(ends * stride).long()).cumsum(0)
    text = index - saved
    start = torch.where(before >= 0, text[before.clamp(min=0)], -1)
    return torch.where(runs == 1, start + m * stride, text.double())


__all__ = ["Positions"]
