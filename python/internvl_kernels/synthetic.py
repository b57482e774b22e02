"""Random weights of a released architecture, whole or shrunk, as a checkpoint that loads and chats (nonsense)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._lazy import torch
from .config import ChatConfig, LanguageConfig, ModelConfig, RopeScaling, VisionConfig
from .errors import UnsupportedError
from .io.layouts import Parameter, naming_of, parameters
from .io.save import save_checkpoint
from .io.template import TEMPLATES
from .registry import config_of

if TYPE_CHECKING:
    from torch import Tensor

LAYOUTS = ("original", "hf")
DTYPES = ("float32", "bfloat16", "float16")
_BLOCK = 1 << 22  # elements drawn at once
_IMAGE_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>")
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SPECIAL = re.compile(r"<\|[a-z_]+\|>|</s>")
_CHATML_JINJA = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}"
    "{% elif item['type'] == 'video' %}{{ '<video>\\n' }}{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def random_checkpoint(
    name: str,
    path: str | Path,
    *,
    scale: float | None = None,
    layout: str = "original",
    dtype: str = "bfloat16",
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write a checkpoint of the released model ``name`` (``internvl-kernels models`` lists them) with random weights; its path.

    scale: None for the published dimensions; above 0, at most 1: widths, heads, layers, experts, vocabulary, tile side and
    context are so many times as large, rounded and never below what the architecture needs, while everything that gives it its
    structure stays: the ratio of query to key heads, biases, sinks, windows, QK-norm, the form of rotary scaling, the tower's
    style. layout: "original" | "hf". dtype: "float32" | "bfloat16" | "float16". The weights follow from name, scale and seed,
    parameter by parameter, and are drawn as they are written: memory stays at the size of the largest one. The tokenizer is
    byte-level with the special tokens of the model's template.

    Raises UnsupportedError for an unknown model or argument, CheckpointError for a path that is taken and for a layout that
    cannot express the model.
    """
    _check(scale, layout, dtype, seed)
    config = config_of(name)
    if scale is not None:
        config = shrunk(config, float(scale))
    config = replace(config, layout=layout, dtype=dtype)
    special = _special_tokens(config, layout)
    config = replace(config, chat=_chat(config, layout, special), tiling=replace(config.tiling, rule=_rule(layout)))
    weights = RandomWeights(config, dtype, seed, progress)
    with weights:
        save_checkpoint(weights, config, path, layout=layout, extra_files=_tokenizer(special), overwrite=overwrite)
    return Path(path)


def _check(scale: Any, layout: str, dtype: str, seed: Any) -> None:
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if scale is not None and not (number and 0 < scale <= 1):
        raise UnsupportedError(f"scale: {scale!r}; allowed: above 0, at most 1, or None")
    for argument, value, allowed in (("layout", layout, LAYOUTS), ("dtype", dtype, DTYPES)):
        if value not in allowed:
            raise UnsupportedError(f"{argument}: {value!r}; allowed: {', '.join(allowed)}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63:
        raise UnsupportedError(f"seed: {seed!r}; allowed: an integer of at least 0, below 2**63")


def _rule(layout: str) -> str:
    return "hf" if layout == "hf" else "original"


def shrunk(config: ModelConfig, scale: float) -> ModelConfig:
    """The same structure, smaller."""
    vision, language = _small_tower(config.vision, scale), _small_language(config.language, scale)
    projector = replace(config.projector, vision_size=vision.hidden_size, hidden_size=language.hidden_size)
    tiling = replace(config.tiling, size=vision.image_size)
    return replace(config, vision=vision, language=language, projector=projector, tiling=tiling)


def _least(value: int, scale: float, least: int, step: int = 1) -> int:
    return max(least, round(value * scale / step) * step)


def _small_tower(v: VisionConfig, scale: float) -> VisionConfig:
    heads, dim = _least(v.num_heads, scale, 2), _least(v.head_dim, scale, 16, 8)
    layers = _least(v.num_layers, scale, 2)
    return replace(
        v,
        hidden_size=heads * dim,
        num_heads=heads,
        num_layers=layers,
        stored_layers=layers,
        intermediate_size=heads * dim * v.intermediate_size // v.hidden_size,
        image_size=_least(v.image_size, scale, 56, 28),
    )


def _small_language(c: LanguageConfig, scale: float) -> LanguageConfig:
    kv = _least(c.num_kv_heads, scale, min(2, c.num_kv_heads))
    heads = kv * (c.num_heads // c.num_kv_heads)
    dim = _least(c.head_dim, scale, 8, 4)
    # Some classes derive one size from the other: where they are equal, they stay so.
    hidden = heads * (dim if c.hidden_size == c.q_size else max(-(-32 // heads), round(c.hidden_size * scale / heads)))
    positions = _least(c.max_positions, scale, 1024)
    layers = _least(c.num_layers, scale, 2)
    experts = _least(c.num_experts, scale, c.experts_per_token + 2) if c.num_experts else 0
    return replace(
        c,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=dim,
        intermediate_size=_least(c.intermediate_size, scale, 24),
        vocab_size=_least(c.vocab_size, scale, 300),
        max_positions=positions,
        num_experts=experts,
        expert_size=_least(c.expert_size, scale, 24) if experts else 0,
        rope_scaling=None
        if c.rope_scaling is None
        else _small_scaling(c.rope_scaling, positions / c.max_positions, dim),
        window=_least(c.window, scale, 8) if c.window else 0,
        window_layers=tuple(i for i in c.window_layers if i < layers),
    )


def _small_scaling(s: RopeScaling, ratio: float, dim: int) -> RopeScaling:
    factors = {f: getattr(s, f)[: dim // 2] for f in ("short_factors", "long_factors")}
    return replace(s, original_positions=max(2, round(s.original_positions * ratio)), **factors)


def _special_tokens(config: ModelConfig, layout: str) -> list[str]:
    """Those of the conversation, and those around images."""
    row = TEMPLATES[config.chat.template] if layout == "original" and config.chat.template else None
    texts = [] if row is None else [str(getattr(row, f.name)) for f in fields(row) if f.name != "system_message"]
    found = dict.fromkeys([*_CHATML, *(t for text in texts for t in _SPECIAL.findall(text)), *_IMAGE_TOKENS])
    return list(found)


def _chat(config: ModelConfig, layout: str, special: list[str]) -> ChatConfig:
    def number(token: str) -> int:
        return 256 + special.index(token)

    row = TEMPLATES[config.chat.template] if layout == "original" and config.chat.template else None
    stops = ("<|im_end|>",) if row is None else row.stops
    return replace(
        config.chat,
        template=config.chat.template if layout == "original" else None,
        chat_template=_CHATML_JINJA if layout == "hf" else None,
        eos_token_ids=tuple(number(stop) for stop in stops),
        pad_token_id=number("<|endoftext|>"),
        image_token_id=number("<IMG_CONTEXT>") if layout == "hf" else None,
    )


def _tokenizer(special: list[str]) -> dict[str, str]:
    """Byte-level without merges: 256 bytes, then the special tokens."""
    from tokenizers import pre_tokenizers

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    added = {str(256 + i): {"content": token, "special": True} for i, token in enumerate(special)}
    head = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return {
        "vocab.json": json.dumps(vocab),
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": json.dumps(head | {"added_tokens_decoder": added}),
    }


class RandomWeights(Mapping[str, Any]):
    """The canonical parameters of a config, drawn when they are asked for; the same each time."""

    def __init__(self, config: ModelConfig, dtype: str, seed: int, progress: bool = False) -> None:
        self._parameters = {p.name: p for p in parameters(config, naming_of(config, "original"))}
        self._dtype, self._seed, self._shown = getattr(torch, dtype), seed, progress
        self._bar: Any = None

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        generator = torch.Generator().manual_seed(
            int.from_bytes(hashlib.sha256(f"{self._seed} {name}".encode()).digest()[:7], "little")
        )
        result = torch.empty(parameter.shape, dtype=self._dtype)
        shift, spread = _spread(parameter)
        for block in result.view(-1).split(_BLOCK):
            block.copy_(torch.randn(block.shape, generator=generator).mul_(spread).add_(shift))
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], result.numel() * result.element_size())
        return result

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._parameters  # without drawing it

    def meta(self, name: str) -> Tensor:
        """Shape and dtype alone."""
        return torch.empty(self._parameters[name].shape, dtype=self._dtype, device="meta")

    def __enter__(self) -> RandomWeights:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            console = Console(stderr=True)
            if console.is_terminal:
                total = sum(p.size for p in self._parameters.values()) * self._dtype.itemsize
                self._bar = Progress(*columns, console=console, transient=True)
                self._bar.add_task("Writing weights", total=total)
                self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _spread(p: Parameter) -> tuple[float, float]:
    """Mean and deviation that keep activations near one through every layer."""
    kind = p.name.rpartition(".")[2]
    if "norm" in p.name and kind == "weight":
        return 1.0, 0.1
    if kind in ("ls1", "ls2"):
        return 0.5, 0.1
    if "bias" in kind:
        return 0.0, 0.1
    if len(p.shape) < 2 or "embed" in p.name or "positions" in p.name:
        return 0.0, 0.5
    return 0.0, 1.0 / math.sqrt(p.shape[-1])


__all__ = ["RandomWeights", "random_checkpoint", "shrunk"]
