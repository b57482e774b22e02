"""Pictures in, tiles out: what is accepted, how it becomes RGB, and the two tiling rules."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import PIL
from PIL import Image, ImageOps

from ..errors import ImageError
from ..ops._backend import cpu, is_torch, unavailable
from ..ops.image import RULES, choose_grid, tile_pixels

if TYPE_CHECKING:
    ImageLike = Union[str, os.PathLike[str], bytes, Image.Image, np.ndarray, Any]

MAX_PIXELS = 1024**3 // 4 // 3  # Pillow's own warning level: a quarter GiB of RGB
MEAN_COLOUR = (123, 116, 103)  # int(255 * mean) of the family's ImageNet mean
ALLOWED = "a path, the bytes of an image file, a PIL.Image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
_pillow_limit = threading.Lock()


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
        if isinstance(self.frames, (str, bytes, os.PathLike, Image.Image)) or not len(self.frames):
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
) -> Tiles:
    """Cut a picture into ``size`` x ``size`` tiles on the grid that fits its aspect ratio best, the thumbnail last.

    image: a path, the bytes of an image file, a PIL.Image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (RGBA).
    Of an animation, the first frame (a PIL.Image: the frame it stands at).
    min_tiles, max_tiles: bounds of columns * rows. ``max_tiles=1`` squashes the picture into one tile. The thumbnail is left
    out where the grid has one tile.
    rule: "original" is bit-exact with the family's published code on the installed Pillow and drops alpha; "hf" follows
    transformers' image processor, which lays transparent pictures on white.
    pad_to_square: paste the picture into the middle of a square of pad_colour first. As published this concerns the single
    tile only: with max_tiles > 1 the tiles are square already, and nothing is padded.
    max_pixels: refuse larger pictures before they are decoded (None: no limit).
    exif: turn the picture as its EXIF orientation says. Neither rule does so by itself.
    threads: cap on the threads of the resize; results do not depend on it.
    Raises ImageError naming the argument, its value and what is allowed.
    """
    _check_int("size", size, 1)
    _check_int("min_tiles", min_tiles, 1)
    _check_int("max_tiles", max_tiles, min_tiles)
    _check_int("threads", threads, 0)
    bands = _bands(_load(image, max_pixels, exif), _check_rule(rule))
    if pad_to_square and max_tiles == 1:
        bands = [_padded(bands, pad_colour)]
    width, height = bands[0].shape[1], sum(len(band) for band in bands)
    grid = choose_grid(width, height, min_tiles=min_tiles, max_tiles=max_tiles, size=size, rule=rule)
    thumbnail = bool(thumbnail) and grid != (1, 1)
    return Tiles(tile_pixels(bands, grid, size, thumbnail=thumbnail, threads=threads), grid, thumbnail)


def tile_video(video: Video, *, size: int = 448, **options: Any) -> list[Tiles]:
    """One ``Tiles`` of a single tile per frame; options: rule, pad_to_square, max_pixels, exif, threads of ``tile_image``."""
    return [tile_image(frame, size=size, max_tiles=1, thumbnail=False, **options) for frame in video.frames]


def open_image(
    image: ImageLike, *, rule: str = "original", max_pixels: int | None = MAX_PIXELS, exif: bool = False
) -> Image.Image:
    """The picture that ``tile_image`` would cut, decoded, as a PIL.Image of mode RGB. Arguments and errors as there."""
    source = _load(image, max_pixels, exif)
    if isinstance(source, Image.Image):
        source = _flatten(source, _check_rule(rule))
        return source if source.mode == "RGB" else source.convert("RGB")
    return Image.fromarray(np.ascontiguousarray(_array_rgb(source, _check_rule(rule))))


def _check_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ImageError(f"{name}={value!r}; allowed: an integer of {least} or more")


def _check_rule(rule: str) -> str:
    if rule not in RULES:
        raise ImageError(f"rule={rule!r}; allowed: {', '.join(RULES)}")
    return rule


def _check_size(what: str, width: int, height: int, max_pixels: int | None) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{what}: {width} x {height} pixels; allowed: 1 x 1 and more")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{what}: {width} x {height} = {width * height} pixels; allowed: at most max_pixels={max_pixels} (pass more if you trust it)"
        )


def _load(image: ImageLike, max_pixels: int | None, exif: bool) -> Image.Image | np.ndarray:
    """A decoded PIL.Image in its own mode, or a checked uint8 array."""
    if max_pixels is not None:
        _check_int("max_pixels", max_pixels, 1)
    if isinstance(image, Image.Image):
        what = f"image (a PIL.Image of mode {image.mode})"
        _check_size(what, *image.size, max_pixels)
        return _decode(image, what, exif)
    if isinstance(image, (str, os.PathLike)):
        what = f"image {os.fspath(image)!r}"
        if os.path.isdir(image):
            raise ImageError(f"{what}: a directory; allowed: an image file")
        if not os.path.exists(image):
            raise ImageError(f"{what}: no such file; allowed: {ALLOWED}")
        return _open_file(image, what, max_pixels, exif)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _open_file(io.BytesIO(image), f"image ({len(image)} bytes)", max_pixels, exif)
    if is_torch(image):
        if image.device.type != "cpu":
            raise ImageError(f"image: a tensor on {image.device}; allowed: {ALLOWED}")
        image = image.detach().numpy()
    if isinstance(image, np.ndarray):
        what = f"image (an array {image.dtype}{list(image.shape)})"
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
            raise ImageError(f"{what}; allowed: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]")
        _check_size(what, image.shape[1], image.shape[0], max_pixels)
        return image
    raise ImageError(f"image: a {type(image).__name__}; allowed: {ALLOWED}")


def _open_file(file: Any, what: str, max_pixels: int | None, exif: bool) -> Image.Image:
    try:
        with _pillow_may_open(max_pixels):
            opened = Image.open(file)
    except PIL.UnidentifiedImageError:
        raise ImageError(f"{what}: not an image that Pillow knows; allowed: {ALLOWED}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{what}: {_reason(error)}; allowed: at most max_pixels={max_pixels}") from None
    except Exception as error:  # decoders raise almost anything on broken files
        raise ImageError(f"{what}: cannot be opened: {_reason(error)}") from None
    with opened:
        _check_size(what, *opened.size, max_pixels)
        return _decode(opened, what, exif)


def _decode(image: Image.Image, what: str, exif: bool) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image) if exif else image
    except Exception as error:
        raise ImageError(f"{what}: cannot be decoded (truncated or damaged?): {_reason(error)}") from None


@contextmanager
def _pillow_may_open(max_pixels: int | None) -> Iterator[None]:
    """Lifts Pillow's own limit while a header is read, if the caller's is higher. Pillow has only a global for it."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or (max_pixels is not None and max_pixels <= limit):
        yield
        return
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(error: BaseException) -> str:
    return re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the data", str(error)) or type(error).__name__


def _flatten(image: Image.Image, rule: str) -> Image.Image:
    """RGB in Pillow's four bytes per pixel. The mode may stay RGBA where the rule drops alpha: same bytes, no copy."""
    transparency = image.info.get("transparency")
    try:
        if rule == "hf" and ("A" in image.getbands() or transparency is not None):
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
        if image.mode in ("RGB", "RGBA", "RGBX"):
            return image
        # Pillow warns when it converts such a palette straight to RGB; the colours are the same.
        return image.convert("RGBA" if image.mode == "P" and isinstance(transparency, bytes) else "RGB")
    except Exception as error:
        raise ImageError(f"image: mode {image.mode} does not become RGB: {_reason(error)}") from None


def _array_rgb(array: np.ndarray, rule: str) -> np.ndarray:
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4 and rule == "hf":
        alpha = array[..., 3:] / 255
        return np.round(alpha * array[..., :3] + (1 - alpha) * 255).astype(np.uint8)
    array = array[..., :3]
    tight = array.strides[2] == 1 and array.strides[1] in (3, 4) and (array.shape[0] == 1 or array.strides[0] != 0)
    return array if tight else np.ascontiguousarray(array)


def _bands(source: Image.Image | np.ndarray, rule: str) -> list[np.ndarray]:
    """The picture as arrays [h, W, 3] from top to bottom, views of Pillow's memory where it can be had."""
    if isinstance(source, np.ndarray):
        return [_array_rgb(source, rule)]
    image = _flatten(source, rule)
    width, height = image.size
    if hasattr(image, "__arrow_c_array__") and unavailable("cpu") is None:
        # Pillow exports what lies in one block. A large picture spans several: cut it, which copies rows once.
        core = Image.core
        block = core.get_block_size() if hasattr(core, "get_block_size") else 1 << 24
        step = max(1, (block - 64) // (4 * width))
        bands = []
        try:
            bands = [_view(image)]
        except ValueError:
            try:
                bands = [_view(image.crop((0, top, width, min(top + step, height)))) for top in range(0, height, step)]
            except ValueError:
                bands = []
        if bands and all(band is not None for band in bands):
            return [band[..., :3] for band in bands if band is not None]
    return [np.asarray(image)[..., :3]]


def _view(image: Image.Image) -> np.ndarray | None:
    return cpu().arrow_pixels(image, image.height, image.width)


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


__all__ = ["MAX_PIXELS", "Tiles", "Video", "open_image", "tile_image", "tile_video"]
