"""A parameter and the stored tensors that it is made of: the words in which the layouts are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("same", "transposed", "interleaved")


@dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``start + prod(shape)`` of a canonical tensor, and where they are stored.

    They are elements ``begin`` to ``begin + prod(shape)`` of the stored tensor, in one of three forms: "same"; "transposed",
    ``[columns, rows]`` for a shape of ``(rows, columns)``; "interleaved", transposed, with the rows of the first half of shape
    between those of the second (g0, u0, g1, u1, …; a vector likewise).
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0
    begin: int = 0
    whole: tuple[int, ...] | None = None  # shape of the stored tensor; None: as shape
    form: str = "same"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def stored(self) -> tuple[int, ...]:
        return self.shape if self.whole is None else self.whole

    def decode(self, slab: Tensor) -> Tensor:
        """The stored elements, flat, in the canonical order and ``shape``."""
        if self.form == "same":
            return slab.view(self.shape)
        rows = self.shape[0]
        if len(self.shape) > 1:
            slab = slab.view(*self.shape[1:], rows).movedim(-1, 0)
        return slab if self.form == "transposed" else torch.cat([slab[0::2], slab[1::2]])

    def encode(self, block: Tensor) -> Tensor:
        """The inverse of ``decode``: flat, as stored."""
        if self.form == "interleaved":
            block = block.view(2, self.shape[0] // 2, *self.shape[1:]).movedim(0, 1).reshape(self.shape)
        if self.form != "same" and block.ndim > 1:
            block = block.movedim(0, -1)
        return block.reshape(-1)


@dataclass(frozen=True)
class Parameter:
    name: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def whole(name: str, shape: tuple[int, ...], source: str, stored: tuple[int, ...] | None = None) -> Parameter:
    """A parameter that is stored alone, in the same order."""
    return Parameter(name, shape, (Piece(source, stored or shape),))


def rows(name: str, sources: Sequence[tuple[str, int]], *columns: int) -> Parameter:
    """Sources of so many rows each, one below the other."""
    pieces, row = [], 0
    for source, count in sources:
        pieces.append(Piece(source, (count, *columns), row * math.prod(columns)))
        row += count
    return Parameter(name, (row, *columns), tuple(pieces))


@dataclass(frozen=True)
class Naming:
    """Which of the name systems a checkpoint uses."""

    layout: str = "original"  # "original" | "hf"
    prefixes: str = (
        "legacy"  # of "hf": "legacy" (vision_tower.*, language_model.model.*) | "new" (model.vision_tower.*, lm_head)
    )
    fused_experts: bool = (
        False  # experts.gate_up_proj [E,2I,H] and experts.down_proj [E,H,I] instead of one tensor per expert
    )
    family: str = "llama"  # of the language model: "llama" | "internlm2" | "phi3" | "gpt_oss" (language_layout.py)
    alone: bool = False  # a tower's own repository: no prefix

    @property
    def vision(self) -> str:
        if self.alone:
            return ""
        return "vision_model." if self.layout == "original" else self._root + "vision_tower."

    @property
    def projector(self) -> str:
        return "mlp1." if self.layout == "original" else self._root + "multi_modal_projector."

    @property
    def language(self) -> str:
        return "model.language_model." if self._root else "language_model.model."

    @property
    def head(self) -> str:
        if self.family == "internlm2":
            return "language_model.output.weight"
        return "lm_head.weight" if self._root else "language_model.lm_head.weight"

    @property
    def _root(self) -> str:
        return "model." if self.layout == "hf" and self.prefixes == "new" else ""
