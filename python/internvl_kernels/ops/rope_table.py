"""The angles of rotary embeddings. They are the arguments of csrc/kernels/rope/rope.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import torch
from ._arguments import checked, checked_reference
from ._backend import choose, is_torch
from ._rope import check_table
from ._tensor import host, to_torch

if TYPE_CHECKING:
    from torch import Tensor


@checked
def rope_table(
    positions: Any,
    head_dim: int,
    theta: float,
    *,
    frequencies: Any = None,
    scale: float = 1.0,
    threads: int = 0,
    backend: str = "auto",
) -> tuple[Any, Any]:
    """Cosines and sines of ``position * theta^(-2i / head_dim)``, i in [0, head_dim / 2), times scale: ``(cos, sin)``.

    positions ``[rows]``, integer or float (fractions are fine). frequencies, float64 ``[head_dim / 2]`` or ``[rows, head_dim /
    2]``: factors of the positions instead of theta's powers (``models.rotary`` makes those of YaRN and the like). Returns two
    float32 ``[rows, head_dim / 2]``; all is computed in float64 and rounded once. An entry depends on its own position only.
    """
    check_table(positions, head_dim, theta, frequencies, scale)
    if choose("rope_table", backend, positions, frequencies) == "reference":
        return rope_table_reference(positions, head_dim, theta, frequencies=frequencies, scale=scale)
    values = np.asarray(to_torch(positions, "positions").double(), dtype=np.float64)
    if frequencies is None:
        steps = theta ** (-2.0 / head_dim * np.arange(head_dim // 2))
    else:
        steps = host(to_torch(frequencies, "frequencies")).numpy()
    angles = values[:, None] * steps
    cos, sin = ((scale * form(angles)).astype(np.float32) for form in (np.cos, np.sin))
    return (torch.from_numpy(cos), torch.from_numpy(sin)) if is_torch(positions) else (cos, sin)


@checked_reference("positions number [rows]", "frequencies float64 [..., half]")
def rope_table_reference(
    positions: Tensor, head_dim: int, theta: float, *, frequencies: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    check_table(positions, head_dim, theta, frequencies, scale)
    if frequencies is None:
        steps = theta ** (-2.0 / head_dim * torch.arange(head_dim // 2, dtype=torch.float64, device=positions.device))
    else:
        steps = frequencies.to(positions.device)
    angles = positions.double()[:, None] * steps
    return (scale * angles.cos()).float(), (scale * angles.sin()).float()


__all__ = ["rope_table", "rope_table_reference"]
