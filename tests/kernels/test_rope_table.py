"""Tables of cosines and sines: long double, rows on their own, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_kernels import UnsupportedError, ops
from internvl_kernels.testing.compare import same_bits

THETA = 1e6


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("head_dim", [2, 64, 128])
def test_table_against_long_double(head_dim: int, backend: str) -> None:
    position = torch.tensor([0.0, 1.0, 0.125, 17.5, 4095.0, 40959.0, 131071.75], dtype=torch.float64)
    cos, sin = ops.rope_table(position, head_dim, THETA, backend=backend)
    assert cos.dtype == sin.dtype == torch.float32
    assert cos.shape == sin.shape == (7, head_dim // 2)
    exponent = np.arange(head_dim // 2, dtype=np.longdouble) * 2 / head_dim
    angle = position.numpy().astype(np.longdouble)[:, None] / np.longdouble(THETA) ** exponent
    for ours, exact in ((cos, np.cos(angle)), (sin, np.sin(angle))):
        np.testing.assert_allclose(ours.numpy(), exact.astype(np.float64), rtol=2.0**-23, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_table_entries_stand_alone(dtype: torch.dtype) -> None:
    position = torch.arange(301).to(dtype)
    cos, sin = ops.rope_table(position, 128, THETA)
    for row in (0, 1, 299, 300):
        same_bits(ops.rope_table(position[row : row + 1], 128, THETA), (cos[row : row + 1], sin[row : row + 1]))
    arrays = ops.rope_table(position.numpy(), 128, THETA)
    assert isinstance(arrays[0], np.ndarray)
    same_bits(arrays, (cos, sin))


@pytest.mark.parametrize(
    ("head_dim", "theta", "text"),
    [
        (63, 1e4, "head_dim is 63"),
        (0, 1e4, "head_dim is 0"),
        (64, 0.0, "theta is 0"),
        (64, float("nan"), "theta is nan"),
    ],
)
def test_table_refuses(head_dim: int, theta: float, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        ops.rope_table(torch.arange(3), head_dim, theta)


def test_table_refuses_a_matrix_of_positions() -> None:
    with pytest.raises(UnsupportedError, match=r"positions has shape \[2, 3\]"):
        ops.rope_table(torch.zeros(2, 3), 64, THETA)


def test_no_positions_give_an_empty_table() -> None:
    cos, sin = ops.rope_table(torch.arange(0), 64, THETA)
    assert cos.shape == sin.shape == (0, 32)
