"""Arguments of the wrong kind through the public class: each is refused by name, or does what it plainly means."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import internvl_kernels as ivk
from internvl_kernels.demo import checkpoint_path

ROOT = Path(__file__).parents[2]
PICTURE = np.full((60, 200, 3), 255, np.uint8)
FLOATS = torch.zeros(1, 3, 56, 56)
ENDLESS: dict[str, Any] = {"stop_token_ids": [], "max_new_tokens": 5}


@pytest.fixture(scope="module")
def model() -> ivk.Model:
    return ivk.load(checkpoint_path(), threads=1, progress=False)


@pytest.mark.parametrize("name", ["max_new_tokens", "top_k", "seed", "temperature", "top_p", "repetition_penalty"])
def test_numpy_numbers_are_numbers(model: ivk.Model, name: str) -> None:
    given = np.int64(2) if name in ("max_new_tokens", "top_k", "seed") else np.float32(0.5)
    options = {**ENDLESS, "do_sample": True, "seed": 3}
    ids = [[5, 6, 7]]
    expected = model.generate(ids, **{**options, name: given.item()})
    assert torch.equal(model.generate(ids, **{**options, name: given}), expected)


def test_stop_tokens_of_any_kind_stop(model: ivk.Model) -> None:
    first = int(model.generate([[5, 6, 7]], **ENDLESS)[0, 3])
    for stops in ([first], iter([first]), np.array([first]), {np.int64(first)}, torch.tensor([first])):
        assert model.generate([[5, 6, 7]], max_new_tokens=5, stop_token_ids=stops).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stop_token_ids", 5), ("stop_token_ids", "</s>"), ("temperature", 10**400)],
    ids=["a number", "text", "past a float"],
)
def test_odd_options_are_refused(model: ivk.Model, name: str, value: Any) -> None:
    with pytest.raises(ivk.UnsupportedError, match=name):
        model.generate([[5]], **{name: value})


STRANGE: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: "abc",
    "ragged": lambda: [[1, 2], [3]],
    "objects": lambda: np.array([[None]]),
    "a generator": lambda: (row for row in [[1, 2]]),
    "meta": lambda: torch.ones(1, 2, dtype=torch.int64, device="meta"),
    "sparse": lambda: torch.ones(1, 2, dtype=torch.int64).to_sparse(),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_ids_and_masks_that_are_none(model: ivk.Model, kind: str) -> None:
    for call in (model.logits, model.generate):
        with pytest.raises(ivk.UnsupportedError, match="input_ids"):
            call(STRANGE[kind]())
    if kind != "none":
        with pytest.raises(ivk.UnsupportedError, match="attention_mask"):
            model.generate([[1, 2]], attention_mask=STRANGE[kind]())


@pytest.mark.parametrize(
    "tiles",
    [
        np.array([None]),
        np.array(["tile.png"]),
        FLOATS.to("meta"),
        FLOATS.to_sparse(),
        torch._neg_view(FLOATS),
        FLOATS.expand(2, 3, 56, 56),
        FLOATS.to(torch.complex64),
    ],
    ids=["objects", "text", "meta", "sparse", "negative view", "expanded", "complex"],
)
def test_tiles_that_are_refused(model: ivk.Model, tiles: Any) -> None:
    for call in (model.vision, model.encode_tiles):
        with pytest.raises((ivk.ImageError, ivk.UnsupportedError), match="tiles"):
            call(tiles)


def test_tiles_of_any_memory_order(model: ivk.Model) -> None:
    random = np.random.default_rng(0)
    tiles = random.integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    expected = model.vision(tiles[:, ::-1, :, ::-1].copy())
    assert torch.equal(model.vision(tiles[:, ::-1, :, ::-1]), expected)
    tiles.flags.writeable = False  # as numpy's views of pictures are
    assert torch.equal(model.vision(tiles)[:, 0], model.vision(tiles.copy())[:, 0])
    floats = random.standard_normal((2, 56, 56, 3)).astype(np.float32)
    expected = model.vision(torch.from_numpy(floats).permute(0, 3, 1, 2).contiguous())
    assert torch.equal(model.vision(torch.from_numpy(floats).permute(0, 3, 1, 2)), expected)
    assert torch.equal(model.vision(floats.transpose(0, 3, 1, 2).astype(">f4")), expected)


@pytest.mark.parametrize("layers", [[], 3, ["a"], [1.0], "12"])
def test_layers_of_the_wrong_kind(model: ivk.Model, layers: Any) -> None:
    with pytest.raises(ivk.UnsupportedError, match="layers"):
        model.vision(FLOATS, layers=layers)


def test_an_empty_batch_has_empty_logits(model: ivk.Model) -> None:
    none = torch.zeros(0, 5, dtype=torch.int64)
    assert model.logits(none).shape == (0, 5, model.config.language.vocab_size)
    assert model.generate(none).shape == (0, 5)
