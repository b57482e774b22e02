"""Canonical parameters by layer, checked once when a model is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._lazy import torch
from ..config import ModelConfig, TowerConfig
from ..errors import CheckpointError
from ..ops import PackedWeight


def group(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Every parameter below ``prefix``, by the rest of its name."""
    found = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        raise CheckpointError(f"weights: no parameter is named {prefix}*")
    return found


MATRICES = frozenset({"qkv", "proj", "fc1", "fc2", "o", "gate_up", "down", "router", "head"})


def storage(config: ModelConfig | TowerConfig, dtype: torch.dtype) -> Callable[[str, tuple[int, ...]], Any]:
    """What the cpu backend keeps a parameter in: matrices packed for its GEMM in ``dtype``, as is the table of embeddings when
    it is the head too; a table that is only looked up as a tensor of ``dtype``; None for the rest."""

    def place(name: str, shape: tuple[int, ...]) -> Any:
        kind = name.split(".")[-2] if name.endswith(".weight") else ""
        if name == "language.embed.weight" and isinstance(config, ModelConfig) and not config.language.tied_embeddings:
            return torch.empty(shape, dtype=dtype)
        if name.endswith((".experts.gate_up", ".experts.down")):
            return PackedWeight(shape, dtype, gated=name.endswith("gate_up"))
        if kind in MATRICES or name == "language.embed.weight":
            return PackedWeight(shape, dtype, gated=kind == "gate_up")
        return None

    return place


def layers(weights: Mapping[str, Any], prefix: str, count: int) -> list[dict[str, Any]]:
    return [group(weights, f"{prefix}.layers.{i}.") for i in range(count)]
