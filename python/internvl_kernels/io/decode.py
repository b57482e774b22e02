"""What is accepted as a picture, how it is decoded within a pixel limit, how it becomes RGB rows for the kernel."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import PIL
from PIL import Image, ImageOps

from .._lazy import torch
from ..errors import ImageError, shown
from ..ops._backend import cpu, is_torch, unavailable
from ..ops._device import DeviceArray
from ..ops.image import MAX_TILES

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Any"

MAX_PIXELS = 1024**3 // 4 // 3  # Pillow's own warning level: a quarter GiB of RGB
MAX_SIDE = 1 << 24  # beyond it positions are not exact in the float32 that Pillow's resize keeps them in
ALLOWED = "a path, the bytes of an image file, a PIL.Image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
ON_GPU = "on a GPU ops.tile_pixels cuts uint8 [H, W, 3]; decoding, alpha, padding and rule 'hf' are the host's"
_pillow_limit = threading.Lock()


def check_int(name: str, value: Any, least: int, most: int | None = None) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        bound = f"{least} or more" if most is None else f"{least} to {most}"
        raise ImageError(f"{name}={shown(value)}; allowed: an integer of {bound}")


def _check_size(what: str, width: int, height: int, max_pixels: int | None) -> None:
    if min(width, height) < 1 or max(width, height) > MAX_SIDE:
        raise ImageError(f"{what}: {width} x {height} pixels; allowed: 1 to {MAX_SIDE} a side")
    if max_pixels is not None and width * height > max_pixels:
        size = f"{width} x {height} = {width * height} pixels"
        raise ImageError(f"{what}: {size}; allowed: at most max_pixels={max_pixels} (pass more if you trust it)")


def load(
    image: ImageLike, max_pixels: int | None, exif: bool, *, header_only: bool = False
) -> Image.Image | np.ndarray:
    """A decoded PIL.Image in its own mode (header_only: not decoded, only its size counts), or a checked uint8 array."""
    if max_pixels is not None:
        check_int("max_pixels", max_pixels, 1)
    if isinstance(image, Image.Image):
        what = f"image (a PIL.Image of mode {image.mode})"
        _check_size(what, *image.size, max_pixels)
        return image if header_only else _decode(image, what, exif)
    if isinstance(image, (str, os.PathLike)):
        what = f"image {os.fspath(image)!r}"
        if os.path.isdir(image):
            raise ImageError(f"{what}: a directory; allowed: an image file")
        if not os.path.exists(image):
            raise ImageError(f"{what}: no such file; allowed: {ALLOWED}")
        return _open_file(image, what, max_pixels, exif, header_only)
    if isinstance(image, memoryview):
        image = image.tobytes()  # its bytes may lie apart
    if isinstance(image, (bytes, bytearray)):
        return _open_file(io.BytesIO(image), f"image ({len(image)} bytes)", max_pixels, exif, header_only)
    tensor: Any = image
    if is_torch(image) and isinstance(image, torch.Tensor):
        if tensor.device.type != "cpu":
            why = f" ({ON_GPU})" if tensor.is_cuda else ""
            raise ImageError(f"image: a tensor on {tensor.device}; allowed: {ALLOWED}{why}")
        try:
            if tensor.numel() and not tensor.untyped_storage().nbytes():
                raise RuntimeError("its memory was given back")
            image = tensor.detach().numpy()
        except (RuntimeError, TypeError) as error:  # sparse, nested, quantised, bfloat16 ...
            raise ImageError(
                f"image: a tensor of {tensor.dtype}, {tensor.layout}: {error}; allowed: {ALLOWED}"
            ) from error
    if isinstance(image, np.ndarray) and not isinstance(image, np.ma.MaskedArray):  # nobody would see the mask
        image = np.asarray(image)
        what = f"image (an array {image.dtype}{list(image.shape)})"
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
            raise ImageError(f"{what}; allowed: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]")
        _check_size(what, image.shape[1], image.shape[0], max_pixels)
        return image
    why = f" ({ON_GPU})" if isinstance(image, DeviceArray) else ""
    raise ImageError(f"image: a {type(image).__name__}; allowed: {ALLOWED}{why}")


def _open_file(file: Any, what: str, max_pixels: int | None, exif: bool, header_only: bool) -> Image.Image:
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
        return opened if header_only else _decode(opened, what, exif)


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


def refuse_not_finite(source: Image.Image | np.ndarray) -> None:
    """Raises ImageError naming the first NaN or Inf. Only Pillow's mode F holds such pixels; arrays are uint8."""
    if isinstance(source, np.ndarray) or source.mode != "F":
        return
    pixels = np.asarray(source)
    bad = ~np.isfinite(pixels)
    if bad.any():
        row, column = np.unravel_index(int(bad.argmax()), bad.shape)
        raise ImageError(
            f"image: {pixels[row, column]} at row {row}, column {column} of a float picture; allowed with check_finite=True: "
            "finite values"
        )


def flatten(image: Image.Image, rule: str) -> Image.Image:
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


def array_rgb(array: np.ndarray, rule: str) -> np.ndarray:
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4 and rule == "hf":
        alpha = array[..., 3:] / 255
        return np.round(alpha * array[..., :3] + (1 - alpha) * 255).astype(np.uint8, order="C")
    array = array[..., :3]
    tight = array.strides[2] == 1 and array.strides[1] in (3, 4) and (array.shape[0] == 1 or array.strides[0] != 0)
    return array if tight else np.ascontiguousarray(array)


def bands_of(source: Image.Image | np.ndarray, rule: str) -> list[np.ndarray]:
    """The picture as arrays [h, W, 3] from top to bottom, views of Pillow's memory where it can be had."""
    if isinstance(source, np.ndarray):
        return [array_rgb(source, rule)]
    image = flatten(source, rule)
    width, height = image.size
    if hasattr(image, "__arrow_c_array__") and unavailable("cpu") is None:
        # Pillow before 13 crashes when it exports pixels that it borrowed (a mapped file, somebody's buffer): readonly.
        bands = None if image.readonly else _views([image])
        if bands is None:
            # Pillow exports what lies in one block. A large picture spans several: cut it, which copies rows once.
            block = Image.core.get_block_size() if hasattr(Image.core, "get_block_size") else 1 << 24
            most = min(
                (block - 64) // 4, Image.MAX_IMAGE_PIXELS or block
            )  # pixels in a block that crop does not warn of
            step = max(1, most // width)
            bands = _views(image.crop((0, top, width, min(top + step, height))) for top in range(0, height, step))
        if bands is not None:
            return bands
    return [np.asarray(image)[..., :3]]


def _views(parts: Iterable[Image.Image]) -> list[np.ndarray] | None:
    """Pillow's own pixels of each part, or None where it does not give them away."""
    views = []
    try:
        for part in parts:
            views.append(cpu().arrow_pixels(part, part.height, part.width))
    except (ValueError, Image.DecompressionBombError):  # not in one block; rows longer than Pillow's pixel limit
        return None
    return None if any(view is None for view in views) else [view[..., :3] for view in views]


__all__ = [
    "ALLOWED",
    "MAX_PIXELS",
    "MAX_TILES",
    "ImageLike",
    "array_rgb",
    "bands_of",
    "check_int",
    "flatten",
    "load",
    "refuse_not_finite",
]
