"""Pictures to tiles by the family's rule or transformers'."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ImageError, shown
from ..ops.image import RULES, choose_grid, tile_pixels
from .decode import MAX_PIXELS, MAX_TILES, ImageLike, array_rgb, bands_of, check_int, flatten, load, refuse_not_finite

MEAN_COLOUR = (123, 116, 103)  # int(255 * mean) of the family's ImageNet mean


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of one picture: ``pixels`` uint8 [T, size, size, 3], row by row, the thumbnail last."""

    pixels: np.ndarray
    grid: tuple[int, int]  # (columns, rows)
    thumbnail: bool

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, eq=False)
class Video:
    """Marks a list of frames as a video: one tile per frame, no thumbnail. A frame is anything ``tile_image`` takes."""

    frames: Sequence[ImageLike]

    def __post_init__(self) -> None:
        if not isinstance(self.frames, Sequence) and isinstance(self.frames, Iterator):
            object.__setattr__(self, "frames", list(self.frames))
        single = isinstance(self.frames, (str, bytes, os.PathLike, Image.Image, Mapping))
        if single or not hasattr(self.frames, "__len__") or not len(self.frames):
            raise ImageError("frames: allowed: a list of one frame or more (a video file is not decoded here)")


def tile_image(
    image: ImageLike,
    *,
    size: int = 448,
    min_tiles: int = 1,
    max_tiles: int = 12,
    thumbnail: bool = True,
    rule: str = "original",
    pad_to_square: bool = False,
    pad_colour: tuple[int, int, int] = MEAN_COLOUR,
    max_pixels: int | None = MAX_PIXELS,
    exif: bool = False,
    threads: int = 1,
    check_finite: bool = False,
) -> Tiles:
    """Cut a picture into tiles of ``size`` x ``size`` on the grid that fits its aspect ratio best, the thumbnail last.

    image: a path, the bytes of an image file, a PIL.Image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or
    [H, W, 4] (RGBA). Of an animation, the first frame (a PIL.Image: the frame it stands at).
    min_tiles, max_tiles: bounds of columns * rows. ``max_tiles=1`` squashes the picture into one tile. The thumbnail is
    left out where the grid has one tile.
    rule: "original" is bit-exact with the family's published code on the installed Pillow and drops alpha; "hf" follows
    transformers' image processor, which lays transparent pictures on white.
    pad_to_square: paste the picture into the middle of a square of pad_colour first. As published this concerns the
    single tile only: with max_tiles > 1 the tiles are square already, and nothing is padded.
    max_pixels: refuse larger pictures before they are decoded (None: no limit).
    exif: turn the picture as its EXIF orientation says. Neither rule does so by itself.
    threads: cap on the threads of the resize; results do not depend on it.
    check_finite: refuse a picture of float pixels (Pillow's mode F, as some TIFF files have) that holds NaN or Inf.
    Raises ImageError naming the argument, its value and what is allowed.
    """
    check_int("size", size, 1, 4096)
    check_int("min_tiles", min_tiles, 1, MAX_TILES)
    check_int("max_tiles", max_tiles, min_tiles, MAX_TILES)
    check_int("threads", threads, 0, 1024)
    flags = {"thumbnail": thumbnail, "pad_to_square": pad_to_square, "exif": exif, "check_finite": check_finite}
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise ImageError(f"{name}={shown(flag)}; allowed: True or False")
    _check_colour(pad_colour)
    source = load(image, max_pixels, exif)
    if check_finite:
        refuse_not_finite(source)
    bands = bands_of(source, check_rule(rule))
    if pad_to_square and max_tiles == 1:
        bands = [_padded(bands, pad_colour)]
    width, height = bands[0].shape[1], sum(len(band) for band in bands)
    grid = choose_grid(width, height, min_tiles=min_tiles, max_tiles=max_tiles, size=size, rule=rule)
    thumbnail = bool(thumbnail) and grid != (1, 1)
    return Tiles(tile_pixels(bands, grid, size, thumbnail=thumbnail, threads=threads), grid, thumbnail)


def _check_colour(colour: tuple[int, int, int]) -> None:
    whole = isinstance(colour, (tuple, list)) and len(colour) == 3
    if not whole or not all(type(c) is not bool and isinstance(c, (int, np.integer)) and 0 <= c <= 255 for c in colour):
        raise ImageError(f"pad_colour={shown(colour)}; allowed: three integers from 0 to 255")


def tile_video(video: Video, *, size: int = 448, **options: Any) -> list[Tiles]:
    """One ``Tiles`` of a single tile per frame. options: the rest of ``tile_image``'s, but grid and thumbnail."""
    return [tile_image(frame, size=size, max_tiles=1, thumbnail=False, **options) for frame in video.frames]


def open_image(
    image: ImageLike, *, rule: str = "original", max_pixels: int | None = MAX_PIXELS, exif: bool = False
) -> Image.Image:
    """The picture that ``tile_image`` would cut, decoded, as a PIL.Image of mode RGB. Arguments and errors as there."""
    source = load(image, max_pixels, exif)
    if isinstance(source, Image.Image):
        source = flatten(source, check_rule(rule))
        return source if source.mode == "RGB" else source.convert("RGB")
    return Image.fromarray(np.ascontiguousarray(array_rgb(source, check_rule(rule))))


def squash(
    image: ImageLike,
    height: int,
    width: int,
    *,
    rule: str = "original",
    max_pixels: int | None = MAX_PIXELS,
    check_finite: bool = False,
) -> Tiles:
    """The whole picture as a single tile of ``height`` x ``width`` pixels, by Pillow's bicubic filter; the aspect ratio is not
    kept. Arguments and errors as ``tile_image``.
    """
    check_int("height", height, 1, MAX_TILES)
    check_int("width", width, 1, MAX_TILES)
    if check_finite:
        refuse_not_finite(load(image, max_pixels, False))
    picture = open_image(image, rule=rule, max_pixels=max_pixels)
    pixels = np.array(picture.resize((width, height), Image.Resampling.BICUBIC))
    return Tiles(pixels[None], (1, 1), False)


def image_size(image: ImageLike, *, max_pixels: int | None = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of a picture from its header alone, as stored. Arguments and errors as ``tile_image``."""
    source = load(image, max_pixels, False, header_only=True)
    return source.size if isinstance(source, Image.Image) else (source.shape[1], source.shape[0])


def check_rule(rule: str) -> str:
    if not isinstance(rule, str) or rule not in RULES:
        raise ImageError(f"rule={shown(rule)}; allowed: {', '.join(RULES)}")
    return rule


def _padded(bands: list[np.ndarray], colour: tuple[int, int, int]) -> np.ndarray:
    width, height = bands[0].shape[1], sum(len(band) for band in bands)
    side = max(width, height)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = colour
    left, top = (side - width) // 2, (side - height) // 2
    for band in bands:
        square[top : top + len(band), left : left + width] = band
        top += len(band)
    return square


__all__ = ["MAX_PIXELS", "Tiles", "Video", "open_image", "squash", "tile_image", "tile_video"]
