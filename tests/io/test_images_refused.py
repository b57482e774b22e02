"""Pictures that cannot be used raise ImageError and nothing else; the text says what is wrong and what is allowed."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_kernels import ImageError
from internvl_kernels.io.images import Video, open_image, tile_image


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(image, *words, **options):
    with pytest.raises(ImageError) as caught:
        tile_image(image, size=28, **options)
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert not re.search(r"0x[0-9a-f]{6,}", text), text
    return text


def test_pictures_without_pixels():
    refused(Image.new("RGB", (0, 5)), "0 x 5", "allowed: 1")
    refused(np.zeros((5, 0, 3), np.uint8), "0 x 5")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_truncated_files(kind, tmp_path):
    data = encoded(Image.fromarray(noise(200, 300, 3)), kind)
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])
    refused(data[: len(data) // 2], "image (", "bytes)")
    refused(path, repr(str(path)))
    for cut in (0, 1, 10, 30):
        refused(data[:cut], "image (")
    with pytest.raises(ImageError):
        open_image(path)


def test_not_an_image(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    refused(text, "notes.txt", "not an image", "allowed: a path")
    refused(b"hello", "5 bytes", "not an image")
    refused(tmp_path, "a directory")
    refused(tmp_path / "absent.png", "absent.png", "no such file")
    refused("", "no such file")
    of_torch = (
        torch.uint8,
        torch.device("cpu"),
        torch.Size([3]),
        torch.nn.Identity(),
        torch.zeros(3).untyped_storage(),
    )
    masked = np.ma.masked_array(noise(5, 5, 3), mask=True)
    for thing in (None, 3, {"a": 1}, [noise(5, 5, 3)], object(), *of_torch, masked):
        refused(thing, "allowed: a path", type(thing).__name__)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 5, 3)), ["float64[5, 5, 3]", "allowed: uint8"]),
        (np.zeros((5, 5, 3), np.int32), ["int32"]),
        (np.zeros((3, 5, 5), np.uint8), ["[3, 5, 5]", "[H, W, 3]"]),
        (np.zeros((5, 5, 2), np.uint8), ["[5, 5, 2]"]),
        (np.zeros(5, np.uint8), ["[5]"]),
        (np.zeros((1, 5, 5, 3), np.uint8), ["[1, 5, 5, 3]"]),
    ],
)
def test_wrong_arrays(array, words):
    refused(array, *words)


def test_decompression_bombs(monkeypatch, tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (3000, 2000)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded before the size was checked"))
    for source in (path, path.read_bytes()):
        refused(source, "3000 x 2000 = 6000000", "max_pixels=5999999", max_pixels=5_999_999)
    refused(Image.new("1", (3000, 2000)), "max_pixels=100", max_pixels=100)
    refused(noise(30, 20, 3), "20 x 30 = 600", max_pixels=599)
    # Pillow's own limit is lower here: its refusal is ours too, unless the caller's limit is higher.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(path, "max_pixels=1000", max_pixels=1000)
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for limit in (6_000_000, None):
        assert len(tile_image(path, size=28, max_pixels=limit)) == 7
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 28.0}, "size=28.0"),
        ({"size": 5000}, "size=5000"),
        ({"min_tiles": 0}, "min_tiles=0"),
        ({"max_tiles": 0}, "max_tiles=0"),
        ({"max_tiles": True}, "max_tiles=True"),
        ({"min_tiles": 5, "max_tiles": 4}, "max_tiles=4"),
        ({"rule": "best"}, "rule='best'"),
        ({"threads": -1}, "threads=-1"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"rule": ["original"]}, "rule=['original']"),
        ({"thumbnail": None}, "thumbnail=None"),
        ({"pad_to_square": "no"}, "pad_to_square='no'"),
        ({"exif": 1}, "exif=1"),
        ({"pad_colour": "red"}, "pad_colour='red'"),  # also where nothing is padded
        ({"pad_colour": (True, 1, 1)}, "pad_colour=(True, 1, 1)"),
    ],
)
def test_wrong_options(options, word):
    with pytest.raises(ImageError, match=re.escape(word) + ".*allowed"):
        tile_image(noise(9, 9, 3), **{"size": 28, **options})


def test_a_mode_that_pillow_does_not_convert():
    assert "mode La" in refused(Image.new("La", (5, 5)))


def test_damaged_files_never_raise_anything_else():
    good = [encoded(Image.fromarray(noise(20, 30, 3)), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")]
    draw = np.random.default_rng(1)
    outcomes = set()
    for turn in range(300):
        data = bytearray(good[turn % len(good)])
        for _ in range(1 + turn % 4):
            data[draw.integers(len(data) if turn % 2 else 60)] = draw.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tile_image(bytes(data), size=14, max_pixels=1_000_000)
                outcomes.add("tiled")
            except ImageError:
                outcomes.add("refused")
    assert outcomes == {"tiled", "refused"}


def test_videos_without_frames():
    for bad in ([], (), {0: noise(5, 5, 3)}, "clip.mp4", Image.new("RGB", (2, 2))):
        with pytest.raises(ImageError, match="frames"):
            Video(bad)


@pytest.mark.parametrize("colour", [None, 3, (1, 2), (1, 2, 256), (1, 2, -1), (0.5, 1, 2), "red"])
def test_bad_padding_colours(colour: object) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    with pytest.raises(ImageError, match="pad_colour="):
        tile_image(image, max_tiles=1, size=28, pad_to_square=True, pad_colour=colour)  # type: ignore[arg-type]


def test_torch_images_of_other_layouts() -> None:
    with pytest.raises(ImageError, match="sparse"):
        tile_image(torch.zeros(20, 40, 3, dtype=torch.uint8).to_sparse(), size=28)


def test_memory_that_is_gone_or_in_pieces() -> None:
    gone = torch.zeros(20, 40, 3, dtype=torch.uint8)
    gone.untyped_storage().resize_(0)
    refused(gone, "given back", "allowed: a path")
    data = encoded(Image.fromarray(noise(9, 9, 3)))
    apart = memoryview(bytes(b for byte in data for b in (byte, 0)))[::2]
    assert np.array_equal(tile_image(apart, size=28).pixels, tile_image(data, size=28).pixels)
