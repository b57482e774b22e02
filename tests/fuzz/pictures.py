"""The published way from a picture to tiles, on Pillow alone, and pictures of every kind to try it on."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

BICUBIC = Image.Resampling.BICUBIC
MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "LA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "La",
    "PA",
    "RGBa",
    "RGBX",
    "I;16B",
)


class RefusedError(Exception):
    """Pillow itself does not make a picture of it."""


def tiles_by_pillow(
    image: Image.Image, *, size: int, min_tiles: int, max_tiles: int, thumbnail: bool, rule: str, exif: bool = False,
    pad_to_square: bool = False, pad_colour: tuple[int, int, int] = (123, 116, 103),
) -> tuple[tuple[int, int], np.ndarray]:  # fmt: skip
    """Grid and tiles ``[T, size, size, 3]``. Raises RefusedError where Pillow raises anything."""
    try:
        image.load()
        image = ImageOps.exif_transpose(image) if exif else image
        image = _rgb(image, rule)
    except Exception as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from None
    if min(image.size) < 1:
        raise RefusedError("no pixels")
    if pad_to_square and max_tiles == 1:
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(c) for c in pad_colour))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    columns, rows = grid_of(*image.size, size, min_tiles, max_tiles, rule)
    whole = np.asarray(image.resize((columns * size, rows * size), BICUBIC))
    tiles = [whole[y * size :, x * size :][:size, :size] for y in range(rows) for x in range(columns)]
    if thumbnail and len(tiles) > 1:
        tiles.append(np.asarray(image.resize((size, size), BICUBIC)))
    return (columns, rows), np.stack(tiles)


def _rgb(image: Image.Image, rule: str) -> Image.Image:
    clear = image.info.get("transparency")
    if rule == "hf" and ("A" in image.getbands() or clear is not None):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "RGBX":
        return Image.fromarray(np.asarray(image)[..., :3].copy())
    return (
        image.convert("RGBA").convert("RGB") if image.mode == "P" and isinstance(clear, bytes) else image.convert("RGB")
    )


@functools.lru_cache(maxsize=512)
def _grids(low: int, high: int, rule: str) -> list[tuple[int, int]]:
    if rule == "hf":
        found = [(i, j) for i in range(1, high + 1) for j in range(1, high + 1) if low <= i * j <= high]
    else:  # the published code goes through a set, whose order it keeps where products are equal
        pairs = ((i, j) for n in range(low, high + 1) for i in range(1, n + 1) for j in range(1, n + 1))
        found = list({(i, j) for i, j in pairs if low <= i * j <= high})
    return sorted(found, key=lambda grid: grid[0] * grid[1])


def grid_of(width: int, height: int, size: int, low: int, high: int, rule: str) -> tuple[int, int]:
    """The published search. Its loops grow with the cube of ``high``: for 64 and less."""
    best, gap = (1, 1), float("inf")
    for i, j in _grids(low, high, rule):
        distance = abs(width / height - i / j)
        if distance < gap or (distance == gap and width * height > 0.5 * size * size * i * j):
            best, gap = (i, j), distance
    return best


def picture(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a gradient, in a mode."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width, dtype=np.int64)[None, :, None] + rng.integers(0, 56, (height, width, 4))
    pixels = ramp.astype(np.uint8)
    if mode in ("I", "F", "I;16", "I;16B"):
        wide = pixels[..., 0].astype(np.int64) * 257
        if mode == "I;16B":
            return Image.frombytes(mode, (width, height), wide.astype(">u2").tobytes())
        return Image.fromarray(wide.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    if mode == "PA":
        return Image.fromarray(pixels[..., :2].copy(), "LA").convert("PA")
    if mode == "HSV":
        return Image.fromarray(pixels[..., :3].copy()).convert("HSV")
    bands = {"LA": 2, "La": 2, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4}.get(mode, 3 if len(mode) > 2 else 1)
    if mode in ("La", "RGBa", "RGBX", "LAB", "YCbCr", "LA"):
        return Image.frombytes(mode, (width, height), pixels[..., :bands].tobytes())
    image = Image.fromarray(pixels[..., 0].copy() if bands == 1 else pixels[..., :bands].copy())
    return image.convert(mode)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@functools.lru_cache(maxsize=1)
def files() -> dict[str, bytes]:
    """Small files of every format that the family's pictures come in, and of Pillow's odder ones."""
    found: dict[str, bytes] = {}

    def add(name: str, mode: str, kind: str, width: int = 37, height: int = 23, **options: Any) -> None:
        try:
            found[name] = _encoded(picture(mode, width, height, len(found)), kind, **options)
        except (KeyError, OSError, ValueError):  # a format that this Pillow does not write
            return

    turned = Image.Exif()
    turned[0x0112] = 6
    clear = {"transparency": bytes(range(0, 256, 8))}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"):
        add(f"png {mode}", mode, "PNG", compress_level=1)
    add("png palette with alpha", "P", "PNG", **clear)
    add("png one colour clear", "RGB", "PNG", transparency=(3, 4, 5))
    add("png exif", "RGB", "PNG", exif=turned)
    more = [picture("RGB", 37, 23, seed) for seed in (50, 51)]
    add("apng", "RGB", "PNG", save_all=True, append_images=more)
    for mode in ("L", "RGB", "CMYK"):
        add(f"jpeg {mode}", mode, "JPEG")
    add("jpeg progressive", "RGB", "JPEG", progressive=True, quality=30)
    add("jpeg 444", "RGB", "JPEG", subsampling=0, exif=turned, dpi=(72, 72), comment=b"x")
    add("webp", "RGB", "WEBP", quality=40)
    add("webp lossless", "RGBA", "WEBP", lossless=True)
    add("webp animated", "RGBA", "WEBP", save_all=True, append_images=more)
    add("gif", "P", "GIF")
    add("gif clear", "P", "GIF", transparency=3)
    add("gif animated", "P", "GIF", save_all=True, append_images=more)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        add(f"bmp {mode}", mode, "BMP")
    for form in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        add(f"tiff {form}", "RGB", "TIFF", compression=form)
    for mode in ("1", "L", "P", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "F", "LA"):
        add(f"tiff {mode}", mode, "TIFF")
    add("tiff pages", "RGB", "TIFF", save_all=True, append_images=more, exif=turned)
    for mode in ("1", "L", "RGB", "I", "F", "I;16"):
        add(f"ppm {mode}", mode, "PPM")
    for kind in (
        "ICO",
        "TGA",
        "PCX",
        "SGI",
        "DDS",
        "JPEG2000",
        "AVIF",
        "QOI",
        "MPO",
        "ICNS",
        "IM",
        "XBM",
        "MSP",
        "SPIDER",
    ):
        add(kind.lower(), {"XBM": "1", "MSP": "1", "SPIDER": "F"}.get(kind, "RGB"), kind)
    found["ppm of text"] = b"P3\n# c\n3 2\n255\n" + b" ".join(b"%d" % i for i in range(18))
    found["pbm of text"] = b"P1\n3 2\n1 0 1 0 1 0\n"
    found["pfm"] = b"PF\n2 1\n-1.0\n" + np.arange(6, dtype="<f4").tobytes()
    return found
