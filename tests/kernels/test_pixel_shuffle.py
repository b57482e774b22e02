"""Pixel shuffle, with and without the projector's LayerNorm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

GRIDS = [
    ((2, 2), 2),
    ((4, 4), 2),
    ((4, 6), 2),
    ((6, 2), 2),
    ((8, 4), 4),
    ((4, 4), 4),
    ((3, 5), 1),
    ((1, 1), 1),
    ((6, 9), 3),
]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("grid", "factor"), GRIDS)
def test_order_by_definition(grid: tuple[int, int], factor: int, version: str) -> None:
    """Every element is looked up by the published formula, apart from both implementations."""
    (rows, cols), width = grid, 3
    x = torch.arange(2.0 * rows * cols * width).reshape(2, rows * cols, width)
    expected = torch.empty(2, rows * cols // factor**2, factor**2 * width)
    for r in range(rows):
        for c in range(cols):
            R, C = r // factor, c // factor
            token = R * (cols // factor) + C if version == "v2" else C * (rows // factor) + R
            chunk = (r % factor) * factor + c % factor
            expected[:, token, chunk * width : (chunk + 1) * width] = x[:, r * cols + c]
    options = {"grid": grid, "factor": factor, "version": version, "drop_cls": False}
    same_bits(reference.pixel_shuffle(x, **options), expected, "reference")
    same_bits(ops.pixel_shuffle(x, backend="cpu", **options), expected, "cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 16, 33, 200, 1024])
def test_fused_layer_norm(width: int, dtype: str) -> None:
    x = normal(2, 17, width, dtype=dtype)
    weight, bias = (normal(4 * width, dtype=dtype, seed=s) + 1 for s in (1, 2))
    y = check("pixel_shuffle", x, weight=weight, bias=bias)
    check("pixel_shuffle", x, weight=weight, version="v1")
    moved = ops.pixel_shuffle(x, backend="cpu")
    same_bits(y, ops.layer_norm(moved, weight, bias, eps=1e-5, backend="cpu"), "fused against two steps")


@pytest.mark.parametrize("dtype", DTYPES)
def test_massive_channels(dtype: str) -> None:
    x = hostile.massive_channels(1, 65, 128, dtype=dtype)
    check("pixel_shuffle", x, factor=4, weight=normal(2048, dtype=dtype), bias=normal(2048, dtype=dtype, seed=1))


def test_copies_keep_nan_payloads_and_signed_zeros() -> None:
    x = hostile.special(1, 17, 40)
    same_bits(ops.pixel_shuffle(x, backend="cpu"), reference.pixel_shuffle(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_a_larger_batch(dtype: str) -> None:
    x = normal(5, 17, 24, dtype=dtype)
    weight = normal(96, dtype=dtype)
    for view in (x[1:3], x[::2], x[:, :, :].flip(0)[1:], hostile.row_strided(x), hostile.offset(x)):
        same_bits(
            ops.pixel_shuffle(view, weight=weight, backend="cpu"),
            ops.pixel_shuffle(view.clone(), weight=weight, backend="cpu"),
        )
    same_bits(ops.pixel_shuffle(x[:, 1:], drop_cls=False, backend="cpu"), ops.pixel_shuffle(x, backend="cpu"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_batch_threads_or_instruction_set(dtype: str) -> None:
    x, weight = normal(9, 65, 72, dtype=dtype), normal(288, dtype=dtype)
    y = check_invariant(lambda threads: ops.pixel_shuffle(x, weight=weight, threads=threads, backend="cpu"))
    same_bits(ops.pixel_shuffle(x[4:5], weight=weight, backend="cpu"), y[4:5])


def test_no_tiles() -> None:
    assert ops.pixel_shuffle(torch.empty(0, 17, 8), backend="cpu").shape == (0, 4, 32)


def test_many_tiles() -> None:
    check("pixel_shuffle", normal(hostile.MANY_ROWS, 2, 2), factor=1, weight=normal(2), bias=normal(2))


@pytest.mark.parametrize(
    ("shape", "options", "text"),
    [
        ((2, 16, 8), {}, r"15 patches as a grid of 3 x 3"),
        ((2, 17, 8), {"factor": 3}, r"factor 3"),
        ((2, 17, 8), {"factor": 0}, "factor=0"),
        ((2, 17, 8), {"factor": 0.5}, "factor is 0.5"),
        ((2, 17, 8), {"version": "v3"}, "version='v3'"),
        ((2, 17, 8), {"grid": (2, 4)}, "grid of 2 x 4"),
        ((17, 8), {}, r"x is \[17, 8\]"),
        ((2, 17, 8), {"bias": torch.zeros(32)}, "bias without weight"),
        ((2, 17, 8), {"weight": torch.zeros(31)}, r"weight is float32\[31\]"),
        ((2, 17, 8), {"weight": torch.zeros(32).double()}, r"weight is float64\[32\]"),
        ((2, 17, 8), {"weight": torch.zeros(32), "eps": -1.0}, "eps is -1"),
    ],
)
def test_wrong_arguments_are_refused(shape: tuple[int, ...], options: dict, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        ops.pixel_shuffle(torch.zeros(shape), backend="cpu", **options)


def test_refused_tensors_are_named() -> None:
    weight = torch.ones(32)
    hostile.check_refused(lambda x: ops.pixel_shuffle(x, weight=weight, backend="cpu"), normal(2, 17, 8))


def test_numpy_in_numpy_out() -> None:
    x = normal(2, 17, 8)
    y = ops.pixel_shuffle(x.numpy(), weight=np.ones(32, np.float32))
    assert isinstance(y, np.ndarray)
    same_bits(y, ops.pixel_shuffle(x, weight=torch.ones(32), backend="cpu"))


def test_reference_is_differentiable() -> None:
    x = normal(1, 5, 3).double().requires_grad_()
    weight = torch.ones(12, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: ops.pixel_shuffle(t, weight=weight), x)
