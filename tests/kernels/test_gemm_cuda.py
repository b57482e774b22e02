"""The products for CUDA against their references, on a GPU or on the virtual one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import integers, normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
TILES = ("128x128", "80x128", "64x128", "64x64")
# M, N, K: one element, edges of a vector, of a fragment, of a slice, of each tile and of the stages under way.
SHAPES = (
    (1, 8, 8),
    (15, 24, 16),
    (17, 64, 40),
    (63, 72, 32),
    (64, 128, 64),
    (65, 136, 96),
    (79, 120, 104),
    (81, 200, 128),
    (127, 56, 136),
    (129, 264, 160),
    (33, 16, 776),
)
ODD = ((1, 1, 1), (3, 5, 7), (9, 33, 15), (17, 31, 588), (66, 65, 33), (5, 8, 12), (8, 12, 8))


def operands(m: int, n: int, k: int, dtype: str, make: Any = normal) -> dict[str, torch.Tensor]:
    x, weight = make(m, k, dtype=dtype), make(n, k, dtype=dtype, seed=1)
    rest = {"bias": make(n, dtype=dtype, seed=2), "scale": make(n, dtype=dtype, seed=3)}
    return {"x": x, "weight": weight, **rest, "residual": make(m, n, dtype=dtype, seed=4)}


def product(tile: str, epilogue: str, given: dict[str, torch.Tensor], inplace: bool = False) -> torch.Tensor:
    """One launch of the kernel with a tile of the test's choice."""
    arrays = {name: ivk.DeviceArray(t) for name, t in given.items()}
    adds = epilogue == "residual"
    shape = (len(given["x"]), len(given["weight"]))
    y = arrays["residual"] if inplace else ivk.DeviceArray.empty(shape, str(given["x"].dtype)[6:])
    extra = [arrays[name]._array if adds else None for name in ("scale", "residual")]
    x, weight, bias = (arrays[name]._array for name in ("x", "weight", "bias"))
    cuda().gemm(x, weight, None, bias, *extra, y._array, epilogue, 0, tile)
    return host(y)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES + ODD)
def test_shapes(m: int, n: int, k: int, dtype: str, sums: None) -> None:
    t = operands(m, n, k, dtype)
    check("linear", t["x"], t["weight"], t["bias"], backend="cuda")
    check("linear_gelu", t["x"], t["weight"], backend="cuda")
    check("linear_residual", backend="cuda", **t)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("m", "n", "k"), [(129, 264, 160), (81, 40, 72), (1, 8, 8)])
def test_every_tile_gives_the_same_bits(m: int, n: int, k: int, dtype: str, sums: None) -> None:
    t = operands(m, n, k, dtype)
    for epilogue in ("linear", "gelu", "residual"):
        expected = product("64x64", epilogue, t)
        for tile in TILES[:-1]:
            same_bits(product(tile, epilogue, t), expected, f"{epilogue} by {tile}")
    shifted = {name: placed(v, 1, 0) for name, v in t.items()}
    y = ops.linear_residual(
        *(shifted[n] for n in ("x", "weight", "bias")), residual=shifted["residual"], scale=shifted["scale"]
    )
    same_bits(host(y), product("64x64", "residual", t), "element by element")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("tile", TILES)
def test_whole_numbers_are_exact(tile: str, dtype: str) -> None:
    t = operands(131, 144, 232, dtype, lambda *s, **o: integers(*s, high=5, **o))
    exact = t["x"].double() @ t["weight"].double().T + t["bias"].double()
    assert exact.abs().max() > 256 > t["residual"].abs().max(), "a sum in 16 bits would not hold it"
    same_bits(product(tile, "linear", t), exact.to(t["x"].dtype))
    whole = (t["residual"].double() + t["scale"].double() * exact).to(t["x"].dtype)
    same_bits(product(tile, "residual", t), whole)
    same_bits(product(tile, "residual", t, inplace=True), whole, "in place")


@pytest.mark.parametrize("dtype", HALVES)
def test_rows_do_not_depend_on_the_batch(dtype: str, sums: None) -> None:
    t = operands(145, 136, 264, dtype)
    whole = ops.linear_residual(backend="cuda", **t)
    same_bits(ops.linear_residual(backend="cuda", **t), whole, "run again")
    for first, last in ((0, 1), (63, 65), (80, 145)):
        part = t | {name: t[name][first:last] for name in ("x", "residual")}
        same_bits(ops.linear_residual(backend="cuda", **part), whole[first:last], f"rows {first} to {last}")


@pytest.mark.modes(vgpu.LAZY)
def test_many_rows() -> None:
    t = operands(hostile.MANY_ROWS, 8, 8, "bfloat16")
    check("linear", t["x"], t["weight"], t["bias"], backend="cuda")


@pytest.mark.parametrize("dtype", HALVES)
def test_no_rows_no_columns_and_leading_dimensions(dtype: str) -> None:
    t = operands(6, 16, 24, dtype)
    assert ops.linear(t["x"][:0], t["weight"], backend="cuda").shape == (0, 16)
    assert ops.linear(t["x"], t["weight"][:0], backend="cuda").shape == (6, 0)
    flat = ops.linear(t["x"], t["weight"], t["bias"], backend="cuda")
    same_bits(ops.linear(t["x"].view(2, 3, 24), t["weight"], t["bias"], backend="cuda").view(6, 16), flat)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("shift", "gap"), [(0, 8), (8, 24), (0, 3), (1, 0), (3, 8)])
def test_strides_and_alignment_do_not_change_bits(shift: int, gap: int, dtype: str) -> None:
    t = operands(70, 72, 48, dtype)
    expected = ops.linear_residual(backend="cuda", **t)
    v = {name: placed(value, shift, gap if value.ndim == 2 else 0) for name, value in t.items()}
    y = ops.linear_residual(v["x"], v["weight"], v["bias"], residual=v["residual"], scale=v["scale"], inplace=True)
    assert y.pointer == v["residual"].pointer
    same_bits(host(y), expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_massive_channels_and_special_values(dtype: str) -> None:
    t = operands(20, 64, 96, dtype, hostile.massive_channels)
    t["weight"] = normal(64, 96, dtype=dtype, scale=0.05)
    check("linear", t["x"], t["weight"], t["bias"], backend="cuda")
    check("linear_gelu", t["x"], t["weight"], t["bias"], backend="cuda")
    x = torch.zeros(8, 16)
    x[0, 3], x[1, 3], x[2, 3], x[4, 0], x[5, 0], x[6, 0] = *map(float, ("nan", "inf", "-inf")), -40.0, -5.5, 1e-4
    x, weight = x.to(getattr(torch, dtype)), torch.eye(16, dtype=getattr(torch, dtype))
    weight[:, 3] = 1
    check("linear", x, weight, backend="cuda")
    y = ops.linear_gelu(x, weight, backend="cuda")
    exact = torch.nn.functional.gelu(torch.nn.functional.linear(x.double(), weight.double()))  # torch: NaN of bf16 Inf
    assert torch.equal(y.isnan(), exact.isnan())
    assert torch.equal(y.isinf(), exact.isinf())


@pytest.mark.modes(vgpu.LAZY)
@pytest.mark.parametrize("dtype", HALVES)
def test_gelu_over_its_whole_range(dtype: str) -> None:
    """Each row alone, so that the small values of the left tail are held to their own size."""
    column = torch.linspace(-13, 13, 1601).view(-1, 1).to(getattr(torch, dtype))
    x, weight = column.repeat(1, 8), torch.eye(8, dtype=column.dtype)
    x[:, 1:] = 0
    y = ops.linear_gelu(x, weight, backend="cuda")[:, 0].double()
    wide = column.double()[:, 0]
    exact = 0.5 * wide * torch.erfc(-wide / 2**0.5)  # without the cancellation of 1 + erf
    usable = exact.abs() > max(torch.finfo(column.dtype).tiny, 2.0**-110)  # smaller powers of two count as nothing
    error = ((y - exact).abs() / exact.abs())[usable].max()
    assert error < 0.52 * torch.finfo(column.dtype).eps, error


def test_kinds_of_results_and_memory_for_them() -> None:
    t = operands(5, 16, 24, "float16")
    expected = ops.linear(t["x"], t["weight"], backend="cuda")
    as_numpy = ops.linear(t["x"].numpy(), t["weight"].numpy(), backend="cuda")
    assert isinstance(as_numpy, np.ndarray)
    same_bits(as_numpy, expected)
    x, weight = ivk.DeviceArray(t["x"]), ivk.DeviceArray(t["weight"])
    out = ivk.DeviceArray.empty((5, 16), "float16")
    assert ops.linear(x, weight, out=out).pointer == out.pointer
    same_bits(host(out), expected)
    there = torch.zeros(5, 16, dtype=torch.float16)
    assert ops.linear(t["x"], t["weight"], out=there, backend="cuda") is there
    same_bits(there, expected)
    held = t["residual"].clone()
    assert ops.linear_residual(t["x"], t["weight"], residual=held, inplace=True, backend="cuda") is held
    same_bits(held, ops.linear_residual(t["x"], t["weight"], residual=t["residual"], backend="cuda"))


def test_refused_tensors_are_named() -> None:
    hostile.check_refused(lambda x: ops.linear(x, x, backend="cuda"), normal(8, 8, dtype="bfloat16"))


def test_wrong_problems_are_refused_whole() -> None:
    t = operands(4, 16, 8, "bfloat16")
    with pytest.raises(UnsupportedError, match=r"linear of float32\[4, 8\].*gemm_sm80: x float32.*allowed: bfloat16"):
        ops.linear(t["x"].float(), t["weight"].float(), backend="cuda")
    with pytest.raises(UnsupportedError, match="tile is 7x7; allowed: 128x128, 80x128"):
        product("7x7", "linear", t)
    x, weight = ivk.DeviceArray(normal(16, 16, dtype="bfloat16")), ivk.DeviceArray(normal(16, 16, dtype="bfloat16"))
    with pytest.raises(UnsupportedError, match="apart from the inputs"):
        ops.linear(x, weight, out=x)
    with pytest.raises(UnsupportedError, match="allowed: one packed with gated=False, on 'cpu'"):
        ops.linear(t["x"], ops.pack_weight(t["weight"]), backend="cuda")
    with pytest.raises(ivk.BackendError, match="swiglu: backend 'cuda' has no kernel"):
        ops.swiglu(t["x"], backend="cuda")


def test_the_tile_that_costs_least_is_taken() -> None:
    def chosen(m: int, n: int, k: int) -> str:
        rows = cuda().gemm_tiles(m, n, k, 108)
        assert [row["name"] for row in rows] == list(TILES)
        (best,) = [row for row in rows if row["chosen"]]
        assert best["cost"] == min(row["cost"] for row in rows)
        return str(best["name"])

    # One tile of InternViT-300M: its 1025 rows are 13 x 80 and its 1024 columns 8 x 128: 104 blocks on 108 processors.
    assert chosen(1025, 1024, 1024) == chosen(1025, 1024, 4096) == chosen(1025, 4096, 1024) == "80x128"
    assert chosen(13325, 3072, 1024) == chosen(13325, 4096, 1024) == "128x128"
    assert chosen(16, 64, 1024) == "64x64"
