"""Configs that must be refused, each with the key, the value and what is allowed in the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_kernels import CheckpointError
from internvl_kernels.config import ModelConfig
from internvl_kernels.io.config import read_config
from internvl_kernels.io.config_json import config_files
from internvl_kernels.testing.checkpoints import tiny_config

ORIGINAL = json.loads(config_files(tiny_config("qwen3_moe", "rms_norm"), "original", dtype="float32")["config.json"])
HF = json.loads(config_files(tiny_config("llama", layout="hf"), "hf", dtype="float32")["config.json"])


def changed(base: dict, where: str, value: object) -> dict:
    key, _, rest = where.partition(".")
    return base | {key: changed(base.get(key, {}), rest, value) if rest else value}


def refused(path, base: dict, where: str, value: object, *words: str) -> None:
    (path / "config.json").write_text(json.dumps(changed(base, where, value)))
    with pytest.raises(CheckpointError) as error:
        read_config(path)
    told = {"patch_size": "image_size", "min_dynamic_patch": "max_dynamic_patch", "force_image_size": "size of a tile"}
    key = where.split(".")[-1]
    named = (
        told.get(key, key) if "allowed: an integer" not in words else key
    )  # where two keys disagree, the other is named
    for word in (named, *words):
        assert word in str(error.value), (word, str(error.value))


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("architectures", ["InternVLModel"], ["InternVLModel", "InternVLChatModel, InternVLForConditionalGeneration"]),
        ("architectures", [], ["[]"]),
        ("architectures", "InternVLChatModel", ["InternVLChatModel"]),
        ("architectures", [7], ["7"]),
        ("llm_config.architectures", ["MistralForCausalLM"], ["MistralForCausalLM", "Qwen2ForCausalLM"]),
        ("llm_config.architectures", ["InternLMForCausalLM"], ["InternLMForCausalLM"]),
        ("vision_config.model_type", "siglip", ["siglip", "intern_vit_6b"]),
        ("quantization_config", {"quant_method": "gptq"}, ["gptq", "'awq' or 'mxfp4'"]),
        ("quantization_config", {"quant_method": "awq", "bits": 8}, ["bits is 8"]),
        ("quantization_config", {"quant_method": "awq", "version": "gemv"}, ["gemv", "'gemm'"]),
        ("quantization_config", {"quant_method": "awq", "zero_point": False}, ["zero_point", "true"]),
        ("quantization_config", {}, ["quant_method", "'awq' or 'mxfp4'"]),
        ("llm_config.quantization_config", {"quant_method": "bitsandbytes"}, ["llm_config.quant", "bitsandbytes"]),
        ("vision_config.quantization_config", {"bits": 8}, ["vision_config.quantization_config"]),
        ("flash_mode", True, ["True", "Flash"]),
        ("ps_version", "v3", ["'v3'", "'v1' or 'v2'"]),
        ("ps_version", 2, ["2", "'v1' or 'v2'"]),
        ("template", 7, ["a string"]),
        ("vision_config.norm_type", "batch_norm", ["batch_norm", "rms_norm", "layer_norm"]),
        ("vision_config.hidden_act", "quick_gelu", ["quick_gelu"]),
        ("vision_config.num_channels", 4, ["4"]),
        ("vision_config.num_attention_heads", 5, ["5", "a divisor of hidden_size 64"]),
        ("vision_config.patch_size", 16, ["56", "a multiple of"]),
        ("vision_config.qkv_bias", 1, ["1", "true or false"]),
        ("downsample_ratio", 0.3, ["0.3", "1 divided by"]),
        ("downsample_ratio", 5e-324, ["5e-324"]),
        ("downsample_ratio", 0.125, ["0.125", "multiple"]),
        ("force_image_size", 70, ["70", "a multiple of 28"]),
        ("select_layer", -5, ["-5", "-3 to 3"]),
        ("select_layer", 0, ["0", "at least one of 3"]),
        ("max_dynamic_patch", 0, ["0", "from 1 to"]),
        ("min_dynamic_patch", 13, ["12", "from 13"]),
        ("llm_config.hidden_act", "gelu", ["gelu", "silu"]),
        ("llm_config.head_dim", 7, ["7", "even"]),
        ("llm_config.num_key_value_heads", 3, ["3", "a divisor of num_attention_heads 4"]),
        ("llm_config.num_experts_per_tok", 5, ["5", "from 1 to 4"]),
        ("llm_config.mlp_only_layers", ["0"], ["integers"]),
        ("llm_config.rope_scaling", {"type": "llama3", "factor": 4.0}, ["llama3", "'default' or 'linear'"]),
        ("llm_config.rope_scaling", {"type": "dynamic", "factor": 0.5}, ["0.5", "1 and more"]),
        ("llm_config.rope_scaling", {"type": "yarn", "factor": -4.0}, ["-4"]),
        ("llm_config.rope_scaling", {"type": "yarn", "beta_fast": 1.0, "beta_slow": 2.0}, ["beta_fast", "beta_slow"]),
        ("llm_config.rope_scaling", {"rope_type": "longrope"}, ["short_factor", "None"]),
        ("llm_config.rope_scaling", {"rope_type": "longrope", "short_factor": [1.0]}, ["short_factor", "12 numbers"]),
        ("llm_config.rope_pos_id_stride", 3, ["3", "power of 2"]),
        ("llm_config.rope_pos_id_version", "v3pe", ["v3pe"]),
        ("llm_config.rope_scaling", {"rope_type": 3}, ["3"]),
        ("llm_config.rope_scaling", "dynamic", ["dynamic", "an object"]),
        ("llm_config.rope_parameters", {"full_attention": {"rope_theta": 1e4}}, ["one set"]),
        ("llm_config.rope_parameters", {"rope_theta": 5.0}, ["5.0", "1e+06"]),
        ("llm_config.partial_rotary_factor", 0.5, ["0.5"]),
        ("llm_config.layer_types", ["full_attention", "sliding_attention"], ["sliding_attention"]),
        ("llm_config.eos_token_id", "2", ["'2'", "integers"]),
        ("llm_config.eos_token_id", [1, -1], ["-1"]),
        ("llm_config", [], ["an object"]),
        ("vision_config", 3, ["an object"]),
    ],
)
def test_original(tmp_path, where, value, words):
    refused(tmp_path, ORIGINAL, where, value, *words)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("text_config.model_type", "gemma3", ["gemma3", "Qwen3MoeForCausalLM (qwen3_moe)"]),
        ("text_config.mlp_bias", True, ["mlp_bias"]),
        ("vision_config.use_mean_pooling", False, ["final norm"]),
        ("vision_config.image_size", [56, 84], ["[56, 84]", "two equal"]),
        ("vision_config.image_size", [56], ["[56]"]),
        ("vision_config.image_size", [[56], [56]], ["[56]"]),
        ("vision_feature_layer", [-1, -2], ["[-1, -2]"]),
        ("vision_feature_select_strategy", "full", ["full", "'default'"]),
        ("projector_hidden_act", "relu", ["relu"]),
        ("image_token_id", -1, ["-1"]),
    ],
)
def test_hf(tmp_path, where, value, words):
    refused(tmp_path, HF, where, value, *words)


TOWER = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size")
TEXT = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
)
TEXT += ("vocab_size", "max_position_embeddings", "num_experts", "moe_intermediate_size")
INTEGERS = [f"vision_config.{key}" for key in TOWER] + [f"llm_config.{key}" for key in TEXT]
INTEGERS += ["force_image_size", "min_dynamic_patch", "max_dynamic_patch"]


@pytest.mark.parametrize("value", [0, -1, "64", 64.5, True, [], {}, 1 << 40, 10**400, float("nan")])
@pytest.mark.parametrize("where", INTEGERS)
def test_hostile_integers(tmp_path, where, value):
    refused(tmp_path, ORIGINAL, where, value, "allowed: an integer")


@pytest.mark.parametrize("value", [0.0, -1.0, "1e-6", float("nan"), float("inf"), 1e300, 10**400, True, [1e-6]])
@pytest.mark.parametrize("where", ["vision_config.layer_norm_eps", "llm_config.rms_norm_eps", "llm_config.rope_theta"])
def test_hostile_numbers(tmp_path, where, value):
    refused(tmp_path, ORIGINAL, where, value, "a finite number")


@pytest.mark.parametrize("key", ["image_mean", "image_std"])
@pytest.mark.parametrize("value", [[0.5], 0.5, "x", [0.5, 0.5, float("nan")], [0.5, 0.5, "0.5"], [0.5, 0.5, -1e9]])
def test_hostile_colours(tmp_path, key, value):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({key: value}))
    (tmp_path / "config.json").write_text(json.dumps(HF))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config.json: {key}.*three finite numbers"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "null", "{", '{"a": 1, "a": 2}', "\x00", "[" * 100_000, '{"a":' * 100_000]
)
def test_not_a_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path)


def test_no_config(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        read_config(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match="JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize(("window", "layers"), [(256, (0, 1)), (511, (0, 1)), (512, ()), (1 << 30, ())])
def test_a_window_counts_where_it_binds(tmp_path, window, layers):
    keys = {"use_sliding_window": True, "sliding_window": window}
    (tmp_path / "config.json").write_text(json.dumps(ORIGINAL | {"llm_config": ORIGINAL["llm_config"] | keys}))
    found = read_config(tmp_path).language
    assert (found.window, found.window_layers) == (window if layers else 0, layers)


KEYS = [key for key in ORIGINAL if not isinstance(ORIGINAL[key], dict)]
KEYS += [f"{section}.{key}" for section in ("vision_config", "llm_config") for key in ORIGINAL[section]]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([1, 2, 28, 448, 1 << 31]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "rope_type", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(
        st.sampled_from([*KEYS, "vision_config", "llm_config", "llm_config.rope_scaling"]), JSON, max_size=3
    )
)
def test_any_value_is_read_or_refused(tmp_path, changes):
    """Never another exception; what is read is a usable model."""
    config = ORIGINAL
    for where, value in sorted(changes.items(), reverse=True):  # whole sections last
        config = changed(config, where, value)
    (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        model = read_config(tmp_path)
    except CheckpointError as error:
        if "config.json" not in str(error):
            raise
        return
    assert isinstance(model, ModelConfig)
    assert model.tokens_per_tile >= 1
    assert model.vision.hidden_size % model.vision.num_heads == 0
    assert model.language.num_heads % model.language.num_kv_heads == 0
    assert 1 <= model.vision.num_layers <= model.vision.stored_layers
