"""Keys and values of every layer in pages, which a sequence is given as it grows and hands back when it ends."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._lazy import torch
from ..config import LanguageConfig
from ..costs import PAGE, page_count

if TYPE_CHECKING:
    from torch import Tensor


class Span(NamedTuple):
    """Rows ``[row_begin, row_end)`` of a step are the last ones of a sequence with ``length`` keys from ``slot_begin`` on.

    With pages slot_begin is where the sequence's pages begin (``ops.cached_attention``).
    """

    row_begin: int
    row_end: int
    slot_begin: int
    length: int


class KVCache:
    """Pages of ``PAGE`` positions for sequences of at most ``capacities`` positions; keys and values ``[slots, kv_heads, head_dim]``.

    Memory is reserved for all sequences at their longest, and on the CPU taken from the system where it is first written: a page
    that was handed back is given out again before one that nobody had.
    """

    def __init__(
        self, config: LanguageConfig, capacities: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> None:
        counts = [page_count(capacity) for capacity in capacities]
        self._width = max(counts, default=0)
        shape = (config.num_layers, 2, sum(counts) * PAGE, config.num_kv_heads, config.head_dim)
        self._memory = (
            _reserved(shape, dtype) if device.type == "cpu" else torch.zeros(shape, dtype=dtype, device=device)
        )
        self._free = list(range(sum(counts)))[::-1]
        self._held: list[list[int]] = [[] for _ in counts]
        # Sequence i's pages begin at i * width; -1: none yet.
        self.pages = torch.full((len(counts) * self._width,), -1, dtype=torch.int64, device=device)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        return self._memory[index, 0], self._memory[index, 1]

    def grow(self, sequence: int, length: int) -> None:
        """Pages for the first ``length`` positions of a sequence."""
        held = self._held[sequence]
        while len(held) * PAGE < length:
            self.pages[sequence * self._width + len(held)] = self._free[-1]
            held.append(self._free.pop())

    def release(self, sequence: int) -> None:
        """The pages of a sequence that has ended."""
        begin, held = sequence * self._width, self._held[sequence]
        self.pages[begin : begin + len(held)] = -1
        self._free += held[::-1]
        held.clear()

    @property
    def used_pages(self) -> int:
        return sum(map(len, self._held))

    def slots(self, sequence: int, first: int, last: int) -> list[int]:
        """Where positions ``[first, last)`` of a sequence lie."""
        held = self._held[sequence]
        return [held[i // PAGE] * PAGE + i % PAGE for i in range(first, last)]

    def span(self, row: int, sequence: int, first: int, last: int) -> Span:
        """Rows from ``row`` on are positions ``[first, last)`` of a sequence."""
        return Span(row, row + last - first, sequence * self._width, last)


def _reserved(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that cost nothing until they are written; no operation of torch, whose threads a forked child lacks, makes them."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    size = count * dtype.itemsize
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    except (OSError, OverflowError) as error:
        raise MemoryError(f"kv cache: {size} bytes cannot be reserved ({error})") from error
    return torch.frombuffer(memory, dtype=dtype).view(shape)
