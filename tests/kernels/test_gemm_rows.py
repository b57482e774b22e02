"""Linear layers within a phase: a row's bits do not depend on the rows beside it."""

from __future__ import annotations

import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import instruction_set

SHAPES = [(64, 192), (200, 96), (896, 1152), (1, 1), (17, 5)]  # K, N


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inner", "columns"), SHAPES)
def test_decode_rows(inner: int, columns: int, dtype: str, isa: str) -> None:
    x, weight = normal(9, inner, dtype=dtype), normal(columns, inner, dtype=dtype, scale=inner**-0.5)
    bias = normal(columns, dtype=dtype)
    y = ops.linear(x, weight, bias, decode=True, backend="cpu")
    wide = reference.linear(x.double(), weight.double(), bias.double())
    compare(y, reference.linear(x, weight, bias), wide, "linear", dtype)
    for rows in (slice(0, 1), slice(3, 5), slice(2, 9)):
        same_bits(ops.linear(x[rows], weight, bias, decode=True, backend="cpu"), y[rows])
    same_bits(ops.linear(x, weight, bias, decode=True, threads=2, backend="cpu"), y, "two threads")


def test_decode_bits_are_equal_where_the_arithmetic_is() -> None:
    """v3 and v4 both fuse multiply and add; base does not (gemm_few_rows.h)."""
    x, weight = normal(5, 300), normal(70, 300)
    found = {}
    for isa in cpu().available_isas():
        with instruction_set(isa):
            found[isa] = ops.linear(x, weight, decode=True, backend="cpu")
    if "v4" in found:
        same_bits(found["v4"], found["v3"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_is_exact_on_whole_numbers(dtype: str, isa: str) -> None:
    x, weight = hostile.integers(6, 40, dtype=dtype, high=1), hostile.integers(24, 40, dtype=dtype, seed=1, high=2)
    expected = reference.linear(x.double(), weight.double()).to(x.dtype)
    same_bits(ops.linear(x, weight, decode=True, backend="cpu"), expected)
    same_bits(ops.linear(hostile.row_strided(x), hostile.offset(weight), decode=True, backend="cpu"), expected)


def test_decode_refusals() -> None:
    weight = normal(4, 8)
    kinds = ("negative view", "meta", "fake", "sparse", "expanded", "requires grad")
    for kind, tensor, text in hostile.refused(normal(3, 8)):
        if kind in kinds:  # other dtypes fall to the check that all dtypes are one
            with pytest.raises(UnsupportedError, match=text):
                ops.linear(tensor, weight, decode=True, backend="cpu")
    square = torch.zeros(8, 8)
    with pytest.raises(UnsupportedError, match="apart"):
        cpu().gemm_few_rows(square, square, None, square, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inner", "columns"), [(64, 4), (192, 64), (200, 96), (588, 1024), (896, 1152)])
def test_prefill_rows(inner: int, columns: int, dtype: str) -> None:
    """Sizes as in models: for K no multiple of 4, or N = 1, torch's own product also looks at alignment."""
    x, weight = normal(300, inner, dtype=dtype), normal(columns, inner, dtype=dtype, scale=inner**-0.5)
    bias = normal(columns, dtype=dtype)
    y = ops.linear(x, weight, bias, backend="cpu")
    for count in (1, 2, 3, 5, 7, 8, 9, 16, 17, 33, 64, 100):
        same_bits(ops.linear(x[-count:], weight, bias, backend="cpu"), y[-count:], f"{count} of 300 rows")
    torch.set_num_threads(2)
    same_bits(ops.linear(x, weight, bias, backend="cpu"), y, "two threads")
    gelu = ops.linear_gelu(x, weight, bias, backend="cpu")
    same_bits(ops.linear_gelu(x[7:8], weight, bias, backend="cpu"), gelu[7:8], "gelu of one row")


def test_not_a_number_stays_in_its_row_and_empty_sides_are_empty() -> None:
    x, weight = normal(4, 50), normal(9, 50, seed=1)
    clean = ops.linear(x, weight, decode=True, backend="cpu")
    x[2, 49] = float("nan")
    y = ops.linear(x, weight, decode=True, backend="cpu")
    assert y[2].isnan().all()
    same_bits(y[[0, 1, 3]], clean[[0, 1, 3]])
    assert ops.linear(x[:0], weight, decode=True, backend="cpu").shape == (0, 9)
    assert ops.linear(x, weight[:0], decode=True, backend="cpu").shape == (4, 0)
