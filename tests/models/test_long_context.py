"""Prompts past the published context, and windows: logits and greedy tokens of transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch

from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.io.checkpoint import load_weights
from internvl_kernels.io.config import read_config
from internvl_kernels.models import LanguageModel
from internvl_kernels.testing.checkpoints import write_transformers

RELATIVE_L2 = 2e-4
STEPS = 12
_FACTORS = {"short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.4], "long_factor": [1.0, 1.5, 2.0, 4.0, 9.0, 16.0]}


@dataclass(frozen=True)
class Case:
    text: str
    prompt: int
    overrides: dict[str, Any] = field(default_factory=dict)


def dynamic(positions: int) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": "dynamic", "factor": 3.0}, "max_position_embeddings": positions}


def longrope(original: int) -> dict[str, Any]:
    return {"rope_scaling": {"type": "longrope", **_FACTORS}, "original_max_position_embeddings": original}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CASES = {
    "dynamic, from the prompt on": Case("llama", 70, dynamic(32)),
    "dynamic, grown into": Case("llama", 61, dynamic(64)),
    "dynamic, within": Case("qwen2", 60, dynamic(128)),
    "yarn": Case("qwen3", 100, {"rope_scaling": YARN, "max_position_embeddings": 128}),
    "longrope, long": Case("phi3", 60, longrope(32)),
    "longrope, short": Case("phi3", 40, longrope(128)),
    "window of every layer": Case("phi3", 60, {"sliding_window": 9}),
    "window of two keys": Case("phi3", 20, {"sliding_window": 2}),
    "window of the last layers": Case(
        "qwen2", 60, {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    ),
    "sinks, windows, yarn": Case("gpt_oss", 100),
    "sinks, all layers full": Case("gpt_oss", 57, {"layer_types": ["full_attention"] * 2}),
}


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def make(name: str) -> Any:
        case = CASES[name]
        folder = tmp_path_factory.mktemp("long") / "model"
        model = write_transformers(folder, case.text, text_overrides=case.overrides, seed=7)
        ids = torch.randint(8, 128, (1, case.prompt), generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            whole = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            answer = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, do_sample=False, eos_token_id=None,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        return folder, ids, whole, answer

    return make


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens(case_of: Any, name: str, backend: str) -> None:
    folder, ids, whole, answer = case_of(name)
    config = read_config(folder)
    model = LanguageModel(config.language, load_weights(folder, config, "float32", progress=False), backend=backend)
    ours = model.logits(ids)
    assert float((ours.double() - whole.double()).norm() / whole.double().norm()) < RELATIVE_L2
    decoder = Decoder(model, [Request(ids[0], None, GenerationOptions(max_new_tokens=STEPS))], prefill_rows=17)
    for _ in decoder:
        pass
    compared = 0
    for step, (token, logits) in enumerate(zip(decoder.tokens[0], answer.logits)):
        best = logits[0].topk(2).values
        if best[0] - best[1] <= 4 * RELATIVE_L2 * logits.abs().max():
            break  # too close to call
        assert token == int(answer.sequences[0, ids.shape[1] + step]), f"step {step}"
        compared += 1
    assert compared >= STEPS // 2
