"""Random checkpoints: what they keep of a released model, how they are drawn, and what is refused."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import internvl_kernels as ivk
from internvl_kernels import registry
from internvl_kernels.io.config import read_config
from internvl_kernels.synthetic import RandomWeights, random_checkpoint, shrunk

SMALL: dict[str, Any] = {"scale": 0.004, "progress": False}
RUNNING = [r.name for r in registry.RELEASES if r.blocker is None]
KEPT = (
    "architecture",
    "qkv_bias",
    "output_bias",
    "qk_norm",
    "sinks",
    "expert_bias",
    "expert_limit",
    "norm_once",
    "rope_theta",
)


@pytest.mark.parametrize("name", RUNNING)
def test_the_structure_stays(name: str) -> None:
    whole = registry.config_of(name)
    for scale in (0.004, 0.05, 0.5, 1.0):
        small = shrunk(whole, scale)
        w, s = whole.language, small.language
        assert all(getattr(w, key) == getattr(s, key) for key in KEPT)
        assert w.num_heads // w.num_kv_heads == s.num_heads // s.num_kv_heads
        assert (w.hidden_size == w.q_size) == (s.hidden_size == s.q_size) or w.hidden_size != w.q_size
        assert bool(w.window_layers) == bool(s.window_layers)
        assert (w.rope_scaling and w.rope_scaling.kind) == (s.rope_scaling and s.rope_scaling.kind)
        assert s.head_dim % 2 == 0
        assert s.experts_per_token == w.experts_per_token < max(s.num_experts, 1)
        v = small.vision
        assert (v.norm, v.qk_norm, v.qkv_bias) == (whole.vision.norm, whole.vision.qk_norm, whole.vision.qkv_bias)
        assert v.image_size % (v.patch_size * small.projector.factor) == 0
    assert shrunk(whole, 1.0).language == whole.language


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_the_same_weights_each_time(tmp_path: Path, layout: str) -> None:
    run = {**SMALL, "layout": layout}
    first, again, other = (
        random_checkpoint("InternVL3-1B", tmp_path / n, seed=seed, **run) for n, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    a, b, c = (load_file(p / "model.safetensors") for p in (first, again, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a)
    assert {t.dtype for t in a.values()} == {torch.bfloat16}
    assert (first / "config.json").read_bytes() == (again / "config.json").read_bytes()


def test_it_chats_and_encodes(tmp_path: Path) -> None:
    path = random_checkpoint("InternVL3.5-30B-A3B", tmp_path / "m", dtype="float16", **SMALL)
    model = ivk.load(path, progress=False)
    page = np.zeros((90, 60, 3), np.uint8)
    assert isinstance(model.chat("What is it?", page, max_new_tokens=3), str)
    assert model.encode(page)[0].shape[1] == model.config.language.hidden_size
    answers = model.batch_chat(
        [{"question": "a", "max_new_tokens": 3}, {"question": "b", "images": page, "max_new_tokens": 3}]
    )
    assert len(answers) == 2
    assert ivk.load_vision(path, progress=False).vision(np.zeros((1, 56, 56, 3), np.uint8)).shape[:2] == (1, 17)


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_every_special_token_is_a_row_of_the_table(tmp_path: Path, layout: str) -> None:
    for name in ("InternVL3.5-GPT-OSS-20B-A4B-Preview", "Mini-InternVL-Chat-4B-V1-5", "InternVL-Chat-V1-5"):
        path = random_checkpoint(name, tmp_path / f"{name}-{layout}", layout=layout, **SMALL)
        added = json.loads((path / "tokenizer_config.json").read_text())["added_tokens_decoder"]
        config = read_config(path)
        assert max(map(int, added)) < config.language.vocab_size
        assert set(config.chat.eos_token_ids) <= set(map(int, added))
        assert len(ivk.load(path, progress=False).prompt_ids("x" * 5)) > 5


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("scale", 0, "scale: 0; allowed: above 0"),
        ("scale", 1.5, "scale: 1.5"),
        ("scale", float("nan"), "scale: nan"),
        ("scale", True, "scale: True"),
        ("layout", "gguf", "layout: 'gguf'; allowed: original, hf"),
        ("dtype", "int4", "dtype: 'int4'; allowed: float32"),
        ("seed", -1, "seed: -1"),
        ("seed", 1.0, "seed: 1.0"),
        ("name", "InternVL9-1B", "no released model"),
        ("name", "InternVL-14B-224px", "not a pixel-shuffle chat model"),
        ("name", "InternVL-Chat-V1-1", "vocabulary size not published"),
    ],
)
def test_refused(tmp_path: Path, argument: str, value: Any, words: str) -> None:
    given = {"name": "InternVL3-1B", "path": tmp_path / "m", **SMALL, argument: value}
    with pytest.raises(ivk.UnsupportedError, match=words):
        random_checkpoint(**given)
    assert not (tmp_path / "m").exists()


def test_paths_and_layouts_that_are_refused(tmp_path: Path) -> None:
    random_checkpoint("InternVL3-1B", tmp_path / "m", **SMALL)
    with pytest.raises(ivk.CheckpointError, match="exists"):
        random_checkpoint("InternVL3-1B", tmp_path / "m", **SMALL)
    random_checkpoint("InternVL3-2B", tmp_path / "m", overwrite=True, **SMALL)
    with pytest.raises(ivk.CheckpointError, match=r"layout 'hf' cannot express projector\.version 'v1'"):
        random_checkpoint("InternVL-Chat-V1-2", tmp_path / "v1", layout="hf", **SMALL)


def test_activations_stay_near_one(tmp_path: Path) -> None:
    path = random_checkpoint("InternVL2.5-26B", tmp_path / "m", scale=0.02, dtype="float32", progress=False)
    tower = ivk.load_vision(path, progress=False)
    tiles = torch.randn(1, 3, *[tower.config.tiling.size] * 2, generator=torch.Generator().manual_seed(0))
    assert 0.1 < float(tower.vision(tiles).square().mean().sqrt()) < 30


def test_one_parameter_at_a_time() -> None:
    """Drawn as it is written: what a mapping of a whole 26B model holds is nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = RandomWeights(registry.config_of("InternVL2-26B"), "bfloat16", 0)
    assert sum(weights.meta(name).numel() for name in weights) == registry.parameters(registry.find("InternVL2-26B"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.slow
def test_a_whole_model_in_little_memory(tmp_path: Path) -> None:
    """0.94 B parameters, 1.9 GB: written with less private memory than a quarter of that, and read back."""
    script = (
        "import resource, sys; import internvl_kernels as ivk; "
        "ivk.random_checkpoint('InternVL2-1B', sys.argv[1], progress=False); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m")], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 1_300_000  # KiB, torch included; the table of embeddings is 272 MB, drawn in fp32 blocks
    with safe_open(tmp_path / "m/model.safetensors", "pt") as file:
        assert sum(np.prod(file.get_slice(n).get_shape()) for n in file.keys()) == 938_158_976  # noqa: SIM118
    assert ivk.load(tmp_path / "m", weights="bfloat16", progress=False).chat("hi", max_new_tokens=2) is not None


def test_the_public_name_is_the_function() -> None:
    """No module may bear it: importing that one would take the function's place."""
    script = "import internvl_kernels.synthetic, internvl_kernels as ivk; assert callable(ivk.random_checkpoint)"
    subprocess.run([sys.executable, "-c", script], check=True)
    package = Path(ivk.__file__).parent
    functions = [n for n in ivk.__all__ if callable(getattr(ivk, n))]
    assert not [n for n in functions if (package / f"{n}.py").exists()]
