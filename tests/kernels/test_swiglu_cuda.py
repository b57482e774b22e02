"""SwiGLU behind its product on CUDA, on a GPU or on the virtual one."""

from __future__ import annotations

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import UnsupportedError, ops
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import integers, massive_channels, normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
TILES = ("128x128", "64x64")
# M, I, K: one element, edges of a turn of eight, of a warp's 32 columns, of the tiles and of the stages under way.
SHAPES = (
    (1, 8, 8),
    (17, 24, 40),
    (63, 32, 32),
    (65, 40, 96),
    (81, 64, 136),
    (129, 72, 160),
    (33, 136, 776),
    (1, 1, 1),
    (3, 7, 5),
    (9, 9, 15),
    (66, 33, 33),
    (5, 65, 24),
    (8, 12, 8),
)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("m", "inner", "k"), SHAPES)
def test_shapes(m: int, inner: int, k: int, dtype: str, sums: None) -> None:
    x, weight = normal(m, k, dtype=dtype), normal(2 * inner, k, dtype=dtype, seed=1)
    check("linear_swiglu", x, weight, backend="cuda")
    check("linear_swiglu", x, weight, normal(2 * inner, dtype=dtype, seed=2), limit=0.5, backend="cuda")


def product(tile: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    arrays = [ivk.DeviceArray(t) for t in (x, weight)]
    y = ivk.DeviceArray.empty((len(x), len(weight) // 2), str(x.dtype)[6:])
    cuda().gemm(arrays[0]._array, arrays[1]._array, None, None, None, None, y._array, "swiglu", 0, tile)
    return host(y)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("m", "inner", "k"), [(129, 136, 160), (81, 40, 72), (1, 8, 8)])
def test_every_tile_and_alignment_gives_the_same_bits(m: int, inner: int, k: int, dtype: str, sums: None) -> None:
    x, weight = normal(m, k, dtype=dtype), normal(2 * inner, k, dtype=dtype, seed=1)
    expected = product("64x64", x, weight)
    same_bits(product("128x128", x, weight), expected)
    for shift, gap in ((1, 0), (0, 8), (3, 5)):
        same_bits(
            host(ops.linear_swiglu(placed(x, shift, gap), placed(weight, shift, gap))), expected, f"{shift}, {gap}"
        )


@pytest.mark.parametrize("tile", TILES)
def test_each_column_meets_its_own_gate(tile: str) -> None:
    """Whole numbers: the product is exact, so a gate beside another column's up would show."""
    x, weight = integers(70, 64, high=3, dtype="bfloat16"), integers(2 * 72, 64, high=3, seed=1, dtype="bfloat16")
    gate, up = (x.double() @ weight.double().T).chunk(2, dim=-1)
    exact = gate * torch.sigmoid(gate) * up
    found = product(tile, x, weight).double()
    assert ((found - exact).abs() <= exact.abs() * 2.0**-8 + 1e-30).all()


def test_rows_do_not_depend_on_the_batch(sums: None) -> None:
    x, weight = normal(145, 264, dtype="bfloat16"), normal(144, 264, dtype="bfloat16", seed=1)
    whole = ops.linear_swiglu(x, weight, backend="cuda")
    same_bits(ops.linear_swiglu(x, weight, backend="cuda"), whole, "run again")
    for first, last in ((0, 1), (63, 65), (80, 145)):
        same_bits(ops.linear_swiglu(x[first:last], weight, backend="cuda"), whole[first:last])


@pytest.mark.parametrize("dtype", HALVES)
def test_special_values(dtype: str) -> None:
    x = massive_channels(20, 96, dtype=dtype)
    check("linear_swiglu", x, normal(64, 96, dtype=dtype, scale=0.05), backend="cuda")
    values = torch.tensor([0.0, -0.0, 1e-4, -1e-4, 20.0, -20.0, 80.0, -80.0, 200.0, -200.0, 3e4, -3e4]).view(-1, 1)
    values = torch.cat([values, torch.tensor([[float("nan")], [float("inf")], [float("-inf")]])]).to(x.dtype)
    weight = torch.ones(16, 1, dtype=x.dtype)
    weight[8:] = 0.5
    found = ops.linear_swiglu(values, weight, backend="cuda")
    wide = values.double()
    exact = (torch.nn.functional.silu(wide) * wide * 0.5).to(x.dtype).expand(-1, 8)
    assert torch.equal(found.isnan(), exact.isnan())
    clamped = check("linear_swiglu", values[:-3], weight, torch.ones_like(weight[:, 0]), limit=7.0, backend="cuda")
    assert clamped.abs().max() <= 56
    usable = exact.isfinite() & (exact.abs() > torch.finfo(x.dtype).tiny)
    assert ((found - exact).abs()[usable] <= exact.abs()[usable] * 2 * torch.finfo(x.dtype).eps).all()


def test_memory_for_results() -> None:
    x, weight = normal(5, 24, dtype="float16"), normal(32, 24, dtype="float16", seed=1)
    expected = ops.linear_swiglu(x, weight, backend="cuda")
    out = ivk.DeviceArray.empty((5, 16), "float16")
    assert ops.linear_swiglu(ivk.DeviceArray(x), ivk.DeviceArray(weight), out=out) is out
    same_bits(host(out), expected)
    assert ops.linear_swiglu(x[:0], weight, backend="cuda").shape == (0, 16)
    assert ops.linear_swiglu(x, weight[:0], backend="cuda").shape == (5, 0)
    same_bits(ops.linear_swiglu(x.view(5, 1, 24), weight, decode=True, backend="cuda").view(5, 16), expected)


def test_refused() -> None:
    x, weight = normal(4, 8, dtype="bfloat16"), normal(16, 8, dtype="bfloat16")
    for tile in ("80x128", "64x128"):
        with pytest.raises(UnsupportedError, match=f"tile {tile} with swiglu"):
            product(tile, x, weight)
    with pytest.raises(UnsupportedError, match="an even number of rows"):
        ops.linear_swiglu(x, weight[:15], backend="cuda")
    with pytest.raises(UnsupportedError, match="float32"):
        ops.linear_swiglu(x.float(), weight.float(), backend="cuda")
    hostile.check_refused(lambda t: ops.linear_swiglu(t, t, backend="cuda"), normal(8, 8, dtype="bfloat16"))
