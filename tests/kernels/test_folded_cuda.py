"""Norms folded into the products behind them: as exact as the two apart, and the same bits whatever the tile."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
TILES = ("128x128", "80x128", "64x128", "64x64")
SHAPES = ((1, 8, 8), (15, 24, 32), (63, 72, 40), (65, 136, 96), (129, 264, 160), (3, 5, 7), (9, 33, 15))
EPS = 1e-6


class Problem:
    """Rows, a norm and a product; both ways of computing it."""

    def __init__(self, m: int, n: int, k: int, dtype: str, rms: bool) -> None:
        self.rms, self.dtype = rms, dtype
        self.x, self.weight = normal(m, k, dtype=dtype), normal(n, k, dtype=dtype, seed=1)
        self.gain, self.shift = normal(k, dtype=dtype, seed=2), None if rms else normal(k, dtype=dtype, seed=3)
        self.bias = normal(n, dtype=dtype, seed=4)

    def folded(self, **more: Any) -> torch.Tensor:
        statistics = ops.row_statistics(self.x, backend="cuda")
        given = ops.fold_norm(self.weight, self.gain, self.bias, self.shift)
        made: torch.Tensor = ops.linear_folded(
            self.x, statistics, *given, eps=EPS, rms=self.rms, backend="cuda", **more
        )
        return made

    def apart(self, dtype: str) -> torch.Tensor:
        kind = getattr(torch, dtype)
        x, weight, gain, bias = (t.to(kind) for t in (self.x, self.weight, self.gain, self.bias))
        if self.rms:
            return ops.linear(ops.rms_norm(x, gain, eps=EPS, backend="reference"), weight, bias, backend="reference")
        assert self.shift is not None
        y = ops.layer_norm(x, gain, self.shift.to(kind), eps=EPS, backend="reference")
        return ops.linear(y, weight, bias, backend="reference")

    def gate(self) -> None:
        """Not worse than the norm and the product apart, each rounding."""
        compare(self.folded(), self.apart(self.dtype), self.apart("float64"), "linear", self.dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_shapes(m: int, n: int, k: int, rms: bool, dtype: str, sums: None) -> None:
    problem = Problem(m, n, k, dtype, rms)
    problem.gate()
    statistics = ops.row_statistics(problem.x, backend="cuda")
    given = ops.fold_norm(problem.weight, problem.gain, problem.bias, problem.shift)
    for gelu in (False, True):
        check("linear_folded", problem.x, statistics, *given, eps=EPS, rms=rms, gelu=gelu, backend="cuda")


@pytest.mark.modes(vgpu.LAZY)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
@pytest.mark.parametrize("what", ["massive", "mean", "tiny", "gain"])
def test_the_gate_under_hostile_rows(what: str, rms: bool, dtype: str) -> None:
    """Massive channels as towers have them, a mean far above the deviation, rows near zero, gains of several decades."""
    problem = Problem(19, 72, 512, dtype, rms)
    if what == "massive":
        problem.x[:, 5] *= 3000.0
        problem.x[::2, 300] = -9000.0
    elif what == "mean":
        problem.x += 30.0
    elif what == "tiny":
        problem.x *= 2.0**-12
    else:
        problem.gain[::7] *= 100.0
        problem.gain[3::7] *= 0.01
    problem.gate()


@pytest.mark.modes(vgpu.LAZY)
@pytest.mark.parametrize("k", [4, 8, 16, 31, 33])
def test_a_large_mean_of_few_columns(k: int) -> None:
    problem = Problem(24, 32, k, "float16", False)
    problem.x = (1000 + 0.5 * (problem.x > 0)).to(problem.x.dtype)
    problem.x[:, 0] = 1000
    problem.x[:, -1] = 1001
    problem.gate()


@pytest.mark.parametrize("dtype", HALVES)
def test_nan_and_inf_stay_in_their_rows(dtype: str) -> None:
    problem = Problem(4, 16, 64, dtype, False)
    clean = problem.folded()
    problem.x[1, 3], problem.x[2, 60] = float("nan"), float("inf")
    found = problem.folded()
    assert found[1:3].isnan().all()
    same_bits(found[[0, 3]], clean[[0, 3]], "the other rows")


@pytest.mark.parametrize("dtype", HALVES)
def test_every_tile_gives_the_same_bits(dtype: str, sums: None) -> None:
    problem = Problem(131, 200, 96, dtype, False)
    weight, columns = ops.fold_norm(problem.weight, problem.gain, problem.bias, problem.shift)
    arrays = [ivk.DeviceArray(t) for t in (problem.x, weight, columns)]
    statistics = ops.row_statistics(arrays[0])
    expected = problem.folded()
    for tile in TILES:
        y, told = ivk.DeviceArray.empty((131, 200), dtype), ivk.DeviceArray.empty((7, 131, 2))
        x, matrix, shift = (t._array for t in arrays)
        known = {"rows": statistics._array, "columns": shift, "eps": EPS, "statistics": told._array}
        cuda().gemm(x, matrix, None, None, None, None, y._array, "linear", 0, tile, **known)
        same_bits(host(y), expected, tile)
        same_bits(host(told), ops.row_statistics(expected, backend="cuda"), f"{tile} tells")
    shifted = [placed(t, 1, 0) for t in (problem.x, weight)]
    y = ops.linear_folded(shifted[0], statistics, shifted[1], arrays[2], eps=EPS)
    same_bits(host(y), expected, "element by element")


def test_rows_do_not_depend_on_the_batch() -> None:
    problem = Problem(145, 136, 264, "bfloat16", True)
    whole = problem.folded()
    same_bits(problem.folded(), whole, "run again")
    rows = problem.x
    for first, last in ((0, 1), (80, 145)):
        problem.x = rows[first:last]
        same_bits(problem.folded(), whole[first:last], f"rows {first} to {last}")


def test_no_rows_and_views() -> None:
    problem = Problem(6, 24, 32, "bfloat16", False)
    given = ops.fold_norm(problem.weight, problem.gain, problem.bias, problem.shift)
    empty = ops.linear_folded(problem.x[:0], torch.empty(1, 0, 2), *given, eps=EPS, backend="cuda")
    assert empty.shape == (0, 24)
    wide = torch.cat([problem.x, problem.x], 1)
    statistics = ops.row_statistics(wide[:, :32], backend="cuda")
    y = ops.linear_folded(wide[:, :32].reshape(2, 3, 32), statistics, *given, eps=EPS, backend="cuda")
    same_bits(y.reshape(6, 24), problem.folded(), "columns of a wider matrix, three dimensions")


def test_refused() -> None:
    problem = Problem(4, 16, 64, "bfloat16", False)
    statistics = ops.row_statistics(problem.x, backend="cuda")
    weight, columns = ops.fold_norm(problem.weight, problem.gain, problem.bias, problem.shift)
    wrong: tuple[tuple[Any, Any, str], ...] = (
        (statistics[:1], columns, r"statistics is float32 \[1, 4, 2\]; allowed: float32 \[2, 4, 2\]"),
        (statistics.double(), columns, "statistics is float64"),
        (statistics, columns[:3], r"columns is float32 \[3, 2\]; allowed: float32 \[16, 2\]"),
    )
    for given, shift, text in wrong:
        with pytest.raises(UnsupportedError, match=text):
            ops.linear_folded(problem.x, given, weight, shift, eps=EPS, backend="cuda")
    with pytest.raises(UnsupportedError, match=r"eps is 0\.0; allowed: a number greater than 0 that float32 holds"):
        ops.linear_folded(problem.x, statistics, weight, columns, eps=0.0, backend="cuda")
    with pytest.raises(UnsupportedError, match=r"fold_norm: weight \[16, 64\], norm_weight \[16\]"):
        ops.fold_norm(problem.weight, problem.bias)
    with pytest.raises(UnsupportedError, match=r"fold_norm: bias is \[1\]; allowed: \[16\], or None"):
        ops.fold_norm(problem.weight, problem.gain, torch.ones(1))
    arrays = [ivk.DeviceArray(t)._array for t in (problem.x, weight, columns, statistics, problem.bias)]
    y = ivk.DeviceArray.empty((4, 16), "bfloat16")._array
    known = {"rows": arrays[3], "columns": arrays[2], "eps": EPS}
    with pytest.raises(UnsupportedError, match="no bias but that in columns"):
        cuda().gemm(arrays[0], arrays[1], None, arrays[4], None, None, y, "linear", 0, "", **known)
    with pytest.raises(UnsupportedError, match="statistics and columns together"):
        cuda().gemm(arrays[0], arrays[1], None, None, None, None, y, "linear", 0, "", rows=arrays[3])
