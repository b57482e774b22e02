"""The language model's section of ``config.json`` -> ``LanguageConfig``: Qwen2, Qwen3, Qwen3-MoE, Llama."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..config import LanguageConfig
from ..errors import CheckpointError
from .fields import Fields, show

ARCHITECTURES = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "LlamaForCausalLM": "llama",
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


_DEFAULTS = {
    "qwen2": _Default(151936, 4096, 22016, 32, 32, 32, None, 32768),
    "qwen3": _Default(151936, 4096, 22016, 32, 32, 32, 128, 32768),
    "qwen3_moe": _Default(151936, 2048, 6144, 24, 32, 4, None, 32768),
    "llama": _Default(32000, 4096, 11008, 32, 32, None, None, 2048),
}
_MAX_VOCAB = 1 << 24


def read_language(text: Fields, top: Fields, layout: str, *, separate_head: bool | None) -> LanguageConfig:
    """``separate_head``: whether an output matrix is stored; None where no weights are there to ask, then the
    config's flags count.
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
    theta, positions = _rotary(text, text.integer("max_position_embeddings", default.positions, high=1 << 30))
    _refuse_window(text, kind, positions)
    bias = kind != "qwen2" and text.boolean("attention_bias", False)
    if kind == "llama" and text.boolean("mlp_bias", False):
        raise text.refuse("mlp_bias", "false")
    config = LanguageConfig(
        architecture=kind,
        hidden_size=hidden,
        num_layers=text.integer("num_hidden_layers", default.layers, high=1024),
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=head_dim,
        intermediate_size=text.integer("intermediate_size", default.inner),
        vocab_size=text.integer("vocab_size", default.vocab, high=_MAX_VOCAB),
        rope_theta=theta,
        norm_eps=text.number("rms_norm_eps", 1e-6, high=1.0),
        qkv_bias=kind == "qwen2" or bias,
        output_bias=bias,
        qk_norm=kind in ("qwen3", "qwen3_moe"),
        tied_embeddings=_tied(text, top, layout, separate_head),
        max_positions=positions,
    )
    return _with_experts(text, config) if kind == "qwen3_moe" else config


def _null(text: Fields, key: str) -> bool:
    return key in text.data and text.data[key] is None


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


def _rotary(text: Fields, positions: int) -> tuple[float, int]:
    """(theta, positions that may be used).

    Dynamic NTK scaling equals the plain form up to the published length, so that is the limit.
    """
    theta = text.number("rope_theta", 10000.0)
    for key in ("rope_scaling", "rope_parameters"):  # transformers 4, transformers 5
        rope = text.section(key)
        kind = rope.text("rope_type") or rope.text("type") or "default"
        if kind not in ("default", "dynamic"):
            raise text.refuse(key, "rope_type 'default' or 'dynamic'")
        if any(isinstance(value, dict) for value in rope.data.values()):
            raise text.refuse(key, "one set of values for all layers")
        given = rope.number("rope_theta", theta)
        if text.get("rope_theta") is not None and given != theta:
            raise rope.refuse("rope_theta", f"{text.path}rope_theta's {theta:g}", given)
        theta = given
        if kind == "dynamic":
            rope.number("factor", 1.0, high=1e6)
            positions = min(positions, rope.integer("original_max_position_embeddings", positions, high=1 << 30))
        if rope.number("partial_rotary_factor", 1.0) != 1.0:
            raise rope.refuse("partial_rotary_factor", "1")
    if text.number("partial_rotary_factor", 1.0) != 1.0:
        raise text.refuse("partial_rotary_factor", "1")
    return theta, positions


def _refuse_window(text: Fields, kind: str, positions: int) -> None:
    layer_types = text.get("layer_types")
    if layer_types is not None and (
        not isinstance(layer_types, list) or any(t != "full_attention" for t in layer_types)
    ):
        raise text.refuse("layer_types", "'full_attention' for every layer")
    if kind == "llama" or not text.boolean("use_sliding_window", False):
        return
    window = text.integer("sliding_window", 4096, high=1 << 40)
    first = text.integer("max_window_layers", 28, low=0) if kind != "qwen3_moe" else 0
    if window < positions and first < text.integer("num_hidden_layers", _DEFAULTS[kind].layers, high=1024):
        raise text.refuse("use_sliding_window", f"false, or a sliding_window of at least {positions}")


def _tied(text: Fields, top: Fields, layout: str, separate_head: bool | None) -> bool:
    """Tied is what has no output matrix stored.

    Where both flags rule tying out, the matrix is expected, and its absence an error later.
    """
    flags = [f.boolean("tie_word_embeddings", False) for f in (text, top) if f.get("tie_word_embeddings") is not None]
    if separate_head is None:
        # The family's code always unties; transformers' top-level class ties unless told otherwise.
        return top.boolean("tie_word_embeddings", True) if layout == "hf" else any(flags)
    return not separate_head and (any(flags) or not flags)


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
