"""How each family of language models stores its parameters, by names and formulas written out here; and that names decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from internvl_kernels import CheckpointError
from internvl_kernels.config import LanguageConfig
from internvl_kernels.io.checkpoint import load_weights, read_config, save_checkpoint
from internvl_kernels.testing.checkpoints import random_weights, tiny_config

AT = "language_model.model."


def stored_as_internlm2(weights: dict[str, torch.Tensor], c: LanguageConfig) -> dict[str, torch.Tensor]:
    """The language model's tensors under InternLM2's names: wqkv row by row."""
    made = {
        f"{AT}tok_embeddings.weight": weights["language.embed.weight"],
        f"{AT}norm.weight": weights["language.norm.weight"],
        "language_model.output.weight": weights["language.head.weight"],
    }
    queries, d = c.num_heads // c.num_kv_heads, c.head_dim
    for i in range(c.num_layers):
        at, of = f"{AT}layers.{i}.", f"language.layers.{i}."
        qkv = weights[f"{of}qkv.weight"]
        q, k, v = qkv[: c.q_size], qkv[c.q_size : c.q_size + c.kv_size], qkv[c.q_size + c.kv_size :]
        rows = []
        for group in range(c.num_kv_heads):
            for head in range(group * queries, (group + 1) * queries):
                rows += list(q[head * d : (head + 1) * d])
            rows += list(k[group * d : (group + 1) * d]) + list(v[group * d : (group + 1) * d])
        gate, up = weights[f"{of}gate_up.weight"].chunk(2)
        made |= {
            f"{at}attention.wqkv.weight": torch.stack(rows),
            f"{at}attention.wo.weight": weights[f"{of}o.weight"],
            f"{at}attention_norm.weight": weights[f"{of}norm1.weight"],
            f"{at}ffn_norm.weight": weights[f"{of}norm2.weight"],
            f"{at}feed_forward.w1.weight": gate.clone(),
            f"{at}feed_forward.w3.weight": up.clone(),
            f"{at}feed_forward.w2.weight": weights[f"{of}down.weight"],
        }
    return made


@pytest.mark.parametrize(("heads", "kv"), [(4, 2), (4, 4), (6, 1), (6, 2)])
def test_internlm2(tmp_path: Path, heads: int, kv: int) -> None:
    config = tiny_config("internlm2", text_overrides={"num_heads": heads, "num_kv_heads": kv})
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    expected = stored_as_internlm2(weights, config.language)
    assert sorted(n for n in stored if n.startswith("language_model.")) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(stored[name], tensor), name
    assert read_config(tmp_path) == config
    got = load_weights(tmp_path, config, "float32", progress=False)
    assert all(torch.equal(got[name], tensor) for name, tensor in weights.items())


def test_phi3_names(tmp_path: Path) -> None:
    config = tiny_config("phi3")
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    at = f"{AT}layers.1."
    names = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    for name, own in zip(names, ("qkv", "o", "gate_up", "down")):
        assert torch.equal(stored[f"{at}{name}.weight"], weights[f"language.layers.1.{own}.weight"])
    assert read_config(tmp_path) == config


def test_names_decide_where_the_class_differs(tmp_path: Path) -> None:
    """InternLM3's weights are published under InternLM2's class, with wqkv or apart: what is there is read."""
    config = tiny_config("internlm2")
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path / "fused")
    save_checkpoint(weights, tiny_config("llama", text_overrides={"norm_eps": 1e-5}), tmp_path / "apart")
    described = json.loads((tmp_path / "fused/config.json").read_text())
    (tmp_path / "apart/config.json").write_text(json.dumps(described))
    for folder in ("fused", "apart"):
        found = read_config(tmp_path / folder)
        assert found.language == config.language
        got = load_weights(tmp_path / folder, found, "float32", progress=False)
        assert all(torch.equal(got[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("text", "kinds"), [("llama", ("qkv", "o")), ("internlm2", ("qkv", "o")), ("internlm3", ("qkv",))]
)
def test_biases_that_are_stored_are_there(tmp_path: Path, text: str, kinds: tuple[str, ...]) -> None:
    config = tiny_config(text, text_overrides={"qkv_bias": True, "output_bias": "o" in kinds})
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    for key in ("bias", "qkv_bias", "attention_bias"):
        described["llm_config"].pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(described))
    found = read_config(tmp_path)
    assert (found.language.qkv_bias, found.language.output_bias) == (True, "o" in kinds)
    got = load_weights(tmp_path, found, "float32", progress=False)
    assert torch.equal(got["language.layers.1.qkv.bias"], weights["language.layers.1.qkv.bias"])


def test_a_bias_that_the_config_asks_for_must_be_there(tmp_path: Path) -> None:
    config = tiny_config("internlm2")
    save_checkpoint(random_weights(config), config, tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"bias": false', '"bias": true'))
    assert '"bias": true' in (tmp_path / "config.json").read_text()
    with pytest.raises(CheckpointError, match=r"missing 4 tensors .*attention\.wqkv\.bias"):
        load_weights(tmp_path, read_config(tmp_path), "float32", progress=False)


def test_a_wqkv_of_another_shape(tmp_path: Path) -> None:
    config = tiny_config("internlm2")
    save_checkpoint(random_weights(config), config, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    name = f"{AT}layers.0.attention.wqkv.weight"
    stored[name] = stored[name][:-1].clone()
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{name} has shape \[95, 48\].*allowed: \[96, 48\]"):
        load_weights(tmp_path, config, "float32", progress=False)
