"""config.json and its companions, in both layouts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_kernels import CheckpointError
from internvl_kernels.config import ModelConfig, TilingConfig, VisionConfig
from internvl_kernels.io.config import read_config
from internvl_kernels.testing.checkpoints import TEXT_MODELS, VISION_STYLES, tiny_config, transformers_config

# The keys of the family's releases, with the sizes of InternVL3-8B and InternVL3.5-30B-A3B.
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
    "max_position_embeddings": 32768, "max_window_layers": 70, "num_attention_heads": 28, "num_hidden_layers": 28,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type":
    "dynamic"}, "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "torch_dtype":
    "bfloat16", "use_bfloat16": True, "use_cache": False, "use_sliding_window": False, "vocab_size": 151674,
}  # fmt: skip
MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": False,
    "decoder_sparse_step": 1, "head_dim": 128, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [], "moe_intermediate_size":
    768, "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta":
    1000000, "tie_word_embeddings": False, "vocab_size": 151936,
}  # fmt: skip
VIT = {
    "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_size": 1024, "image_size": 448,
    "hidden_act": "gelu", "initializer_factor": 1.0, "intermediate_size": 4096, "layer_norm_eps": 1e-06,
    "norm_type": "layer_norm", "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24, "patch_size":
    14, "qk_normalization": False, "qkv_bias": True, "use_moe": False,
}  # fmt: skip
ORIGINAL = {
    "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5,
    "dynamic_image_size": True, "force_image_size": 448, "max_dynamic_patch": 12, "min_dynamic_patch": 1,
    "ps_version": "v2", "select_layer": -1, "template": "internvl2_5", "torch_dtype": "bfloat16",
    "use_backbone_lora": 0, "use_llm_lora": 0, "use_thumbnail": True, "pad2square": False, "system_message": None,
    "vision_config": VIT, "llm_config": QWEN2, "output_attentions": False,
}  # fmt: skip


def write(path: Path, config: object, **files: object) -> Path:
    for name, value in {"config": config, **files}.items():
        (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def changed(base: dict, where: str, value: object) -> dict:
    """A copy of ``base`` with the dotted key set, or removed for ``...``."""
    key, _, rest = where.partition(".")
    copy = dict(base)
    if rest:
        copy[key] = changed(dict(base[key]), rest, value)
    elif value is ...:
        copy.pop(key, None)
    else:
        copy[key] = value
    return copy


def test_a_published_dense_config(tmp_path):
    config = read_config(write(tmp_path, ORIGINAL, generation_config={"eos_token_id": [151644, 151645]}))
    assert config.layout == "original"
    assert config.dtype == "bfloat16"
    v, t = config.vision, config.language
    assert (v.hidden_size, v.num_layers, v.num_heads, v.norm, v.qkv_bias, v.qk_norm) == (
        1024,
        24,
        16,
        "layer_norm",
        True,
        False,
    )
    assert (t.architecture, t.head_dim, t.num_kv_heads, t.qkv_bias, t.output_bias, t.qk_norm) == (
        "qwen2",
        128,
        4,
        True,
        False,
        False,
    )
    assert (t.rope_theta, t.max_positions, t.vocab_size, t.tied_embeddings) == (1e6, 32768, 151674, False)
    assert config.tiling == TilingConfig(448, True, 1, 12, True, False, "original")
    assert (config.projector.input_size, config.projector.version, config.tokens_per_tile) == (4096, "v2", 256)
    assert config.chat.eos_token_ids == (151644, 151645, 151643)
    assert (config.chat.template, config.chat.system_message) == ("internvl2_5", None)
    assert config.extras["use_llm_lora"] == 0


def test_a_published_sparse_config(tmp_path):
    config = read_config(write(tmp_path, ORIGINAL | {"llm_config": MOE, "system_message": "Be brief."}))
    t = config.language
    assert (t.num_experts, t.experts_per_token, t.expert_size, t.norm_topk_prob, t.dense_layers) == (
        128,
        8,
        768,
        True,
        (),
    )
    assert (t.head_dim, t.q_size, t.qk_norm, t.qkv_bias) == (128, 4096, True, False)
    assert config.chat.system_message == "Be brief."


def test_missing_keys_mean_the_class_defaults(tmp_path):
    top = {"architectures": ["InternVLChatModel"], "llm_config": {"architectures": ["LlamaForCausalLM"]}}
    config = read_config(write(tmp_path, top))
    # Without select_layer a 48-block tower gives the state four from the end: 45 blocks run.
    assert config.vision == VisionConfig(num_layers=45)
    assert (config.vision.hidden_size, config.vision.image_size, config.vision.norm) == (3200, 224, "rms_norm")
    assert (config.projector.version, config.projector.factor, config.tokens_per_tile) == ("v1", 2, 64)
    assert config.tiling == TilingConfig(size=224, dynamic=False, min_tiles=1, max_tiles=6, thumbnail=False)
    t = config.language
    assert (t.hidden_size, t.num_layers, t.num_heads, t.num_kv_heads, t.head_dim) == (4096, 32, 32, 32, 128)
    assert (t.vocab_size, t.intermediate_size, t.max_positions, t.rope_theta, t.norm_eps) == (
        32000,
        11008,
        2048,
        1e4,
        1e-6,
    )
    assert config.chat.template is None
    assert config.chat.eos_token_ids == (2,)
    assert config.dtype == "float32"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Qwen2ForCausalLM", (151936, 4096, 22016, 32, 32, 128, 32768)),
        ("Qwen3ForCausalLM", (151936, 4096, 22016, 32, 32, 128, 32768)),
        ("Qwen3MoeForCausalLM", (151936, 2048, 6144, 24, 4, 64, 32768)),
        ("LlamaForCausalLM", (32000, 4096, 11008, 32, 32, 128, 2048)),
    ],
)
def test_language_defaults_are_transformers(tmp_path, kind, expected):
    import transformers

    t = read_config(write(tmp_path, ORIGINAL | {"llm_config": {"architectures": [kind]}})).language
    sizes = (
        t.vocab_size,
        t.hidden_size,
        t.intermediate_size,
        t.num_layers,
        t.num_kv_heads,
        t.head_dim,
        t.max_positions,
    )
    assert sizes == expected
    theirs = getattr(transformers, kind.replace("ForCausalLM", "Config"))()
    assert (theirs.vocab_size, theirs.hidden_size, theirs.intermediate_size, theirs.num_hidden_layers) == expected[:4]
    assert (theirs.num_key_value_heads, theirs.max_position_embeddings) == (expected[4], expected[6])
    assert theirs.rms_norm_eps == t.norm_eps
    assert theirs.rope_parameters["rope_theta"] == t.rope_theta
    if kind == "Qwen3MoeForCausalLM":
        moe = (theirs.num_experts, theirs.num_experts_per_tok, theirs.moe_intermediate_size, theirs.norm_topk_prob)
        assert (t.num_experts, t.experts_per_token, t.expert_size, t.norm_topk_prob) == moe


@pytest.mark.parametrize("text", TEXT_MODELS)
@pytest.mark.parametrize("style", VISION_STYLES)
@pytest.mark.parametrize("form", ["full", "diff"])
def test_what_transformers_writes(tmp_path, text, style, form):
    config = transformers_config(text, style)
    config.architectures = ["InternVLForConditionalGeneration"]
    write(tmp_path, config.to_dict() if form == "full" else config.to_json_string())
    expected = tiny_config(text, style, layout="hf")
    chat = replace(expected.chat, pad_token_id=0)
    assert read_config(tmp_path) == replace(expected, chat=chat)


@pytest.mark.parametrize(
    ("rope", "theta", "context"),
    [
        ({"rope_theta": 5e5}, 5e5, 32768),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5, 32768),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 5e5}}, 5e5, 32768),
        ({"rope_scaling": None}, 1e4, 32768),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_theta": 5e5}, 5e5, 65536),
        ({"rope_scaling": {"type": "dynamic", "factor": 1.0}}, 1e4, 32768),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 6.0, "rope_theta": 5e7}}, 5e7, 196608),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4096}}, 1e4, 65536),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 1e4, 131072),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}}, 1e4, 32768),
    ],
)
def test_rotary_forms(tmp_path, rope, theta, context):
    text = {k: v for k, v in QWEN2.items() if not k.startswith("rope")} | rope
    t = read_config(write(tmp_path, ORIGINAL | {"llm_config": text})).language
    assert (t.rope_theta, t.max_positions, t.context) == (theta, 32768, context)


@pytest.mark.parametrize(("select", "layers"), [(-1, 24), (-4, 21), (24, 24), (1, 1), (-24, 1)])
def test_select_layer(tmp_path, select, layers):
    vision = read_config(write(tmp_path, ORIGINAL | {"select_layer": select})).vision
    assert (vision.num_layers, vision.stored_layers) == (layers, 24)


def test_dense_layers_of_a_sparse_model(tmp_path):
    text = MOE | {"num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    t = read_config(write(tmp_path, ORIGINAL | {"llm_config": text})).language
    assert [i for i in range(6) if t.is_sparse(i)] == [1, 5]


def test_tile_size_other_than_the_position_table(tmp_path):
    config = read_config(write(tmp_path, changed(ORIGINAL, "vision_config.image_size", 224)))
    assert (config.vision.image_size, config.tiling.size, config.tokens_per_tile) == (224, 448, 256)


@pytest.mark.parametrize("name", ["preprocessor_config", "processor_config"])
def test_hf_tiling(tmp_path, name):
    processor = {"size": {"height": 84, "width": 84}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    processor |= {"min_patches": 2, "max_patches": 9, "crop_to_patches": False}
    held = processor if name == "preprocessor_config" else {"image_processor": processor, "image_seq_length": 4}
    config = read_config(write(tmp_path, transformers_config().to_dict(), **{name: held}))
    assert config.tiling == TilingConfig(84, True, 2, 9, True, False, "hf", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert config.projector.version == "v2"


def test_hf_tiling_default(tmp_path):
    config = read_config(write(tmp_path, transformers_config().to_dict()))
    assert config.tiling == TilingConfig(56, True, 1, 12, True, rule="hf")


def test_chat_keys(tmp_path):
    tokenizer = {"chat_template": [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]}
    tokenizer |= {"context_image_token": "<ctx>", "extra_special_tokens": {"start_image_token": {"content": "<s>"}}}
    hf = transformers_config().to_dict()
    chat = read_config(write(tmp_path, hf, tokenizer_config=tokenizer)).chat
    assert (chat.chat_template, chat.image_token, chat.image_start, chat.image_end) == ("D", "<ctx>", "<s>", "</img>")
    assert (chat.template, chat.image_token_id, chat.eos_token_ids, chat.pad_token_id) == (None, 7, (2,), 0)
    write(tmp_path, hf, chat_template={"chat_template": "J"})
    assert read_config(tmp_path).chat.chat_template == "J"
    (tmp_path / "chat_template.jinja").write_text("{{ 你 }}", encoding="utf-8")
    assert read_config(tmp_path).chat.chat_template == "{{ 你 }}"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="UTF-8"):
        read_config(tmp_path)


def test_pad_token(tmp_path):
    assert read_config(write(tmp_path, changed(ORIGINAL, "llm_config.pad_token_id", -1))).chat.pad_token_id is None
    given = write(tmp_path, ORIGINAL, generation_config={"pad_token_id": 5, "eos_token_id": 3})
    assert (read_config(given).chat.pad_token_id, read_config(given).chat.eos_token_ids) == (5, (3, 151643))


def test_frozen(tmp_path):
    config = read_config(write(tmp_path, ORIGINAL))
    assert isinstance(config, ModelConfig)
    with pytest.raises(AttributeError):
        config.vision.hidden_size = 3  # type: ignore[misc]
