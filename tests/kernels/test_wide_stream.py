"""A residual stream in float32 beside 16-bit weights and products, on every backend: massive activations stay finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check
from internvl_kernels.testing.hostile import normal

HALVES = ("bfloat16", "float16")


def vectors(cols: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(cols, dtype=dtype, seed=1) + 1, normal(cols, dtype=dtype, seed=2)


def checked(op: str, dtype: str, *arguments: Any, **options: Any) -> torch.Tensor:
    y = check(op, *arguments, dtype=dtype, **options)
    assert isinstance(y, torch.Tensor)
    return y


class Cases:
    backend: str

    @pytest.mark.parametrize("dtype", HALVES)
    @pytest.mark.parametrize("cols", [1, 5, 64, 1024, 1028, 3200, 17000])
    def test_norms(self, cols: int, dtype: str) -> None:
        weight, bias = vectors(cols, dtype)
        x = hostile.massive_channels(3, cols) * 300
        if cols > 1:
            assert x.abs().max() > torch.finfo(torch.float16).max
            assert checked("layer_norm", dtype, x, weight, bias, backend=self.backend).dtype == weight.dtype
        assert checked("rms_norm", dtype, x, weight, backend=self.backend).dtype == weight.dtype
        strided = hostile.row_strided(x)
        torch.testing.assert_close(
            ops.rms_norm(strided, weight, backend=self.backend),
            ops.rms_norm(x, weight, backend=self.backend),
            rtol=0,
            atol=0,
        )

    @pytest.mark.parametrize("dtype", HALVES)
    @pytest.mark.parametrize("width", [3, 8, 64, 1024])
    def test_pixel_shuffle(self, width: int, dtype: str) -> None:
        weight, bias = vectors(4 * width, dtype)
        x = hostile.massive_channels(2, 17, width) * 300
        assert checked("pixel_shuffle", dtype, x, weight=weight, bias=bias, backend=self.backend).dtype == weight.dtype
        check("pixel_shuffle", x, version="v1", backend=self.backend)

    @pytest.mark.parametrize("dtype", HALVES)
    @pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (17, 33, 40), (65, 136, 72), (81, 128, 64)])
    def test_linear_residual(self, m: int, n: int, k: int, dtype: str) -> None:
        x, weight = normal(m, k, dtype=dtype), normal(n, k, dtype=dtype, seed=1)
        scale, bias = vectors(n, dtype)
        residual = hostile.massive_channels(m, n) * 300
        y = check(
            "linear_residual", x, weight, bias, residual=residual, scale=scale, backend=self.backend, dtype="float32"
        )
        assert y.dtype == torch.float32
        held = residual.clone()
        again = ops.linear_residual(x, weight, bias, residual=held, scale=scale, inplace=True, backend=self.backend)
        assert again is held
        assert torch.equal(held, y)
        if self.backend == "cpu":
            packed = ops.pack_weight(weight)
            check(
                "linear_residual",
                x,
                weight,
                bias,
                residual=residual,
                scale=scale,
                backend=self.backend,
                dtype="float32",
            )
            ops.linear_residual(x, packed, bias, residual=residual, scale=scale, backend=self.backend)

    def test_other_mixtures_are_refused(self) -> None:
        half, other = torch.float16, torch.bfloat16
        with pytest.raises(UnsupportedError, match="weight"):
            ops.rms_norm(torch.zeros(2, 8, dtype=half), torch.zeros(8, dtype=other), backend=self.backend)
        with pytest.raises(UnsupportedError, match="weight"):
            ops.rms_norm(torch.zeros(2, 8, dtype=half), torch.zeros(8), backend=self.backend)
        x, weight = torch.zeros(2, 8, dtype=half), torch.zeros(4, 8, dtype=half)
        with pytest.raises(
            UnsupportedError, match=r"residual is torch.bfloat16; allowed: x's, torch.float16, or float32"
        ):
            ops.linear_residual(x, weight, residual=torch.zeros(2, 4, dtype=other), backend=self.backend)


class TestCpu(Cases):
    backend = "cpu"


@pytest.mark.usefixtures("cuda_backend")
class TestCuda(Cases):
    backend = "cuda"
