"""What a model is, as frozen data. ``io.config`` reads these from a checkpoint; everything else only consumes them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VisionConfig:
    """InternViT. Missing keys in a published config mean the 6B/224 values, which are the defaults here."""

    hidden_size: int = 3200
    num_layers: int = 48  # layers that run: the published depth cut by select_layer
    stored_layers: int = 48  # layers in the checkpoint
    num_heads: int = 25
    intermediate_size: int = 12800
    image_size: int = 224  # side of a tile, pixels
    patch_size: int = 14
    norm: str = "rms_norm"  # "rms_norm" | "layer_norm"
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = True

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid * self.grid


@dataclass(frozen=True)
class ProjectorConfig:
    """Pixel shuffle, LayerNorm, Linear, GELU, Linear."""

    vision_size: int  # D of the tower
    hidden_size: int  # H of the language model
    factor: int = 2  # block side of the pixel shuffle: 2 for downsample_ratio 0.5
    version: str = "v2"  # token order: "v1" column-major, "v2" row-major
    norm_eps: float = 1e-5

    @property
    def input_size(self) -> int:
        return self.vision_size * self.factor * self.factor


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are changed for long contexts (models/rotary.py has the formulas)."""

    kind: str  # "linear" | "dynamic" (NTK) | "yarn" | "longrope"
    factor: float = 1.0
    original_positions: int = 0  # longest context without scaling
    attention_factor: float = 1.0  # cosines and sines are multiplied by it
    beta_fast: float = 32.0  # yarn: turns within original_positions above which a frequency stays as it is,
    beta_slow: float = 1.0  # and below which it is divided by factor
    truncate: bool = True  # yarn: the bounds of the ramp are whole numbers
    short_factors: tuple[float, ...] = ()  # longrope: divisors of the frequencies, [head_dim / 2], of prompts up to
    long_factors: tuple[float, ...] = ()  # original_positions, and of longer ones


@dataclass(frozen=True)
class LanguageConfig:
    """Decoder with pre-RMSNorm, half-split rotary embedding, SwiGLU or a mixture of SwiGLU experts."""

    architecture: str  # "qwen2" | "qwen3" | "qwen3_moe" | "llama" | "internlm2" | "internlm3" | "phi3" | "gpt_oss"
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False  # per head, before the rotary embedding
    tied_embeddings: bool = False  # as stored: no lm_head tensor
    max_positions: int = 32768  # as published, before scaling
    num_experts: int = 0  # 0: dense
    experts_per_token: int = 0
    expert_size: int = 0  # intermediate size of one expert
    norm_topk_prob: bool = True
    dense_layers: tuple[int, ...] = ()  # layers of an MoE model that stay dense (mlp_only_layers, decoder_sparse_step)
    rope_scaling: RopeScaling | None = None
    window: int = 0  # keys that a query of window_layers sees, its own included
    window_layers: tuple[int, ...] = ()
    sinks: bool = False  # a learned logit per query head that joins the softmax
    expert_bias: bool = False  # of router, gate, up and down
    expert_limit: float = 0.0  # GPT-OSS: gate and up are clamped to it, and its form of SwiGLU; 0: plain SwiGLU
    norm_once: bool = False  # RMSNorm multiplies by its weight before it rounds (GPT-OSS)
    visual_stride: float = 1.0  # V2PE: positions that a visual token takes

    @property
    def q_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def context(self) -> int:
        """Positions that may be used: the published length, or what its rotary scaling reaches."""
        scaling = self.rope_scaling
        if scaling is None or scaling.kind == "longrope":
            return self.max_positions
        reach = int(scaling.factor * (scaling.original_positions or self.max_positions))
        return max(self.max_positions, reach)

    def is_sparse(self, layer: int) -> bool:
        return self.num_experts > 0 and layer not in self.dense_layers


@dataclass(frozen=True)
class TilingConfig:
    size: int = 448
    dynamic: bool = False
    min_tiles: int = 1
    max_tiles: int = 6
    thumbnail: bool = False
    pad_to_square: bool = False
    rule: str = "original"  # "original": the family's code on Pillow; "hf": transformers' image processor
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ChatConfig:
    template: str | None = "internvl2_5"  # a name of io.template.TEMPLATES; None: only chat_template applies
    system_message: str | None = None  # None: the template's default
    chat_template: str | None = None  # Jinja text shipped by the checkpoint
    image_token: str = "<IMG_CONTEXT>"
    image_start: str = "<img>"
    image_end: str = "</img>"
    eos_token_ids: tuple[int, ...] = ()  # from the language config and generation_config; the template's stop is added
    pad_token_id: int | None = None
    image_token_id: int | None = None  # as the "hf" layout states it; None: resolved by string from the tokenizer


@dataclass(frozen=True)
class TowerConfig:
    """What the tower alone needs to know of a checkpoint, be it a whole model or a tower's own repository."""

    vision: VisionConfig
    tiling: TilingConfig
    layout: str = "original"  # "original" | "hf"
    dtype: str = "bfloat16"  # of the stored weights


@dataclass(frozen=True)
class ModelConfig:
    vision: VisionConfig
    projector: ProjectorConfig
    language: LanguageConfig
    tiling: TilingConfig
    chat: ChatConfig
    layout: str = "original"  # "original" | "hf"
    dtype: str = "bfloat16"  # of the stored weights
    extras: dict[str, object] = field(default_factory=dict, compare=False)  # keys read but not used, for `info`

    @property
    def tokens_per_tile(self) -> int:
        return (self.tiling.size // (self.vision.patch_size * self.projector.factor)) ** 2
