"""The complete model against transformers' own classes, on random weights: hidden states, logits, greedy tokens.

Every text model and both tower styles, from files written by transformers and from the same weights in the family's own
layout, on both backends.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.io.checkpoint import load_weights
from internvl_kernels.io.config import read_config
from internvl_kernels.io.save import save_checkpoint
from internvl_kernels.models import LanguageModel, Projector, VisionTower
from internvl_kernels.testing.checkpoints import IMAGE_TOKEN_ID, TEXT_MODELS, write_transformers

RELATIVE_L2 = 2e-4  # the promise of the whole model in fp32
BACKENDS = ("reference", "cpu")
CONVERTED = ("internlm2", "internlm3")  # transformers has them as Llama
CASES = [(text, "layer_norm") for text in (*TEXT_MODELS, *CONVERTED)]
CASES += [("qwen3", "rms_norm"), ("qwen3_moe", "rms_norm")]


class Case:
    """A checkpoint in both layouts, transformers' model of it, and inputs."""

    def __init__(self, folder: Path, text: str, vision: str) -> None:
        self.theirs = write_transformers(folder / "hf", text, vision, seed=3)
        config = read_config(folder / "hf")
        weights = load_weights(folder / "hf", config, "float32", progress=False)
        if text in CONVERTED:
            config = replace(config, language=replace(config.language, architecture=text))
        save_checkpoint(weights, config, folder / "original", layout="original")
        self.folders = {"hf": folder / "hf", "original": folder / "original"}
        generator = torch.Generator().manual_seed(5)
        self.tiles = torch.randn(3, 3, 56, 56, generator=generator)
        ids = torch.randint(8, 128, (2, 21), generator=generator)
        ids[0, 2:10] = IMAGE_TOKEN_ID  # two tiles of four tokens
        ids[1, 5:9] = IMAGE_TOKEN_ID
        self.ids = ids
        with torch.no_grad():
            tower = self.theirs.model.vision_tower(self.tiles, output_hidden_states=True)
            self.hidden = tower.hidden_states
            self.last = tower.last_hidden_state
            self.logits = self.theirs(
                input_ids=ids, pixel_values=self.tiles, attention_mask=torch.ones_like(ids)
            ).logits

    def parts(self, layout: str, backend: str) -> tuple[VisionTower, Projector, LanguageModel]:
        config = read_config(self.folders[layout])
        weights = load_weights(self.folders[layout], config, "float32", progress=False)
        tiling = config.tiling
        tower = VisionTower(config.vision, weights, mean=tiling.mean, std=tiling.std, backend=backend)
        return (
            tower,
            Projector(config.projector, weights, backend=backend),
            LanguageModel(config.language, weights, backend=backend),
        )


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lru_cache(maxsize=None)(lambda text, vision: Case(tmp_path_factory.mktemp(f"{text}-{vision}"), text, vision))


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["hf", "original"])
@pytest.mark.parametrize(("text", "vision"), CASES)
def test_hidden_states_and_logits(case_of: Any, text: str, vision: str, layout: str, backend: str) -> None:
    case = case_of(text, vision)
    tower, projector, language = case.parts(layout, backend)
    with torch.no_grad():
        count = tower.config.num_layers
        states = tower(case.tiles, layers=range(count + 1))
        for i, (ours, theirs) in enumerate(zip(states, case.hidden)):
            assert relative_l2(ours, theirs) < RELATIVE_L2, f"hidden state {i}"
        assert relative_l2(states[-1], case.last) < RELATIVE_L2
        visual = projector(states[-1]).flatten(0, 1)
        logits = language.logits(case.ids, visual, IMAGE_TOKEN_ID)
    assert relative_l2(logits, case.logits) < RELATIVE_L2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("text", "vision"), CASES)
def test_greedy_tokens(case_of: Any, text: str, vision: str, backend: str) -> None:
    """Token by token while transformers' own margin between its two best exceeds four times the tolerance."""
    case = case_of(text, vision)
    tower, projector, language = case.parts("original", backend)
    steps = 24
    with torch.no_grad():
        theirs = case.theirs.generate(
            input_ids=case.ids,
            pixel_values=case.tiles,
            attention_mask=torch.ones_like(case.ids),
            max_new_tokens=steps,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        visual = projector(tower(case.tiles)).flatten(0, 1)
        options = GenerationOptions(max_new_tokens=steps)
        rows = [int((row == IMAGE_TOKEN_ID).sum()) for row in case.ids]
        requests = [Request(ids, rows_, options) for ids, rows_ in zip(case.ids, visual.split(rows))]
        decoder = Decoder(language, requests, image_token_id=IMAGE_TOKEN_ID, prefill_rows=16)
        for _ in decoder:
            pass
    compared = 0
    for row, ours in enumerate(decoder.tokens):
        expected = theirs.sequences[row, case.ids.shape[1] :].tolist()
        for step in range(steps):
            logits = theirs.logits[step][row]
            best = logits.topk(2).values
            if best[0] - best[1] <= 4 * RELATIVE_L2 * logits.abs().max():
                break  # too close to call: what follows depends on it
            assert ours[step] == expected[step], f"row {row}, step {step}"
            compared += 1
    assert compared >= steps, "the margins must leave something to compare"
