"""Prompts through the language model in chunks of rows; the chunk is chosen by a limit on workspace and changes no bit on cpu."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .._lazy import torch
from ..costs import logits_chunks
from .kv_cache import KVCache, Span
from .language import LanguageModel
from .positions import Positions

if TYPE_CHECKING:
    from torch import Tensor


class Piece(NamedTuple):
    """Positions ``[first, last)`` of one sequence, rows of one step."""

    sequence: int
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Prompt:
    """ids ``[L]``, the visual rows ``[n, H]`` for its image positions, and where its tokens stand."""

    input_ids: Tensor
    visual: Tensor | None
    positions: Positions


def forward_pieces(
    language: LanguageModel,
    cache: KVCache,
    h: Tensor,
    pieces: Sequence[Piece],
    positions: Sequence[Positions],
    *,
    decode: bool = False,
) -> Tensor:
    """Hidden rows of ``pieces``, one after the other; the cache gives their sequences the pages that they lack. positions: of
    every sequence.
    """
    spans, slots, *where = places(cache, pieces, positions)
    index, rows, lengths = (torch.tensor(n, device=language.device) for n in (slots, *where))
    return language.forward(h, rows, lengths, language.cached(cache, spans, index, decode=decode), decode=decode)


def places(
    cache: KVCache, pieces: Sequence[Piece], positions: Sequence[Positions]
) -> tuple[list[Span], list[int], list[float], list[int]]:
    """Spans of the pieces, and of their rows the slots, the positions and the lengths of their prompts; their sequences are
    given the pages that they lack.
    """
    spans: list[Span] = []
    rows: list[float] = []
    lengths: list[int] = []
    slots: list[int] = []
    for piece in pieces:
        cache.grow(piece.sequence, piece.last)
        spans.append(cache.span(len(slots), *piece))
        rows += positions[piece.sequence](piece.first, piece.last)
        lengths += [positions[piece.sequence].span] * piece.rows
        slots += cache.slots(*piece)
    return spans, slots, rows, lengths


def prefill(
    language: LanguageModel, cache: KVCache, prompts: Sequence[Prompt], rows: int, image_token_id: int | None
) -> Iterator[tuple[list[Piece], Tensor]]:
    """Every prompt into the cache: yields pieces and their normed rows ``[rows of the pieces, H]``, step by step.

    A prompt is cut at multiples of ``rows`` of its own positions, wherever it stands in the batch; whole pieces then share steps
    of at most ``rows`` rows. On the reference backend, whose bits depend on the cut, they so do not depend on the neighbours.
    """
    steps: list[list[Piece]] = []
    free = 0
    for i, prompt in enumerate(prompts):
        length = prompt.input_ids.numel()
        for first in range(0, length, rows):
            piece = Piece(i, first, min(first + rows, length))
            if piece.rows > free:
                steps.append([])
                free = rows
            steps[-1].append(piece)
            free -= piece.rows
    for pieces in steps:
        h = _embedded(language, prompts, pieces, image_token_id)
        yield pieces, forward_pieces(language, cache, h, pieces, [prompt.positions for prompt in prompts])
        del h


def logits(
    language: LanguageModel,
    input_ids: Tensor,
    visual: Tensor | None,
    image_token_id: int,
    limit: int | None,
    stride: float = 1.0,
) -> Tensor:
    """``[B, L]`` ids -> ``[B, L, vocab]`` in chunks: everything but the result, a cache included, stays under ``limit`` bytes.

    stride: positions of a visual token.
    """
    c, (batch, length), itemsize = language.config, input_ids.shape, language.dtype.itemsize
    positions = [Positions(length, ids == image_token_id, stride) for ids in input_ids]
    for sequence in positions:
        language.check_context(sequence.span, length)
    kv_itemsize = language.kv_dtype.itemsize
    group, rows, head_rows = logits_chunks(c, batch, length, itemsize, language.backend, limit, kv_itemsize)
    result = torch.empty(batch, length, language.vocab_rows, dtype=language.dtype, device=language.device)
    images = (input_ids == image_token_id).sum(1).cumsum(0).tolist()
    cache = KVCache(c, [length] * group, language.kv_dtype, language.device)
    for begin in range(0, batch, group):
        prompts = []
        for i in range(begin, min(begin + group, batch)):
            part = None if visual is None else visual[images[i - 1] if i else 0 : images[i]]
            prompts.append(Prompt(input_ids[i], part, positions[i]))
            cache.release(i - begin)  # of the group before
        for pieces, y in prefill(language, cache, prompts, rows, image_token_id):
            row = 0
            for piece in pieces:
                target = result[begin + piece.sequence, piece.first : piece.last]
                for first in range(0, piece.rows, head_rows):
                    last = min(first + head_rows, piece.rows)
                    target[first:last] = language.head(y[row + first : row + last], decode=False)
                row += piece.rows
            del y  # not held while the next chunk runs
    return result


def _embedded(
    language: LanguageModel, prompts: Sequence[Prompt], pieces: Sequence[Piece], image_token_id: int | None
) -> Tensor:
    """Embedding rows of the pieces; a piece's visual rows follow those of the positions before it."""
    parts = []
    for piece in pieces:
        ids, visual = prompts[piece.sequence].input_ids, prompts[piece.sequence].visual
        if visual is not None and image_token_id is not None:
            is_image = ids.eq(image_token_id)
            begin, end = int(is_image[: piece.first].sum()), int(is_image[: piece.last].sum())
            visual = visual[begin:end]
        parts.append(language.embed(ids[piece.first : piece.last], visual, image_token_id))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


__all__ = ["Piece", "Prompt", "forward_pieces", "logits", "places", "prefill"]
