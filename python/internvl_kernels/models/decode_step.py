"""Decode steps: the kernels of the first one are recorded and run again, in the same memory, with no Python between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..ops._backend import cpu
from ._space import Space
from .kv_cache import KVCache, Span
from .language import LanguageModel
from .positions import Positions
from .prefill import Piece, forward_pieces, places

if TYPE_CHECKING:
    from torch import Tensor


class DecodeSteps:
    """One new row for each of some sequences of a cache, step by step.

    Recorded are dense layers of packed weights on the cpu backend; the rest goes op by op. The bits are the same.
    """

    def __init__(self, language: LanguageModel, cache: KVCache, positions: Sequence[Positions]) -> None:
        """positions: of every sequence of the cache."""
        self._language, self._cache, self._positions = language, cache, positions
        self._step: _Recorded | None = None

    def __call__(self, ids: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """Tokens ``ids [rows]`` at ``pieces``, one row each: normed rows ``[rows, H]``, whose memory the next step may write."""
        h = self._language.embed(ids)
        if not self._language.recordable:
            return forward_pieces(self._language, self._cache, h, pieces, self._positions, decode=True)
        if self._step is None or self._step.rows != len(pieces):
            self._step = None  # its memory goes before the new one's is taken
            self._step = _Recorded(self._language, self._cache, len(pieces))
        try:
            return self._step(h, *places(self._cache, pieces, self._positions))
        except BaseException:
            self._step = None  # half a recording
            raise


class _Recorded:
    def __init__(self, language: LanguageModel, cache: KVCache, rows: int) -> None:
        c = language.config
        self._language, self._cache, self.rows = language, cache, rows
        with torch.inference_mode(False):  # written by later steps too, in whatever mode their caller is
            self._h = torch.empty(rows, c.hidden_size, dtype=language.dtype)
            self._cos, self._sin = (torch.empty(rows, c.head_dim // 2) for _ in range(2))
            self._slots = torch.empty(rows, dtype=torch.int64)
            self._narrow = Space(self._h, rows * c.hidden_size)
            self._wide = Space(self._h, rows * max(2 * (c.q_size + c.kv_size), c.intermediate_size))
        self._program: Any = None
        self._result: Any = None

    def __call__(
        self, h: Tensor, spans: list[Span], slots: list[int], positions: list[float], lengths: list[int]
    ) -> Tensor:
        cos, sin = self._language.rotary(torch.tensor(positions), torch.tensor(lengths))
        for place, value in ((self._h, h), (self._cos, cos), (self._sin, sin), (self._slots, torch.tensor(slots))):
            place.copy_(value)
        if self._program is not None:
            self._program.run(spans)
        else:
            self._record(spans)
        return self._result

    def _record(self, spans: list[Span]) -> None:
        attend = self._language.cached(self._cache, spans, self._slots, decode=True, space=self._wide)
        program = cpu().Program()
        program.record()
        try:
            self._result = self._language.rotated(
                self._h, self._cos, self._sin, attend, decode=True, narrow=self._narrow, wide=self._wide
            )
        finally:
            program.stop()
        self._program = program


__all__ = ["DecodeSteps"]
