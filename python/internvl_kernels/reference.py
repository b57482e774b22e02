"""Every op as plain, differentiable PyTorch: the definition of right, under the op's own name."""

from .ops.attention import attention_reference as attention
from .ops.attention import cached_attention_reference as cached_attention
from .ops.embed import embed_tokens_reference as embed_tokens
from .ops.experts import moe_experts_reference as moe_experts
from .ops.folded import linear_folded_reference as linear_folded
from .ops.gemm import linear_gelu_reference as linear_gelu
from .ops.gemm import linear_reference as linear
from .ops.gemm import linear_residual_reference as linear_residual
from .ops.image import tile_pixels_reference as tile_pixels
from .ops.moe import moe_combine_reference as moe_combine
from .ops.moe import moe_permute_reference as moe_permute
from .ops.moe import moe_route_reference as moe_route
from .ops.norm import add_norm_reference as add_norm
from .ops.norm import add_scaled_reference as add_scaled
from .ops.norm import layer_norm_reference as layer_norm
from .ops.norm import rms_norm_reference as rms_norm
from .ops.normed_attention import normed_attention_reference as normed_attention
from .ops.patch_embed import patch_embed_reference as patch_embed
from .ops.pixel_shuffle import pixel_shuffle_reference as pixel_shuffle
from .ops.qk_norm import vision_qk_norm_reference as vision_qk_norm
from .ops.rope import qkv_rope_append_reference as qkv_rope_append
from .ops.rope import qkv_rope_reference as qkv_rope
from .ops.rope_table import rope_table_reference as rope_table
from .ops.sample import argmax_reference as argmax
from .ops.sample import penalise_reference as penalise
from .ops.sample import sample_reference as sample
from .ops.statistics import row_factors_reference as row_factors
from .ops.statistics import row_statistics_reference as row_statistics
from .ops.swiglu import linear_swiglu_reference as linear_swiglu
from .ops.swiglu import swiglu_reference as swiglu

__all__ = [
    "add_norm",
    "add_scaled",
    "argmax",
    "attention",
    "cached_attention",
    "embed_tokens",
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
    "swiglu",
    "tile_pixels",
    "vision_qk_norm",
]
