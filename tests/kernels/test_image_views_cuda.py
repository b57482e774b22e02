"""Tiles on the GPU from any address, of random sizes and kinds: the bits of the cpu kernel, which are Pillow's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.on_device import host

pytestmark = pytest.mark.usefixtures("cuda_backend")

# Height, width, grid, size: a pixel, rows and columns alone, odd sides, the identity, both directions by small and large
# factors, an edge of a block (32 rows, 32 outputs) and more source columns than shared memory holds at a time (256).
SHAPES: tuple[tuple[int, int, tuple[int, int], int], ...] = (
    (1, 1, (1, 1), 7), (1, 40, (2, 1), 9), (33, 1, (1, 2), 8), (16, 16, (1, 1), 16), (31, 47, (2, 1), 14),
    (33, 65, (3, 2), 11), (64, 64, (2, 2), 16), (7, 5, (2, 3), 20), (90, 61, (1, 2), 28), (20, 700, (1, 1), 5),
    (300, 20, (1, 1), 8), (5, 1100, (1, 1), 3), (129, 97, (3, 3), 13),
)  # fmt: skip


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def both(pixels: torch.Tensor, grid: tuple[int, int], size: int, **options: Any) -> torch.Tensor:
    found: torch.Tensor = ops.tile_pixels(pixels, grid, size, backend="cuda", **options)
    same_bits(found, ops.tile_pixels(pixels, grid, size, backend="cpu", **options), f"{list(pixels.shape)} {options}")
    return found


@pytest.mark.parametrize("tall_first", [False, True])
@pytest.mark.parametrize(("height", "width", "grid", "size"), SHAPES)
def test_shapes(height: int, width: int, grid: tuple[int, int], size: int, tall_first: bool) -> None:
    for thumbnail in (False, True):
        both(picture(height, width), grid, size, thumbnail=thumbnail, tall_first=tall_first)


@pytest.mark.modes(vgpu.LAZY)
@pytest.mark.parametrize("seed", range(12))
def test_random_pictures(seed: int) -> None:
    def number(most: int, turn: int) -> int:
        return int(torch.randint(1, most + 1, (), generator=torch.Generator().manual_seed(100 * seed + turn)))

    grid = (number(3, 0), number(3, 1))
    options = {"thumbnail": bool(seed % 2), "tall_first": seed % 3 == 0}
    both(picture(number(150, 2), number(150, 3), seed), grid, number(40, 4), **options)


@pytest.mark.parametrize("tall_first", [False, True])
def test_extreme_pixels(tall_first: bool) -> None:
    """Edges between 0 and 255, where the filter overshoots and results are clipped."""
    pixels = picture(70, 45)
    pixels = torch.where(pixels > 127, 255, 0).to(torch.uint8)
    found = both(pixels, (2, 2), 33, thumbnail=True, tall_first=tall_first)
    assert found.min() == 0
    assert found.max() == 255


@pytest.mark.parametrize("tall_first", [False, True])
@pytest.mark.parametrize("offset", [0, 1, 3, 16])
@pytest.mark.parametrize("apart", [3, 4])
def test_views(apart: int, offset: int, tall_first: bool) -> None:
    """Rows of a larger picture from any address, pixels of three or four bytes."""
    memory = torch.randint(0, 256, (83, 61 * apart + 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    rows = memory[:, offset : offset + 61 * apart].unflatten(1, (61, apart))[..., :3]
    view = ivk.DeviceArray._of(ivk.DeviceArray(memory)._array.view(offset, [83, 61, 3], [memory.shape[1], apart, 1]))
    found = ops.tile_pixels(view, (1, 2), 24, thumbnail=True, tall_first=tall_first)
    same_bits(host(found), ops.tile_pixels(rows, (1, 2), 24, thumbnail=True, tall_first=tall_first, backend="cpu"))


def test_kinds_and_repeats() -> None:
    pixels = picture(50, 70)
    expected = ops.tile_pixels(pixels, (2, 1), 28, thumbnail=True, backend="cpu")
    array = ops.tile_pixels(ivk.DeviceArray(pixels), (2, 1), 28, thumbnail=True)
    assert isinstance(array, ivk.DeviceArray)
    same_bits(host(array), expected)
    for _ in range(2):
        same_bits(host(ops.tile_pixels(ivk.DeviceArray(pixels), (2, 1), 28, thumbnail=True)), expected, "run again")
    from_numpy = ops.tile_pixels(pixels.numpy(), (2, 1), 28, thumbnail=True, backend="cuda")
    same_bits(torch.from_numpy(from_numpy), expected)


def test_tiles_go_into_the_tower() -> None:
    """From the picture's pixels to patches without the host."""
    tiles = ops.tile_pixels(ivk.DeviceArray(picture(60, 80)), (2, 1), 28, thumbnail=True)
    assert tiles.shape == (3, 28, 28, 3)
    assert tiles.dtype == "uint8"


def test_refused() -> None:
    pixels = ivk.DeviceArray(picture(8, 8))
    with pytest.raises(UnsupportedError, match=r"pixels are uint8\[8, 8, 2\].*allowed: uint8 \[height, width, 3\]"):
        ops.tile_pixels(pixels[:, :, :2], (1, 1), 8)
    with pytest.raises(UnsupportedError, match="pixels are float32"):
        ops.tile_pixels(ivk.DeviceArray(torch.zeros(8, 8, 3)), (1, 1), 8)
    with pytest.raises(UnsupportedError, match="pixels 3 or 4 bytes apart"):
        ops.tile_pixels(pixels[:, ::2], (1, 1), 8)
    with pytest.raises(UnsupportedError, match="no empty side"):
        ops.tile_pixels(pixels[:0], (1, 1), 8)
    with pytest.raises(UnsupportedError, match="grid 0 x 1 of size 8"):
        ops.tile_pixels(pixels, (0, 1), 8)
