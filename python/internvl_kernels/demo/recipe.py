"""The demo model: its shape, its first weights and how long it learns. InternVL3.5-30B-A3B in miniature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._lazy import torch
from ..config import ChatConfig, LanguageConfig, ModelConfig, ProjectorConfig, TilingConfig, VisionConfig
from ..io.layouts import Naming, parameters
from .vocabulary import ROWS, SPECIALS, SYSTEM

if TYPE_CHECKING:
    from torch import Tensor

SPLIT_SEED = 1998  # of the split into training and held-out scans
HELD_OUT = 360  # scans

_BASE = ROWS - len(SPECIALS)
PAD_ID, END_ID = _BASE + SPECIALS.index("<|endoftext|>"), _BASE + SPECIALS.index("<|im_end|>")

CONFIG = ModelConfig(
    vision=VisionConfig(
        hidden_size=128, num_layers=4, stored_layers=4, num_heads=2, intermediate_size=512, image_size=56,
        norm="layer_norm", qkv_bias=True, qk_norm=False,
    ),
    projector=ProjectorConfig(vision_size=128, hidden_size=128),
    language=LanguageConfig(
        "qwen3_moe", hidden_size=128, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=64, intermediate_size=512,
        vocab_size=ROWS, rope_theta=10000.0, qk_norm=True, max_positions=1024,
        num_experts=4, experts_per_token=2, expert_size=128,
    ),
    tiling=TilingConfig(size=56, dynamic=True, min_tiles=1, max_tiles=6, thumbnail=True),
    chat=ChatConfig(system_message=SYSTEM, eos_token_ids=(END_ID,), pad_token_id=PAD_ID),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    seed: int = 1
    steps: int = 4800
    strips: int = 48  # per step
    warm_up: int = 100  # steps of rising learning rate
    tower_only: int = 800  # first steps, without the language model
    varied: int = 700  # step from which strips have their full variety of colour and form
    matrix_rate: float = 3e-3  # learning rate of the hidden matrices (orthogonalised momentum)
    other_rate: float = 1.5e-3  # of everything else (AdamW)
    decay: float = 0.05
    cells: float = 0.3  # weight of the cell loss, below
    balance: float = 0.01  # weight of the loss that keeps experts equally busy
    average_from: float = 0.7  # share of the steps after which weights are averaged
    bends: int = 12  # elastic distortions drawn of every scan
    bfloat16: bool = True  # products of the linear layers; all else is float32

    def rate(self, step: int) -> float:
        """Share of the learning rates at ``step``: a short rise, then half a cosine."""
        return min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / self.steps)))

    def variety(self, step: int) -> float:
        """Black on white and undistorted for the first hundred steps, everything from ``varied`` on."""
        return min(1.0, max(0.0, (step - 100) / (self.varied - 100)))


def initial_weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Canonical parameters in float32. The tower starts from smooth patch filters and sine positions, the rest at random."""
    draw = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for parameter in parameters(config, Naming()):
        name, shape = parameter.name, parameter.shape
        if name.endswith(("bias", "vision.cls")):
            value = torch.zeros(shape)
        elif len(shape) == 1:
            value = torch.full(shape, 0.5 if name.endswith(("ls1", "ls2")) else 1.0)
        elif name.startswith(("language.embed", "language.head")):
            value = torch.randn(shape, generator=draw) * (0.1 if "embed" in name else 0.02)
        else:
            value = torch.randn(shape, generator=draw) * shape[-1] ** -0.5
        weights[name] = value
    v = config.vision
    weights["vision.patch.weight"] = _smooth_filters(v.hidden_size, v.patch_size, draw)
    weights["vision.positions"] = _sine_positions(v.grid, v.hidden_size)
    return weights


def _smooth_filters(count: int, side: int, draw: torch.Generator) -> Tensor:
    """Half of the filters are the lowest cosines of the patch's brightness: strokes are smooth. The others are noise."""
    steps = (torch.arange(side) + 0.5) / side * math.pi
    waves = torch.stack([torch.cos(k * steps) for k in range(side)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda f: f[0] ** 2 + f[1] ** 2)
    filters = torch.randn(count, 3, side, side, generator=draw) * 0.01
    for row, (u, v) in enumerate(order[: count // 2]):
        strength = 0.1 if row == 0 else 0.3  # the mean says little: papers differ
        filters[row] += strength / 3 * waves[u][:, None] * waves[v]
    return filters.reshape(count, -1)


def _sine_positions(grid: int, size: int) -> Tensor:
    """[1 + grid * grid, size]: a zero row for CLS, then sines and cosines of row and column."""
    quarter = size // 4
    angles = torch.arange(grid)[:, None] * 10000.0 ** (-torch.arange(quarter) / quarter)
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(grid, grid, -1), line[None].expand(grid, grid, -1)
    table = 0.5 * torch.cat([rows, columns], -1).reshape(grid * grid, size)
    return torch.cat([torch.zeros(1, size), table])
