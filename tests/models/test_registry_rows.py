"""Every released model that runs, shrunk, with random weights, in both layouts: hidden states, logits and greedy tokens of
transformers' own classes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import registry
from internvl_kernels.io.checkpoint import save_checkpoint
from internvl_kernels.synthetic import RandomWeights, random_checkpoint, shrunk

RELATIVE_L2 = 2e-4
SCALE = 0.004
STEPS = 6
ROWS = [r for r in registry.RELEASES if r.blocker is None]


class Case:
    """A row in the family's layout, the same weights in transformers', and transformers' model of them."""

    def __init__(self, folder: Path, release: registry.Release) -> None:
        from transformers import InternVLForConditionalGeneration

        self.release = release
        self.original = random_checkpoint(
            release.name, folder / "original", scale=SCALE, dtype="float32", progress=False
        )
        self.hf = folder / "hf"
        if release.shuffle == "v2":
            random_checkpoint(release.name, self.hf, scale=SCALE, layout="hf", dtype="float32", progress=False)
        else:  # transformers has no such token order: its model of the same weights, whose tokens the test turns
            config = shrunk(registry.config_of(release.name), SCALE)
            turned = replace(config, projector=replace(config.projector, version="v2"))
            save_checkpoint(RandomWeights(config, "float32", 0), turned, self.hf, layout="hf")
        self.theirs = InternVLForConditionalGeneration.from_pretrained(self.hf, dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(1)
        side = ivk.load_vision(self.original, progress=False).config.tiling.size
        self.tiles = torch.randn(2, 3, side, side, generator=generator)
        self.text = torch.randint(0, 256, (1, 40), generator=generator)

    def ids(self, image: int, count: int) -> torch.Tensor:
        return torch.cat([self.text[:, :9], torch.full((1, count), image), self.text[:, 9:]], 1)

    @torch.no_grad()
    def embeddings(self, ids: torch.Tensor, image: int) -> torch.Tensor:
        """Input rows of transformers' language model, the visual ones shuffled by loops."""
        model = self.theirs.model
        states = model.vision_tower(self.tiles).last_hidden_state[:, 1:]
        side = round(states.shape[1] ** 0.5)
        tokens = []
        for tile in states.reshape(len(states), side, side, -1):
            blocks = [(r, c) for r in range(0, side, 2) for c in range(0, side, 2)]
            if self.release.shuffle == "v1":
                blocks.sort(key=lambda b: (b[1], b[0]))
            for r, c in blocks:
                tokens.append(torch.cat([tile[r, c], tile[r, c + 1], tile[r + 1, c], tile[r + 1, c + 1]]))
        visual = model.multi_modal_projector(torch.stack(tokens))
        rows = model.language_model.get_input_embeddings()(ids.where(ids != image, 0))
        rows[ids == image] = visual
        return rows


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @lru_cache(maxsize=1)
    def make(name: str) -> Case:
        return Case(tmp_path_factory.mktemp("row"), registry.find(name))

    return make


def relative_l2(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("name", [r.name for r in ROWS])
def test_every_row(case_of: Any, name: str) -> None:
    case = case_of(name)
    with torch.no_grad():
        hidden = case.theirs.model.vision_tower(case.tiles, output_hidden_states=True).hidden_states
    found = {}
    folders = {"original": case.original} | ({"hf": case.hf} if case.release.shuffle == "v2" else {})
    for layout, folder in folders.items():
        for backend in ("reference", "cpu"):
            model = ivk.load(folder, backend=backend, progress=False)
            count = len(case.tiles) * model.config.tokens_per_tile
            ids = case.ids(model.image_token_id, count)
            with torch.no_grad():
                rows = case.embeddings(ids, model.image_token_id)
                out = case.theirs.model.language_model(inputs_embeds=rows)
                logits = case.theirs.lm_head(out.last_hidden_state)
            states = model.vision(case.tiles, layers=range(len(hidden)))
            for i, (ours, theirs) in enumerate(zip(states, hidden)):
                assert relative_l2(ours, theirs) < RELATIVE_L2, f"{layout} {backend}: hidden state {i}"
            ours = model.logits(ids, case.tiles)
            assert relative_l2(ours, logits) < RELATIVE_L2, f"{layout} {backend}: logits"
            new = model.generate(ids, case.tiles, max_new_tokens=STEPS, stop_token_ids=[])[0, ids.shape[1] :]
            found[layout, backend] = ours[:, :9], new
    if len(folders) == 2:  # ids of special tokens differ by template; the text before the images does not
        for backend in ("reference", "cpu"):
            assert torch.equal(found["original", backend][0], found["hf", backend][0]), "the layouts hold other weights"
    check_tokens(case, ids, model.image_token_id, found[next(iter(folders)), "cpu"][1] if len(folders) == 1 else new)


def check_tokens(case: Case, ids: torch.Tensor, image: int, tokens: torch.Tensor) -> None:
    """Each of our tokens is transformers' best, as long as its margin allows to say so."""
    rows = case.embeddings(ids, image)
    for step, token in enumerate(tokens.tolist()):
        with torch.no_grad():
            hidden = case.theirs.model.language_model(inputs_embeds=rows).last_hidden_state[:, -1]
            logits = case.theirs.lm_head(hidden)[0]
        best = logits.topk(2).values
        if best[0] - best[1] <= 4 * RELATIVE_L2 * logits.abs().max():
            return
        assert token == int(logits.argmax()), f"step {step}"
        following = case.theirs.model.language_model.get_input_embeddings()(torch.tensor([[token]]))
        rows = torch.cat([rows, following], 1)


def test_the_rows_are_those_that_the_reader_knows() -> None:
    assert {r.architecture for r in ROWS} == set(registry.SUPPORTED) - {"internlm3"}
    assert len(ROWS) == 36
