"""``out``: results in the caller's memory, the bits of those in new memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.hostile import normal

ROWS, WIDTH = 37, 64
ONES = torch.ones(WIDTH)
CASES: dict[str, Callable[..., Any]] = {
    "linear": lambda x, **run: ops.linear(x, normal(WIDTH, WIDTH, seed=1), ONES, **run),
    "linear packed": lambda x, **run: ops.linear(x, ops.pack_weight(normal(WIDTH, WIDTH, seed=1)), **run),
    "linear decode": lambda x, **run: ops.linear(x, normal(WIDTH, WIDTH, seed=1), decode=True, **run),
    "linear_gelu": lambda x, **run: ops.linear_gelu(x, normal(WIDTH, WIDTH, seed=1), **run),
    "layer_norm": lambda x, **run: ops.layer_norm(x, ONES, ONES, **run),
    "rms_norm": lambda x, **run: ops.rms_norm(x, ONES, **run),
    "attention": lambda x, **run: ops.attention(*[x.reshape(1, ROWS, 2, 32)] * 3, **run),
    "pixel_shuffle": lambda x, **run: ops.pixel_shuffle(x[None], weight=torch.ones(4 * WIDTH), **run),
}
SHAPES = dict.fromkeys(CASES, (ROWS, WIDTH)) | {"attention": (1, ROWS, 2, 32), "pixel_shuffle": (1, 9, 4 * WIDTH)}
NORMS = ("layer_norm", "rms_norm")


def space(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


@pytest.mark.parametrize(
    ("name", "backend"),  # the reference takes no packed weight
    [(n, b) for n in CASES for b in ("cpu", "reference") if (n, b) != ("linear packed", "reference")],
)
def test_result_stands_in_out(name: str, backend: str) -> None:
    x, out = normal(ROWS, WIDTH), space(SHAPES[name])
    found = CASES[name](x, out=out, backend=backend)
    assert found is out
    same_bits(out, CASES[name](x, backend=backend))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("name", ["linear", "attention"])
def test_dtypes_that_take_other_paths(name: str, dtype: str) -> None:
    x, wide = normal(ROWS, WIDTH, dtype=dtype), getattr(torch, dtype)
    run: Callable[..., Any] = {
        "linear": lambda **out: ops.linear(x, normal(WIDTH, WIDTH, dtype=dtype, seed=1), **out),
        "attention": lambda **out: ops.attention(*[x.reshape(1, ROWS, 2, 32)] * 3, **out),
    }[name]
    out = space(SHAPES[name], wide)
    assert run(out=out) is out
    same_bits(out, run())


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str) -> None:
    x, shape = normal(ROWS, WIDTH), SHAPES[name]
    for out in (space((*shape, 1)), space((shape[0] + 1, *shape[1:])), space(shape, torch.float64), space(())):
        with pytest.raises(UnsupportedError, match=rf"{name.split()[0]}: out is .*; allowed: float32"):
            CASES[name](x, out=out, backend="cpu")
    with pytest.raises(UnsupportedError, match=f"{name.split()[0]}: out is 'here'; allowed: a tensor"):
        CASES[name](x, out="here", backend="cpu")
    with pytest.raises(UnsupportedError, match="out requires one"):
        CASES[name](x, out=space(shape).requires_grad_(), backend="cpu")
    if name not in NORMS:  # which may be written over their own input
        with pytest.raises(UnsupportedError, match=r"apart from|share memory|overlap"):
            CASES[name](x, out=x.view(-1)[: math.prod(shape)].view(shape), backend="cpu")


def test_numpy_and_views() -> None:
    x, memory = normal(ROWS, WIDTH), space((ROWS, 2 * WIDTH))
    expected = ops.linear(x, normal(WIDTH, WIDTH, seed=1), backend="cpu")
    ops.linear(x, normal(WIDTH, WIDTH, seed=1), out=memory[:, 8 : 8 + WIDTH], backend="cpu")
    same_bits(memory[:, 8 : 8 + WIDTH], expected)
    assert memory[:, :8].isnan().all()
    assert memory[:, 8 + WIDTH :].isnan().all()
    numbers = np.zeros((ROWS, WIDTH), np.float32)
    found = ops.linear(x.numpy(), normal(WIDTH, WIDTH, seed=1).numpy(), out=numbers)
    assert found is numbers
    same_bits(torch.from_numpy(numbers), expected)
    with pytest.raises(UnsupportedError):
        ops.layer_norm(x, ONES, out=hostile.row_strided(space((ROWS, WIDTH))).t(), backend="cpu")


@pytest.mark.usefixtures("cuda_backend")
@pytest.mark.parametrize("name", NORMS)
def test_on_the_device(name: str) -> None:
    run: Callable[..., Any] = {"layer_norm": ops.layer_norm, "rms_norm": ops.rms_norm}[name]
    x, weight = normal(ROWS, WIDTH), ONES
    expected = run(x, weight, backend="cuda")
    out = space((ROWS, WIDTH))
    assert run(x, weight, out=out, backend="cuda") is out
    same_bits(out, expected)
    place = ivk.DeviceArray(np.zeros((ROWS, WIDTH), np.float32))
    found = run(ivk.DeviceArray(x.numpy()), ivk.DeviceArray(weight.numpy()), out=place)
    assert found is place
    same_bits(torch.from_numpy(place.numpy()), expected)
    for wrong in (space((ROWS, WIDTH + 1)), space((ROWS, WIDTH), torch.float16)):
        with pytest.raises(UnsupportedError, match=f"{name}: out is "):
            run(x, weight, out=wrong, backend="cuda")
