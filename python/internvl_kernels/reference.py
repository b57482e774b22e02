"""Every op as plain, differentiable PyTorch: the definition of right, under the op's own name."""

from .ops.attention import attention_reference as attention
from .ops.attention import cached_attention_reference as cached_attention
from .ops.embed import embed_tokens_reference as embed_tokens
from .ops.gemm import linear_gelu_reference as linear_gelu
from .ops.gemm import linear_reference as linear
from .ops.gemm import swiglu_reference as swiglu
from .ops.norm import add_norm_reference as add_norm
from .ops.norm import add_scaled_reference as add_scaled
from .ops.norm import layer_norm_reference as layer_norm
from .ops.norm import rms_norm_reference as rms_norm
from .ops.norm import vision_qk_norm_reference as vision_qk_norm
from .ops.patch_embed import patch_embed_reference as patch_embed
from .ops.pixel_shuffle import pixel_shuffle_reference as pixel_shuffle

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
