"""The decode loop: prefill in bounded chunks, then one step for all unfinished sequences together."""

from __future__ import annotations

import itertools
import math
import numbers
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from . import ops
from ._lazy import torch
from .errors import UnsupportedError
from .models import KVCache, LanguageModel, Span

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GenerationOptions:
    """How to choose tokens and when to stop; checked on construction."""

    max_new_tokens: int = 256
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    repetition_penalty: float = 1.0
    stop_token_ids: Collection[int] | None = None  # None: the checkpoint's own
    seed: int | None = None  # None: fresh randomness

    def __post_init__(self) -> None:
        def check(name: str, ok: bool, allowed: str) -> None:
            if not ok:
                raise UnsupportedError(f"{name}: {getattr(self, name)!r}; allowed: {allowed}")

        def number(value: object) -> bool:
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                return False
            try:
                return math.isfinite(value)
            except OverflowError:
                return False

        def whole(value: object) -> bool:
            return isinstance(value, numbers.Integral) and not isinstance(value, bool)

        check("max_new_tokens", whole(self.max_new_tokens) and self.max_new_tokens >= 1, "an integer of at least 1")
        check("do_sample", isinstance(self.do_sample, bool), "True or False")
        check(
            "temperature", number(self.temperature) and self.temperature > 0, "greater than 0 (greedy: do_sample=False)"
        )
        check("top_p", number(self.top_p) and 0 < self.top_p <= 1, "greater than 0, at most 1")
        check("top_k", whole(self.top_k) and self.top_k >= 0, "an integer of at least 0 (0: no limit)")
        check("repetition_penalty", number(self.repetition_penalty) and self.repetition_penalty > 0, "greater than 0")
        check("seed", self.seed is None or (whole(self.seed) and 0 <= self.seed < 2**64), "an integer in [0, 2**64)")
        for name in ("max_new_tokens", "top_k", "seed", "temperature", "top_p", "repetition_penalty"):
            value = getattr(self, name)  # numpy's numbers become Python's
            if value is not None:
                object.__setattr__(self, name, int(value) if isinstance(value, numbers.Integral) else float(value))
        if self.stop_token_ids is not None:
            stops: Any = self.stop_token_ids
            stops = stops.tolist() if hasattr(stops, "tolist") else stops  # numpy and torch arrays
            stops = tuple(stops) if isinstance(stops, Iterable) else ("not iterable",)  # read once
            check("stop_token_ids", all(whole(t) and t >= 0 for t in stops), "token ids")
            object.__setattr__(self, "stop_token_ids", frozenset(int(t) for t in stops))


@dataclass
class Request:
    """One sequence: prompt ids ``[L]`` and the visual rows ``[n, H]`` for its image positions."""

    input_ids: Tensor
    visual: Tensor | None = None
    options: GenerationOptions = field(default_factory=GenerationOptions)
    row_seed: int = 0  # added to the seed, so that the rows of one generate() call differ


class Piece(NamedTuple):
    """Positions ``[first, last)`` of one sequence, rows of one step."""

    sequence: int
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first


@dataclass
class _Sequence:
    request: Request
    stops: frozenset[int]
    slot_begin: int
    capacity: int  # prompt and new tokens
    seed: int
    length: int  # keys in the cache
    tokens: list[int] = field(default_factory=list)
    done: bool = False


class Decoder:
    """Runs requests to their ends. Iterating yields, for each step, the ``(request index, token)`` pairs it produced."""

    def __init__(
        self,
        language: LanguageModel,
        requests: Sequence[Request],
        *,
        image_token_id: int | None = None,
        stop_token_ids: Collection[int] = (),
        prefill_rows: int = 2048,
    ) -> None:
        self._language, self._image_token_id, self._prefill_rows = language, image_token_id, prefill_rows
        self._sequences: list[_Sequence] = []
        context, slots = language.config.max_positions, 0
        for number, request in enumerate(requests):
            length = int(request.input_ids.numel())
            if length == 0:
                raise UnsupportedError(f"input_ids: sequence {number} is empty; allowed: at least one token")
            if length >= context:
                raise UnsupportedError(
                    f"input_ids: sequence {number} has {length} tokens; allowed: fewer than {context}, the model's context"
                )
            options = request.options
            stops = frozenset(stop_token_ids if options.stop_token_ids is None else options.stop_token_ids)
            seed = secrets.randbits(64) if options.seed is None else (options.seed + request.row_seed) % 2**64
            capacity = min(length + options.max_new_tokens, context)
            self._sequences.append(_Sequence(request, stops, slots, capacity, seed, length))
            slots += capacity
        self._cache = KVCache(language.config, slots, language.dtype, language.device)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if not self._sequences:
            return
        yield self._choose(range(len(self._sequences)), self._prefill())
        while active := [i for i, s in enumerate(self._sequences) if not s.done]:
            yield self._choose(active, self._step(active))

    @property
    def tokens(self) -> list[list[int]]:
        """New tokens of each request so far, stop token included."""
        return [list(s.tokens) for s in self._sequences]

    def _prefill(self) -> Tensor:
        """Every prompt into the cache; logits ``[B, vocab]`` of the last rows.

        A prompt is cut at multiples of ``prefill_rows`` of its own positions, wherever it stands in the batch, so that its bits do
        not depend on its neighbours; whole pieces then share steps of at most ``prefill_rows`` rows.
        """
        steps: list[list[Piece]] = []
        free = 0
        for i, s in enumerate(self._sequences):
            for first in range(0, s.length, self._prefill_rows):
                piece = Piece(i, first, min(first + self._prefill_rows, s.length))
                if piece.rows > free:
                    steps.append([])
                    free = self._prefill_rows
                steps[-1].append(piece)
                free -= piece.rows
        lasts: list[Tensor] = []
        for pieces in steps:
            y = self._forward(torch.cat([self._embedded(piece) for piece in pieces]), pieces)
            ends = itertools.accumulate(piece.rows for piece in pieces)
            lasts += [
                y[end - 1] for piece, end in zip(pieces, ends) if piece.last == self._sequences[piece.sequence].length
            ]
        return self._language.head(torch.stack(lasts))

    def _embedded(self, piece: Piece) -> Tensor:
        """Embedding rows of a prompt's piece; its visual rows follow those of the positions before it."""
        request = self._sequences[piece.sequence].request
        ids, visual = request.input_ids.reshape(-1), request.visual
        window = ids[piece.first : piece.last]
        if visual is not None and self._image_token_id is not None:
            is_image = ids.eq(self._image_token_id)
            begin, end = int(is_image[: piece.first].sum()), int(is_image[: piece.last].sum())
            visual = visual[begin:end]
        return self._language.embed(window, visual, self._image_token_id)

    def _step(self, active: Sequence[int]) -> Tensor:
        """One new row for every active sequence; logits ``[len(active), vocab]``."""
        ids = torch.tensor([self._sequences[i].tokens[-1] for i in active], device=self._language.device)
        pieces = []
        for i in active:
            s = self._sequences[i]
            pieces.append(Piece(i, s.length, s.length + 1))
            s.length += 1
        return self._language.head(self._forward(self._language.embed(ids), pieces, decode=True))

    def _forward(self, h: Tensor, pieces: Sequence[Piece], *, decode: bool = False) -> Tensor:
        spans, row = [], 0
        positions, slots = [], []
        for piece in pieces:
            base = self._sequences[piece.sequence].slot_begin
            spans.append(Span(row, row + piece.rows, base, piece.last))
            positions.append(torch.arange(piece.first, piece.last))
            slots.append(torch.arange(base + piece.first, base + piece.last))
            row += piece.rows
        attend = self._language.cached(self._cache, spans, torch.cat(slots).to(h.device))
        return self._language.forward(h, torch.cat(positions).to(h.device), attend, decode=decode)

    def _choose(self, active: Sequence[int], logits: Tensor) -> list[tuple[int, int]]:
        greedy = ops.argmax(logits).tolist()
        produced = []
        for row, i in enumerate(active):
            s = self._sequences[i]
            token = greedy[row] if self._is_greedy(s) else self._sample(s, logits[row : row + 1])
            s.tokens.append(token)
            s.done = token in s.stops or len(s.tokens) >= s.request.options.max_new_tokens or s.length + 1 > s.capacity
            produced.append((i, token))
        return produced

    @staticmethod
    def _is_greedy(s: _Sequence) -> bool:
        return not s.request.options.do_sample and s.request.options.repetition_penalty == 1.0

    @staticmethod
    def _sample(s: _Sequence, logits: Tensor) -> int:
        options = s.request.options
        if options.repetition_penalty != 1.0:
            seen = torch.cat([s.request.input_ids.reshape(-1), torch.tensor(s.tokens, dtype=torch.int64)])
            logits = ops.penalise(logits, seen.unsqueeze(0), options.repetition_penalty)
        if not options.do_sample:
            return int(ops.argmax(logits)[0])
        uniform = torch.tensor([ops.uniforms(s.seed, len(s.tokens))], dtype=torch.float64)
        chosen = ops.sample(
            logits, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, uniform=uniform
        )
        return int(chosen[0])


__all__ = ["Decoder", "GenerationOptions", "Request"]
