"""The language model's section of ``config.json`` -> ``LanguageConfig``.

The class says what a missing key means; what is stored decides where both speak: biases, norms of q and k and sinks that
have tensors are there, whatever the class is called.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from ..config import LanguageConfig
from ..errors import CheckpointError
from .fields import Fields, show
from .layouts import HEADS
from .rope_config import read_rotary

ARCHITECTURES = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "LlamaForCausalLM": "llama",
    "InternLM2ForCausalLM": "internlm2",
    "InternLM3ForCausalLM": "internlm3",
    "Phi3ForCausalLM": "phi3",
    "GptOssForCausalLM": "gpt_oss",
}


class _Default(NamedTuple):
    """What a missing key means to the class that publishes the model."""

    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv: int | None  # None: as many as heads
    head_dim: int | None  # None: hidden_size / heads
    positions: int
    eps: float = 1e-6
    theta: float = 1e4


_DEFAULTS = {
    "qwen2": _Default(151936, 4096, 22016, 32, 32, 32, None, 32768),
    "qwen3": _Default(151936, 4096, 22016, 32, 32, 32, 128, 32768),
    "qwen3_moe": _Default(151936, 2048, 6144, 24, 32, 4, None, 32768),
    "llama": _Default(32000, 4096, 11008, 32, 32, None, None, 2048),
    "internlm2": _Default(103168, 4096, 11008, 32, 32, None, None, 2048),
    "internlm3": _Default(128512, 4096, 11008, 32, 32, 32, None, 32768),
    "phi3": _Default(32064, 3072, 8192, 32, 32, None, None, 4096, 1e-5),
    "gpt_oss": _Default(201088, 2880, 2880, 36, 64, 8, 64, 131072, 1e-5, 1.5e5),
}
_MAX_VOCAB = 1 << 24
_STRIDES = tuple(1 << i for i in range(9))


def read_language(text: Fields, top: Fields, layout: str, stored: Collection[str]) -> LanguageConfig:
    """``stored``: names of the checkpoint's tensors; empty where no weights are there to ask, then the config's flags
    and the class's defaults count.
    """
    kind = _kind(text, layout)
    default = _DEFAULTS[kind]
    text.choice("hidden_act", "silu", ("silu",))
    hidden = text.integer("hidden_size", default.hidden, high=1 << 17)
    heads = text.integer("num_attention_heads", default.heads, high=4096)
    # An explicit null differs from a missing key: transformers writes it for "derive from the others".
    kv = text.integer(
        "num_key_value_heads", heads if _null(text, "num_key_value_heads") else default.kv or heads, high=4096
    )
    derived = None if _null(text, "head_dim") else default.head_dim
    if derived is None and text.get("head_dim") is None and hidden % heads:
        raise text.refuse(
            "num_attention_heads", f"a divisor of hidden_size {hidden} where head_dim is not given", heads
        )
    head_dim = text.integer("head_dim", derived or hidden // heads, high=4096)
    if head_dim % 2:
        raise text.refuse("head_dim", "an even number, for the rotary embedding", head_dim)
    if heads % kv:
        raise text.refuse("num_key_value_heads", f"a divisor of num_attention_heads {heads}", kv)
    positions = text.integer("max_position_embeddings", default.positions, high=1 << 30)
    theta, scaling = read_rotary(text, kind, positions, head_dim, default.theta)
    layers = text.integer("num_hidden_layers", default.layers, high=1024)
    qkv_bias, output_bias = _biases(text, kind, stored)
    config = LanguageConfig(
        architecture=kind,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=head_dim,
        intermediate_size=text.integer("intermediate_size", default.inner),
        vocab_size=text.integer("vocab_size", default.vocab, high=_MAX_VOCAB),
        rope_theta=theta,
        norm_eps=text.number("rms_norm_eps", default.eps, high=1.0),
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        qk_norm=kind in ("qwen3", "qwen3_moe") or _any(stored, ".self_attn.q_norm.weight"),
        tied_embeddings=_tied(text, top, layout, stored),
        max_positions=positions,
        rope_scaling=scaling,
        sinks=kind == "gpt_oss" or _any(stored, ".self_attn.sinks"),
        norm_once=kind == "gpt_oss",
        visual_stride=_visual_stride(text, top),
    )
    config = _with_windows(text, config)
    if kind == "qwen3_moe":
        return _with_experts(text, config)
    return _with_clamped_experts(text, config) if kind == "gpt_oss" else config


def _null(text: Fields, key: str) -> bool:
    return key in text.data and text.data[key] is None


def _any(stored: Collection[str], *endings: str) -> bool:
    return any(name.endswith(endings) for name in stored)


def _kind(text: Fields, layout: str) -> str:
    """The family's code goes by ``architectures``, transformers by ``model_type``; either stands in for the other."""
    names, model_type = text.get("architectures"), text.get("model_type")
    by_name = names[0] if isinstance(names, list) and names else None
    said = (by_name or model_type) if layout == "original" else (model_type or by_name)
    if said is None and layout == "hf":
        return "qwen2"  # the class default
    if isinstance(said, str) and said in ARCHITECTURES:
        return ARCHITECTURES[said]
    if isinstance(said, str) and said in ARCHITECTURES.values():
        return said
    key = "architectures" if said == by_name and said is not None else "model_type"
    supported = ", ".join(f"{name} ({kind})" for name, kind in ARCHITECTURES.items())
    raise CheckpointError(
        f"{text.source}: unknown language model: {text.path}{key} is {show(text.get(key))}; supported: {supported}"
    )


def _biases(text: Fields, kind: str, stored: Collection[str]) -> tuple[bool, bool]:
    """Of the products before and after attention. A flag that is set asks for tensors; tensors need no flag."""
    if text.boolean("mlp_bias", False):
        raise text.refuse("mlp_bias", "false")
    if kind == "qwen2":
        before, after = True, False
    elif kind == "internlm2":  # its class's default is true, and no released config leaves the key out
        before = after = text.boolean("bias", not stored)
    elif kind == "internlm3":
        if text.boolean("bias", False):
            raise text.refuse("bias", "false")
        before, after = text.boolean("qkv_bias", False), False
    elif kind == "phi3":
        before = after = False
    else:
        before = after = text.boolean("attention_bias", kind == "gpt_oss")
    before |= _any(stored, ".self_attn.q_proj.bias", ".self_attn.qkv_proj.bias", ".attention.wqkv.bias")
    after |= _any(stored, ".self_attn.o_proj.bias", ".attention.wo.bias")
    return before, after


def _with_windows(text: Fields, config: LanguageConfig) -> LanguageConfig:
    """Layers whose queries see only so many keys, their own included; none where the window reaches over the context."""
    kind, layers = config.architecture, config.num_layers
    default = 128 if kind == "gpt_oss" else 4096
    listed = text.get("layer_types")
    if listed is not None and (
        not isinstance(listed, list)
        or len(listed) < layers
        or any(t not in ("full_attention", "sliding_attention") for t in listed)
    ):
        raise text.refuse("layer_types", f"'full_attention' or 'sliding_attention' for each of {layers} layers")
    if kind in ("llama", "internlm2", "internlm3"):
        used: tuple[int, ...] = ()
        default = 0
    elif kind == "gpt_oss":
        used = tuple(range(0, layers, 2))
    elif kind == "phi3":
        used = tuple(range(layers)) if text.get("sliding_window") is not None else ()
    elif not text.boolean("use_sliding_window", False):
        used, default = (), 0
    else:
        first = text.integer("max_window_layers", 28, low=0) if kind != "qwen3_moe" else 0
        used = tuple(range(first, layers))
    if listed is not None:
        used = tuple(i for i in range(layers) if listed[i] == "sliding_attention")
        if used and not default:
            raise text.refuse("layer_types", "'full_attention' for every layer, where use_sliding_window is not true")
    if not used:
        return config
    window = text.integer("sliding_window", default, high=1 << 40)
    return config if window >= config.context else replace(config, window=window, window_layers=used)


def _tied(text: Fields, top: Fields, layout: str, stored: Collection[str]) -> bool:
    """Tied is what has no output matrix stored.

    Where both flags rule tying out, the matrix is expected, and its absence an error later.
    """
    flags = [f.boolean("tie_word_embeddings", False) for f in (text, top) if f.get("tie_word_embeddings") is not None]
    if not stored:
        # The family's code always unties; transformers' top-level class ties unless told otherwise.
        return top.boolean("tie_word_embeddings", True) if layout == "hf" else any(flags)
    return not any(head in stored for head in HEADS) and (any(flags) or not flags)


def _visual_stride(text: Fields, top: Fields) -> float:
    """V2PE's fixed stride is in 256ths of a position; without its keys, and with a random one, 1."""
    for fields in (text, top):
        version = fields.choice("rope_pos_id_version", "default", ("default", "v2pe_fix", "v2pe_rnd"))
        stride = fields.integer("rope_pos_id_stride", 256, high=256)
        if stride not in _STRIDES:
            raise fields.refuse("rope_pos_id_stride", "a power of 2 from 1 to 256", stride)
        if version == "v2pe_fix":
            return stride / 256
    return 1.0


def _with_experts(text: Fields, config: LanguageConfig) -> LanguageConfig:
    key = (
        "num_experts" if text.get("num_experts") is not None else "num_local_experts"
    )  # transformers 5 writes the latter
    experts = text.integer(key, 128, high=4096)
    step = text.integer("decoder_sparse_step", 1, high=1024)
    listed = text.integers("mlp_only_layers", high=1023) or ()
    dense = tuple(i for i in range(config.num_layers) if i in listed or (i + 1) % step)
    return replace(
        config,
        num_experts=experts,
        experts_per_token=text.integer("num_experts_per_tok", min(8, experts), high=experts),
        expert_size=text.integer("moe_intermediate_size", 768),
        norm_topk_prob=text.boolean("norm_topk_prob", False),
        dense_layers=dense,
    )


def _with_clamped_experts(text: Fields, config: LanguageConfig) -> LanguageConfig:
    """GPT-OSS: the experts are what intermediate_size counts."""
    experts = text.integer("num_local_experts", 128, high=4096)
    if text.number("swiglu_alpha", 1.702) != 1.702:
        raise text.refuse("swiglu_alpha", "1.702")
    return replace(
        config,
        num_experts=experts,
        experts_per_token=text.integer("num_experts_per_tok", min(4, experts), high=experts),
        expert_size=config.intermediate_size,
        expert_bias=True,
        expert_limit=text.number("swiglu_limit", 7.0),
    )
