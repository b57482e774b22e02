"""Statistics of rows for the norms behind them, by a kernel of their own and by the products, against their reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import ops, reference
from internvl_kernels.errors import BackendError, UnsupportedError
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
SHAPES = ((1, 1), (1, 8), (3, 31), (7, 32), (8, 33), (9, 40), (17, 512), (33, 520), (2, 1023))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_row_statistics(rows: int, cols: int, dtype: str) -> None:
    x = normal(rows, cols, dtype=dtype)
    found = check("row_statistics", x, backend="cuda", dtype="float32")
    same_bits(check("row_statistics", x, backend="cuda", dtype="float32"), found, "run again")
    same_bits(host(ops.row_statistics(placed(x, 1, 3))), found, "element by element")
    space = ops.statistics_space(cols, rows)
    assert ops.row_statistics(ivk.DeviceArray(x), out=space) is space
    same_bits(host(space), found, "into padded memory")


def test_a_row_depends_on_itself_alone() -> None:
    x = normal(77, 264, dtype="bfloat16")
    whole = ops.row_statistics(x, backend="cuda")
    for first, last in ((0, 1), (8, 77)):
        same_bits(ops.row_statistics(x[first:last], backend="cuda"), whole[:, first:last], f"rows {first} to {last}")


@pytest.mark.parametrize("dtype", HALVES)
def test_hostile_values(dtype: str) -> None:
    """A large common mean keeps the digits of what is left; Inf and NaN stay in their parts."""
    x = normal(5, 96, dtype=dtype)
    x[0] = x[0] + 100
    x[1, 3], x[2, 40], x[3, 95] = float("inf"), float("nan"), 30000.0
    found = check("row_statistics", x, backend="cuda", dtype="float32")
    assert found[:, 4].isfinite().all()
    assert found[1:, 1].isfinite().all(), "of the part with the Inf alone"


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 8), (65, 136, 40), (81, 64, 32), (9, 33, 15)])
def test_products_tell_the_same(m: int, n: int, k: int, dtype: str) -> None:
    x, weight, bias = normal(m, k, dtype=dtype), normal(n, k, dtype=dtype, seed=1), normal(n, dtype=dtype, seed=2)
    parts = -(-n // 32)
    told = torch.full((parts, m, 2), float("nan"))
    y = ops.linear_residual(x, weight, bias, residual=normal(m, n, dtype=dtype, seed=3), tell=told, backend="cuda")
    same_bits(told, ops.row_statistics(y, backend="cuda"), "after a residual")
    for count in {1, parts}:
        told = torch.full((count, m, 2), float("nan"))
        y = ops.linear(x, weight, bias, tell=told, backend="cuda")
        same_bits(told, ops.row_statistics(y, backend="cuda")[:count], f"{count} parts of a product")
        expected = torch.empty_like(told)
        same_bits(
            ops.linear(x, weight, tell=expected, backend="reference"), reference.linear(x, weight), "the reference"
        )
        same_bits(expected, reference.row_statistics(reference.linear(x, weight))[:count], "the reference tells too")


@pytest.mark.parametrize(("rows", "cols", "matrices"), [(1, 32, 1), (5, 64, 2), (33, 3200, 2), (70, 128, 3)])
def test_row_factors(rows: int, cols: int, matrices: int) -> None:
    x = normal(rows, matrices * cols, dtype="bfloat16") * 3
    statistics = ops.row_statistics(x, backend="cuda")
    found = check("row_factors", statistics, matrices, eps=1e-6, backend="cuda", dtype="float32")
    high = (x.double().reshape(rows, matrices, cols).square().mean(-1) + 1e-6).rsqrt().T
    assert ((found.double() - high) / high).abs().max() < 1e-6
    same_bits(ops.row_factors(statistics[:, -1:], matrices, backend="cuda"), found[:, -1:], "one row of them")


def test_massive_channels_and_a_large_mean() -> None:
    """As a tower has them: the factors are those of the exact row."""
    x = normal(6, 1024, dtype="bfloat16")
    x[:, 7] *= 3000
    x[:3] += 50
    mean, variance = ops.statistics.mean_and_variance(ops.row_statistics(x, backend="cuda"), 1024)
    exact = x.double()
    torch.testing.assert_close(mean, exact.mean(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance, exact.var(-1, correction=0), rtol=1e-6, atol=0.0)


def test_results_go_where_the_caller_says() -> None:
    """Beside x on the host or on the GPU, whichever place the caller's memory has."""
    x, weight = normal(5, 64, dtype="bfloat16"), normal(48, 64, dtype="bfloat16", seed=1)
    y = ops.linear(x, weight, backend="cuda")
    expected = ops.row_statistics(y, backend="cuda")
    for given in (x, ivk.DeviceArray(x)):
        for place in (lambda t: t, ivk.DeviceArray):
            told, out = place(torch.full((2, 5, 2), 7.0)), place(torch.full((5, 48), 7.0).bfloat16())
            assert ops.linear(given, weight, tell=told, out=out, backend="cuda") is out
            same_bits(told if isinstance(told, torch.Tensor) else host(told), expected)
            same_bits(out if isinstance(out, torch.Tensor) else host(out), y)


def test_refused() -> None:
    x = ivk.DeviceArray(normal(4, 64, dtype="bfloat16"))
    good = ops.row_statistics(x)
    with pytest.raises(UnsupportedError, match=r"out is float32 \[2, 5, 2\]; allowed: float32 \[2, 4, 2\]"):
        ops.row_statistics(x, out=ivk.DeviceArray.empty((2, 5, 2)))
    with pytest.raises(UnsupportedError, match=r"x is float32.*allowed: \[rows, cols\] of bfloat16 or float16"):
        ops.row_statistics(ivk.DeviceArray(normal(4, 64)))
    with pytest.raises(UnsupportedError, match="as many parts for each matrix"):
        ops.row_factors(good, 3)
    with pytest.raises(UnsupportedError, match=r"eps is 0\.0; allowed: a number greater than 0 that float32 holds"):
        ops.row_factors(good, eps=0.0)
    with pytest.raises(BackendError, match="backend 'cpu' has no kernel for it; allowed: 'cuda' or 'reference'"):
        ops.row_statistics(normal(4, 64), backend="cpu")
    weight = ivk.DeviceArray(normal(64, 64, dtype="bfloat16"))
    for tell, text in (
        (ivk.DeviceArray.empty((3, 4, 2)), "at most 2 parts"),
        (ivk.DeviceArray.empty((2, 3, 2)), r"allowed: float32 \[2, 4, 2\]"),
        (ivk.DeviceArray.empty((2, 4, 2), "float16"), r"allowed: float32 \[2, 4, 2\]"),
        (ivk.DeviceArray.empty((2, 4, 3))[..., 1:], "aligned to 8 bytes"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            ops.linear(x, weight, tell=tell)
    residual: Any = ivk.DeviceArray(normal(4, 64))
    with pytest.raises(UnsupportedError, match="of a y of x's dtype"):
        ops.linear_residual(x, weight, residual=residual, tell=good)
    with pytest.raises(UnsupportedError, match="tell is given, backend is 'cpu'"):
        ops.linear(normal(4, 64), normal(64, 64), tell=torch.empty(2, 4, 2), backend="cpu")
