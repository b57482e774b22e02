"""The public class of a whole InternVL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import costs
from . import plan as planning
from ._lazy import torch
from .config import ModelConfig
from .encoder import read_weights
from .errors import UnsupportedError, shown
from .generate import Decoder, Request
from .io.answer import Answers
from .io.checkpoint import PARTS, resolve
from .io.config import read_config
from .io.grid import count_tiles
from .io.images import Video
from .io.prompt import ImageItem, VideoItem, prompt_ids
from .io.tokenizer import Tokenizer, load_tokenizer
from .models import LanguageModel, Positions, logits
from .options import (
    ChatArguments,
    RuntimeOptions,
    as_list,
    checked_stride,
    generation_options,
    joined,
    kept_positions,
    token_ids,
)
from .visual_model import VisualModel

if TYPE_CHECKING:
    from torch import Tensor

    from .plan import Plan


def load(
    path: str | Path,
    *,
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    kv_dtype: str | None = None,
    max_workspace: int | str | None = None,
    threads: int | None = None,
    progress: bool = True,
    download: bool = False,
    packed_cache: bool | str | Path | None = None,
) -> Model:
    """Load a checkpoint directory in either published layout, or a hub id from the local Hugging Face cache.

    backend: "auto" (the best that runs here), "reference", "cpu" or "cuda". device: where the reference runs ("cpu" default).
    dtype: what is computed in, "float32" (default on the CPU) | "bfloat16" | "float16". weights: what is stored, kv_dtype: what
    the KV cache holds, same names (default: as dtype). max_workspace: bytes or text such as "2GB" (the default) for the temporaries
    of tower, prefill, decoding and logits: tiles, prompts and sequences go in chunks that stay under it, and the chunks change no
    bit on the cpu backend. Weights, inputs, visual tokens, the KV cache of an answer and results are not temporaries; ``plan``
    counts them too. threads: cap on CPU threads (default: torch's). progress: show a bar. download: fetch a hub id that is not in
    the cache. packed_cache: a folder (True: ``$XDG_CACHE_HOME/internvl-kernels``) for the weights as the cpu backend keeps them: the
    first load writes a file there, later ones map it, copying nothing and sharing its memory; a changed checkpoint or dtype has a
    file of its own.

    Raises CheckpointError, UnsupportedError (bad arguments) or BackendError (a backend that cannot run here).
    """
    options = RuntimeOptions.check(backend, device, dtype, weights, max_workspace, threads, packed_cache, kv_dtype)
    directory = resolve(path, download=download)
    config = read_config(directory)
    tokenizer = load_tokenizer(directory)
    with options.limited():
        tensors = read_weights(directory, config, options, PARTS, progress)
    return Model(config, options.place(tensors), tokenizer, options)


class Model(VisualModel):
    """A complete InternVL. Made by ``load``; every method is free of gradients and safe to call repeatedly."""

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer, options: RuntimeOptions
    ) -> None:
        super().__init__(config, weights, options)
        run: dict[str, Any] = {"backend": options.backend, "threads": options.op_threads}
        self.tokenizer = tokenizer
        self._language = LanguageModel(config.language, weights, kv_dtype=options.kv_type, **run)
        self.times: dict[str, float] = {}  # seconds of the last chat, stream or batch_chat, by stage
        image_token = tokenizer.token_id(config.chat.image_token)
        if image_token is None:
            raise UnsupportedError(f"tokenizer: has no token {config.chat.image_token!r}, the place of visual tokens")
        self.image_token_id = image_token
        self._answers = Answers(config.chat, tokenizer)
        self.stop_token_ids = self._answers.stop_ids
        pads = (config.chat.pad_token_id, tokenizer.pad_id, min(self.stop_token_ids, default=0))
        self._pad = next(token for token in pads if token is not None)

    @property
    def _costs(self) -> tuple[int, str]:
        return getattr(torch, self.dtype).itemsize, self.backend

    # ---- language --------------------------------------------------------------------------------------------------------

    def logits(
        self, input_ids: Any, tiles: Any = None, *, visual_stride: float | None = None, check_finite: bool = False
    ) -> Tensor:
        """``[B, L]`` ids -> ``[B, L, vocab]``; positions holding IMG_CONTEXT take the tokens of ``tiles`` in order.

        The result, B x L x vocab values, is the caller's and no part of max_workspace; everything else, the keys and values of the
        rows at hand included, stays under it, or UnsupportedError says what it takes. visual_stride as in ``generate``, check_finite
        as in ``encode_tiles``.
        """
        stride = checked_stride(visual_stride, self.config)
        ids = token_ids(input_ids, self._options.device)
        with torch.no_grad(), self._options.limited():
            pixels, size = self._sized(tiles, check_finite)
            limit = self._options.max_workspace
            kv = self._options.kv_type.itemsize
            costs.require_for_logits(self.config, limit, ids.shape[1], *self._costs, size, kv)
            visual = self._visual(ids, pixels)
            return logits(self._language, ids, visual, self.image_token_id, limit, stride)

    def generate(
        self,
        input_ids: Any,
        tiles: Any = None,
        *,
        attention_mask: Any = None,
        visual_stride: float | None = None,
        check_finite: bool = False,
        **generate_options: Any,
    ) -> Tensor:
        """Continue ``[B, L]`` ids -> ``[B, L + new]``; finished rows are filled with the pad token.

        tiles fill the IMG_CONTEXT positions of all rows in order. attention_mask ``[B, L]`` (0 = padding, either side).
        visual_stride: positions that a visual token takes, greater than 0, at most 1 (V2PE; None: the checkpoint's, 1 for all
        released models but V2PE's own). check_finite as in ``encode_tiles``. The KV cache of all rows is held besides max_workspace.
        Options: max_new_tokens=256, do_sample=False, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0,
        stop_token_ids=None (the checkpoint's), seed=None. Row r samples with ``seed + r``. Generation also ends at the context.
        """
        options, stride = generation_options(generate_options), checked_stride(visual_stride, self.config)
        ids = token_ids(input_ids, self._options.device)
        keep = kept_positions(attention_mask, ids)
        with torch.no_grad(), self._options.limited():
            pixels, size = self._sized(tiles, check_finite)
            self._require(keep.sum(1).tolist(), [options.max_new_tokens] * len(ids), size)
            visual = self._visual(ids[keep], pixels)
            requests, begin = [], 0
            for row, (tokens, kept) in enumerate(zip(ids, keep)):
                tokens = tokens[kept]
                count = int((tokens == self.image_token_id).sum())
                rows = None if visual is None else visual[begin : begin + count]
                requests.append(Request(tokens, rows, options, row, stride))
                begin += count
            decoder = self._decoder(requests)
            for _ in decoder:
                pass
        longest = max((len(new) for new in decoder.tokens), default=0)
        result = torch.full((len(ids), ids.shape[1] + longest), self._pad)
        result[:, : ids.shape[1]] = ids
        for row, new in enumerate(decoder.tokens):
            result[row, ids.shape[1] : ids.shape[1] + len(new)] = torch.tensor(new)
        return result

    def chat(
        self,
        question: str,
        images: Any = None,
        *,
        history: Sequence[tuple[str, str]] | None = None,
        system: str | None = None,
        max_tiles: int | None = None,
        visual_stride: float | None = None,
        check_finite: bool = False,
        **generate_options: Any,
    ) -> str:
        """Answer ``question`` about ``images`` (path, PIL image, uint8 array, ``Video``, or a list).

        The answer is the text up to the template's stop; where a model writes in channels (GPT-OSS), its final one.
        history: earlier (question, answer) pairs; images belong to the ``<image>`` marks in order; a single image needs none
        (the first question gets it), several do. system: replaces the template's system message. max_tiles: per image.
        check_finite as in ``encode``. visual_stride and options as ``generate``.
        """
        request: dict[str, Any] = {"history": history, "system": system, "max_tiles": max_tiles}
        request |= {"visual_stride": visual_stride, "check_finite": check_finite}
        return "".join(self.stream(question, images, **request, **generate_options))

    def stream(
        self,
        question: str,
        images: Any = None,
        *,
        history: Sequence[tuple[str, str]] | None = None,
        system: str | None = None,
        max_tiles: int | None = None,
        visual_stride: float | None = None,
        check_finite: bool = False,
        **generate_options: Any,
    ) -> Iterator[str]:
        """``chat`` piece by piece. Arguments are checked, and the images encoded, before the first piece is asked for."""
        request: dict[str, Any] = {"question": question, "images": images, "history": history, "system": system}
        request["max_tiles"] = max_tiles
        request |= {"visual_stride": visual_stride, "check_finite": check_finite}
        requests = self._requests([{**request, **generate_options}])
        return (piece for _, piece in self._pieces(requests))

    def batch_chat(self, requests: Iterable[Mapping[str, Any]]) -> list[str]:
        """Several chats decoded together, one step for all of them; each mapping holds the arguments of ``chat``."""
        if not isinstance(requests, Iterable):
            raise UnsupportedError(f"requests: {shown(requests)}; allowed: mappings of chat arguments")
        requests = list(requests)
        answers = [""] * len(requests)
        for index, piece in self._pieces(self._requests(requests)):
            answers[index] += piece
        return answers

    def prompt_ids(
        self,
        question: str,
        images: Any = None,
        *,
        history: Sequence[tuple[str, str]] | None = None,
        system: str | None = None,
        max_tiles: int | None = None,
    ) -> list[int]:
        """The exact token ids that ``chat`` would send, image positions expanded."""
        items = [self._prepare(item, max_tiles) for item in as_list(images)]
        return self._prompt(question, as_list(images), items, history, system)

    # ---- planning --------------------------------------------------------------------------------------------------------

    def plan(
        self,
        images_or_tile_counts: Any = None,
        *,
        text_tokens: int = 64,
        max_new_tokens: int = 256,
        max_tiles: int | None = None,
        visual_stride: float | None = None,
    ) -> Plan:
        """Tiles, tokens, FLOPs and peak bytes of a request, before any work. Prints as a table; ``to_dict()`` for data.

        images_or_tile_counts: images as in ``chat``, or a list of tile counts. Only image headers are read. visual_stride as in
        ``generate``.
        """
        counted = (count_tiles(self.config.tiling, item, max_tiles) for item in as_list(images_or_tile_counts))
        items = [(f"{number}: {name}", grid, count) for number, (name, grid, count) in enumerate(counted, start=1)]
        options = self._options
        return planning.make_plan(
            self.config, items, itemsize=getattr(torch, self.dtype).itemsize, stored=getattr(torch, options.weights).itemsize,
            kv_dtype=options.kv_dtype, backend=self.backend, limit=options.max_workspace, threads=options.op_threads,
            text_tokens=text_tokens, new_tokens=max_new_tokens, mapped=options.packed_cache is not None,
            visual_stride=checked_stride(visual_stride, self.config),
        )  # fmt: skip

    # ---- inside ----------------------------------------------------------------------------------------------------------

    def _requests(self, requests: Sequence[Mapping[str, Any]]) -> list[Request]:
        """Check everything, prepare all images, encode all tiles in one run of micro-batches, and build the prompts."""
        self.times = {}
        with self._stage("tiling"):
            parsed = [ChatArguments.check(r, number) for number, r in enumerate(requests)]
            items = [[self._prepare(item, p.max_tiles, p.check_finite) for item in p.images] for p in parsed]
        prompts = [self._prompt(p.question, p.images, its, p.history, p.system) for p, its in zip(parsed, items)]
        ids = [torch.tensor(prompt, device=self._options.device) for prompt in prompts]
        strides = [checked_stride(p.visual_stride, self.config) for p in parsed]
        for tokens, stride in zip(ids, strides):
            span = Positions(len(tokens), tokens == self.image_token_id, stride).span
            self._language.check_context(span, len(tokens), more=True)
        pixels = [p for its in items for item in its for p in item]
        self._require(
            [len(t) for t in ids],
            [p.options.max_new_tokens for p in parsed],
            (self.config.tiling.size,) * 2 if pixels else None,
        )
        result, begin = [], 0
        with self._stage("vision"):
            visual = self.encode_tiles(joined(pixels)) if pixels else None
        for p, its, tokens, stride in zip(parsed, items, ids, strides):
            tiles = sum(len(pixels) for item in its for pixels in item)
            rows = None
            if visual is not None and tiles:
                rows = visual[begin : begin + tiles].reshape(-1, visual.shape[-1])
                begin += tiles
            result.append(Request(tokens, rows, p.options, visual_stride=stride))
        return result

    def _pieces(self, requests: list[Request]) -> Iterator[tuple[int, str]]:
        """Decode all requests together; yields (request, text) as text becomes complete."""
        if not requests:
            return
        answers = [self._answers.stream(r.options.stop_token_ids) for r in requests]
        decoder = self._decoder(requests)
        steps = iter(decoder)
        stage = "prefill"
        while True:
            with self._stage(stage), torch.no_grad(), self._options.limited():
                produced = next(steps, None)
            if produced is None:
                break
            stage = "decode"
            for index, token in produced:
                piece = answers[index].push(token)
                if answers[index].done:
                    decoder.finish(index)
                if piece:
                    yield index, piece
        for index, answer in enumerate(answers):
            if piece := answer.flush():
                yield index, piece
        self.times["tokens"] = float(sum(len(t) for t in decoder.tokens))

    def _decoder(self, requests: list[Request]) -> Decoder:
        return Decoder(
            self._language,
            requests,
            image_token_id=self.image_token_id,
            stop_token_ids=self.stop_token_ids,
            max_workspace=self._options.max_workspace,
        )

    def _require(self, lengths: Sequence[int], new: Sequence[int], tile: tuple[int, int] | None) -> None:
        """Refuses a max_workspace that an answer cannot keep before any work is done."""
        context, prompt = self.config.language.context, max(lengths, default=1)
        longest = max((max(n, min(n + m, context)) for n, m in zip(lengths, new)), default=1)
        costs.require_for_answer(self.config, self._options.max_workspace, prompt, longest, *self._costs, tile)

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - begin

    def _prompt(
        self,
        question: str,
        images: Sequence[Any],
        items: Sequence[Sequence[np.ndarray]],
        history: Any,
        system: str | None,
    ) -> list[int]:
        per_tile = self.config.tokens_per_tile
        described: list[ImageItem | VideoItem] = []
        for image, item in zip(images, items):
            tokens = [len(pixels) * per_tile for pixels in item]
            described.append(VideoItem(tuple(tokens)) if isinstance(image, Video) else ImageItem(tokens[0]))
        return prompt_ids(self.tokenizer, self.config.chat, question, described, history=history, system=system)


__all__ = ["Model", "load"]
