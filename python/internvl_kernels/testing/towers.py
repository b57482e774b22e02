"""Tiny vision towers in both published styles, with random weights of a trained tower's scale."""

from __future__ import annotations

from .._lazy import torch
from ..config import VisionConfig
from .hostile import normal

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, PATCH = 56, 14
STYLES = {"300M": ("layer_norm", False, True, 64), "6B": ("rms_norm", True, False, 128)}  # norm, qk_norm, bias, head


def config(style: str, layers: int = 3) -> VisionConfig:
    norm, qk_norm, bias, head = STYLES[style]
    return VisionConfig(
        hidden_size=2 * head, num_layers=layers, num_heads=2, intermediate_size=8 * head, image_size=SIZE, patch_size=PATCH,
        norm=norm, norm_eps=1e-6, qkv_bias=bias, qk_norm=qk_norm,
    )  # fmt: skip


def weights(c: VisionConfig, dtype: str) -> dict[str, torch.Tensor]:
    d, inner, count = c.hidden_size, c.intermediate_size, 0

    def some(*shape: int, about: float = 0.0) -> torch.Tensor:
        nonlocal count
        count += 1
        scale = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
        return (normal(*shape, seed=count) * scale + about).to(getattr(torch, dtype))

    found = {
        "patch.weight": some(d, 3 * PATCH**2),
        "patch.bias": some(d),
        "cls": some(d),
        "positions": some(1 + c.num_patches, d),
    }
    for i in range(c.num_layers):
        layer = {"norm1.weight": some(d, about=1), "norm2.weight": some(d, about=1), "qkv.weight": some(3 * d, d)}
        layer |= {"proj.weight": some(d, d), "proj.bias": some(d), "ls1": some(d, about=0.5), "ls2": some(d, about=0.5)}
        layer |= {
            "fc1.weight": some(inner, d),
            "fc1.bias": some(inner),
            "fc2.weight": some(d, inner),
            "fc2.bias": some(d),
        }
        if c.norm == "layer_norm":
            layer |= {"norm1.bias": some(d), "norm2.bias": some(d)}
        if c.qkv_bias:
            layer["qkv.bias"] = some(3 * d)
        if c.qk_norm:
            layer |= {"q_norm.weight": some(d, about=1), "k_norm.weight": some(d, about=1)}
        found |= {f"layers.{i}.{name}": tensor for name, tensor in layer.items()}
    return {f"vision.{name}": tensor for name, tensor in found.items()}
