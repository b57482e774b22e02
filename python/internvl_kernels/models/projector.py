"""From the tower to the language model: pixel shuffle, LayerNorm, Linear, GELU, Linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import ops
from ..config import ProjectorConfig
from ._weights import group

if TYPE_CHECKING:
    from torch import Tensor


class Projector:
    """``projector.*`` on the tower's hidden state."""

    def __init__(
        self, config: ProjectorConfig, weights: Mapping[str, Tensor], *, backend: str = "auto", threads: int = 0
    ) -> None:
        self.config = config
        self._run: dict[str, Any] = {"backend": backend, "threads": threads}
        self._weights = group(weights, "projector.")

    def __call__(self, hidden: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """``[T, 1 + N, D]`` (CLS first, dropped here) -> ``[T, N / factor^2, H]``; grid (rows, columns) of patches, default square."""
        c, w = self.config, self._weights
        x = ops.pixel_shuffle(
            hidden, grid=grid, factor=c.factor, version=c.version, weight=w["norm.weight"], bias=w["norm.bias"],
            eps=c.norm_eps, **self._run,
        )  # fmt: skip
        x = ops.linear_gelu(x, w["fc1.weight"], w["fc1.bias"], **self._run)
        return ops.linear(x, w["fc2.weight"], w["fc2.bias"], **self._run)
