"""Rotary tables against transformers' own, positions of V2PE, and lengths: whole prompts decide, in whatever chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from internvl_kernels import UnsupportedError, ops
from internvl_kernels.config import LanguageConfig, RopeScaling
from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.models import LanguageModel, Positions, logits
from internvl_kernels.models.rotary import Rotary
from internvl_kernels.testing.checkpoints import random_weights, tiny_config
from internvl_kernels.testing.compare import same_bits

D = 24
FACTORS = {"short_factor": [1.0 + i / 10 for i in range(12)], "long_factor": [1.0 + i * i / 2 for i in range(12)]}
CASES: dict[str, tuple[dict[str, Any], RopeScaling]] = {
    "linear": ({"factor": 4.0}, RopeScaling("linear", 4.0, 512)),
    "dynamic": ({"factor": 3.0}, RopeScaling("dynamic", 3.0, 512)),
    "yarn": (
        {"factor": 32.0, "original_max_position_embeddings": 64, "truncate": False},
        RopeScaling("yarn", 32.0, 64, 1.3465735902799727, truncate=False),
    ),
    "yarn, whole bounds": (
        {"factor": 8.0, "original_max_position_embeddings": 256, "beta_fast": 4.0, "beta_slow": 2.0},
        RopeScaling("yarn", 8.0, 256, 1.2079441541679836, beta_fast=4.0, beta_slow=2.0),
    ),
    "longrope": (
        {**FACTORS, "original_max_position_embeddings": 64},
        RopeScaling("longrope", 8.0, 64, 1.224744871391589, 32.0, 1.0, True, *map(tuple, FACTORS.values())),
    ),
}


def config_of(scaling: RopeScaling | None) -> LanguageConfig:
    return replace(tiny_config("qwen3").language, head_dim=D, rope_theta=1e4, rope_scaling=scaling)


def theirs(name: str, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = name.partition(",")[0]
    parameters = {"rope_type": kind, "rope_theta": 1e4, **CASES[name][0]}
    config = LlamaConfig(head_dim=D, max_position_embeddings=512, rope_parameters=parameters)
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    angles = torch.arange(length).double()[:, None] * frequencies.double()
    return angles.cos() * scale, angles.sin() * scale


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 512, 513, 1300])
@pytest.mark.parametrize("name", CASES)
def test_tables_are_transformers(name: str, length: int, backend: str) -> None:
    rotary = Rotary(config_of(CASES[name][1]), backend=backend)
    positions = torch.arange(length)
    got = rotary(positions, torch.full_like(positions, length))
    for ours, expected in zip(got, theirs(name, length)):
        # Their frequencies are fp32: an angle is off by its last bits.
        assert ours.dtype == torch.float32
        assert (ours - expected).abs().max() <= 3e-7 * length + 1e-6


def test_gpt_oss_ramp_by_hand() -> None:
    """The numbers of its published config: the ramp runs from 8.09 to 17.40 of 32."""
    yarn = RopeScaling("yarn", 32.0, 4096, 1.3465735902799727, truncate=False)
    rotary = Rotary(replace(config_of(yarn), head_dim=64, rope_theta=150000.0), backend="reference")
    one = torch.ones(1, dtype=torch.int64)
    cos, sin = rotary(one, one)
    frequency = torch.atan2(sin, cos)[0].double()
    plain = 150000.0 ** (-torch.arange(32) / 32.0).double()
    ratio = plain / frequency
    assert (ratio[:9] - 1).abs().max() < 1e-6
    assert (ratio[18:] - 32).abs().max() < 1e-2
    middle = 1 / (1 - (10 - 8.0928) / (17.3980 - 8.0928) * (1 - 1 / 32))
    assert float(ratio[10]) == pytest.approx(middle, rel=1e-4)
    assert float((cos**2 + sin**2).sqrt()[0, 0]) == pytest.approx(1.3465735902799727, rel=1e-6)


def test_a_row_depends_on_its_own_length_alone() -> None:
    for _, scaling in CASES.values():
        rotary = Rotary(config_of(scaling), backend="cpu")
        positions, lengths = torch.tensor([3, 3, 600, 700, 63]), torch.tensor([10, 900, 601, 900, 64])
        together = rotary(positions, lengths)
        for row in range(5):
            alone = rotary(positions[row : row + 1], lengths[row : row + 1])
            same_bits(alone, tuple(t[row : row + 1] for t in together))


def test_dynamic_tables_grow_with_an_answer_and_longrope_stays() -> None:
    at = torch.tensor([700])
    for kind, same in (("dynamic", False), ("longrope", True)):
        rotary = Rotary(config_of(CASES[kind][1]), backend="cpu")
        short, grown = rotary(at, torch.tensor([60])), rotary(at, torch.tensor([701]))
        assert torch.equal(rotary(at, torch.tensor([60]))[0], short[0])
        assert torch.equal(short[0], grown[0]) != same  # dynamic: 701 positions either way


def test_positions_by_hand() -> None:
    visual = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, 0], dtype=torch.bool)
    positions = Positions(9, visual, 0.25)
    assert positions(0, 9) == [0, 1, 1.25, 1.5, 1.75, 3, 4, 4.25, 6]
    assert positions.span == 7
    assert positions(7, 11) == [4.25, 6, 7, 8]
    assert Positions(3, torch.tensor([True, True, False]), 0.5)(0, 3) == [-0.5, 0.0, 1.0]
    assert Positions(2, torch.tensor([True, True]), 0.5).span == 1
    assert Positions(9, visual, 1.0)(2, 11) == list(range(2, 11))
    assert Positions(0).span == 0


def test_stride_one_is_plain_positions() -> None:
    from internvl_kernels.models.positions import _strided

    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        visual = torch.rand(40, generator=generator) < 0.6
        assert _strided(visual, 1.0).tolist() == list(range(40))
        strided = Positions(40, visual, 1 / 256)(0, 40)
        assert strided == by_hand(visual.tolist(), 1 / 256)


def by_hand(visual: list[bool], stride: float) -> list[float]:
    """V2PE's rule, token by token."""
    found: list[float] = []
    text, run = -1, 0
    for is_visual in visual:
        if is_visual:
            run += 1
            found.append(text + run * stride)
        else:
            text = -int(-(text + run * stride) // 1) + 1
            run = 0
            found.append(float(text))
    return found


def model(text: str, backend: str = "cpu", **fields: Any) -> LanguageModel:
    config = tiny_config(text, text_overrides={"max_positions": 64, **fields})
    return LanguageModel(config.language, random_weights(config, seed=4), backend=backend)


SCALED = {
    "internlm2": {"rope_scaling": RopeScaling("dynamic", 2.0, 64)},
    "qwen3": {"rope_scaling": CASES["yarn"][1]},
    "phi3": {},
}


@pytest.mark.parametrize("text", SCALED)
def test_chunks_and_neighbours_change_no_bit(text: str) -> None:
    own = model(text, **({"max_positions": 512} if text == "phi3" else {}), **SCALED[text])
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(8, 128, (n,), generator=generator) for n in (100, 15, 70)]
    options = GenerationOptions(max_new_tokens=20)

    def answers(requests: list[Request], rows: int) -> list[list[int]]:
        decoder = Decoder(own, requests, prefill_rows=rows)
        for _ in decoder:
            pass
        return decoder.tokens

    together = answers([Request(p, None, options) for p in prompts], 2048)
    for rows in (1, 33):
        assert answers([Request(p, None, options) for p in prompts], rows) == together
    for prompt, expected in zip(prompts, together):
        assert answers([Request(prompt, None, options)], 64) == [expected]


@pytest.mark.parametrize("stride", [1.0, 0.25])
def test_strided_logits_are_those_of_the_reference(stride: float) -> None:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(8, 128, (2, 40), generator=generator)
    ids[0, 3:19], ids[1, 7:11], ids[1, 20:32] = 7, 7, 7
    visual = torch.randn(32, 48, generator=generator)
    found = [logits(model("qwen2", backend), ids, visual, 7, None, stride) for backend in ("cpu", "reference")]
    assert (found[0] - found[1]).norm() / found[1].norm() < 1e-5
    plain = logits(model("qwen2"), ids, visual, 7, None)
    assert torch.equal(plain, found[0]) == (stride == 1.0)


def test_more_tokens_than_positions() -> None:
    """V2PE: what counts for the context is positions."""
    own = model("qwen2")
    ids = torch.full((1, 200), 7)
    ids[0, 0], ids[0, -1] = 9, 10
    visual = torch.randn(198, 48, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UnsupportedError, match="200 tokens; allowed: at most 64"):
        logits(own, ids, visual, 7, None)
    assert logits(own, ids, visual, 7, None, 1 / 16).shape == (1, 200, 128)
    request = Request(ids[0], visual, GenerationOptions(max_new_tokens=100), visual_stride=1 / 16)
    decoder = Decoder(own, [request], image_token_id=7)
    for _ in decoder:
        pass
    # The prompt takes 1 + 13 + 1 positions; the token after the last of the context is not fed back.
    assert len(decoder.tokens[0]) == 64 - 15 + 1
    with pytest.raises(UnsupportedError, match="200 tokens at 101 positions; allowed: fewer than 64"):
        Decoder(own, [replace(request, visual_stride=0.5)], image_token_id=7)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_what_the_table_refuses(backend: str) -> None:
    positions = torch.arange(3)
    for frequencies in (torch.ones(3), torch.ones(4, 4).double(), torch.ones(4).double()):
        with pytest.raises(UnsupportedError, match=r"allowed: float64 \[3\] or \[3, 3\]"):
            ops.rope_table(positions, 6, 1e4, frequencies=frequencies, backend=backend)
    with pytest.raises(UnsupportedError, match="scale is nan"):
        ops.rope_table(positions, 6, 1e4, scale=float("nan"), backend=backend)
