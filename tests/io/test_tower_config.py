"""What load_vision reads of config.json: the tower's part, whatever stands around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_kernels import CheckpointError
from internvl_kernels.config import TilingConfig
from internvl_kernels.io.config import read_tower_config, stands_alone

# With the keys of InternViT's repositories, of InternVL-14B-224px and of transformers' save_pretrained.
VIT = {
    "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "auto_map": {"AutoModel": "x.InternVisionModel"},
    "attention_dropout": 0.0, "drop_path_rate": 0.1, "dropout": 0.0, "hidden_act": "gelu", "hidden_size": 1024, "image_size": 448,
    "initializer_factor": 0.1, "initializer_range": 1e-10, "intermediate_size": 4096, "layer_norm_eps": 1e-06, "norm_type": "layer_norm",
    "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24, "patch_size": 14, "qk_normalization": False,
    "qkv_bias": True, "torch_dtype": "bfloat16", "use_flash_attn": True,
}  # fmt: skip
PIXELS = {
    "crop_size": 448, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.5, 0.25, 0.125], "image_std": [0.25, 0.5, 1.0], "resample": 3, "size": 448,
}  # fmt: skip
LARGE = {
    "architectures": ["InternVLModel"], "model_type": "internvl", "label_smoothing": 0.0, "max_txt_len": 32, "use_qllama_lora": 0,
    "qllama_config": {"architectures": None, "model_type": "llama", "num_query_token": 96, "quantization_config": {"bits": 3}},
    "vision_config": {"architectures": None, "model_type": "intern_vit_6b", "torch_dtype": "bfloat16"}, "torch_dtype": "bfloat16",
}  # fmt: skip
HF = {
    "architectures": ["InternVLVisionModel"], "model_type": "internvl_vision", "dtype": "float32", "image_size": [448, 448],
}  # fmt: skip


def write(path: Path, config: object, **files: object) -> Path:
    for name, value in {"config": config, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_a_repository_of_a_tower(tmp_path: Path) -> None:
    config = read_tower_config(write(tmp_path, VIT, preprocessor_config=PIXELS))
    assert stands_alone(tmp_path)
    v = config.vision
    assert (v.hidden_size, v.num_layers, v.num_heads, v.norm, v.qkv_bias, v.qk_norm) == (
        1024, 24, 16, "layer_norm", True, False,
    )  # fmt: skip
    assert (config.layout, config.dtype) == ("original", "bfloat16")
    # A picture is one tile, normalised as the repository says.
    assert config.tiling == TilingConfig(448, max_tiles=1, mean=(0.5, 0.25, 0.125), std=(0.25, 0.5, 1.0))
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_tower_config(tmp_path).tiling == TilingConfig(448, max_tiles=1)


@pytest.mark.parametrize("config", [VIT, HF], ids=["InternViT", "transformers"])
def test_the_type_says_it_where_the_class_is_missing(tmp_path: Path, config: dict[str, Any]) -> None:
    expected = read_tower_config(write(tmp_path, config))
    assert expected.vision.num_layers == 24
    bare = {key: value for key, value in config.items() if key != "architectures"}
    assert read_tower_config(write(tmp_path, bare)) == expected
    assert stands_alone(tmp_path)


def test_models_of_a_class_that_is_not_known(tmp_path: Path) -> None:
    """InternVL-14B runs its whole tower; a chat model of 48 layers without the key stops four states before the end."""
    found = read_tower_config(write(tmp_path, LARGE))
    assert (found.vision.num_layers, found.vision.stored_layers, found.vision.hidden_size) == (48, 48, 3200)
    assert (found.layout, found.tiling.size, found.dtype) == ("original", 224, "bfloat16")
    assert not stands_alone(tmp_path)
    chat = read_tower_config(write(tmp_path, LARGE | {"architectures": ["InternVLChatModel"]}))
    assert (chat.vision.num_layers, chat.vision.stored_layers) == (45, 48)
    hf = LARGE | {"vision_config": HF}
    assert read_tower_config(write(tmp_path, hf)).layout == "hf"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["ResNet"]}, r"unknown architecture: .*ResNet.*InternVLChatModel.*InternVisionModel"),
        ({"architectures": ["ResNet"], "vision_config": {"model_type": "siglip"}}, "unknown architecture"),
        ({"architectures": ["ResNet"], "vision_config": {"model_type": ["intern_vit_6b"]}}, "unknown architecture"),
        ({"architectures": ["ResNet"], "vision_config": 5}, "vision_config is 5; allowed: an object"),
        ({"architectures": 5}, "architectures is 5; allowed: a list"),
        ({"architectures": [["InternVisionModel"]]}, "unknown architecture"),
        ({}, "unknown architecture"),
        (VIT | {"model_type": "siglip"}, "model_type is 'siglip'"),
        (VIT | {"hidden_size": 1000}, r"num_attention_heads is 16; allowed: a divisor"),
        (VIT | {"quantization_config": {"quant_method": "fp8"}}, "quant_method is 'fp8'"),
        (HF | {"use_mean_pooling": False}, "use_mean_pooling"),
        (LARGE | {"vision_config": LARGE["vision_config"] | {"quantization_config": {"bits": 8}}}, "none for the tower"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    write(tmp_path, config)
    with pytest.raises(CheckpointError, match=words):
        read_tower_config(tmp_path)


@pytest.mark.parametrize("key", ["image_mean", "image_std"])
@pytest.mark.parametrize("value", [[0.5], [0, 0, float("inf")], "grey", [0.5, 0.5, None]])
def test_colours_are_checked(tmp_path: Path, key: str, value: Any) -> None:
    write(tmp_path, VIT, preprocessor_config=PIXELS | {key: value})
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {key} is .*three finite numbers"):
        read_tower_config(tmp_path)
