"""``LanguageConfig`` -> the language model's section of ``config.json``; ``read_language`` is the inverse."""

from __future__ import annotations

from typing import Any

from ..config import LanguageConfig, RopeScaling
from ..errors import CheckpointError
from .language_config import ARCHITECTURES
from .rope_config import longrope_attention, yarn_attention

_CLASSES = {kind: name for name, kind in ARCHITECTURES.items()}


def language_section(c: LanguageConfig, layout: str, dtype: str) -> dict[str, Any]:
    """Only what differs between the architectures' classes is written under their own condition. transformers has no class
    for InternLM2 and 3: there they are the Llama that they are converted to.

    Raises ``CheckpointError`` where the architecture's class cannot express the config.
    """
    kind = "llama" if layout == "hf" and c.architecture in ("internlm2", "internlm3") else c.architecture
    section: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "torch_dtype": dtype,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.intermediate_size,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_positions,
        "rope_theta": c.rope_theta,
        "rms_norm_eps": c.norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": c.tied_embeddings,
        "use_cache": True,
    }
    section |= _biases(c, kind) | _scaling(c) | _windows(c, kind)
    if c.visual_stride != 1.0:
        section |= {"rope_pos_id_version": "v2pe_fix", "rope_pos_id_stride": round(c.visual_stride * 256)}
    if kind == "qwen3_moe":
        section |= {
            "num_experts": c.num_experts,
            "num_experts_per_tok": c.experts_per_token,
            "moe_intermediate_size": c.expert_size,
            "norm_topk_prob": c.norm_topk_prob,
            "decoder_sparse_step": 1,
            "mlp_only_layers": list(c.dense_layers),
        }
    elif kind == "gpt_oss":
        section |= {
            "num_local_experts": c.num_experts,
            "num_experts_per_tok": c.experts_per_token,
            "swiglu_limit": c.expert_limit,
        }
    return section


def _biases(c: LanguageConfig, kind: str) -> dict[str, Any]:
    """The flags of a class, where what it always has agrees."""
    always = {"qwen2": (True, False), "phi3": (False, False)}.get(kind)
    after_free = kind in ("qwen2", "phi3", "internlm3")
    both = c.output_bias if kind != "internlm3" else c.qkv_bias
    expected = (*(always or (both, both and not after_free)), kind.startswith("qwen3"), kind == "gpt_oss")
    if (c.qkv_bias, c.output_bias, c.qk_norm, c.sinks) != expected:
        raise CheckpointError(
            f"language: {kind} cannot have qkv_bias {c.qkv_bias}, output_bias {c.output_bias}, qk_norm {c.qk_norm} and sinks "
            f"{c.sinks} together"
        )
    if kind == "internlm2":
        return {"bias": c.qkv_bias}
    if kind == "internlm3":
        return {"bias": False, "qkv_bias": c.qkv_bias}
    return {} if always else {"attention_bias": c.qkv_bias}


def _scaling(c: LanguageConfig) -> dict[str, Any]:
    s = c.rope_scaling
    if s is None:  # GPT-OSS takes a missing one for its own
        return {"rope_scaling": {"rope_type": "default"}} if c.architecture == "gpt_oss" else {}
    if s.kind in ("linear", "dynamic"):
        return {"rope_scaling": {"type": s.kind, "rope_type": s.kind, "factor": s.factor}}
    if s.kind == "longrope":
        return _longrope(s, c.max_positions)
    fields = {"factor": s.factor, "original_max_position_embeddings": s.original_positions, "truncate": s.truncate}
    fields |= {"beta_fast": s.beta_fast, "beta_slow": s.beta_slow}
    return {"rope_scaling": {"rope_type": "yarn", **fields, **_attention(s, yarn_attention(s.factor))}}


def _longrope(s: RopeScaling, positions: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"short_factor": list(s.short_factors), "long_factor": list(s.long_factors)}
    if s.factor != positions / s.original_positions:
        fields["factor"] = s.factor
    fields |= _attention(s, longrope_attention(s.factor, s.original_positions))
    kind = {"type": "longrope", "rope_type": "longrope"}
    return {"original_max_position_embeddings": s.original_positions, "rope_scaling": kind | fields}


def _attention(s: RopeScaling, default: float) -> dict[str, float]:
    return {} if s.attention_factor == default else {"attention_factor": s.attention_factor}


def _windows(c: LanguageConfig, kind: str) -> dict[str, Any]:
    """None is written too: a class may have a window of its own."""
    if kind in ("llama", "internlm2", "internlm3"):
        if c.window_layers:
            raise CheckpointError(f"language: {kind} cannot have window_layers {list(c.window_layers)}")
        return {}
    if not c.window_layers and kind != "gpt_oss":
        return {"sliding_window": None} if kind == "phi3" else {}
    types = ["sliding_attention" if i in c.window_layers else "full_attention" for i in range(c.num_layers)]
    return {"sliding_window": c.window or 128, "layer_types": types} | (
        {"use_sliding_window": True, "max_window_layers": 0} if kind.startswith("qwen") else {}
    )
