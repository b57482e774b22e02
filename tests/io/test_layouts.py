"""The layout description against transformers' own files, and against the family's names written out by hand."""

from __future__ import annotations

import re

import pytest
import torch

from internvl_kernels.io.checkpoint import load_weights, read_config, save_checkpoint
from internvl_kernels.io.layouts import Naming, detect, ignored, parameters
from internvl_kernels.io.shards import read_shards
from internvl_kernels.testing.checkpoints import (
    TEXT_MODELS,
    VISION_STYLES,
    cut_tower,
    random_weights,
    rename_tensors,
    tiny_config,
    transformers_config,
    write_transformers,
)

FAMILIES = [(text, style) for text in TEXT_MODELS for style in VISION_STYLES]


def canonical(model) -> dict[str, torch.Tensor]:
    """transformers' parameters under canonical names, put together here by hand."""
    given, made = dict(model.state_dict()), {}
    rename = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "projection_layer": "proj",
        "attention.": "",
        "mlp.": "",
    }
    rename |= {"lambda_": "ls", "encoder.layer.": "layers.", "embeddings.cls_token": "cls"}
    rename |= {"embeddings.patch_embeddings.projection": "patch", "embeddings.position_embeddings": "positions"}
    rename |= {f"{x}_proj": x for x in "qkv"}
    for name in [n for n in given if n.startswith("model.vision_tower.")]:
        short = name.removeprefix("model.vision_tower.")
        for old, new in rename.items():
            short = short.replace(old, new)
        made["vision." + short] = given.pop(name)
    d = made["vision.patch.weight"].shape[0]
    for name in ("cls", "positions", "patch.weight"):
        tensor = made["vision." + name]
        made["vision." + name] = tensor.reshape({"cls": (d,), "positions": (-1, d), "patch.weight": (d, -1)}[name])
    for name, new in {"layer_norm": "norm", "linear_1": "fc1", "linear_2": "fc2"}.items():
        for kind in ("weight", "bias"):
            made[f"projector.{new}.{kind}"] = given.pop(f"model.multi_modal_projector.{name}.{kind}")
    head = given.pop("lm_head.weight")
    if not model.config.tie_word_embeddings:
        made["language.head.weight"] = head
    rename = {
        "input_layernorm": "norm1",
        "post_attention_layernorm": "norm2",
        "self_attn.": "",
        "mlp.": "",
        "_proj": "",
    }
    rename |= {"embed_tokens": "embed", "gate.weight": "router.weight"}
    for name in [n for n in given if ".mlp.experts." in n and model.config.text_config.model_type == "gpt_oss"]:
        if "gate_up" in name:
            given[name] = torch.cat([given[name][..., 0::2], given[name][..., 1::2]], -1)
        if not name.endswith("bias"):
            given[name] = given[name].transpose(1, 2).contiguous()
    for name in list(given):
        short = name.removeprefix("model.language_model.")
        short = short.replace("_proj_bias", "_bias")
        sparse = model.config.text_config.model_type == "qwen3_moe"
        for old, new in rename.items():
            if old != "gate.weight" or sparse:
                short = short.replace(old, new)
        made["language." + short] = given.pop(name)
    for first, rest, joined in (("q", "kv", "qkv"), ("gate", ("up",), "gate_up")):
        for name in [n for n in made if re.search(rf"\.{first}\.(weight|bias)$", n)]:
            parts = [made.pop(name.replace(f".{first}.", f".{other}.")) for other in (first, *rest)]
            made[name.replace(f".{first}.", f".{joined}.")] = torch.cat(parts)
    return made


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert sorted(got) == sorted(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert got[name].is_contiguous(), name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize(("text", "style"), FAMILIES)
@pytest.mark.parametrize("prefixes", ["legacy", "new"])
def test_reads_what_transformers_writes(tmp_path, text, style, prefixes):
    model = write_transformers(tmp_path, text, style, prefixes=prefixes)
    config = read_config(tmp_path)
    assert (config.layout, config.language.architecture, config.vision.norm) == ("hf", text, style)
    assert detect(read_shards(tmp_path), "hf").prefixes == prefixes
    expected = canonical(model)
    assert sum(t.numel() for t in expected.values()) == sum(p.numel() for p in model.parameters())
    assert_same(load_weights(tmp_path, config, "float32", progress=False), expected)


@pytest.mark.parametrize("prefixes", ["legacy", "new"])
@pytest.mark.parametrize("fused", [False, True])
def test_expert_forms(tmp_path, prefixes, fused):
    model = write_transformers(tmp_path, "qwen3_moe", prefixes=prefixes, fused_experts=fused)
    stored = read_shards(tmp_path)
    assert any(name.endswith("experts.gate_up_proj") for name in stored) == fused
    assert any(name.endswith("experts.3.up_proj.weight") for name in stored) != fused
    assert_same(load_weights(tmp_path, read_config(tmp_path), "float32", progress=False), canonical(model))


@pytest.mark.parametrize("prefixes", ["legacy", "new"])
@pytest.mark.parametrize("tied", [False, True])
def test_tied_by_what_is_stored(tmp_path, prefixes, tied):
    model = write_transformers(tmp_path, "qwen3", tied=tied, prefixes=prefixes)
    config = read_config(tmp_path)
    assert config.language.tied_embeddings is tied
    weights = load_weights(tmp_path, config, "float32", progress=False)
    assert ("language.head.weight" in weights) is not tied
    assert_same(weights, canonical(model))


def test_stored_head_wins_over_the_config(tmp_path):
    save_checkpoint(random_weights(tiny_config()), tiny_config(), tmp_path / "a")
    text = (tmp_path / "a/config.json").read_text()
    (tmp_path / "a/config.json").write_text(text.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    assert "true" in (tmp_path / "a/config.json").read_text()
    config = read_config(tmp_path / "a")
    assert config.language.tied_embeddings is False
    assert "language.head.weight" in load_weights(tmp_path / "a", config, "float32", progress=False)


@pytest.mark.parametrize(("text", "style"), FAMILIES)
def test_transformers_reads_what_we_write(tmp_path, text, style):
    from transformers import InternVLForConditionalGeneration

    config = tiny_config(text, style, layout="hf")
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path / "a", layout="hf")
    model, report = InternVLForConditionalGeneration.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not any(report.values()), report
    assert_same(canonical(model), weights)
    ours, theirs = model.config.to_dict(), transformers_config(text, style).to_dict()
    for section in ("vision_config", "text_config"):
        told = {k: v for k, v in ours[section].items() if k not in ("dtype", "architectures")}
        wanted = {k: v for k, v in theirs[section].items() if k in told}
        assert {k: told[k] for k in wanted if k not in ("eos_token_id", "bos_token_id", "pad_token_id")} == {
            k: v for k, v in wanted.items() if k not in ("eos_token_id", "bos_token_id", "pad_token_id")
        }


def test_original_names():
    """The family's names, from its published files' documentation rather than from the description under test."""
    for style in VISION_STYLES:
        config = tiny_config(
            "qwen3_moe", style, text_overrides={"num_experts": 2, "num_layers": 1}, vision_overrides={"num_layers": 1}
        )
        block, layer = "vision_model.encoder.layers.0.", "language_model.model.layers.0."
        tower = ["attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "ls1", "ls2", "norm1.weight", "norm2.weight"]
        tower += [f"mlp.fc{k}.{kind}" for k in (1, 2) for kind in ("weight", "bias")]
        tower += (
            ["attn.q_norm.weight", "attn.k_norm.weight"]
            if style == "rms_norm"
            else ["attn.qkv.bias", "norm1.bias", "norm2.bias"]
        )
        text = [f"self_attn.{x}.weight" for x in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")]
        text += ["input_layernorm.weight", "post_attention_layernorm.weight", "mlp.gate.weight"]
        text += [f"mlp.experts.{e}.{x}_proj.weight" for e in (0, 1) for x in ("gate", "up", "down")]
        expected = {f"vision_model.embeddings.{x}" for x in ("class_embedding", "position_embedding")}
        expected |= {f"vision_model.embeddings.patch_embedding.{x}" for x in ("weight", "bias")}
        expected |= {block + x for x in tower} | {layer + x for x in text}
        expected |= {f"mlp1.{k}.{x}" for k in (0, 1, 3) for x in ("weight", "bias")}
        expected |= {f"language_model.{x}.weight" for x in ("model.embed_tokens", "model.norm", "lm_head")}
        names = [piece.name for p in parameters(config, Naming("original")) for piece in p.pieces]
        assert len(names) == len(set(names))
        assert set(names) == expected


@pytest.mark.parametrize(
    "naming", [Naming(), Naming("hf"), Naming("hf", "new"), Naming("hf", "new", True), Naming(fused_experts=True)]
)
@pytest.mark.parametrize(("text", "style"), FAMILIES)
def test_pieces_cover_every_parameter_once(naming, text, style):
    for parameter in parameters(tiny_config(text, style), naming):
        end = 0
        for piece in sorted(parameter.pieces, key=lambda p: p.start):
            assert piece.start == end, piece
            end += piece.size
        assert end == parameter.size, parameter.name


@pytest.mark.parametrize(
    ("layout", "block"), [("original", "vision_model.encoder.layers."), ("hf", "vision_tower.encoder.layer.")]
)
def test_blocks_past_select_layer_are_ignored(layout, block):
    config, naming = cut_tower(tiny_config(), 2), Naming(layout)
    assert ignored(f"{block}2.mlp.fc1.weight", config, naming)
    assert not ignored(f"{block}1.mlp.fc1.weight", config, naming)
    assert not ignored(f"{block}3.mlp.fc1.weight", config, naming)  # deeper than the config says
    assert not ignored(f"{block}2.mlp.fc9.weight", config, naming)


def test_ignored_tensors_in_a_file(tmp_path):
    """A final norm, a mask token and rotary tables load as if they were not there; an unknown name does not."""
    from safetensors.torch import load_file, save_file

    model = write_transformers(tmp_path, "llama")
    file = tmp_path / "model.safetensors"
    unused = ["vision_tower.layernorm.weight", "vision_tower.layernorm.bias", "vision_tower.embeddings.mask_token"]
    unused += [
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "language_model.model.rotary_emb.inv_freq",
    ]
    save_file(load_file(file) | {name: torch.ones(3) for name in unused}, file)
    assert_same(load_weights(tmp_path, read_config(tmp_path), "float32", progress=False), canonical(model))


def test_cut_tower_loads_only_what_runs(tmp_path):
    model = write_transformers(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"vision_feature_layer": -1', '"vision_feature_layer": -2'))
    config = read_config(tmp_path)
    assert (config.vision.num_layers, config.vision.stored_layers) == (2, 3)
    expected = {name: t for name, t in canonical(model).items() if not name.startswith("vision.layers.2.")}
    assert_same(load_weights(tmp_path, config, "float32", progress=False), expected)
    # A copy of it stores two blocks and says so.
    save_checkpoint(expected, config, tmp_path / "copy", layout="original")
    assert (
        read_config(tmp_path / "copy").vision
        == tiny_config(vision_overrides={"num_layers": 2, "stored_layers": 2}).vision
    )


def test_mixed_prefixes_are_refused(tmp_path):
    from internvl_kernels import CheckpointError

    write_transformers(tmp_path)
    rename_tensors(tmp_path, lambda name: "model." + name if name.startswith("vision_tower.") else name)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(tmp_path, read_config(tmp_path), "float32", progress=False)
