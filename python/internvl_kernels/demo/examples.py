"""Training examples: strips of digits as tiles, prompts and answers, in batches that depend on their number alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import torch
from ..config import ModelConfig
from ..io.images import tile_image
from .strips import Scans, Strip, compose
from .vocabulary import QUESTIONS, SYSTEM, build_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

EMPTY, MIXED = (
    10,
    -100,
)  # cell classes besides the ten digits: no digit's centre; several, or one too small (not scored)
_LEGIBLE = 12  # pixels of a tile: least width and height of a digit that the tower is asked for


@dataclass(frozen=True)
class Drawn:
    """Strips cut into tiles: everything about a batch that needs no tokenizer and no torch."""

    tiles: NDArray[np.uint8]  # [T, size, size, 3]
    cells: NDArray[
        np.int64
    ]  # [T, tokens per tile] class of the digit whose centre lies in the token's part of the tile
    counts: list[int]  # tiles of each strip
    texts: list[str]
    questions: list[int]


def draw(
    scans: Scans, config: ModelConfig, seed: Sequence[int], count: int, *, variety: float, distort: float
) -> Drawn:
    rng = np.random.default_rng(tuple(seed))
    tiles, cells, counts, texts = [], [], [], []
    t = config.tiling
    for _ in range(count):
        strip = compose(rng, scans, distort=distort, variety=variety)
        cut = tile_image(strip.image, size=t.size, min_tiles=t.min_tiles, max_tiles=t.max_tiles, thumbnail=t.thumbnail)
        tiles.append(cut.pixels)
        cells.append(cell_classes(strip, cut.grid, cut.thumbnail, config))
        counts.append(len(cut))
        texts.append(strip.text)
    usual = rng.random(count) < 0.5
    questions = np.where(usual, 0, rng.integers(0, len(QUESTIONS), count)).tolist()
    return Drawn(np.concatenate(tiles), np.concatenate(cells), counts, texts, questions)


def cell_classes(strip: Strip, grid: tuple[int, int], thumbnail: bool, config: ModelConfig) -> NDArray[np.int64]:
    """[tiles, tokens per tile], in the order of the visual tokens."""
    side = config.vision.grid // config.projector.factor
    size = np.array([config.tiling.size / strip.image.width, config.tiling.size / strip.image.height])

    def one(columns: int, rows: int) -> NDArray[np.int64]:
        sheet = np.full((rows * side, columns * side), EMPTY)
        for (x0, y0, x1, y1), digit in zip(strip.boxes, strip.text):
            x = int((x0 + x1) / 2 / strip.image.width * columns * side)
            y = int((y0 + y1) / 2 / strip.image.height * rows * side)
            legible = min((x1 - x0) * size[0] * columns, (y1 - y0) * size[1] * rows) >= _LEGIBLE
            sheet[y, x] = int(digit) if legible and sheet[y, x] == EMPTY else MIXED
        return sheet.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows * columns, side * side)

    return np.concatenate([one(*grid), one(1, 1)]) if thumbnail else one(*grid)


@dataclass(frozen=True)
class Batch:
    tiles: Tensor  # uint8 [T, size, size, 3]
    cells: Tensor  # int64 [T, tokens per tile]
    ids: Tensor  # int64 [B, L], padded on the right
    labels: Tensor  # int64 [B, L]: the next token where it belongs to the answer, else -100


class Prompts:
    """Token ids of what ``Model.chat`` sends, and of the answers."""

    def __init__(self, config: ModelConfig) -> None:
        tokenizer = build_tokenizer()
        self._per_tile = config.tokens_per_tile
        known = tokenizer.get_vocab()
        self._pad, self._end = known["<|endoftext|>"], known["<|im_end|>"]
        self.image_token_id = known[config.chat.image_token]
        self._digits = [known[str(digit)] for digit in range(10)]
        self._parts = []
        for question in QUESTIONS:
            before = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<img>"
            after = f"</img>\n{question}<|im_end|>\n<|im_start|>assistant\n"
            self._parts.append((tokenizer.encode(before).ids, tokenizer.encode(after).ids))

    def batch(self, drawn: Drawn) -> Batch:
        rows = []
        for count, text, question in zip(drawn.counts, drawn.texts, drawn.questions):
            before, after = self._parts[question]
            prompt = [*before, *[self.image_token_id] * (count * self._per_tile), *after]
            rows.append((prompt, [*(self._digits[int(digit)] for digit in text), self._end]))
        length = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.full((len(rows), length), self._pad)
        labels = torch.full((len(rows), length), -100)
        for i, (prompt, answer) in enumerate(rows):
            total = len(prompt) + len(answer)
            ids[i, :total] = torch.tensor([*prompt, *answer])
            labels[i, len(prompt) - 1 : total - 1] = torch.tensor(answer)
        return Batch(torch.from_numpy(drawn.tiles), torch.from_numpy(drawn.cells), ids, labels)


def stream(scans: Scans, config: ModelConfig, seed: int, plan: Sequence[tuple[int, int, float]]) -> Iterator[Drawn]:
    """Batches drawn by one helper process ahead of use; ``plan`` holds (number, strips, variety) of each."""
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue(16)

    def work() -> None:
        for number, count, variety in plan:
            queue.put(draw(scans, config, (seed, number), count, variety=variety, distort=variety))

    helper = context.Process(target=work, daemon=True)
    helper.start()
    try:
        for _ in plan:
            yield queue.get()
    finally:
        helper.terminate()
        helper.join()
