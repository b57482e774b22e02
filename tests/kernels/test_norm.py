"""LayerNorm, RMSNorm, the fused residual forms and the tower's qk-norm against their references."""

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

DEFAULT_ROWS, DEFAULT_COLS = 5, 1024


def vectors(cols: int, dtype: str, count: int = 2) -> list[torch.Tensor]:
    return [normal(cols, dtype=dtype, seed=90 + i) + 1 for i in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", hostile.COLUMNS)
def test_columns(cols: int, dtype: str) -> None:
    x, branch = normal(DEFAULT_ROWS, cols, dtype=dtype), normal(DEFAULT_ROWS, cols, dtype=dtype, seed=1)
    weight, bias = vectors(cols, dtype)
    if cols > 1:  # one column has variance 0: only eps decides, and rounding decides everything
        check("layer_norm", x, weight, bias)
        check("add_norm", x, branch, weight, bias, scale=weight)
    check("rms_norm", x, weight)
    check("rms_norm", x, weight, once=True)
    check("add_norm", x, branch, weight, rms=True)
    check("add_norm", x, branch, weight, rms=True, once=True)
    check("add_scaled", x, branch, bias)


@pytest.mark.parametrize("rows", hostile.ROWS)
def test_rows(rows: int) -> None:
    x = normal(rows, 48)
    weight, bias = vectors(48, "float32")
    check("layer_norm", x, weight, bias)
    check("rms_norm", x, weight)
    check("add_norm", x, x, weight, rms=True)


def test_one_column_of_layer_norm_is_its_bias() -> None:
    assert ops.layer_norm(normal(3, 1), torch.ones(1), torch.full((1,), 7.0), backend="cpu").eq(7).all()


def test_many_rows_and_leading_dimensions() -> None:
    weight, bias = vectors(3, "float32")
    check("layer_norm", normal(hostile.MANY_ROWS, 3) * 8, weight, bias)
    check("rms_norm", normal(2, 3, 5, 3), weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", hostile.VIEWS)
def test_views(view: str, dtype: str) -> None:
    make = hostile.VIEWS[view]
    x, branch = normal(7, 100, dtype=dtype), normal(7, 100, dtype=dtype, seed=1)
    weight, bias = vectors(100, dtype)
    same_bits(
        ops.layer_norm(make(x), hostile.offset(weight), bias, backend="cpu"),
        ops.layer_norm(x, weight, bias, backend="cpu"),
    )
    same_bits(
        ops.add_norm(make(x), make(branch), weight, rms=True, scale=bias, backend="cpu"),
        ops.add_norm(x, branch, weight, rms=True, scale=bias, backend="cpu"),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_massive_channels_and_large_mean(dtype: str) -> None:
    x = hostile.massive_channels(9, 1024, dtype=dtype)
    weight, bias = vectors(1024, dtype)
    check("layer_norm", x, weight, bias)
    check("rms_norm", x, weight)
    check("layer_norm", normal(4, 64, dtype=dtype) + 100, *vectors(64, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_stay_in_their_rows(dtype: str) -> None:
    x = hostile.special(401, 33, dtype=dtype)
    weight, bias = vectors(33, dtype)
    check("add_scaled", x, normal(401, 33, dtype=dtype), bias)
    rows = x.isfinite().all(-1) & (x.abs().amax(-1) < 1e3)
    assert 0 < int(rows.sum()) < 401
    for op, arguments in (("layer_norm", (weight, bias)), ("rms_norm", (weight,))):
        y = getattr(ops, op)(x, *arguments, backend="cpu")
        same_bits(y[rows], getattr(ops, op)(x[rows], *arguments, backend="cpu"), op)
        assert torch.equal(y.isnan().any(-1), getattr(reference, op)(x, *arguments).isnan().any(-1))


def test_exact_on_whole_numbers() -> None:
    """Rows of +-1 have mean 0, variance 1 and mean square 1; eps vanishes in fp32, so every step is exact."""
    x = torch.ones(4, 64).where(torch.arange(64) % 2 == 0, -1.0)
    weight = hostile.integers(64)
    same_bits(ops.layer_norm(x, weight, weight, eps=1e-12, backend="cpu"), x * weight + weight)
    same_bits(ops.rms_norm(x, weight, eps=1e-12, backend="cpu"), x * weight)
    same_bits(ops.add_norm(x * 3, x, weight, rms=True, scale=torch.full((64,), -2.0), backend="cpu")[0], x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_batch_threads_or_instruction_set(dtype: str) -> None:
    x, branch = normal(300, 200, dtype=dtype), normal(300, 200, dtype=dtype, seed=1)
    weight, bias = vectors(200, dtype)
    run = {"scale": bias, "backend": "cpu"}
    h, y = check_invariant(lambda threads: ops.add_norm(x, branch, weight, bias, threads=threads, **run))
    for rows in (slice(0, 1), slice(7, 10), slice(299, 300)):
        same_bits(ops.add_norm(x[rows], branch[rows], weight, bias, **run), (h[rows], y[rows]))
    check_invariant(lambda threads: ops.rms_norm(x, weight, threads=threads, backend="cpu"))


def test_inplace_reuses_the_residual() -> None:
    x, branch = normal(4, 32), normal(4, 32, seed=1)
    weight, bias = vectors(32, "float32")
    expected = ops.add_norm(x, branch, weight, bias, backend="cpu")
    h, y = ops.add_norm(x, branch, weight, bias, inplace=True, backend="cpu")
    assert h.data_ptr() == x.data_ptr()
    same_bits((h, y), expected)
    assert ops.add_scaled(x, branch, inplace=True, backend="cpu").data_ptr() == x.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inplace", [False, True])
def test_vision_qk_norm(dtype: str, inplace: bool) -> None:
    qkv = normal(2, 5, 3 * 200, dtype=dtype)
    weights = vectors(200, dtype)
    out = check("vision_qk_norm", qkv, *weights, inplace=inplace)
    same_bits(out[..., 400:], qkv[..., 400:], "v")
    given = qkv.clone()
    assert (ops.vision_qk_norm(given, *weights, inplace=inplace, backend="cpu") is given) == inplace


def test_refused_tensors_are_named() -> None:
    weight = torch.ones(8)
    hostile.check_refused(lambda x: ops.rms_norm(x, weight, backend="cpu"), normal(4, 8))
    hostile.check_refused(lambda branch: ops.add_norm(torch.zeros(4, 8), branch, weight, backend="cpu"), normal(4, 8))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((torch.zeros(4, 8), torch.zeros(7)), r"weight is float32\[7\]"),
        ((torch.zeros(4, 8).bfloat16(), torch.zeros(8).half()), r"weight is float16\[8\]"),
        ((torch.zeros(4, 8).t(), torch.zeros(4)), "contiguous last dimension"),
        ((torch.zeros(4, 0), torch.zeros(0)), "cols >= 1"),
        ((torch.tensor(1.0), torch.ones(1)), "a scalar"),
        ((torch.zeros(3, 4, 8)[:, :, ::2], torch.zeros(4)), "contiguous last dimension"),
        ((torch.zeros(4, 3, 8).transpose(0, 1), torch.zeros(8)), r"do not fold into rows"),
    ],
)
def test_wrong_shapes_are_refused(arguments: tuple, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        ops.rms_norm(*arguments, backend="cpu")


def test_wrong_options_are_refused() -> None:
    x, weight = torch.zeros(2, 8), torch.ones(8)
    with pytest.raises(UnsupportedError, match="eps is 0"):
        ops.rms_norm(x, weight, eps=0.0, backend="cpu")
    with pytest.raises(UnsupportedError, match="RMSNorm takes no bias"):
        ops.add_norm(x, x, weight, weight, rms=True, backend="cpu")
    with pytest.raises(UnsupportedError, match="branch is float32"):
        ops.add_norm(x, torch.zeros(3, 8), weight, backend="cpu")
    with pytest.raises(UnsupportedError, match=r"qkv is \[2, 8\]"):
        ops.vision_qk_norm(x, weight, weight, backend="cpu")
    with pytest.raises(UnsupportedError, match="backend='gpu'"):
        ops.rms_norm(x, weight, backend="gpu")
    with pytest.raises(UnsupportedError, match="threads is -1"):
        ops.rms_norm(x, weight, threads=-1, backend="cpu")
    memory = torch.zeros(3, 8)
    with pytest.raises(UnsupportedError, match="partly overlaps"):
        ops.add_norm(memory[:2], memory[1:], weight, inplace=True, backend="cpu")


def test_numpy_in_numpy_out() -> None:
    x, weight = normal(3, 20), vectors(20, "float32", 1)[0]
    y = ops.rms_norm(x.numpy(), weight.numpy(), backend="cpu")
    assert isinstance(y, np.ndarray)
    same_bits(y, ops.rms_norm(x, weight, backend="cpu"))
    out = ops.vision_qk_norm(normal(3, 60).numpy(), weight.numpy(), weight.numpy())
    assert isinstance(out, np.ndarray)


def test_reference_is_differentiable_and_auto_follows_gradients() -> None:
    x = normal(2, 8).double().requires_grad_()
    weight, bias = torch.ones(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: ops.layer_norm(t, weight, bias), x)
    assert torch.autograd.gradcheck(lambda t: reference.add_norm(t, t * 2, weight, rms=True, scale=weight), x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_one_rounding_is_the_nearest_number(dtype: str) -> None:
    """GPT-OSS's order: half a unit off at most, where two roundings go further; transformers' own module the same."""
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm

    x, (weight,) = normal(33, 96, dtype=dtype), vectors(96, dtype, 1)
    wide = x.double()
    exact = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight.double()
    once, twice = (ops.rms_norm(x, weight, once=flag, backend="cpu") for flag in (True, False))
    nearest = exact.to(x.dtype)
    assert (once != nearest).float().mean() < 0.002, "but for ties of the fp32 value"
    assert (twice != nearest).float().mean() > 0.1
    theirs = GptOssRMSNorm(96)
    theirs.weight = torch.nn.Parameter(weight, requires_grad=False)
    assert (once != theirs(x)).float().mean() < 0.002
    h, y = ops.add_norm(x, x, weight, rms=True, once=True, backend="cpu")
    same_bits(y, ops.rms_norm(h, weight, once=True, backend="cpu"))
    with pytest.raises(UnsupportedError, match="once is True, rms False"):
        ops.add_norm(x, x, weight, once=True, backend="cpu")
