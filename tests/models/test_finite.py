"""check_finite: on request every call names the first NaN or Inf that goes in; without it nothing is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import internvl_kernels as ivk
from internvl_kernels.testing.checkpoints import write_tiny

GREEDY: dict[str, Any] = {"max_new_tokens": 2, "stop_token_ids": []}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ivk.Model:
    return ivk.load(write_tiny(tmp_path_factory.mktemp("tiny") / "model", "qwen3"), backend="cpu", progress=False)


def tiles(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    found = torch.zeros(3, 3, 56, 56, dtype=dtype)
    found[1, 2, 30, 4] = value
    found[2, 0, 0, 0] = value  # a later one is not named
    return found


def ids(model: ivk.Model) -> list[list[int]]:
    return [[1] + [model.image_token_id] * 12 + [5]]


WITH_TILES = {
    "vision": lambda m, t, **o: m.vision(t, **o),
    "encode_tiles": lambda m, t, **o: m.encode_tiles(t, **o),
    "logits": lambda m, t, **o: m.logits(ids(m), t, **o),
    "generate": lambda m, t, **o: m.generate(ids(m), t, **GREEDY, **o),
}


@pytest.mark.parametrize("call", WITH_TILES.values(), ids=WITH_TILES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tiles_are_named(model: ivk.Model, call: Any, value: float, dtype: torch.dtype) -> None:
    place = f"tiles: {value} in tile 1, channel 2, row 30, column 4;"
    with pytest.raises(ivk.ImageError) as caught:
        call(model, tiles(value, dtype), check_finite=True)
    assert place in str(caught.value)
    with pytest.raises(ivk.ImageError) as caught:
        call(model, tiles(value).double().numpy(), check_finite=True)
    assert place in str(caught.value)
    call(model, tiles(0.5, dtype), check_finite=True)
    call(model, np.zeros((3, 56, 56, 3), np.uint8), check_finite=True)


@pytest.mark.parametrize("call", WITH_TILES.values(), ids=WITH_TILES)
def test_off_it_costs_nothing(model: ivk.Model, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(_: torch.Tensor) -> None:
        raise AssertionError("pixels were looked at")

    monkeypatch.setattr("internvl_kernels.encoder.torch.isfinite", looked)
    call(model, tiles(0.5))
    with pytest.raises(AssertionError):
        call(model, tiles(0.5), check_finite=True)


def test_what_off_lets_through(model: ivk.Model) -> None:
    assert model.vision(tiles(float("nan"))).isnan().any()
    assert model.logits(ids(model), tiles(float("nan"))).isnan().any()
    with pytest.raises(ivk.UnsupportedError, match="NaN"):  # a choice among NaN is refused, without the tile's name
        model.generate(ids(model), tiles(float("nan")), **GREEDY)


def float_picture(value: float) -> Image.Image:
    pixels = np.full((40, 60), 128, np.float32)
    pixels[7, 9] = value
    return Image.fromarray(pixels)


WITH_PICTURES = {
    "encode": lambda m, p, **o: m.encode([Image.new("RGB", (9, 9)), p], **o),
    "a frame": lambda m, p, **o: m.encode(ivk.Video([p]), **o),
    "chat": lambda m, p, **o: m.chat("Q", p, **GREEDY, **o),
    "stream": lambda m, p, **o: list(m.stream("Q", p, **GREEDY, **o)),
    "batch_chat": lambda m, p, **o: m.batch_chat([{"question": "Q", "images": p, **GREEDY, **o}]),
    "tile_image": lambda m, p, **o: ivk.tile_image(p, size=56, **o),
}


@pytest.mark.parametrize("call", WITH_PICTURES.values(), ids=WITH_PICTURES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_float_pictures_are_named(model: ivk.Model, call: Any, value: float, tmp_path: Path) -> None:
    file = tmp_path / "float.tiff"
    float_picture(value).save(file)
    for picture in (float_picture(value), file):
        with pytest.raises(ivk.ImageError, match=f"image: {value} at row 7, column 9"):
            call(model, picture, check_finite=True)
        call(model, picture)  # Pillow makes some byte of it
    call(model, float_picture(3), check_finite=True)
    call(model, np.zeros((40, 60, 3), np.uint8), check_finite=True)


def test_only_a_truth_value(model: ivk.Model) -> None:
    with pytest.raises(ivk.UnsupportedError, match="check_finite: 'yes'"):
        model.chat("Q", check_finite="yes", **GREEDY)
