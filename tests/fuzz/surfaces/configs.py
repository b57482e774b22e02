"""config.json and its companions: a ModelConfig that holds together, that every step behind it can use, and that writing and reading
keeps; or a CheckpointError. A new architecture is here with its row in ``testing.checkpoints``; keys are learnt from what is read."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import internvl_kernels as ivk
from fuzz.scratch import fresh_folder
from fuzz.values import FLOATS, INTEGERS, Rng, changed, json_bytes, json_value
from internvl_kernels import costs, plan
from internvl_kernels.config import ModelConfig
from internvl_kernels.io.config import read_config
from internvl_kernels.io.config_json import config_files
from internvl_kernels.io.fields import Fields
from internvl_kernels.io.language_config import ARCHITECTURES
from internvl_kernels.models.rotary import Rotary
from internvl_kernels.testing.checkpoints import VISION_STYLES, tiny_config

ERRORS = (ivk.CheckpointError,)
WEIGHT = 20
GUIDED = True
LAYOUTS = ("original", "hf")
_TOKENS = {
    "context_image_token": "<IMG_CONTEXT>",
    "start_image_token": {"content": "<img>"},
    "chat_template": "{{ messages }}",
}
_COMPANIONS: dict[str, Any] = {
    "tokenizer_config.json": {**_TOKENS, "extra_special_tokens": {"end_image_token": "</img>"}},
    "chat_template.json": {"chat_template": "{{ messages[0].content }}"},
    "processor_config.json": {
        "image_processor": {"size": {"height": 56, "width": 56}, "min_patches": 1, "max_patches": 12}
    },
}


@dataclass(frozen=True)
class Case:
    label: str
    files: dict[str, bytes]


@functools.lru_cache(maxsize=1)
def bases() -> list[tuple[str, dict[str, Any]]]:
    """(label, parsed files by name) of every architecture, tower and layout."""
    found = []
    for kind in ARCHITECTURES.values():
        for layout in LAYOUTS:
            style = VISION_STYLES[len(found) % len(VISION_STYLES)]
            files = config_files(tiny_config(kind, style, layout=layout), layout, dtype="bfloat16")
            parsed = {name: json.loads(data) for name, data in files.items() if name.endswith(".json")}
            found.append((f"{kind}, {style}, {layout}", parsed))
    return found


@functools.lru_cache(maxsize=1)
def words() -> tuple[list[str], list[Any]]:
    """Keys that ``read_config`` asks for, and values that stand in configs."""
    keys: dict[str, None] = {}
    get = Fields.get

    def noted(self: Fields, key: str) -> Any:
        keys[key] = None
        return get(self, key)

    with mock.patch.object(Fields, "get", noted):
        for _, files in bases():
            read_config(_write({name: json.dumps(value).encode() for name, value in files.items()}))
    values: dict[str, Any] = {}

    def collect(value: Any) -> None:
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(part)
        if not isinstance(value, (dict, list)):
            values[repr(value)] = value

    collect([files for _, files in bases()])
    kinds = [
        "linear",
        "dynamic",
        "yarn",
        "longrope",
        "su",
        "default",
        "v2pe_fix",
        "v2pe_rnd",
        "sliding_attention",
        "full_attention",
    ]
    return sorted(keys), [*values.values(), *kinds, *ARCHITECTURES, *ARCHITECTURES.values(), "awq", "mxfp4"]


def case(rng: Rng) -> Case:
    label, base = rng.choice(bases())
    keys, values = words()
    files = dict(base)
    for name, content in _COMPANIONS.items():
        if rng.random() < 0.15:
            files[name] = content
    if rng.random() < 0.97:
        name = rng.choice(("config.json", "config.json", "config.json", rng.choice(list(files))))
        files[name] = changed(rng, files[name], values)
        if rng.random() < 0.4 and isinstance(files[name], dict):
            files[name] = _with_key(rng, files[name], rng.choice(keys), values)
    return Case(label, {name: json_bytes(rng, value) for name, value in files.items()})


def _with_key(rng: Rng, value: dict[str, Any], key: str, values: list[Any]) -> dict[str, Any]:
    """A key that is read, in some object."""
    inner = [k for k, v in value.items() if isinstance(v, dict)]
    if inner and rng.random() < 0.7:
        at = rng.choice(inner)
        return {**value, at: _with_key(rng, value[at], key, values)}
    kind = rng.randrange(4)
    if kind == 0:
        return {**value, key: {rng.choice(words()[0]): rng.choice(values) for _ in range(3)}}
    given = json_value(rng) if kind == 1 else rng.choice(values) if kind == 2 else rng.choice((*INTEGERS, *FLOATS))
    return {**value, key: given}


def _write(files: dict[str, bytes]) -> Path:
    folder = fresh_folder()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def check(given: Case) -> None:
    config = read_config(_write(given.files))
    holds_together(config)
    # What is computed from a config before there are weights.
    assert costs.model_parameters(config) > 0
    run: dict[str, Any] = {
        "itemsize": 4,
        "stored": 4,
        "kv_dtype": "float32",
        "backend": "cpu",
        "limit": 1 << 59,
        "threads": 1,
    }
    more: dict[str, Any] = {
        "text_tokens": 3,
        "new_tokens": 2,
        "mapped": False,
        "visual_stride": config.language.visual_stride,
    }
    made = plan.make_plan(config, [("1", (1, 1), 1)], **run, **more)
    assert made.peak_bytes > 0
    last = config.language.context - 1
    positions = torch.tensor([0.0, 1.0, float(last)], dtype=torch.float64)
    for table in Rotary(config.language)(positions, torch.tensor([1, 2, last + 1])):
        assert bool(table.isfinite().all()), f"rotary tables that are not finite, of {config.language}"
    try:
        again = read_config(_write(config_files(config, config.layout, dtype=config.dtype)))
    except ivk.CheckpointError as error:
        if "cannot" in str(error):  # the layout has no words for it
            return
        raise AssertionError(f"what was written is refused: {error}") from None
    for part in fields(config):
        if part.name != "extras":
            ours, theirs = getattr(config, part.name), getattr(again, part.name)
            assert _same(ours, theirs, part.name), f"{part.name}: {ours} came back as {theirs}"


def _same(a: Any, b: Any, part: str) -> bool:
    if part == "vision":  # the written tower has only the layers that run
        return bool(a.num_layers == b.num_layers and a.hidden_size == b.hidden_size and a.norm_eps == b.norm_eps)
    if part == "language":
        return a.architecture == b.architecture or b.architecture == "llama"
    if part == "chat":  # the names of image tokens stand in the tokenizer's files
        b = replace(b, image_token=a.image_token, image_start=a.image_start, image_end=a.image_end)
    return bool(a == b)


def holds_together(config: ModelConfig) -> None:
    """What every reader of a config relies on."""
    v, t, tiling = config.vision, config.language, config.tiling
    assert v.hidden_size % v.num_heads == 0
    assert v.image_size % v.patch_size == 0
    assert 1 <= v.num_layers <= v.stored_layers
    assert t.num_heads % t.num_kv_heads == 0
    assert t.head_dim % 2 == 0
    assert config.projector.vision_size == v.hidden_size
    assert config.projector.hidden_size == t.hidden_size
    assert config.tokens_per_tile >= 1
    assert 1 <= tiling.min_tiles <= tiling.max_tiles
    assert all(s > 0 for s in tiling.std)
    assert t.context >= 1
    assert 0 <= t.experts_per_token <= t.num_experts
    assert set(t.dense_layers) | set(t.window_layers) <= set(range(t.num_layers))
    assert 0 < t.visual_stride <= 1
    _numbers(config)


def _numbers(value: Any) -> None:
    """Sizes are integers above zero, other numbers finite, switches switches."""
    for part in fields(value):
        found = getattr(value, part.name)
        if is_dataclass(found):
            _numbers(found)
        elif part.type == "int":
            assert type(found) is int, f"{part.name} is {found!r}"
            assert 0 <= found < 1 << 41, f"{part.name} is {found!r}"
        elif part.type == "float":
            assert type(found) is float, f"{part.name} is {found!r}"
            assert math.isfinite(found), f"{part.name} is {found!r}"
        elif part.type == "bool":
            assert type(found) is bool, f"{part.name} is {found!r}"


def show(given: Case) -> str:
    """The files, and beneath them what differs from the base."""
    base = dict(bases()).get(given.label, {})
    parts = [f"based on {given.label}"]
    for name, data in given.files.items():
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            parts.append(f"{name}: {data[:600]!r}")
            continue
        parts.append(f"{name}: {_difference(base.get(name, {}), value)}")
    return "\n".join(parts)


def _difference(a: Any, b: Any, path: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        found = [
            _difference(a.get(k, "-"), b.get(k, "-"), f"{path}.{k}")
            for k in {**a, **b}
            if a.get(k, "-") != b.get(k, "-")
        ]
        return "; ".join(found)
    return f"{path}: {a!r:.80} -> {b!r:.400}"
