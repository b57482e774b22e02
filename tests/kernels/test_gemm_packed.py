"""The GEMM: packed and plain weights, every epilogue, edges of its panels, tiles and chains, mixed dtypes, bits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

# Rows around micro-panels (2, 6, 12), blocks (96, 288); N around panels and tiles (16, 32); K around chains (256, 512).
EDGES = [
    (1, 1, 1), (2, 16, 15), (5, 255, 16), (6, 256, 17), (7, 257, 31), (11, 511, 32), (12, 512, 33), (13, 513, 47),
    (95, 3, 49), (96, 40, 64), (97, 33, 65), (288, 20, 40), (289, 600, 3),
]  # fmt: skip


def run(x: torch.Tensor, weight: object, epilogue: str, extra: list[torch.Tensor], threads: int = 1) -> torch.Tensor:
    """One epilogue through the kernel itself, whatever the op would choose for the dtype."""
    n, packed = weight.shape[0], isinstance(weight, ops.PackedWeight)  # type: ignore[attr-defined]
    bias, scale, residual = [*(extra if epilogue == "residual" else extra[:1]), None, None, None][:3]
    y = torch.empty(len(x), n // 2 if epilogue == "swiglu" else n, dtype=x.dtype)
    data = weight.data if packed else weight  # type: ignore[attr-defined]
    cpu().gemm(x, data, n if packed else None, bias, scale, residual, y, epilogue, threads)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inner", "columns"), EDGES)
def test_edges(rows: int, inner: int, columns: int, dtype: str, isa: str) -> None:
    x, weight = normal(rows, inner, dtype=dtype), normal(columns, inner, dtype=dtype, seed=1, scale=inner**-0.5)
    bias, scale = normal(columns, dtype=dtype, seed=2), normal(columns, dtype=dtype, seed=3)
    residual = normal(rows, columns, dtype=dtype, seed=4)
    if columns == 1:  # in a row of one column nothing larger would hide cancellation
        x, weight, bias, scale, residual = (t.abs() for t in (x, weight, bias, scale, residual))
    packed = ops.pack_weight(weight)
    product = reference.linear(x.double(), weight.double(), bias.double())
    for epilogue, name, plain, wide in (
        ("linear", "linear", reference.linear(x, weight, bias), product),
        ("gelu", "linear_gelu", reference.linear_gelu(x, weight, bias), torch.nn.functional.gelu(product)),
        ("residual", "linear_residual", reference.linear_residual(x, weight, bias, residual=residual, scale=scale),
            residual.double() + scale.double() * product),
    ):  # fmt: skip
        y = run(x, packed, epilogue, [bias, scale, residual])
        compare(y, plain, wide, name, dtype)
        same_bits(run(x, weight, epilogue, [bias, scale, residual], threads=2), y, f"{name} of the plain weight")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(1, 5, 1), (3, 40, 15), (13, 300, 16), (97, 33, 17), (7, 64, 48)]
)
def test_gate_and_up(rows: int, inner: int, columns: int, dtype: str, isa: str) -> None:
    x, weight = normal(rows, inner, dtype=dtype), normal(2 * columns, inner, dtype=dtype, seed=1, scale=inner**-0.5)
    if columns == 1:
        x, weight = x.abs(), weight.abs()
    y = run(x, ops.pack_weight(weight, gated=True), "swiglu", [])
    wide = reference.linear_swiglu(x.double(), weight.double())
    compare(y, reference.linear_swiglu(x, weight), wide, "linear_swiglu", dtype)
    same_bits(run(x, weight, "swiglu", []), y, "the plain weight")
    # Gate and up are not exchanged, and each meets its own column.
    eye = torch.eye(inner, dtype=x.dtype)
    steps = torch.arange(2 * columns * inner).reshape(2 * columns, inner) % 5 - 2
    found = run(eye, ops.pack_weight(steps.to(x.dtype), gated=True), "swiglu", [])
    gate, up = steps[:columns].t().double(), steps[columns:].t().double()
    torch.testing.assert_close(found.double(), torch.nn.functional.silu(gate) * up, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("rows", [1, 4, 5, 13, 100])
def test_weights_of_another_dtype(rows: int, stored: str, isa: str) -> None:
    """fp32 rows against 16-bit weights are fp32 products with the widened weights, to the bit."""
    x, weight = normal(rows, 290), normal(70, 290, dtype=stored, seed=1)
    expected = ops.linear(x, ops.pack_weight(weight.float()), backend="cpu")
    same_bits(ops.linear(x, ops.pack_weight(weight), backend="cpu"), expected)
    gated = ops.linear_swiglu(x, ops.pack_weight(weight, gated=True), backend="cpu")
    same_bits(gated, ops.linear_swiglu(x, ops.pack_weight(weight.float(), gated=True), backend="cpu"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_are_exact(dtype: str, isa: str) -> None:
    x, weight = hostile.integers(29, 530, dtype=dtype, high=1), hostile.integers(45, 530, dtype=dtype, seed=1, high=1)
    weight[:, 40:] *= (torch.arange(490) % 17 == 0).to(weight.dtype)  # sums stay below what 8 bits hold
    bias, residual = hostile.integers(45, dtype=dtype, seed=2), hostile.integers(29, 45, dtype=dtype, seed=3)
    product = x.double() @ weight.double().t() + bias.double()
    assert product.abs().max() < 250
    for matrix in (weight, ops.pack_weight(weight)):
        same_bits(run(x, matrix, "linear", [bias]), product.to(x.dtype))
        scale = torch.full_like(bias, 2)
        same_bits(run(x, matrix, "residual", [bias, scale, residual]), (residual + 2 * product).to(x.dtype))


@pytest.mark.parametrize("packed", [True, False])
def test_bits_do_not_depend_on_rows_threads_or_width(packed: bool) -> None:
    x, plain = normal(301, 600), normal(130, 600, seed=1)
    weight = ops.pack_weight(plain) if packed else plain
    y = check_invariant(lambda threads: ops.linear(x, weight, threads=threads, backend="cpu"), fused=True)
    for first, last in ((0, 1), (5, 9), (95, 97), (100, 301), (300, 301)):
        same_bits(ops.linear(x[first:last], weight, backend="cpu"), y[first:last], f"rows {first} to {last}")
    some = ops.pack_weight(plain[32:77]) if packed else plain[32:77]
    same_bits(ops.linear(x, some, backend="cpu"), y[:, 32:77].contiguous(), "columns 32 to 77")


def test_not_a_number_stays_in_its_row_and_column() -> None:
    x, plain = normal(30, 300), normal(50, 300, seed=1)
    clean = ops.linear(x, plain, backend="cpu")
    x[17, 299], plain[33, 0] = float("nan"), float("inf")
    for weight in (plain, ops.pack_weight(plain)):
        y = ops.linear(x, weight, backend="cpu")
        assert y[17].isnan().all()
        assert not y[:17, :33].isnan().any()
        assert not y[:17, 33].isfinite().any()
        keep = torch.ones_like(y, dtype=torch.bool)
        keep[17], keep[:, 33] = False, False
        same_bits(y[keep], clean[keep])
    for name in ("linear_gelu", "linear_residual"):
        special = hostile.special(50, 300)
        extra = {"residual": hostile.special(50, 50, seed=1)} if name == "linear_residual" else {}
        check(name, special, torch.eye(50, 300), **extra)


def test_gelu_of_every_size() -> None:
    """The exact GELU from -40 to 40 and far out: its error against float64, and tails that end in zero."""
    x = torch.cat([torch.linspace(-40, 40, 200_001), torch.tensor([-1e30, -1e4, 1e4, 1e30, 0.0, -0.0])])
    y = ops.linear_gelu(x[:, None], torch.ones(1, 1), backend="cpu")[:, 0]
    wide = torch.nn.functional.gelu(x.double())
    error = (y.double() - wide).abs() / wide.abs().clamp(min=0.1)
    assert error[:-6].max() < 6e-7
    assert (y[-6:-4].abs() < 1e-25).all()
    assert torch.equal(y[-4:-2], x[-4:-2])
    assert not y[-2:].any()


def test_views_and_in_place() -> None:
    x, weight, residual = normal(20, 64), normal(48, 64, seed=1), normal(20, 48, seed=2)
    expected = ops.linear_residual(x, weight, residual=residual, backend="cpu")
    wide = torch.zeros(20, 100)
    wide[:, 7:71] = x
    same_bits(ops.linear_residual(wide[:, 7:71], weight, residual=residual, backend="cpu"), expected)
    same_bits(ops.linear_residual(x, hostile.row_strided(weight), residual=residual, backend="cpu"), expected)
    target = residual.clone()
    found = ops.linear_residual(x, weight, residual=target, inplace=True, backend="cpu")
    assert found.data_ptr() == target.data_ptr()
    same_bits(target, expected)
    numbers = ops.linear(x.numpy(), ops.pack_weight(weight.numpy()))
    assert isinstance(numbers, np.ndarray)
    same_bits(numbers, ops.linear(x, weight, backend="cpu"))


def test_packed_weight_holds_the_rows() -> None:
    weight = normal(83, 21)
    packed = ops.pack_weight(weight, threads=2)
    index = torch.tensor([0, 82, 15, 16, 31, 32, 5])
    same_bits(packed.rows(index), weight[index])
    assert packed.data.numel() == 96 * 21
    assert not packed.rows(torch.tensor([83, 95])).any()
    parts = ops.PackedWeight((83, 21), torch.float32)
    parts.write(weight[:64])
    parts.write(weight[64:], 64)
    same_bits(parts.data, packed.data)
    experts = ops.pack_weight(normal(3, 10, 8), gated=True)
    assert experts.data.shape == (3, 32 * 8)


def test_another_layout_has_another_number() -> None:
    """Files hold packed weights (io/packed_file.py): where these bytes change, kPackedLayout in core/panels.h must too."""
    found = hashlib.sha256()
    for shape, gated in (((83, 21), False), ((70, 5), True), ((2, 10, 4), True)):
        weight = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
        found.update(ops.pack_weight(weight, gated=gated).data.numpy().tobytes())
    known = {1: "5b1cb554663ba32b"}
    assert known.get(cpu().packed_layout) == found.hexdigest()[:16]


def test_refusals() -> None:
    x, weight = normal(3, 8), normal(5, 8)
    packed = ops.pack_weight(weight)
    with pytest.raises(UnsupportedError, match=r"linear: weight is PackedWeight.*reference"):
        ops.linear(x, packed, backend="reference")
    with pytest.raises(UnsupportedError, match="gradient"):
        ops.linear(x.requires_grad_(), packed, backend="cpu")
    x = x.detach()
    for bad, text in (
        (normal(4, 8, dtype="float64"), "float64"),
        (normal(8), "weight is"),
        (torch.ones(3, 0), "weight is"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            ops.pack_weight(bad)
    with pytest.raises(UnsupportedError, match="gated"):
        ops.pack_weight(weight, gated=True)
    with pytest.raises(UnsupportedError, match=r"linear_swiglu: gate_up is PackedWeight.*gated"):
        ops.linear_swiglu(x, ops.pack_weight(normal(6, 8)), backend="cpu")
    with pytest.raises(UnsupportedError, match="residual"):
        ops.linear_residual(x, packed, residual=normal(3, 4), backend="cpu")
    with pytest.raises(UnsupportedError, match="multiple of 32"):
        ops.PackedWeight((83, 8), torch.float32).write(weight, 16)
    with pytest.raises(UnsupportedError, match="epilogue is tanh"):
        cpu().gemm(x, weight, None, None, None, None, torch.empty(3, 5), "tanh", 1)
    square = torch.zeros(8, 8)
    with pytest.raises(UnsupportedError, match="apart"):
        cpu().gemm(square, normal(8, 8), None, None, None, None, square, "linear", 1)
    joined = torch.zeros(12, 8)  # the result in the weight's own memory
    with pytest.raises(UnsupportedError, match="apart"):
        cpu().gemm(normal(3, 8), joined[:8], None, None, None, None, joined[7:10], "linear", 1)
    packed = torch.zeros(32 * 8)
    with pytest.raises(UnsupportedError, match="apart"):
        cpu().gemm(normal(3, 8), packed, 8, None, None, None, packed[-24:].view(3, 8), "linear", 1)
