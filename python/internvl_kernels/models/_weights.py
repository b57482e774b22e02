"""Canonical parameters by layer, checked once when a model is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def group(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Every parameter below ``prefix``, by the rest of its name."""
    found = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        raise CheckpointError(f"weights: no parameter is named {prefix}*")
    return found


def layers(weights: Mapping[str, Tensor], prefix: str, count: int) -> list[dict[str, Tensor]]:
    return [group(weights, f"{prefix}.layers.{i}.") for i in range(count)]
