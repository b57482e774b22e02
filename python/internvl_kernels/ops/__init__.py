"""Every kernel as a plain function. One file per family; ``backend`` is "auto", "reference", "cpu" or "cuda"."""

from .attention import attention, cached_attention
from .embed import embed_tokens
from .gemm import linear, linear_gelu, swiglu
from .norm import add_norm, add_scaled, layer_norm, rms_norm, vision_qk_norm
from .patch_embed import patch_embed
from .pixel_shuffle import pixel_shuffle

__all__ = [
    "add_norm",
    "add_scaled",
    "attention",
    "cached_attention",
    "embed_tokens",
    "layer_norm",
    "linear",
    "linear_gelu",
    "patch_embed",
    "pixel_shuffle",
    "rms_norm",
    "swiglu",
    "vision_qk_norm",
]
