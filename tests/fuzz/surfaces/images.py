"""Image files, whole and damaged: bit-equal to the published way on Pillow, or an ImageError wherever Pillow gives up."""

from __future__ import annotations

import binascii
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

import internvl_kernels as ivk
from fuzz.pictures import RefusedError, files, tiles_by_pillow
from fuzz.values import Rng, damaged
from internvl_kernels.io.images import image_size, open_image

ERRORS = (ivk.ImageError,)
WEIGHT = 20


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    options: dict[str, Any]
    max_pixels: int


def case(rng: Rng) -> Case:
    name = rng.choice(list(files()))
    data = files()[name]
    if rng.random() < 0.9:
        data = damaged(rng, data, list(files().values()))
        if rng.random() < 0.7:
            data = _with_checksums(data)
    options: dict[str, Any] = {"size": rng.choice((14, 28, 33)), "rule": rng.choice(("original", "original", "hf"))}
    options["min_tiles"] = rng.choice((1, 1, 1, 2, 5))
    options["max_tiles"] = rng.choice((options["min_tiles"], options["min_tiles"] + 1, 12))
    options |= {"thumbnail": rng.random() < 0.7, "exif": rng.random() < 0.3, "pad_to_square": rng.random() < 0.3}
    return Case(name, data, options, rng.choice((1 << 10, 1 << 16, 1 << 22, 1 << 22)))


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks are right again, so that what is behind them is reached."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunk = data[at + 4 : at + 8 + size]
        if len(chunk) != 4 + size or not re.fullmatch(rb"[A-Za-z]{4}", chunk[:4]):
            break
        out += data[at : at + 4] + chunk + binascii.crc32(chunk).to_bytes(4, "big")
        at += 12 + size
    return bytes(out + data[at:])


def check(given: Case) -> None:
    expected: tuple[Any, Any] | None = None
    why, measured = "", None
    try:
        with Image.open(io.BytesIO(given.data)) as image:
            measured = image.size
            if image.width * image.height > given.max_pixels:
                raise RefusedError("too large")
            expected = tiles_by_pillow(image, **given.options)
    except Exception as error:  # Pillow's, of any kind
        why = f"{type(error).__name__}: {error}"
    if measured is not None and measured[0] * measured[1] <= given.max_pixels:
        assert image_size(given.data, max_pixels=given.max_pixels) == measured
    try:
        tiles = ivk.tile_image(given.data, max_pixels=given.max_pixels, **given.options)
    except ivk.ImageError as error:
        if expected is not None:
            raise AssertionError(f"Pillow makes tiles of it, here: {error}") from None
        raise
    assert expected is not None, f"tiled, but Pillow says {why}"
    grid, pixels = expected
    assert tiles.grid == grid, f"grid {tiles.grid}; the published search says {grid}"
    assert tiles.thumbnail == (len(pixels) > grid[0] * grid[1])
    np.testing.assert_array_equal(tiles.pixels, pixels)
    opened = open_image(given.data, max_pixels=given.max_pixels, rule=given.options["rule"])
    assert opened.mode == "RGB"
    assert opened.size == measured


def show(given: Case) -> str:
    return f"{given.name}, {given.options}, max_pixels={given.max_pixels}\ndata = bytes.fromhex({given.data.hex()!r})"
