"""The resize into tiles for CUDA against the kernels of the CPU, which are Pillow's bits; on a GPU or on the virtual one."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import same_bits

pytestmark = pytest.mark.usefixtures("cuda_backend")


def noise(width: int, height: int, seed: int = 0, extremes: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if extremes:  # only black and white: the filter's overshoot clips at both ends
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def four_bytes(pixels: np.ndarray) -> np.ndarray:
    """The same picture with pixels four bytes apart and something else in the fourth."""
    wide = np.full((*pixels.shape[:2], 4), 171, np.uint8)
    wide[..., :3] = pixels
    return wide


def check(
    pixels: np.ndarray, grid: tuple[int, int], size: int, thumbnail: bool, tall_first: bool, on_gpu: Any = None
) -> None:
    options = {"thumbnail": thumbnail, "tall_first": tall_first}
    want = ops.tile_pixels(pixels, grid, size, backend="cpu", **options)
    got = ops.tile_pixels(pixels if on_gpu is None else on_gpu, grid, size, backend="cuda", **options)
    np.testing.assert_array_equal(got if on_gpu is None else got.numpy(), want)


# width, height: one pixel, odd, identity (of one side, of both), just and far above and below, lines; more than a block's
# rows, its pixels and what it holds of a source row at a time.
SIZES = [
    (1, 1), (2, 1), (1, 2), (3, 5), (17, 16), (64, 64), (128, 128), (64, 130), (130, 64), (63, 65), (65, 63), (31, 200),
    (200, 31), (1, 300), (300, 1), (5, 1201), (1201, 5),
]  # fmt: skip


@pytest.mark.parametrize("tall_first", [False, True])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_sizes(width: int, height: int, tall_first: bool) -> None:
    check(noise(width, height), (2, 1), 64, True, tall_first)
    check(noise(width, height, extremes=True), (1, 2), 20, False, tall_first)


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes(seed: int) -> None:
    draw = random.Random(seed)
    width, height = draw.randint(1, 300), draw.randint(1, 200)
    grid, size = (draw.randint(1, 3), draw.randint(1, 3)), draw.choice([1, 5, 14, 16, 28, 48])
    pixels = noise(width, height, seed, extremes=seed % 4 == 0)
    given = four_bytes(pixels)[..., :3] if seed % 3 == 0 else pixels
    check(given, grid, size, draw.random() < 0.7, draw.random() < 0.5)


@pytest.mark.parametrize(("width", "height"), [(90, 200), (200, 90), (77, 78)])
@pytest.mark.parametrize("pixel", [3, 4])
def test_addresses_and_strides_do_not_change_bits(width: int, height: int, pixel: int) -> None:
    """A picture anywhere in memory, with anything between its rows and pixels; what lies there is not ours."""
    pixels = noise(width, height)
    for shift, gap in ((0, 0), (1, 0), (6, 5), (16, 16), (31, 1)):
        pitch = width * pixel + gap
        end = shift + (height - 1) * pitch + (width - 1) * pixel + 3  # the last pixel's fourth byte need not exist
        flat = np.full(end, 201, np.uint8)
        np.lib.stride_tricks.as_strided(flat[shift:], pixels.shape, (pitch, pixel, 1))[:] = pixels
        memory = ivk.DeviceArray(flat)._array.view(shift, [height, width, 3], [pitch, pixel, 1])
        for tall_first in (False, True):
            check(pixels, (2, 1), 32, True, tall_first, ivk.DeviceArray._of(memory))


@pytest.mark.parametrize("size", [14, 17, 20, 32])  # stores of 1, 4 and 16 bytes
@pytest.mark.parametrize(("width", "height"), [(50, 120), (120, 50)])
def test_nothing_outside_the_tiles_is_written(width: int, height: int, size: int) -> None:
    pixels = ivk.DeviceArray(noise(width, height))
    for grid, tall_first in itertools.product([(2, 2), (1, 3)], [False, True]):
        count = grid[0] * grid[1] + 1
        memory = ivk.DeviceArray(np.full((count + 2, size, size, 3), 77, np.uint8))
        cuda().tile_pixels(pixels._array, *grid, size, True, tall_first, memory[1:-1]._array, 0)
        found = memory.numpy()
        want = ops.tile_pixels(pixels.numpy(), grid, size, thumbnail=True, tall_first=tall_first, backend="cpu")
        np.testing.assert_array_equal(found[1:-1], want)
        assert (found[[0, -1]] == 77).all()


def test_weights_are_pillows_over_many_scales() -> None:
    for target, source in itertools.product((13, 97), range(1, 260, 37)):
        line = noise(source, 1, source, extremes=True)
        check(line, (target, 1), 1, False, False)
        check(np.ascontiguousarray(line.transpose(1, 0, 2)), (1, target), 1, False, False)


def test_many_tiles_and_again() -> None:
    pixels = noise(150, 100)
    for grid in [(40, 1), (1, 40), (8, 5)]:
        check(pixels, grid, 14, True, False)
    first = ops.tile_pixels(pixels, (2, 2), 16, backend="cuda")
    same_bits(ops.tile_pixels(pixels, (2, 2), 16, backend="cuda"), first, "run again")


@pytest.mark.modes(vgpu.LAZY)  # whole tiles: once is enough
@pytest.mark.parametrize(("width", "height"), [(640, 480), (300, 900)])
def test_a_picture_on_the_grid_of_the_family(width: int, height: int) -> None:
    grid = ops.choose_grid(width, height, max_tiles=6)
    check(noise(width, height), grid, 448, True, True)


@pytest.mark.modes(vgpu.LAZY)  # windows of thousands: once is enough
def test_long_lines() -> None:
    for tall_first in (False, True):
        check(noise(1, 20_001), (1, 1), 2, True, tall_first)
        check(noise(20_001, 1), (1, 1), 2, True, tall_first)


def test_kinds_and_bands() -> None:
    pixels = noise(90, 70)
    grid, size = (2, 1), 32
    want = ops.tile_pixels(pixels, grid, size, thumbnail=True, backend="cpu")

    def cut(given: Any, backend: str = "cuda") -> Any:
        return ops.tile_pixels(given, grid, size, thumbnail=True, backend=backend)

    as_torch = cut(torch.from_numpy(pixels))
    assert isinstance(as_torch, torch.Tensor)
    assert as_torch.device.type == "cpu"
    same_bits(as_torch, want)
    assert isinstance(cut(pixels), np.ndarray)
    on_gpu = ivk.DeviceArray(pixels)
    for backend in ("cuda", "auto"):
        made = cut(on_gpu, backend)
        assert isinstance(made, ivk.DeviceArray)
        np.testing.assert_array_equal(made.numpy(), want)
    bands = [pixels[:1], four_bytes(pixels)[1:30, :, :3], pixels[30:]]
    np.testing.assert_array_equal(cut(bands), want)
    rows = [on_gpu[:1], on_gpu[1:30], on_gpu[30:]]
    np.testing.assert_array_equal(cut(rows).numpy(), want)
    for view in (pixels[::-1], pixels[:, ::-2], pixels.transpose(1, 0, 2), pixels[..., ::-1], pixels[:, :1]):
        np.testing.assert_array_equal(cut(view), cut(ivk.DeviceArray(np.ascontiguousarray(view))).numpy())


def test_tiles_stay_on_the_device_for_the_tower() -> None:
    tiles = ops.tile_pixels(ivk.DeviceArray(noise(60, 40)), (2, 1), 28)
    weight, bias = (hostile.normal(*shape, dtype="bfloat16") for shape in ((16, 588), (16,)))
    pos, statistics = hostile.normal(5, 16, dtype="bfloat16"), {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    y = ops.patch_embed(tiles, weight, bias, bias, pos, backend="cuda", **statistics)
    again = ops.patch_embed(torch.from_numpy(tiles.numpy()), weight, bias, bias, pos, backend="cuda", **statistics)
    same_bits(y, again)


PICTURE = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize("place", ["host", "gpu"])
@pytest.mark.parametrize(
    ("pixels", "grid", "size", "match"),
    [
        (PICTURE.astype(np.float32), (1, 1), 8, "float32"),
        (np.zeros((4, 4, 4), np.uint8), (1, 1), 8, r"\[4, 4, 4\]"),
        (np.zeros((4, 4), np.uint8), (1, 1), 8, r"\[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), (1, 1), 8, r"\[0, 4, 3\]"),
        (np.zeros((4, 0, 3), np.uint8), (1, 1), 8, r"\[4, 0, 3\]"),
        (PICTURE, (0, 1), 8, "grid 0 x 1"),
        (PICTURE, (1, 1), 0, "size 0"),
        (PICTURE, (4097, 1), 8, "grid 4097 x 1"),
        (PICTURE, (1, 1), 4097, "size 4097"),
    ],
)
def test_refusals_name_the_problem(pixels: Any, grid: Any, size: int, match: str, place: str) -> None:
    given = ivk.DeviceArray(pixels) if place == "gpu" else pixels
    with pytest.raises(UnsupportedError, match=match):
        ops.tile_pixels(given, grid, size, backend="cuda")


def test_refused_kinds() -> None:
    def cut(given: Any, **options: Any) -> Any:
        return ops.tile_pixels(given, (1, 1), 8, **{"backend": "cuda", **options})

    for _, tensor, text in itertools.islice(hostile.refused(torch.zeros(4, 4, 3, dtype=torch.uint8)), 8):
        with pytest.raises(UnsupportedError, match=text):
            cut(tensor)
    on_gpu = ivk.DeviceArray(PICTURE)
    for given, match in [
        (on_gpu[:, ::2], "bytes apart"),
        ([], "empty list"),
        ([PICTURE, np.zeros((4, 5, 3), np.uint8)], r"\[4, 5, 3\]"),
        ([on_gpu, on_gpu[:, :3]], r"\[4, 3, 3\]"),
        ([on_gpu, on_gpu[0]], r"\[4, 3\]"),
    ]:
        with pytest.raises(UnsupportedError, match=match):
            cut(given)
    for rule in ops.image.RULES:
        with pytest.raises(ivk.ImageError, match=r"on a GPU ops\.tile_pixels cuts uint8"):
            ivk.tile_image(on_gpu, size=8, rule=rule)
    with pytest.raises(UnsupportedError, match="allowed: 'cuda'"):
        cut(on_gpu, backend="cpu")
    memory = ivk.DeviceArray(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UnsupportedError, match="apart from pixels"):
        cuda().tile_pixels(memory[0]._array, 1, 1, 8, False, False, memory._array, 0)
