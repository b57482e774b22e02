"""Pictures of numbers: 8x8 scans of handwritten digits, enlarged and set in a row, a column or a block of two rows.

Everything follows from the given ``numpy.random.Generator``, so a strip can be drawn again from its seed. The number is read
line by line: each line from left to right, lines from top to bottom (a column is a line per digit).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUTS = ("row", "column", "block")
MAX_DIGITS = 6
_RASTER = 60  # side of an enlarged scan, pixels: 10 cells (8 and a border) of 6
_INK = 64  # grey level from which a pixel of an enlarged scan counts as ink


@dataclass(frozen=True)
class Scans:
    """Scans of single digits.

    ``pixels`` uint8 ``[n, 8, 8]``, 0 (paper) to 16 (ink); ``labels`` and ``indices`` in the data set, int64 ``[n]``.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def rasters(self) -> list[list[Image.Image]]:
        """Every scan enlarged smoothly to 60x60, 0 (paper) to 255 (ink): the drawings that ``compose`` picks from."""
        padded = np.pad(self.pixels, ((0, 0), (1, 1), (1, 1))).astype(np.float32) * (255 / 16)
        grey = [Image.fromarray(np.round(scan).astype(np.uint8)) for scan in padded]
        return [[image.resize((_RASTER, _RASTER), Image.Resampling.BICUBIC)] for image in grey]

    def bend(self, rng: np.random.Generator, count: int) -> None:
        """Add ``count`` elastic distortions to every scan's drawings: for training, held-out scans stay as they are."""
        for drawings in self.rasters:
            drawings += [_bend(rng, drawings[0]) for _ in range(count)]


def held_out() -> Scans:
    """The scans that training has not seen, as shipped in the wheel."""
    with resources.files(__package__).joinpath("heldout.npz").open("rb") as file, np.load(file) as data:
        return Scans(data["pixels"], data["labels"].astype(np.int64), data["indices"].astype(np.int64))


@dataclass(frozen=True)
class Strip:
    """One picture and what is in it, in reading order."""

    image: Image.Image  # RGB
    text: str  # the digits
    scans: tuple[int, ...]  # rows of the ``Scans`` that were drawn
    boxes: NDArray[np.float64]  # [digits, 4] ink boxes: left, top, right, bottom in pixels
    layout: str


def compose(
    rng: np.random.Generator,
    scans: Scans,
    *,
    choice: Sequence[int] | None = None,
    layout: str | None = None,
    distort: float = 0.0,
    variety: float = 1.0,
) -> Strip:
    """Draw one strip.

    ``choice`` names the rows of ``scans`` to draw (default: one to six, any), ``layout`` one of ``LAYOUTS`` (default: any that
    suits the count). ``distort`` adds to the spread of slant, turn and stretch; training does. ``variety``
    scales how far colours and light stray from black ink on white paper.
    """
    if choice is None:
        choice = rng.integers(0, len(scans), size=rng.integers(1, MAX_DIGITS + 1)).tolist()
    if not 1 <= len(choice) <= MAX_DIGITS:
        raise ValueError(f"choice: {len(choice)} digits; allowed: 1 to {MAX_DIGITS}")
    if layout is None:
        layout = (
            str(rng.choice(LAYOUTS, p=(0.6, 0.2, 0.2)))
            if len(choice) > 3
            else str(rng.choice(LAYOUTS[:2], p=(0.75, 0.25)))
        )
    if layout not in LAYOUTS:
        raise ValueError(f"layout: {layout!r}; allowed: {', '.join(LAYOUTS)}")
    size = float(
        rng.uniform(36 if layout == "block" else 22, 72)
    )  # height of a digit, pixels: a block gets more than one tile
    stroke = rng.uniform(-0.5, 0.7)
    slant = rng.uniform(-0.12, 0.12)
    digits = [
        _draw_digit(rng, scans.rasters[i][rng.integers(len(scans.rasters[i]))], size, stroke, slant, distort)
        for i in choice
    ]
    ink, boxes = _arrange(rng, digits, _lines(len(choice), layout, rng), size)
    text = "".join(str(int(scans.labels[i])) for i in choice)
    return Strip(_colour(rng, ink, variety), text, tuple(int(i) for i in choice), boxes, layout)


def _lines(count: int, layout: str, rng: np.random.Generator) -> list[list[int]]:
    """Digit numbers of each line."""
    numbers = list(range(count))
    if layout == "column":
        return [[i] for i in numbers]
    if layout == "row" or count < 2:
        return [numbers]
    first = (count + int(rng.integers(0, 2))) // 2
    return [numbers[:first], numbers[first:]]


def _draw_digit(
    rng: np.random.Generator, raster: Image.Image, size: float, stroke: float, slant: float, distort: float
) -> NDArray[np.uint8]:
    """Ink of one digit, cut to its bounding box, 0 to 255."""
    # A linear ramp around half ink: its offset makes strokes thinner or fatter, its slope harder or softer.
    middle, slope = 112 - 24 * stroke, rng.uniform(1.0, 2.0)
    ramp = np.clip((np.arange(256) - middle) * slope + 128, 0, 255)
    ramp[:24] = 0
    raster = raster.point(np.round(ramp).astype(np.uint8).tolist())
    scale = _RASTER * 0.8 / (size * rng.uniform(0.85, 1.15))  # the scan's 8 cells become the digit's height
    angle = rng.normal(0, 0.05 + 0.04 * distort)
    stretch = np.exp(rng.normal(0, 0.06 + 0.06 * distort))
    shear = slant + rng.normal(0, 0.03 + 0.08 * distort)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1 / stretch, shear], [0, stretch]])
    side = int(np.ceil(_RASTER / scale * 1.5))
    offset = np.array([_RASTER / 2, _RASTER / 2]) - matrix @ np.array([side / 2, side / 2])
    if scale > 1.5:  # Image.transform samples points; shrink first so that none is skipped
        small = raster.reduce(2)
        matrix, offset = matrix / 2, offset / 2
    else:
        small = raster
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    drawn = np.asarray(small.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
    rows, columns = np.flatnonzero((drawn >= _INK).any(1)), np.flatnonzero((drawn >= _INK).any(0))
    if not len(rows):
        return drawn
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _bend(rng: np.random.Generator, raster: Image.Image) -> Image.Image:
    """Move the knots of a 3x3 net and draw each of its cells where its corners went."""
    cells, step = 3, _RASTER // 3
    knots = np.stack(np.meshgrid(np.arange(cells + 1), np.arange(cells + 1)), -1) * float(step)
    moves = rng.normal(0, 2.2, knots.shape)
    knots += moves
    mesh = []
    for r in range(cells):
        for c in range(cells):
            quad = (*knots[r, c], *knots[r + 1, c], *knots[r + 1, c + 1], *knots[r, c + 1])
            mesh.append(((c * step, r * step, (c + 1) * step, (r + 1) * step), quad))
    return raster.transform(raster.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _arrange(
    rng: np.random.Generator, digits: list[NDArray[np.uint8]], lines: list[list[int]], size: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Set the digits on one sheet: its ink 0 to 1 ``[H, W]`` and the digits' boxes."""
    gap = rng.uniform(0.10, 0.40) * size
    leading = rng.uniform(0.12, 0.40) * size
    left, right, top, bottom = rng.uniform(0.10, 0.45, 4) * size
    boxes = np.zeros((len(digits), 4))
    y = top
    for line in lines:
        x, height = left, max(digits[i].shape[0] for i in line)
        for i in line:
            h, w = digits[i].shape
            shift = rng.uniform(0, 0.12) * size
            boxes[i] = x, y + (height - h) / 2 + shift, 0, 0
            x += w + gap * rng.uniform(0.7, 1.3)
        y += height + 0.12 * size + leading
    boxes[:, :2] = np.round(boxes[:, :2])
    boxes[:, 2:] = boxes[:, :2] + [(d.shape[1], d.shape[0]) for d in digits]
    if len(lines) > 1:  # lines of different widths: set each flush left, centred or right
        align, widest = rng.choice((0.0, 0.5, 0.5, 1.0)), boxes[:, 2].max()
        for line in lines:
            boxes[line, ::2] += np.round(align * (widest - boxes[line, 2].max()))
    sheet = np.zeros((int(boxes[:, 3].max() + bottom + 1), int(boxes[:, 2].max() + right + 1)), np.uint8)
    for digit, (x0, y0, x1, y1) in zip(digits, boxes.astype(int)):
        part = sheet[y0:y1, x0:x1]
        np.maximum(part, digit, out=part)
    return sheet.astype(np.float32) / np.float32(255), boxes


def _colour(rng: np.random.Generator, ink: NDArray[np.float32], variety: float) -> Image.Image:
    """Dark pen on light paper, slightly tinted, with uneven light and grain."""
    dark, light = variety * rng.uniform(0, 90), 255 - variety * rng.uniform(0, 90)
    colours = np.float32(np.array([[light], [dark]]) + variety * rng.normal(0, 9, (2, 3)))
    height, width = ink.shape
    slope = np.float32(variety * rng.normal(0, 12, 2))
    light_field = slope[0] * np.linspace(-1, 1, width, dtype=np.float32)
    light_field = light_field + slope[1] * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light_field += rng.standard_normal(ink.shape, np.float32) * np.float32(variety * rng.uniform(0, 8))
    picture = colours[0] + ink[..., None] * (colours[1] - colours[0]) + light_field[..., None]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
