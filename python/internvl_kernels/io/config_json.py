"""``ModelConfig`` -> the JSON files of either published layout; ``read_config`` is the inverse."""

from __future__ import annotations

import json
from typing import Any

from ..config import ModelConfig
from ..errors import CheckpointError
from .language_json import language_section


def config_files(config: ModelConfig, layout: str, *, dtype: str) -> dict[str, bytes]:
    """File name -> content.

    ``dtype``: of the stored weights. Raises ``CheckpointError`` where the layout cannot express the config.
    """
    chat = config.chat
    generation: dict[str, Any] = {}
    if chat.eos_token_ids:
        generation["eos_token_id"] = list(chat.eos_token_ids)
    if chat.pad_token_id is not None:
        generation["pad_token_id"] = chat.pad_token_id
    if layout == "original":
        objects = {"config.json": _original(config, dtype), "generation_config.json": generation}
    else:
        _refuse_hf(config)
        objects = {
            "config.json": _hf(config, dtype),
            "generation_config.json": generation,
            "preprocessor_config.json": _preprocessor(config),
        }
    files = {
        name: (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
        for name, value in objects.items()
        if value
    }
    if chat.chat_template is not None:
        files["chat_template.jinja"] = chat.chat_template.encode()
    return files


def _original(config: ModelConfig, dtype: str) -> dict[str, Any]:
    v, t, chat = config.vision, config.tiling, config.chat
    top: dict[str, Any] = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "torch_dtype": dtype,
        "downsample_ratio": 1 / config.projector.factor,
        "ps_version": config.projector.version,
        "select_layer": -1,
        "template": chat.template,
        "force_image_size": t.size,
        "dynamic_image_size": t.dynamic,
        "use_thumbnail": t.thumbnail,
        "min_dynamic_patch": t.min_tiles,
        "max_dynamic_patch": t.max_tiles,
        "pad2square": t.pad_to_square,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_size": v.hidden_size,
            "num_hidden_layers": v.num_layers,
            "num_attention_heads": v.num_heads,
            "intermediate_size": v.intermediate_size,
            "image_size": v.image_size,
            "patch_size": v.patch_size,
            "norm_type": v.norm,
            "layer_norm_eps": v.norm_eps,
            "qkv_bias": v.qkv_bias,
            "qk_normalization": v.qk_norm,
            "hidden_act": "gelu",
        },
        "llm_config": language_section(config.language, "original", dtype),
    }
    if chat.system_message is not None:
        top["system_message"] = chat.system_message
    return top


def _refuse_hf(config: ModelConfig) -> None:
    t = config.tiling
    if config.projector.version != "v2":
        raise CheckpointError(
            f"layout 'hf' cannot express projector.version {config.projector.version!r}; allowed: 'v2'"
        )
    if t.pad_to_square:
        raise CheckpointError("layout 'hf' cannot express tiling.pad_to_square True")
    if t.dynamic and not t.thumbnail and t.max_tiles > 1:
        raise CheckpointError(
            "layout 'hf' cannot express tiling without a thumbnail: tiling.thumbnail is False with more than one tile"
        )


def _hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    v, chat = config.vision, config.chat
    top: dict[str, Any] = {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "torch_dtype": dtype,
        "downsample_ratio": 1 / config.projector.factor,
        "image_seq_length": config.tokens_per_tile,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": config.language.tied_embeddings,
        "vision_config": {
            "model_type": "internvl_vision",
            "hidden_size": v.hidden_size,
            "num_hidden_layers": v.num_layers,
            "num_attention_heads": v.num_heads,
            "intermediate_size": v.intermediate_size,
            "image_size": [v.image_size, v.image_size],
            "patch_size": [v.patch_size, v.patch_size],
            "norm_type": v.norm,
            "layer_norm_eps": v.norm_eps,
            "attention_bias": v.qkv_bias,
            "use_qk_norm": v.qk_norm,
            "use_mean_pooling": True,
            "hidden_act": "gelu",
        },
        "text_config": language_section(config.language, "hf", dtype)
        | {"eos_token_id": list(chat.eos_token_ids) or None, "pad_token_id": chat.pad_token_id},
    }
    if chat.image_token_id is not None:
        top["image_token_id"] = chat.image_token_id
    if chat.system_message is not None:
        top["system_message"] = chat.system_message
    return top


def _preprocessor(config: ModelConfig) -> dict[str, Any]:
    t = config.tiling
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "processor_class": "InternVLProcessor",
        "crop_to_patches": True,
        "min_patches": t.min_tiles if t.dynamic else 1,
        "max_patches": t.max_tiles if t.dynamic else 1,
        "size": {"height": t.size, "width": t.size},
        "image_mean": list(t.mean),
        "image_std": list(t.std),
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "resample": 3,
    }
