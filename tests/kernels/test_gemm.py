"""Linear layers, GELU and SwiGLU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (5, 17, 33), (0, 8, 8), (64, 200, 96), (3, 1024, 7)])
def test_linear(rows: int, inner: int, columns: int, dtype: str) -> None:
    x, weight = normal(rows, inner, dtype=dtype), normal(columns, inner, dtype=dtype, scale=inner**-0.5)
    bias = normal(columns, dtype=dtype)
    check("linear", x, weight, bias)
    check("linear", x, weight)
    check("linear_gelu", x, weight, bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_is_exact_on_whole_numbers(dtype: str) -> None:
    x, weight = hostile.integers(33, 40, dtype=dtype, high=1), hostile.integers(24, 40, dtype=dtype, seed=1, high=2)
    bias = hostile.integers(24, dtype=dtype, seed=2)
    expected = reference.linear(x.double(), weight.double(), bias.double())
    same_bits(ops.linear(x, weight, bias, backend="cpu"), expected.to(x.dtype))


def test_leading_dimensions_and_views() -> None:
    x, weight = normal(2, 3, 40), normal(24, 40)
    y = check("linear", x, weight)
    same_bits(ops.linear(hostile.offset(x), weight, backend="cpu"), y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 63, 2047, 2048, 2049, 4864])
def test_swiglu(columns: int, dtype: str) -> None:
    check("swiglu", normal(3, 2 * columns, dtype=dtype, scale=3.0))


@pytest.mark.parametrize("rows", hostile.ROWS)
def test_swiglu_rows(rows: int) -> None:
    check("swiglu", normal(rows, 34))


def test_swiglu_many_rows_and_leading_dimensions() -> None:
    check("swiglu", normal(hostile.MANY_ROWS, 4))
    check("swiglu", normal(2, 3, 4, 10))
    assert ops.swiglu(torch.zeros(3, 0), backend="cpu").shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", hostile.VIEWS)
def test_swiglu_views(view: str, dtype: str) -> None:
    x = normal(5, 66, dtype=dtype)
    same_bits(ops.swiglu(hostile.VIEWS[view](x), backend="cpu"), ops.swiglu(x, backend="cpu"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype: str) -> None:
    check("swiglu", hostile.special(50, 66, dtype=dtype))


def ulps(actual: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest distance in units in the last place of the exact value's binade."""
    exponent = torch.frexp(exact).exponent.clamp_min(-125)
    return float(((actual.double() - exact).abs() * torch.exp2(24.0 - exponent.double())).max())


def sweep(low: float, high: float) -> torch.Tensor:
    """Floats spaced evenly in representation, so that every binade between the two is met."""
    bits = torch.tensor([low, high]).view(torch.int32).tolist()
    return (
        torch.linspace(min(bits), max(bits), 200_000, dtype=torch.float64).round().to(torch.int32).view(torch.float32)
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_silu_is_within_its_stated_bound(sign: float, isa: str) -> None:
    x = sign * sweep(1e-30, 88.0)
    y = ops.swiglu(torch.cat([x, torch.ones_like(x)]), backend="cpu")
    assert ulps(y, torch.nn.functional.silu(x.double())) <= 3.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_batch_threads_or_instruction_set(dtype: str) -> None:
    x = normal(40, 6000, dtype=dtype, scale=4.0)
    y = check_invariant(lambda threads: ops.swiglu(x, threads=threads, backend="cpu"))
    same_bits(ops.swiglu(x[7:9], backend="cpu"), y[7:9])


@pytest.mark.parametrize(
    ("x", "weight", "bias", "text"),
    [
        (torch.zeros(2, 8), torch.zeros(4, 7), None, r"x \[2, 8\], weight \[4, 7\]"),
        (torch.zeros(2, 8), torch.zeros(8), None, r"weight \[8\]"),
        (torch.zeros(2, 8), torch.zeros(4, 8), torch.zeros(3), r"bias \[3\]"),
        (torch.zeros(2, 8), torch.zeros(4, 8).half(), None, "weight is torch.float16"),
        (torch.zeros(2, 8), torch.zeros(4, 8), torch.zeros(4).bfloat16(), "bias is torch.bfloat16"),
    ],
)
def test_wrong_shapes_are_refused(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, text: str) -> None:
    for op in (ops.linear, ops.linear_gelu):
        with pytest.raises(UnsupportedError, match=text):
            op(x, weight, bias, backend="cpu")


def test_swiglu_refusals() -> None:
    with pytest.raises(UnsupportedError, match=r"gate_up is \[2, 7\]"):
        ops.swiglu(torch.zeros(2, 7), backend="cpu")
    with pytest.raises(UnsupportedError, match="contiguous last dimension"):
        ops.swiglu(torch.zeros(8, 2).t(), backend="cpu")
    x = torch.zeros(2, 8)
    with pytest.raises(UnsupportedError, match="apart from x"):
        cpu().swiglu(x, x[:, :4], 1)


def test_refused_tensors_are_named() -> None:
    hostile.check_refused(lambda x: ops.swiglu(x, backend="cpu"), normal(3, 8))


def test_linear_refuses_what_no_kernel_reads() -> None:
    weight = normal(4, 8)
    kinds = ("negative view", "meta", "fake", "sparse", "requires grad")
    for kind, tensor, text in hostile.refused(normal(3, 8)):
        if kind in kinds:
            with pytest.raises(UnsupportedError, match=text):
                ops.linear(tensor, weight, backend="cpu")


def test_numpy_in_numpy_out() -> None:
    x, weight = normal(3, 8), normal(6, 8)
    for y in (ops.swiglu(x.numpy()), ops.linear(x.numpy(), weight.numpy()), ops.linear_gelu(x.numpy(), weight.numpy())):
        assert isinstance(y, np.ndarray)
    same_bits(ops.swiglu(x.numpy()), ops.swiglu(x, backend="cpu"))


def test_references_are_differentiable() -> None:
    x, weight = normal(2, 4).double().requires_grad_(), normal(6, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: ops.swiglu(ops.linear_gelu(a, b)), (x, weight))
