"""Every kernel as a plain function. One file per family; ``backend`` is "auto", "reference", "cpu" or "cuda"."""

from .attention import attention, cached_attention
from .embed import embed_tokens
from .experts import moe_experts
from .folded import fold_norm, linear_folded
from .gemm import linear, linear_gelu, linear_residual
from .image import choose_grid, tile_pixels
from .moe import moe_combine, moe_permute, moe_route
from .norm import add_norm, add_scaled, layer_norm, rms_norm
from .normed_attention import normed_attention
from .pack import PackedWeight as PackedWeight
from .pack import pack_weight
from .patch_embed import patch_embed
from .pixel_shuffle import pixel_shuffle
from .qk_norm import vision_qk_norm
from .rope import qkv_rope, qkv_rope_append
from .rope_table import rope_table
from .sample import argmax, penalise, sample, uniforms
from .statistics import row_factors, row_statistics, statistics_space
from .swiglu import linear_swiglu, swiglu

__all__ = [
    "add_norm",
    "add_scaled",
    "argmax",
    "attention",
    "cached_attention",
    "choose_grid",
    "embed_tokens",
    "fold_norm",
    "layer_norm",
    "linear",
    "linear_folded",
    "linear_gelu",
    "linear_residual",
    "linear_swiglu",
    "moe_combine",
    "moe_experts",
    "moe_permute",
    "moe_route",
    "normed_attention",
    "pack_weight",
    "patch_embed",
    "penalise",
    "pixel_shuffle",
    "qkv_rope",
    "qkv_rope_append",
    "rms_norm",
    "rope_table",
    "row_factors",
    "row_statistics",
    "sample",
    "statistics_space",
    "swiglu",
    "tile_pixels",
    "uniforms",
    "vision_qk_norm",
]
