"""The tiling kernel against Pillow, bit for bit, on every instruction set; the grid against an oracle of its own."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from internvl_kernels import UnsupportedError, _cpu
from internvl_kernels.ops.image import choose_grid, pillow_tall_first, tile_pixels, tile_pixels_reference

BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture(params=_cpu.available_isas())
def isa(request):
    before = _cpu.current_isa()
    _cpu.set_isa(request.param)
    yield request.param
    _cpu.set_isa(before)


def noise(width, height, seed=0, extremes=False):
    rng = np.random.default_rng(seed)
    if extremes:  # only black and white: the filter's overshoot clips at both ends
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def four_bytes(pixels):
    """The same picture with pixels four bytes apart and something else in the fourth."""
    wide = np.full((*pixels.shape[:2], 4), 171, np.uint8)
    wide[..., :3] = pixels
    return wide[..., :3]


def check(pixels, grid, size, thumbnail, threads=1):
    got = tile_pixels(pixels, grid, size, thumbnail=thumbnail, threads=threads, backend="cpu")
    want = tile_pixels_reference(np.ascontiguousarray(pixels), grid, size, thumbnail=thumbnail)
    np.testing.assert_array_equal(got, want)


# width, height: one pixel, odd, identity, just and far above and below, lines, more than one strip of 16 rows.
SIZES = [
    (1, 1), (2, 1), (1, 2), (3, 5), (7, 16), (8, 17), (9, 33), (64, 64), (63, 65), (65, 63), (128, 64), (129, 191),
    (447, 449), (1, 1000), (1000, 1), (5, 1201), (1201, 5), (640, 480), (480, 640), (31, 900), (900, 31),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, four_bytes])
def test_sizes_equal_pillow(isa, width, height, layout):
    check(layout(noise(width, height)), (3, 2), 64, True)
    check(layout(noise(width, height, extremes=True)), (1, 1), 64, False)


@pytest.mark.parametrize("seed", range(40))
def test_random_shapes_equal_pillow(isa, seed):
    draw = random.Random(seed)
    width, height = draw.randint(1, 700), draw.randint(1, 700)
    grid = draw.randint(1, 5), draw.randint(1, 4)
    size = draw.choice([1, 5, 14, 28, 70, 224])
    pixels = noise(width, height, seed, extremes=seed % 4 == 0)
    check(four_bytes(pixels) if seed % 2 else pixels, grid, size, draw.random() < 0.7, threads=1 + seed % 2)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920), (448, 448), (896, 448)])
def test_real_sizes_equal_pillow(isa, width, height):
    grid = choose_grid(width, height)
    check(noise(width, height), grid, 448, grid != (1, 1))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize(("width", "height"), [(333, 777), (50, 9), (1, 1)])
def test_threads_do_not_change_bits(threads, width, height):
    check(noise(width, height), (2, 3), 32, True, threads=threads)


def test_forty_tiles():
    for grid in [(40, 1), (1, 40), (8, 5)]:
        check(noise(300, 200), grid, 28, True)


def test_weights_are_pillows_over_many_scales():
    # One row or column at a time, so that a wrong rounding of any weight shows.
    for target in (13, 64, 97):
        for source in range(1, 260, 3):
            line = noise(source, 1, source, extremes=True)
            check(line, (target, 1), 1, False)
            check(np.ascontiguousarray(line.transpose(1, 0, 2)), (1, target), 1, False)


@pytest.mark.parametrize(("width", "height"), [(37, 400), (400, 37), (120, 121), (300, 700)])
def test_order_of_passes_can_be_chosen(isa, width, height):
    pixels, (columns, rows), size = noise(width, height, extremes=True), (2, 1), 48
    new = columns * size, rows * size
    image = Image.fromarray(pixels)
    tall = height - new[1] > 2 * max(width - new[0], 0)
    across_first = image.resize((new[0], height), BICUBIC).resize(new, BICUBIC)
    down_first = image.resize((width, new[1]), BICUBIC).resize(new, BICUBIC)
    for tall_first, resized in [(False, across_first), (True, down_first if tall else across_first)]:
        got = tile_pixels(pixels, (columns, rows), size, tall_first=tall_first, backend="cpu")
        np.testing.assert_array_equal(np.concatenate(list(got), axis=1), np.asarray(resized))
    assert not tall or across_first.tobytes() != down_first.tobytes()  # else this case shows nothing


@pytest.mark.parametrize(
    ("width", "height"), [(96, 128), (96, 129), (65, 66), (65, 67), (40, 64), (40, 65), (200, 337)]
)
def test_order_of_passes_turns_where_pillows_does(width, height):
    pixels = noise(width, height, extremes=True)
    check(pixels, (1, 1), 64, False)
    other = tile_pixels(pixels, (1, 1), 64, tall_first=not pillow_tall_first(), backend="cpu")
    turned = not np.array_equal(other, tile_pixels(pixels, (1, 1), 64, backend="cpu"))
    assert turned == (height - 64 > 2 * max(width - 64, 0))


def test_views_and_bands(isa):
    pixels = noise(90, 70)
    want = tile_pixels(pixels, (2, 2), 32, thumbnail=True)
    bands = [pixels[:1], four_bytes(pixels)[1:30], pixels[30:]]
    with pytest.raises(UnsupportedError, match="3 or 4 bytes apart"):
        tile_pixels(bands, (2, 2), 32)
    np.testing.assert_array_equal(
        tile_pixels([pixels[:1], pixels[1:30], pixels[30:]], (2, 2), 32, thumbnail=True), want
    )
    upside_down = np.ascontiguousarray(pixels[::-1])[::-1]
    np.testing.assert_array_equal(tile_pixels(upside_down, (2, 2), 32, thumbnail=True), want)
    window = np.zeros((75, 95, 3), np.uint8)
    window[3:73, 2:92] = pixels
    np.testing.assert_array_equal(tile_pixels(window[3:73, 2:92], (2, 2), 32, thumbnail=True), want)


def test_reads_and_writes_nothing_outside():
    # The last pixel's fourth byte belongs to somebody else, and so does memory around the tiles.
    store = np.full(4 * 37 * 21 + 64, 9, np.uint8)
    view = np.lib.stride_tricks.as_strided(store[61:], (21, 37, 3), (4 * 37, 4, 1))
    view[:] = noise(37, 21)
    guarded = np.full((6, 16, 16, 3), 77, np.uint8)
    _cpu.tile_pixels([view], 2, 2, 16, False, pillow_tall_first(), guarded[1:5], 1)
    np.testing.assert_array_equal(guarded[1:5], tile_pixels_reference(view, (2, 2), 16))
    assert (guarded[[0, 5]] == 77).all()


def test_torch_in_torch_out():
    import torch

    pixels = torch.from_numpy(noise(50, 40))
    tiles = tile_pixels(pixels, (2, 1), 32)
    assert isinstance(tiles, torch.Tensor)
    assert torch.equal(tiles, tile_pixels(pixels, (2, 1), 32, backend="reference"))


@pytest.mark.parametrize(
    ("pixels", "grid", "size", "match"),
    [
        (np.zeros((4, 4, 3), np.float32), (1, 1), 8, "float32"),
        (np.zeros((4, 4, 4), np.uint8), (1, 1), 8, r"\[4, 4, 4\]"),
        (np.zeros((4, 4), np.uint8), (1, 1), 8, r"\[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), (1, 1), 8, r"\[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint8)[:, ::-1], (1, 1), 8, "bytes apart"),
        (np.zeros((4, 4, 3), np.uint8)[..., ::-1], (1, 1), 8, "adjacent channels"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], (1, 1), 8, r"\[4, 5, 3\]"),
        ([], (1, 1), 8, "empty list"),
        (np.zeros((4, 4, 3), np.uint8), (0, 1), 8, "grid 0 x 1"),
        (np.zeros((4, 4, 3), np.uint8), (1, 1), 0, "size 0"),
    ],
)
def test_refusals_name_the_problem(pixels, grid, size, match):
    with pytest.raises(UnsupportedError, match=match):
        tile_pixels(pixels, grid, size, backend="cpu")


def oracle(width, height, low, high, size, candidates):
    """The published choice, written as one ordering: walk the candidates, remember the winner."""
    winner, smallest = (1, 1), None
    for i, j in sorted(candidates, key=lambda g: g[0] * g[1]):
        if not low <= i * j <= high:
            continue
        distance = abs(width / height - i / j)
        if smallest is None or distance < smallest:
            winner, smallest = (i, j), distance
        elif distance == smallest and width * height > 0.5 * size**2 * i * j:
            winner = (i, j)
    return winner


def published_candidates(low, high):
    every = ((i, j) for n in range(low, high + 1) for i in range(1, n + 1) for j in range(1, n + 1))
    return {(i, j) for i, j in every if low <= i * j <= high}


@pytest.mark.parametrize("low", [1, 2, 5])
@pytest.mark.parametrize("high", [5, 6, 12, 24, 40])
def test_grid_equals_oracle(low, high):
    draw = random.Random(high)
    shapes = [(draw.randint(1, 5000), draw.randint(1, 5000)) for _ in range(60)]
    shapes += [(i * s, j * s) for i, j in itertools.product(range(1, 9), repeat=2) for s in (1, 100, 317, 448, 900)]
    shapes += [(5, 4), (4, 5), (10000, 1), (1, 10000), (13, 12)]
    columns_first = list(itertools.product(range(1, high + 1), repeat=2))
    for width, height in shapes:
        options = {"min_tiles": low, "max_tiles": high}
        want = oracle(width, height, low, high, 448, published_candidates(low, high))
        assert choose_grid(width, height, **options) == want, (width, height)
        assert choose_grid(width, height, rule="hf", **options) == oracle(width, height, low, high, 448, columns_first)


def test_every_grid_up_to_forty_tiles_is_reached():
    for i, j in published_candidates(1, 40):
        reduced = oracle(i * 2000, j * 2000, 1, 40, 448, published_candidates(1, 40))
        assert choose_grid(i * 2000, j * 2000, max_tiles=40) == reduced
        assert reduced[0] * j == reduced[1] * i  # the same aspect ratio, at least as many tiles
        assert reduced[0] >= i


def test_area_breaks_ties():
    assert choose_grid(300, 300) == (1, 1)
    assert choose_grid(800, 800) == (2, 2)
    assert choose_grid(2000, 2000) == (3, 3)
    assert choose_grid(90, 90, size=64, max_tiles=4) == (1, 1)  # 8100 pixels; half of 2 x 2 tiles of 64 is 8192
    assert choose_grid(91, 91, size=64, max_tiles=4) == (2, 2)
    assert choose_grid(100, 200, size=100, max_tiles=8) == (1, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_tiles": 0}, "min_tiles=0"),
        ({"min_tiles": 7, "max_tiles": 6}, "max_tiles=6"),
        ({"rule": "new"}, "rule='new'"),
    ],
)
def test_grid_refusals(options, match):
    with pytest.raises(UnsupportedError, match=match):
        choose_grid(10, 10, **options)


def test_no_torch_needed():
    code = "import sys, numpy as np; from internvl_kernels.ops.image import tile_pixels;"
    code += "tile_pixels(np.zeros((9, 9, 3), np.uint8), (2, 1), 8); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
