"""Products of the decode phase: weights streamed once, bits of a row independent of everything but row and weight."""

from __future__ import annotations

import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal


def decode(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, threads: int = 1) -> torch.Tensor:
    return ops.linear(x, weight, bias, decode=True, threads=threads, backend="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(1, 1, 1), (1, 15, 3), (2, 16, 4), (3, 17, 5), (4, 1024, 64), (5, 33, 7), (9, 200, 31), (0, 8, 8), (3, 8, 0)],
)
@pytest.mark.usefixtures("isa")
def test_against_torch(rows: int, inner: int, columns: int, dtype: str) -> None:
    x, weight = normal(rows, inner, dtype=dtype), normal(columns, inner, dtype=dtype, seed=1, scale=inner**-0.5)
    for bias in (None, normal(columns, dtype=dtype, seed=2)):
        wide = [None if t is None else t.double() for t in (x, weight, bias)]
        compare(decode(x, weight, bias), reference.linear(x, weight, bias), reference.linear(*wide), "linear", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("isa")
def test_exact_on_whole_numbers(dtype: str) -> None:
    x, weight = hostile.integers(6, 40, dtype=dtype, high=1), hostile.integers(24, 40, dtype=dtype, seed=1, high=2)
    bias = hostile.integers(24, dtype=dtype, seed=2)
    same_bits(decode(x, weight, bias), reference.linear(x.double(), weight.double(), bias.double()).to(x.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("isa")
def test_bits_of_a_row_are_its_own(dtype: str) -> None:
    x, weight = normal(70, 210, dtype=dtype), normal(530, 210, dtype=dtype, seed=1)
    whole = decode(x, weight)
    for rows in (slice(0, 1), slice(3, 5), slice(7, 10), slice(1, 70), slice(69, 70)):
        for threads in (1, 2, 3):
            same_bits(decode(x[rows], weight, threads=threads), whole[rows])


def test_fused_levels_give_equal_bits() -> None:
    available = [isa for isa in cpu().available_isas() if isa != "base"]
    if len(available) < 2:
        pytest.skip("this machine has one fused level")
    x, weight = normal(3, 333), normal(50, 333, seed=1)
    before, results = cpu().current_isa(), []
    try:
        for isa in available:
            cpu().set_isa(isa)
            results.append(decode(x, weight))
    finally:
        cpu().set_isa(before)
    same_bits(results[0], results[1])


def test_views_leading_dimensions_and_many_columns() -> None:
    x, weight = normal(2, 3, 40), normal(70_001, 40, seed=1)
    y = decode(x, weight)
    assert y.shape == (2, 3, 70_001)
    same_bits(decode(hostile.offset(x), weight), y)
    same_bits(decode(x, hostile.row_strided(weight)), y)


def test_not_a_number_stays_in_its_row() -> None:
    x, weight = normal(4, 50), normal(9, 50, seed=1)
    clean = decode(x, weight)
    x[2, 49] = float("nan")
    y = decode(x, weight)
    assert y[2].isnan().all()
    same_bits(y[[0, 1, 3]], clean[[0, 1, 3]])
    x[2, 49] = float("inf")
    assert decode(x, weight)[2].isinf().all()


def test_refusals() -> None:
    x, weight = normal(2, 8), normal(4, 8)
    with pytest.raises(UnsupportedError, match=r"weight \[4, 7\]"):
        decode(x, weight[:, :7])
    with pytest.raises(UnsupportedError, match="bfloat16"):
        decode(x, weight.bfloat16())
    with pytest.raises(UnsupportedError, match="float64"):
        decode(x.double(), weight.double())
    with pytest.raises(UnsupportedError, match="contiguous rows"):
        decode(x, normal(8, 4).t())
    hostile.check_refused(lambda value: decode(value, weight), x)
    hostile.check_refused(lambda value: decode(x, value), weight)
