"""Patch embedding: normalisation in the load, projection, CLS and positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS = {"mean": MEAN, "std": STD}


def weights(width: int, patches: int, dtype: str = "float32", patch: int = 14) -> list[torch.Tensor]:
    """weight, bias, cls, pos in the magnitude of a trained tower."""
    return [
        normal(width, 3 * patch * patch, dtype=dtype, scale=0.05),
        normal(width, dtype=dtype, seed=1),
        normal(width, dtype=dtype, seed=2),
        normal(1 + patches, width, dtype=dtype, seed=3),
    ]


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(14, 14), (28, 42), (70, 14), (56, 56)])
def test_bytes_and_floats(size: tuple[int, int], dtype: str) -> None:
    patches = size[0] // 14 * (size[1] // 14)
    check("patch_embed", pixels(3, *size, 3), *weights(48, patches, dtype), **OPTIONS)
    check("patch_embed", normal(3, 3, *size, dtype=dtype), *weights(48, patches, dtype), **OPTIONS)


@pytest.mark.parametrize("patch", [1, 2, 7, 16, 17])
def test_patch_sizes(patch: int) -> None:
    tiles = pixels(2, 2 * patch, 3 * patch, 3)
    check("patch_embed", tiles, *weights(20, 6, patch=patch), patch_size=patch, **OPTIONS)


@pytest.mark.parametrize("width", [1, 15, 17, 1024])
def test_widths(width: int) -> None:
    check("patch_embed", pixels(1, 28, 28, 3), *weights(width, 4), **OPTIONS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_byte_is_normalised_as_defined(dtype: str) -> None:
    """All 256 values in every channel, bit for bit, and every pixel in its place in the patch matrix."""
    tiles = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    tiles[..., 1] = tiles[..., 1].flip(1)
    patches = torch.empty(16, 48, dtype=getattr(torch, dtype))
    cpu().patchify(tiles, patches, MEAN, STD, 4, 1)
    expected = ((tiles.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).to(patches.dtype)
    blocks = expected.reshape(4, 4, 4, 4, 3).permute(0, 2, 4, 1, 3)  # patch row, patch column, channel, row, column
    same_bits(patches, blocks.reshape(16, 48))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_whole_numbers(dtype: str) -> None:
    tiles = hostile.integers(2, 3, 8, 8, dtype=dtype, high=2)
    weight = hostile.integers(16, 48, dtype=dtype, high=1)
    ones = [hostile.integers(16, dtype=dtype, seed=s, high=2) for s in (1, 2)]
    pos = hostile.integers(5, 16, dtype=dtype, seed=3, high=2)
    y = ops.patch_embed(tiles, weight, *ones, pos, patch_size=4, backend="cpu", **OPTIONS)
    wide = [t.double() for t in (tiles, weight, *ones, pos)]
    expected = ops.patch_embed(*wide, patch_size=4, backend="reference", **OPTIONS)
    same_bits(y, expected.to(y.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_other_tiles_or_threads(dtype: str) -> None:
    tiles, arguments = pixels(5, 56, 56, 3), weights(64, 16, dtype)
    y = ops.patch_embed(tiles, *arguments, backend="cpu", **OPTIONS)
    for rows in (slice(0, 1), slice(2, 4), slice(4, 5)):
        same_bits(ops.patch_embed(tiles[rows], *arguments, backend="cpu", **OPTIONS), y[rows])
    check_invariant(
        lambda threads: ops.patch_embed(tiles, *arguments, threads=threads, backend="cpu", **OPTIONS), fused=True
    )


def test_views_of_larger_images() -> None:
    arguments = weights(32, 6)
    image = pixels(3, 40, 60, 3)
    crop = image[1:, 5:33, 10:52]
    same_bits(
        ops.patch_embed(crop, *arguments, backend="cpu", **OPTIONS),
        ops.patch_embed(crop.contiguous(), *arguments, backend="cpu", **OPTIONS),
    )
    planes = normal(3, 3, 40, 60)[:, :, 5:33, 10:52]
    same_bits(
        ops.patch_embed(planes, *arguments, backend="cpu", **OPTIONS),
        ops.patch_embed(planes.contiguous(), *arguments, backend="cpu", **OPTIONS),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_pixels_stay_in_their_patch(dtype: str) -> None:
    tiles, arguments = normal(2, 3, 28, 28, dtype=dtype), weights(32, 4, dtype)
    clean = ops.patch_embed(tiles, *arguments, backend="cpu", **OPTIONS)
    tiles[1, 2, 20, 3] = float("nan")
    y = check("patch_embed", tiles, *arguments, **OPTIONS)
    assert y[1, 3].isnan().all()
    assert int(y.isnan().any(-1).sum()) == 1
    same_bits(y[0], clean[0])


def test_float32_tiles_with_16_bit_weights_are_rounded_first() -> None:
    tiles, arguments = normal(2, 3, 28, 28), weights(32, 4, "bfloat16")
    same_bits(
        ops.patch_embed(tiles, *arguments, backend="cpu", **OPTIONS),
        ops.patch_embed(tiles.bfloat16(), *arguments, backend="cpu", **OPTIONS),
    )


def test_no_tiles() -> None:
    assert ops.patch_embed(pixels(0, 28, 28, 3), *weights(8, 4), backend="cpu", **OPTIONS).shape == (0, 5, 8)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tiles": pixels(1, 3, 28, 28)}, r"uint8 \[1, 3, 28, 28\]"),
        ({"tiles": pixels(28, 28, 3)}, r"\[28, 28, 3\]"),
        ({"tiles": pixels(1, 28, 27, 3)}, "28 x 27 pixels"),
        ({"tiles": pixels(1, 0, 28, 3)}, "0 x 28 pixels"),
        ({"tiles": torch.zeros(1, 3, 28, 28, dtype=torch.int64)}, "tiles is int64"),
        ({"tiles": torch.zeros(1, 3, 28, 28, dtype=torch.float16)}, "tiles is float16"),
        ({"tiles": pixels(1, 28, 56, 3)[:, :, ::2]}, "contiguous pixel rows"),
        ({"weight": torch.zeros(8, 587)}, r"weight is \[8, 587\]"),
        ({"bias": torch.zeros(7)}, r"bias is \[7\]"),
        ({"bias": torch.zeros(8).half()}, "bias is torch.float16"),
        ({"cls": torch.zeros(8).half()}, r"cls is float16\[8\]"),
        ({"pos": torch.zeros(4, 8)}, r"pos is float32\[4, 8\]"),
        ({"mean": (0.5, 0.5)}, r"mean=\(0.5, 0.5\)"),
        ({"std": (1.0, 0.0, 1.0)}, r"std=\(1.0, 0.0, 1.0\)"),
        ({"patch_size": 0}, "patch_size=0"),
    ],
)
def test_wrong_arguments_are_refused(change: dict, text: str) -> None:
    arguments = dict(zip(("weight", "bias", "cls", "pos"), weights(8, 4)), tiles=pixels(1, 28, 28, 3), **OPTIONS)
    with pytest.raises(UnsupportedError, match=text):
        ops.patch_embed(**(arguments | change), backend="cpu")


def test_refused_tensors_are_named() -> None:
    weight, *vectors = weights(8, 4)
    tiles = normal(1, 3, 28, 28)
    hostile.check_refused(lambda x: ops.patch_embed(x, weight, *vectors, backend="cpu", **OPTIONS), tiles)
    hostile.check_refused(lambda x: ops.patch_embed(tiles, x, *vectors, backend="cpu", **OPTIONS), weight)
    hostile.check_refused(
        lambda x: ops.patch_embed(tiles, weight, *vectors[:2], x, backend="cpu", **OPTIONS), vectors[2]
    )


def test_numpy_in_numpy_out() -> None:
    tiles, arguments = pixels(1, 28, 28, 3), weights(8, 4)
    y = ops.patch_embed(tiles.numpy(), *(t.numpy() for t in arguments), **OPTIONS)
    assert isinstance(y, np.ndarray)
    same_bits(y, ops.patch_embed(tiles, *arguments, backend="cpu", **OPTIONS))


def test_reference_is_differentiable() -> None:
    weight, bias, cls, pos = (t.double().requires_grad_() for t in weights(3, 2, patch=2))
    tiles = pixels(1, 2, 4, 3)
    assert torch.autograd.gradcheck(
        lambda *w: ops.patch_embed(tiles, *w, patch_size=2, **OPTIONS), (weight, bias, cls, pos)
    )
