"""Pixels in memory, and the arguments of tile_image: PIL pictures of every mode, arrays and tensors of any shape, dtype and stride."""

from __future__ import annotations

import array
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

import internvl_kernels as ivk
from fuzz.pictures import MODES, RefusedError, files, picture, tiles_by_pillow
from fuzz.values import Rng, anything

ERRORS = (ivk.ImageError,)
WEIGHT = 12
_DTYPES = (
    "u1",
    "u1",
    "u1",
    "i1",
    "u2",
    ">u2",
    "i4",
    "i8",
    "f2",
    "f4",
    "f8",
    "g",
    "?",
    "c8",
    "O",
    "U3",
    "S2",
    "V4",
    "M8[s]",
    [("r", "u1")],
)
_DEFAULTS: dict[str, Any] = {
    "size": 448, "min_tiles": 1, "max_tiles": 12, "thumbnail": True, "rule": "original", "exif": False, "pad_to_square": False,
    "pad_colour": (123, 116, 103), "max_pixels": 89478485, "threads": 1, "check_finite": False,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    label: str
    image: Any
    plain: Image.Image | None  # the same picture as Pillow has it; None: nothing that tile_image takes
    options: dict[str, Any]
    strange: frozenset[str]  # options of no plain value


def case(rng: Rng) -> Case:
    kind = rng.randrange(12)
    if kind < 5:
        label, image, plain = _array(rng)
    elif kind < 9:
        label, image, plain = _pil(rng)
    elif kind < 11:
        image = plain = picture("RGB", rng.choice((1, 30, 70)), rng.choice((1, 9, 40)))
        label = "a plain picture"
    else:
        image, label = anything(rng), "anything"
        plain = _as_picture(image) if type(image) is np.ndarray else None
    options: dict[str, Any] = {"size": rng.choice((1, 14, 28)), "max_tiles": rng.choice((1, 2, 6, 12, 30))}
    options["min_tiles"] = rng.choice((1, 1, 2, options["max_tiles"]))
    options["min_tiles"] = min(options["min_tiles"], options["max_tiles"])
    options |= {
        "thumbnail": rng.random() < 0.7,
        "rule": rng.choice(("original", "hf")),
        "threads": rng.choice((0, 1, 2, 3)),
    }
    if rng.random() < 0.3:
        options |= {"pad_to_square": True, "pad_colour": tuple(rng.randrange(256) for _ in range(3))}
    strange = set()
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        name = rng.choice(list(_DEFAULTS))
        options[name] = anything(rng)
        strange.add(name)
    return Case(label, image, plain, options, frozenset(strange))


def _as_picture(pixels: np.ndarray) -> Image.Image | None:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
        return None
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        return None
    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    return Image.fromarray(pixels)


def _array(rng: Rng) -> tuple[str, Any, Image.Image | None]:
    """An array or tensor, through views of every kind."""
    dims = rng.choice((2, 3, 3, 3, 3, 0, 1, 4))
    shape = [rng.choice((0, 1, 2, 5, 17, 40, 64)) for _ in range(dims)]
    if dims == 3:
        shape[2] = rng.choice((1, 2, 3, 3, 3, 4, 4, 0, 5))
    dtype = rng.choice(_DTYPES) if rng.random() < 0.4 else "u1"
    numbers = np.frombuffer(rng.randbytes(int(np.prod(shape, dtype=int)) or 1), np.uint8)[
        : int(np.prod(shape, dtype=int))
    ].reshape(shape)
    pixels: Any = (
        numbers
        if dtype == "u1"
        else numbers.astype(np.uint8).astype("i8").astype(dtype)
        if dtype not in ("V4", "M8[s]") and not isinstance(dtype, list)
        else np.zeros(shape, dtype)
    )
    label = f"{dtype} {shape}"
    for _ in range(rng.choice((0, 1, 1, 2))):
        view = rng.randrange(9)
        if view == 0 and dims:
            pixels = pixels[:: rng.choice((-1, 2, -3))]
        elif view == 1 and dims > 1:
            pixels = pixels[:, :: rng.choice((-1, 2, -2))]
        elif view == 2:
            pixels = np.asfortranarray(pixels)
        elif view == 3 and dims > 1:
            pixels = pixels.swapaxes(0, 1)
        elif view == 4 and dims == 3:
            pixels = pixels[..., ::-1]
        elif view == 5 and dims > 1 and min(pixels.shape):
            at = rng.randrange(2)
            pixels = np.broadcast_to(pixels.take([0], axis=at), pixels.shape)
        elif view == 6 and dims == 3 and pixels.shape[2] == 4:
            pixels = pixels[..., : rng.choice((1, 3))] if rng.random() < 0.7 else pixels[..., 1:]
        elif view == 7:
            pixels = pixels.copy()
            pixels.flags.writeable = False
        elif view == 8 and pixels.size and not isinstance(dtype, list):
            raw = np.empty(pixels.nbytes + 1, np.uint8)[1:]
            away = np.ndarray(pixels.shape, pixels.dtype, raw.data) if pixels.dtype != object else pixels.copy()
            away[...] = pixels
            pixels = away
        label += f" view {view}"
    plain = _as_picture(pixels) if type(pixels) is np.ndarray else None
    wrap = rng.randrange(12)
    if wrap == 0:
        return label + " masked", np.ma.masked_array(pixels, mask=rng.random() < 0.5), None
    if wrap in (1, 2, 3, 4):
        try:
            tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        except (TypeError, ValueError):
            return label, pixels, plain
        return _tensor(rng, label, tensor, plain)
    if wrap == 5 and dims == 2:
        return label + " matrix", pixels.view(np.matrix) if pixels.ndim == 2 else pixels, plain
    if wrap == 6:
        return (
            label + " memoryview",
            rng.choice((memoryview(pixels.tobytes()), array.array("B", b"abc"), pixels.tolist())),
            None,
        )
    return label, pixels, plain


def _tensor(
    rng: Rng, label: str, tensor: torch.Tensor, plain: Image.Image | None
) -> tuple[str, Any, Image.Image | None]:
    odd = rng.randrange(9)
    if odd == 0:
        return label + " meta", tensor.to("meta"), None
    if odd == 1 and tensor.ndim and tensor.dtype == torch.uint8:
        return label + " sparse", tensor.to_sparse(), None
    if odd == 2 and tensor.numel():
        gone = tensor.clone()
        gone.untyped_storage().resize_(0)
        return label + " given back", gone, None
    if odd == 3:
        return (
            label + " bfloat16",
            tensor.real.to(torch.bfloat16) if tensor.is_complex() else tensor.to(torch.bfloat16),
            None,
        )
    if odd == 4 and tensor.is_floating_point():
        return label + " pending", torch._neg_view(tensor).requires_grad_(), None
    return label + " tensor", tensor, plain


def _pil(rng: Rng) -> tuple[str, Any, Image.Image | None]:
    mode = rng.choice(MODES)
    image = picture(mode, rng.choice((1, 2, 37, 90)), rng.choice((1, 3, 23, 64)), rng.randrange(4))
    kind = rng.randrange(10)
    label = f"{mode} {image.size} kind {kind}"
    if kind == 0 and mode in ("RGB", "RGBA", "L", "CMYK", "F"):
        image = Image.frombuffer(mode, image.size, image.tobytes(), "raw", mode, 0, 1)
    elif kind == 1:
        image = Image.open(
            io.BytesIO(
                files()[rng.choice(("png RGBA", "jpeg CMYK", "gif animated", "webp lossless", "tiff raw", "apng"))]
            )
        )
        label = f"a lazy {image.format}"
    elif kind == 2:
        image.info["transparency"] = rng.choice(
            (0, 3, 300, -1, (1, 2, 3), (1, 2), b"", b"\0\1", bytes(256), "a", None, 1.5)
        )
    elif kind == 3:
        image.info["exif"] = rng.choice(
            (b"", b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", "x", 5)
        )
    elif kind == 4:
        image = image.crop((0, 0, rng.choice((0, 5, 200)), rng.choice((0, 5, 100))))
    elif kind == 5:
        image = Image.new(mode, rng.choice(((0, 0), (0, 5), (5, 0))))
    elif kind == 6:
        image.close()
    elif kind == 7 and mode == "P":
        image.palette = rng.choice((None, Image.new("P", (1, 1)).palette))
    try:
        plain: Image.Image | None = image.copy()
    except Exception:  # closed, or of a damaged palette
        plain = None
    return label, image, plain


def check(given: Case) -> None:
    options = {**_DEFAULTS, **given.options}
    judged: dict[str, Any] = {
        k: options[k]
        for k in ("size", "min_tiles", "max_tiles", "thumbnail", "rule", "exif", "pad_to_square", "pad_colour")
    }
    try:
        tiles = ivk.tile_image(given.image, **given.options)
    except ivk.ImageError as error:
        if not given.strange and given.plain is not None:
            try:
                tiles_by_pillow(given.plain, **judged)
            except (RefusedError, ValueError, MemoryError):  # Pillow makes nothing of it either
                raise error from None
            raise AssertionError(f"Pillow makes tiles of it, here: {error}") from None
        raise
    if given.strange & {"max_tiles", "min_tiles"} and options["max_tiles"] > 64:
        assert options["min_tiles"] <= tiles.grid[0] * tiles.grid[1] <= options["max_tiles"]
        return
    assert given.plain is not None, "tiles of nothing that was a picture"
    grid, pixels = tiles_by_pillow(given.plain, **judged)
    assert tiles.grid == grid
    np.testing.assert_array_equal(tiles.pixels, pixels)


def show(given: Case) -> str:
    return f"{given.label}: {given.image!r}, {given.options}"
