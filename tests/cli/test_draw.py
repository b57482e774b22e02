"""Pictures of tile grids, on paper and in characters."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from internvl_kernels import tile_image
from internvl_kernels.io.draw import draw_tiles, grid_text, image_text

LINE = (255, 196, 0)


@pytest.mark.parametrize(
    ("size", "grid"), [((300, 100), (3, 1)), ((90, 400), (1, 4)), ((64, 64), (1, 1)), ((1200, 100), (12, 1))]
)
def test_lines_stand_where_the_tiles_meet(size: tuple[int, int], grid: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 120, 200))
    tiles = tile_image(image, size=28, min_tiles=grid[0] * grid[1], max_tiles=grid[0] * grid[1])
    assert tiles.grid == grid
    drawn = np.asarray(draw_tiles(image, tiles))
    height, width = (round(side * 1024 / max(size)) for side in reversed(size))
    middle = drawn[24 + height * 3 // 4 // grid[1], 24 : 24 + width]  # a row of pixels inside the first row of tiles
    found = np.flatnonzero((middle == LINE).all(-1))
    expected = [round(c * (width - 1) / grid[0]) for c in range(grid[0] + 1)]
    assert all(min(abs(found - x)) <= 1 for x in expected)
    assert all(min(abs(x - e) for e in expected) <= 2 for x in found)
    assert (middle[width // 2 // grid[0]] == (10, 120, 200)).all()


def test_thumbnail_is_the_last_tile() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8))
    tiles = tile_image(image, size=320)
    assert tiles.thumbnail
    drawn = draw_tiles(image, tiles)
    side = 320
    box = (1024 + 48, 24, 1024 + 48 + side, 24 + side)
    shown = np.asarray(drawn.crop(box))
    assert drawn.width == box[2] + 24
    assert np.array_equal(shown[40:-4, 4:-4], tiles.pixels[-1][40:-4, 4:-4])  # its frame and number aside


def test_grid_in_characters() -> None:
    assert grid_text((2, 2), thumbnail=True).splitlines() == [
        "┌──────┬──────┐   ┌──────┐",
        "│  1   │  2   │   │  5   │",
        "├──────┼──────┤   └──────┘ thumbnail",
        "│  3   │  4   │",
        "└──────┴──────┘",
    ]
    assert grid_text((1, 1), thumbnail=False).splitlines() == ["┌──────┐", "│  1   │", "└──────┘"]
    lines = grid_text((40, 1), thumbnail=False).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split("│")[1:-1] == [str(n).center(3) for n in range(1, 41)]


def test_image_in_characters() -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    image.paste((0, 0, 255), (0, 1, 4, 2))  # the second row
    text = image_text(image, columns=4, rows=2)
    assert text.plain == "▀▀▀▀\n▀▀▀▀\n"
    assert str(text.spans[0].style) == "rgb(255,0,0) on rgb(0,0,255)"
    assert image_text(Image.new("RGB", (1, 1)), 3, 3).plain.count("\n") >= 1
