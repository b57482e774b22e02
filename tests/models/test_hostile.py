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
