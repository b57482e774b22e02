"""Weights as the cpu backend keeps them: packed, in the dtype that ``weights`` names, under fp32 computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.io.save import save_checkpoint
from internvl_kernels.ops import PackedWeight
from internvl_kernels.testing.checkpoints import byte_tokenizer_files, random_weights, tiny_config
from internvl_kernels.testing.compare import same_bits

QUIET: dict[str, Any] = {"progress": False, "backend": "cpu", "threads": 1}


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama", "qwen3_moe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored in bfloat16, so that nothing is lost on the way to weights of bfloat16; qwen3 has a head of its own here."""
    config = tiny_config(request.param, tied=request.param != "qwen3", text_overrides={"vocab_size": 272})
    path = tmp_path_factory.mktemp("weights") / "model"
    save_checkpoint(random_weights(config, dtype="bfloat16"), config, path, extra_files=byte_tokenizer_files())
    return path


def inputs(model: ivk.Model) -> tuple[torch.Tensor, torch.Tensor]:
    size, generator = model.config.vision.image_size, torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(8, 200, (2, 2 * model.config.tokens_per_tile + 9), generator=generator)
    ids[0, 3 : 3 + 2 * model.config.tokens_per_tile] = model.image_token_id
    return ids, tiles


def test_weights_of_sixteen_bits_give_the_bits_of_wide_ones(folder: Path) -> None:
    wide = ivk.load(folder, **QUIET)
    ids, tiles = inputs(wide)
    for stored in ("bfloat16", "float16"):
        model = ivk.load(folder, weights=stored, dtype="float32", **QUIET)
        assert model.dtype == "float32"
        if stored == "float16":  # not all of them are numbers of bfloat16 and of float16
            torch.testing.assert_close(model.vision(tiles), wide.vision(tiles), rtol=1e-2, atol=1e-2)
            continue
        same_bits(model.vision(tiles), wide.vision(tiles))
        same_bits(model.logits(ids, tiles), wide.logits(ids, tiles))
        plans = [m.plan([2], text_tokens=5).bytes["weights"] for m in (model, wide)]
        assert plans[0] * 2 == plans[1]
        request = {"question": "what is this?", "max_new_tokens": 8, "stop_token_ids": []}
        assert model.chat(**request) == wide.chat(**request)


def test_matrices_are_packed_and_held_once(folder: Path) -> None:
    model = ivk.load(folder, weights="bfloat16", **QUIET)
    language = model._language
    matrices = [w for layer in language._layers for w in layer.values() if isinstance(w, PackedWeight)]
    assert len(matrices) == (5 if model.config.language.num_experts else 4) * len(language._layers)
    assert {w.dtype for w in matrices} == {torch.bfloat16}
    assert sum(w.gated for w in matrices) == len(language._layers)
    if model.config.language.tied_embeddings:
        assert language._head is language._embed
        assert isinstance(language._embed, PackedWeight)
    else:
        assert isinstance(language._head, PackedWeight)
        assert language._embed.dtype == torch.bfloat16


def test_unknown_tokens_are_refused_by_a_packed_table_too(folder: Path) -> None:
    model = ivk.load(folder, weights="bfloat16", **QUIET)
    vocabulary = model.config.language.vocab_size
    for token in (-1, vocabulary):
        with pytest.raises(UnsupportedError, match=rf"input_ids holds {token}; allowed: 0 to {vocabulary - 1}"):
            model.logits([[5, token]])


def test_refusals(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match="weights: 'int4'"):
        ivk.load(folder, weights="int4", **QUIET)
    with pytest.raises(UnsupportedError, match="weights: 'bfloat16' with dtype 'float32'; allowed: the dtype"):
        ivk.load(folder, weights="bfloat16", **{**QUIET, "backend": "reference"})
