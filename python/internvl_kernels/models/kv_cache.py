"""Keys and values of every layer in flat slots; a sequence owns a contiguous run of slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .._lazy import torch
from ..config import LanguageConfig

if TYPE_CHECKING:
    from torch import Tensor


class Span(NamedTuple):
    """Rows ``[row_begin, row_end)`` of a step are the last ones of a sequence with ``length`` keys from ``slot_begin`` on."""

    row_begin: int
    row_end: int
    slot_begin: int
    length: int


class KVCache:
    """``num_slots`` positions for each layer, keys and values ``[num_slots, kv_heads, head_dim]``."""

    def __init__(self, config: LanguageConfig, num_slots: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.num_layers, 2, num_slots, config.num_kv_heads, config.head_dim)
        self._memory = torch.zeros(shape, dtype=dtype, device=device)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        return self._memory[index, 0], self._memory[index, 1]
