"""The operators of torch over the ops: schemas, empty results, gradients, and the functions' own bits and refusals."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import library

from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.ops._backend import CUDA_ALONE
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.parity import Problem, problems
from internvl_kernels.torch_ops import DOORS, Door

DOOR = torch.ops.internvl_kernels
NO_TENSORS = {"choose_grid", "pack_weight", "statistics_space", "uniforms"}
PIECES = {"fold_norm", *CUDA_ALONE}  # of the CUDA tower's fusion
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def of(door: Door) -> list[Problem]:
    return [p for p in problems() if p.op == door.name.rstrip("_")]


def operator(door: Door) -> Any:
    return getattr(DOOR, door.name).default


def by_name(door: Door, problem: Problem, dtype: str) -> dict[str, Any]:
    args, kwargs = problem.make(dtype)
    run = {key: value for key, value in problem.run.items() if key != "inplace"}
    found = dict(inspect.signature(door.op).bind(*args, **kwargs, **run).arguments)
    return {key: _tensor(value) if key in ("spans", "pixels") else value for key, value in found.items()}


def _tensor(value: Any) -> torch.Tensor:
    return torch.as_tensor(value)


def in_order(door: Door, given: dict[str, Any]) -> Arguments:
    """As the schema has them."""
    known = operator(door)._schema.arguments
    first = tuple(given.get(a.name) for a in known if not a.kwarg_only)
    return first, {a.name: given[a.name] for a in known if a.kwarg_only and a.name in given}


def with_grad(given: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.clone().requires_grad_() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in given.items()
    }


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def ids(door: Door) -> str:
    return door.name


def test_every_op_that_takes_tensors_is_there() -> None:
    assert {door.name.rstrip("_") for door in DOORS} == set(ops.__all__) - NO_TENSORS - PIECES
    inplace = {n for n in ops.__all__ if "inplace" in inspect.signature(getattr(ops, n)).parameters}
    assert {door.name.rstrip("_") for door in DOORS if door.inplace} == inplace


def test_schemas() -> None:
    """Written out: an exported program holds them."""
    expected = {
        "linear_residual_": "(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) residual, Tensor? scale=None, *, "
        'SymInt threads=0, str backend="auto") -> ()',
        "cached_attention": "(Tensor q, Tensor k_cache, Tensor v_cache, Tensor spans, Tensor? sinks=None, Tensor? pages=None, *, "
        "float? scale=None, SymInt? window=None, SymInt? page_size=None, bool decode=False, SymInt threads=0, "
        'str backend="auto") -> Tensor',
        "moe_route": "(Tensor logits, SymInt k, *, bool normalize=True, SymInt threads=0, "
        'str backend="auto") -> (Tensor, Tensor)',
    }
    for name, schema in expected.items():
        assert str(getattr(DOOR, name).default._schema) == f"internvl_kernels::{name}{schema}"


@pytest.mark.parametrize("door", DOORS, ids=ids)
def test_opcheck(door: Door) -> None:
    first, *_, problem = of(door) * 2
    library.opcheck(
        operator(door), *in_order(door, by_name(door, first, first.dtypes[0])), test_utils="test_faketensor"
    )
    given = by_name(door, problem, problem.dtypes[0])
    library.opcheck(operator(door), *in_order(door, given))
    if door.gradient:  # the backward pass traced as well
        library.opcheck(operator(door), *in_order(door, with_grad(given)), test_utils="test_aot_dispatch_dynamic")
    if "bfloat16" in problem.dtypes:
        library.opcheck(
            operator(door), *in_order(door, by_name(door, problem, "bfloat16")), test_utils="test_faketensor"
        )


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("door", DOORS, ids=ids)
def test_bits_of_the_function(door: Door, backend: str) -> None:
    for problem in of(door):
        for dtype in problem.dtypes:
            given, same = by_name(door, problem, dtype), by_name(door, problem, dtype)
            if "spans" in same:
                same["spans"] = same["spans"].tolist()
            expected = as_tuple(door.op(**same, backend=backend))
            args, kwargs = in_order(door, given)
            actual = as_tuple(operator(door)(*args, **kwargs, backend=backend))
            if door.inplace:
                actual = (given[door.writes[0]], *actual)
            same_bits(actual, expected, f"{door.name}, {problem.label}, {dtype}")
            for name in () if door.inplace else door.writes:
                same_bits(given[name], same[name], f"{door.name}: {name}")
            assert all(t.is_contiguous() for t in actual)


def test_float32_stream_beside_16_bit_weights() -> None:
    x, weight = normal(2, 17, 64), normal(64, dtype="bfloat16", seed=1)
    for name in ("rms_norm", "layer_norm"):
        library.opcheck(getattr(DOOR, name).default, (x, weight))
        found = getattr(DOOR, name)(x, weight)
        assert found.dtype == torch.bfloat16
        same_bits(found, getattr(ops, name)(x, weight))
    library.opcheck(DOOR.pixel_shuffle.default, (normal(2, 17, 16), weight))
    matrix, rows = normal(64, 32, dtype="bfloat16", seed=2), normal(2, 17, 32, dtype="bfloat16", seed=3)
    library.opcheck(DOOR.linear_residual.default, (rows, matrix, None, x))
    assert DOOR.linear_residual(rows, matrix, None, residual=x).dtype == torch.float32


@pytest.mark.parametrize("door", [d for d in DOORS if d.gradient], ids=ids)
def test_gradients_are_the_references(door: Door) -> None:
    for problem in of(door):
        if problem.run:
            continue
        given, same = (with_grad(by_name(door, problem, "float32")) for _ in range(2))
        args, kwargs = in_order(door, given)
        actual, expected = as_tuple(operator(door)(*args, **kwargs)), as_tuple(getattr(reference, door.name)(**same))
        weights = [normal(*t.shape, seed=9) for t in expected]
        for results in (actual, expected):
            sum((t * w).sum() for t, w in zip(results, weights) if t.requires_grad).backward()  # type: ignore[union-attr]
        for name, value in same.items():
            if isinstance(value, torch.Tensor) and value.requires_grad:
                same_bits(given[name].grad, value.grad, f"{door.name}, {problem.label}: gradient of {name}")


def test_second_gradients_and_a_tensor_given_twice() -> None:
    x, weight = (normal(*shape, seed=1).double().requires_grad_() for shape in ((3, 5), (5,)))
    run = DOOR.rms_norm
    torch.autograd.gradcheck(lambda a, b: run(a, b, backend="reference"), (x, weight))
    torch.autograd.gradgradcheck(lambda a, b: run(a, b, backend="reference"), (x, weight))
    torch.autograd.gradcheck(lambda a: DOOR.add_scaled(a, a, a[0], backend="reference"), (x,))


def test_gradients_refused_by_name() -> None:
    x, weight = normal(4, 8).requires_grad_(), normal(8, 8, seed=1)
    for call in (lambda **run: DOOR.linear(x, weight, **run), lambda **run: DOOR.layer_norm(x, weight[0], **run)):
        with pytest.raises(
            UnsupportedError, match=r"(linear|layer_norm): backend 'cpu' has no gradient and x requires"
        ):
            call(backend="cpu")
        with torch.no_grad():
            assert not call(backend="cpu").requires_grad
    residual = normal(4, 8, seed=2)
    with pytest.raises(UnsupportedError, match=r"linear_residual: an operator that writes .* and x requires one"):
        DOOR.linear_residual_(x, weight, None, residual)
    table = normal(9, 8).requires_grad_()
    y = DOOR.embed_tokens(torch.tensor([1, 2]), table)
    with pytest.raises(UnsupportedError, match=r"embed_tokens: no gradient .* allowed: torch.no_grad"):
        y.sum().backward()
    assert not DOOR.argmax(x).requires_grad


def test_refusals_come_through() -> None:
    x, weight = normal(4, 8, dtype="float16"), normal(8, 8)
    with pytest.raises(UnsupportedError, match=r"linear: weight is torch.float32; allowed: x's dtype, torch.float16"):
        DOOR.linear(x, weight)
    for call, text in (
        (lambda: DOOR.rms_norm(weight.int(), weight[0]), "rms_norm: norm: x is int32"),
        (lambda: DOOR.rms_norm(weight.to_sparse(), weight[0]), "rms_norm: x: a sparse"),
        (lambda: DOOR.linear(weight, weight, threads=-1), "linear: threads is -1"),
        (lambda: DOOR.linear(weight, weight, backend="gpu"), "linear: backend='gpu'"),
        (
            lambda: DOOR.cached_attention(x[:, None], x[:, None], x[:, None], torch.ones(1, 3)),
            "cached_attention: spans",
        ),
        (lambda: DOOR.linear_residual_(weight, weight, None, weight[:3].clone()), "linear_residual: residual"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            call()


def test_views_stay_apart_from_what_they_were_made_of() -> None:
    """The reference may give back part of what it was given; an operator of torch must not."""
    qkv, angles = normal(1, 3 * 8), torch.zeros(1, 4)
    q, k, v = DOOR.qkv_rope(
        qkv, angles.cos(), angles.sin(), num_heads=1, num_kv_heads=1, head_dim=8, backend="reference"
    )
    same_bits((q, k, v), tuple(t.view(1, 1, 8) for t in qkv.split(8, -1)))
    x = normal(1, 4, 6)
    y = DOOR.pixel_shuffle(x, grid=(2, 2), factor=1, drop_cls=False, backend="reference")
    for result, source in ((v, qkv), (y, x)):
        assert result.untyped_storage().data_ptr() != source.untyped_storage().data_ptr()


@pytest.mark.usefixtures("cuda_backend")
def test_on_the_device() -> None:
    x, weight, residual = (
        normal(*shape, dtype="bfloat16", seed=s) for s, shape in enumerate(((5, 64), (64, 64), (5, 64)))
    )
    run: dict[str, Any] = {"backend": "cuda"}
    same_bits(DOOR.rms_norm(x, weight[0], **run), ops.rms_norm(x, weight[0], **run))
    expected = ops.linear_residual(x, weight, residual=residual, **run)
    same_bits(DOOR.linear_residual(x, weight, None, residual, **run), expected)
    DOOR.linear_residual_(x, weight, None, residual, **run)
    same_bits(residual, expected)


def test_loaded_on_first_use() -> None:
    code = (
        "import sys, internvl_kernels as ivk; from internvl_kernels import *;"
        "assert 'torch_ops' in dir(ivk) and 'torch' not in sys.modules;"
        "ivk.torch_ops; import torch; torch.ops.internvl_kernels.linear(torch.ones(2, 3), torch.ones(4, 3))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
