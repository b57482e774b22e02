"""The decode loop: prefill in bounded chunks, then one step for all unfinished sequences together."""

from __future__ import annotations

import itertools
import math
import numbers
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import ops
from ._lazy import torch
from .costs import chunk_rows, step_rows
from .errors import UnsupportedError, shown
from .models import DecodeSteps, KVCache, LanguageModel, Piece, Positions, Prompt, prefill

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
                raise UnsupportedError(f"{name}: {shown(getattr(self, name))}; allowed: {allowed}")

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
    visual_stride: float = 1.0  # positions of a visual token (V2PE)


@dataclass
class _Sequence:
    request: Request
    stops: frozenset[int]
    capacity: int  # prompt and new tokens
    seed: int
    length: int  # keys in the cache
    positions: Positions
    tokens: list[int] = field(default_factory=list)
    done: bool = False


class Decoder:
    """Runs requests to their ends. Iterating yields, for each step, the ``(request index, token)`` pairs it produced.

    max_workspace: bytes for the temporaries of a prefill chunk and of a decode step with its logits (None: no limit); the KV
    cache is not among them. prefill_rows: rows of a chunk, instead of those that the limit allows. Raises UnsupportedError for a
    prompt that is empty or does not fit the context, and for a limit that a single row does not keep.
    """

    def __init__(
        self,
        language: LanguageModel,
        requests: Sequence[Request],
        *,
        image_token_id: int | None = None,
        stop_token_ids: Collection[int] = (),
        max_workspace: int | None = None,
        prefill_rows: int | None = None,
    ) -> None:
        self._language, self._image_token_id = language, image_token_id
        self._sequences: list[_Sequence] = []
        for number, request in enumerate(requests):
            length = int(request.input_ids.numel())
            if length == 0:
                raise UnsupportedError(f"input_ids: sequence {number} is empty; allowed: at least one token")
            visual = request.input_ids.reshape(-1) == (-1 if image_token_id is None else image_token_id)
            positions = Positions(length, visual, request.visual_stride)
            language.check_context(positions.span, length, more=True)
            options = request.options
            stops = frozenset(stop_token_ids if options.stop_token_ids is None else options.stop_token_ids)
            seed = secrets.randbits(64) if options.seed is None else (options.seed + request.row_seed) % 2**64
            capacity = length + min(options.max_new_tokens, language.config.context - positions.span)
            self._sequences.append(_Sequence(request, stops, capacity, seed, length, positions))
        longest = max((s.length for s in self._sequences), default=1)
        most = max((s.capacity for s in self._sequences), default=1)
        c, run = language.config, (language.dtype.itemsize, language.backend, max_workspace)
        self._prefill_rows = prefill_rows or chunk_rows(c, longest, *run)
        self._step_rows = step_rows(c, max(len(requests), 1), most, *run)
        capacities = [s.capacity for s in self._sequences]
        self._cache = KVCache(language.config, capacities, language.kv_dtype, language.device)
        self._steps = DecodeSteps(language, self._cache, [s.positions for s in self._sequences])

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if not self._sequences:
            return
        yield self._choose(range(len(self._sequences)), self._prefill())
        while active := [i for i, s in enumerate(self._sequences) if not s.done]:
            # One step for all of them; several only where the workspace's limit asks for it.
            groups = [active[i : i + self._step_rows] for i in range(0, len(active), self._step_rows)]
            yield [pair for group in groups for pair in self._choose(group, self._step(group))]

    @property
    def tokens(self) -> list[list[int]]:
        """New tokens of each request so far, stop token included."""
        return [list(s.tokens) for s in self._sequences]

    def finish(self, index: int) -> None:
        """Take no more tokens for this request: what it has to say is complete."""
        self._sequences[index].done = True
        self._cache.release(index)

    def _prefill(self) -> Tensor:
        """Every prompt into the cache; the normed last rows ``[B, H]``."""
        prompts = [Prompt(s.request.input_ids.reshape(-1), s.request.visual, s.positions) for s in self._sequences]
        lasts: list[Tensor] = []
        for pieces, y in prefill(self._language, self._cache, prompts, self._prefill_rows, self._image_token_id):
            for piece, end in zip(pieces, itertools.accumulate(piece.rows for piece in pieces)):
                if piece.last == self._sequences[piece.sequence].length:
                    lasts.append(y[end - 1].clone())  # a view would hold the whole chunk
            del y
        return torch.stack(lasts)

    def _step(self, active: Sequence[int]) -> Tensor:
        """One new row for every active sequence: normed ``[len(active), H]``."""
        ids = torch.tensor([self._sequences[i].tokens[-1] for i in active], device=self._language.device)
        pieces = []
        for i in active:
            s = self._sequences[i]
            pieces.append(Piece(i, s.length, s.length + 1))
            s.length += 1
        return self._steps(ids, pieces)

    def _choose(self, active: Sequence[int], rows: Tensor) -> list[tuple[int, int]]:
        """The next token of every active sequence from its normed row."""
        produced = []
        for begin in range(0, len(active), self._step_rows):
            logits = self._language.head(rows[begin : begin + self._step_rows])
            greedy = ops.argmax(logits).tolist()
            for row, i in enumerate(active[begin : begin + self._step_rows]):
                s = self._sequences[i]
                token = greedy[row] if self._is_greedy(s) else self._sample(s, logits[row : row + 1])
                s.tokens.append(token)
                limit = s.request.options.max_new_tokens
                s.done = token in s.stops or len(s.tokens) >= limit or s.length + 1 > s.capacity
                if s.done:
                    self._cache.release(i)
                produced.append((i, token))
            del logits
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
