"""The demo model: its strips, what it was kept from seeing, and that it really reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels.demo import checkpoint_path
from internvl_kernels.demo.examples import EMPTY, MIXED, Prompts, cell_classes, draw
from internvl_kernels.demo.heldout import read, score, strips, svm_accuracy
from internvl_kernels.demo.mixed import Bfloat16Products
from internvl_kernels.demo.optimizer import _orthogonal
from internvl_kernels.demo.recipe import CONFIG, HELD_OUT, Recipe, initial_weights
from internvl_kernels.demo.strips import LAYOUTS, Scans, compose, held_out
from internvl_kernels.demo.train import save, split, train
from internvl_kernels.demo.vocabulary import QUESTIONS, build_tokenizer


@pytest.fixture(scope="module")
def scans() -> Scans:
    return held_out()


@pytest.fixture(scope="module")
def model() -> Any:
    return ivk.load(checkpoint_path(), progress=False)


@pytest.fixture(scope="module")
def training() -> Scans:
    return split()[0]


# ---- strips ------------------------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_strip(scans: Scans) -> None:
    first, second, other = (compose(np.random.default_rng(seed), scans) for seed in (5, 5, 6))
    assert first.image.tobytes() == second.image.tobytes()
    assert (first.text, first.scans) == (second.text, second.scans)
    assert first.image.tobytes() != other.image.tobytes()


def test_digits_lie_inside_the_picture_and_carry_ink(scans: Scans) -> None:
    for strip in strips(100, seed=3, scans=scans):
        x0, y0, x1, y1 = strip.boxes.T
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= strip.image.width).all()
        assert (y1 <= strip.image.height).all()
        assert strip.text == "".join(str(scans.labels[i]) for i in strip.scans)
        grey = np.asarray(strip.image.convert("L")).astype(float)
        paper = np.median(grey)
        for left, top, right, bottom in strip.boxes.astype(int):
            assert grey[top:bottom, left:right].min() < paper - 30


@pytest.mark.parametrize("layout", LAYOUTS)
def test_digits_follow_the_reading_order(scans: Scans, layout: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        strip = compose(rng, scans, choice=rng.integers(0, len(scans), 5).tolist(), layout=layout)
        x, y = (strip.boxes[:, :2] + strip.boxes[:, 2:]).T / 2
        if layout == "row":
            assert (np.diff(x) > 0).all()
        elif layout == "column":
            assert (np.diff(y) > 0).all()
        else:
            lines = np.flatnonzero(np.diff(x) < 0) + 1
            assert len(lines) == 1, "two lines, each from left to right"
            assert y[: lines[0]].max() < y[lines[0] :].min()


def test_lengths_layouts_and_grids_vary(scans: Scans) -> None:
    drawn = strips(300, seed=1, scans=scans)
    assert {len(s.text) for s in drawn} == {1, 2, 3, 4, 5, 6}
    assert {s.layout for s in drawn} == set(LAYOUTS)
    grids = {ivk.tile_image(s.image, size=56, max_tiles=6).grid for s in drawn}
    assert len(grids) >= 10, grids


@pytest.mark.parametrize("wrong", [{"choice": []}, {"choice": [0] * 7}, {"choice": [0], "layout": "circle"}])
def test_impossible_strips_are_refused(scans: Scans, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        compose(np.random.default_rng(0), scans, **wrong)


# ---- data --------------------------------------------------------------------------------------------------------------------


def test_training_has_no_held_out_scan(scans: Scans, training: Scans) -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    assert len(scans) == HELD_OUT
    assert (data.images[scans.indices] == scans.pixels).all()
    assert (data.target[scans.indices] == scans.labels).all()
    assert not set(training.indices) & set(scans.indices)
    assert sorted([*training.indices, *scans.indices]) == list(range(len(data.target)))


def test_cells_name_the_digit_in_their_part(scans: Scans) -> None:
    strip = compose(np.random.default_rng(2), scans, choice=[0, 1, 2, 3], layout="row")
    cut = ivk.tile_image(strip.image, size=56, max_tiles=6)
    cells = cell_classes(strip, cut.grid, cut.thumbnail, CONFIG)
    assert cells.shape == (len(cut), CONFIG.tokens_per_tile)
    named = cells[:-1][(cells[:-1] != EMPTY) & (cells[:-1] != MIXED)]
    assert sorted(named.tolist()) == sorted(int(c) for c in strip.text)


def test_training_prompts_are_what_chat_sends(model: Any, scans: Scans) -> None:
    drawn = draw(scans, CONFIG, (1, 2), 40, variety=1.0, distort=0.0)
    batch = Prompts(CONFIG).batch(drawn)
    rng = np.random.default_rng((1, 2))
    assert set(drawn.questions) == set(range(len(QUESTIONS)))
    for row in range(40):
        strip = compose(rng, scans)
        sent = model.prompt_ids(QUESTIONS[drawn.questions[row]], strip.image)
        assert batch.ids[row, : len(sent)].tolist() == sent
        answer = batch.labels[row][batch.labels[row] != -100].tolist()
        assert model.tokenizer.decode(answer) == drawn.texts[row] == strip.text
        assert answer[-1] in model.stop_token_ids


# ---- checkpoint --------------------------------------------------------------------------------------------------------------


def test_checkpoint_is_small_and_of_the_family(model: Any) -> None:
    files = list(checkpoint_path().iterdir())
    assert sum(f.stat().st_size for f in files) <= 8 << 20
    c = model.config
    assert c.layout == "original"
    assert c.vision.head_dim == c.language.head_dim == 64
    assert (c.language.architecture, c.language.experts_per_token) == ("qwen3_moe", 2)
    assert c.language.num_experts >= 4
    assert all(c.language.is_sparse(i) for i in range(c.language.num_layers))
    assert (checkpoint_path() / "tokenizer.json").read_text(encoding="utf-8") == build_tokenizer().to_str(pretty=True)


def test_held_out_strips_are_read(model: Any, scans: Scans) -> None:
    drawn = strips(300, seed=2025, scans=scans)
    result = score([s.text for s in drawn], read(model, drawn))
    assert result.digit_accuracy >= 0.98
    assert result.strip_accuracy >= 0.9
    single = score([s.text for s in drawn], read(model, drawn, max_tiles=1))
    assert single.strip_accuracy < result.strip_accuracy - 0.2, "tiling matters"


def test_random_weights_do_not_read(tmp_path: Path, scans: Scans) -> None:
    save(initial_weights(CONFIG, 3), tmp_path / "random")
    drawn = strips(40, seed=11, scans=scans)
    result = score([s.text for s in drawn], read(ivk.load(tmp_path / "random", progress=False), drawn))
    assert result.digit_accuracy < 0.3
    assert result.strip_accuracy < 0.1


def test_every_question_gets_the_number(model: Any, scans: Scans) -> None:
    drawn = strips(20, seed=13, scans=scans)
    for question in QUESTIONS:
        asked = [{"question": question, "images": s.image, "max_new_tokens": 8} for s in drawn]
        assert score([s.text for s in drawn], model.batch_chat(asked)).digit_accuracy >= 0.95, question


def test_score_counts_digits_in_their_places() -> None:
    result = score(["123", "45"], ["124", "456"])
    assert (result.digits, result.digits_right, result.strips, result.strips_right) == (5, 4, 2, 0)


def test_support_vector_machine_is_a_fair_neighbour(scans: Scans) -> None:
    result = svm_accuracy(scans)
    assert result is not None
    assert 0.97 < result[0] <= 1.0
    assert len(result[1]) == len(scans)


# ---- training ----------------------------------------------------------------------------------------------------------------


def test_training_repeats_bit_for_bit_and_reaches_every_weight(training: Scans) -> None:
    recipe = Recipe(steps=3, strips=4, tower_only=1, average_from=0.5, bends=1, bfloat16=False)
    lines: list[dict[str, float]] = []
    first = train(recipe, Scans(training.pixels[:50], training.labels[:50], training.indices[:50]), log=lines.append)
    second = train(recipe, Scans(training.pixels[:50], training.labels[:50], training.indices[:50]), log=lines.append)
    start = initial_weights(CONFIG, recipe.seed)
    assert first.keys() == start.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    still = [name for name in first if torch.equal(first[name], start[name])]
    assert not still
    assert all(np.isfinite(list(line.values())).all() for line in lines)


def test_matrix_updates_are_nearly_orthogonal() -> None:
    g = torch.randn(3, 40, 96, generator=torch.Generator().manual_seed(0))
    for update in (_orthogonal(g), _orthogonal(g.mT)):
        values = torch.linalg.svdvals(update)
        assert (values > 0.5).all()
        assert (values < 1.4).all()


def test_bfloat16_products_are_close_to_float32() -> None:
    draw = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=draw).requires_grad_() for shape in ((4, 5, 64), (32, 64), (32,)))
    exact = torch.nn.functional.linear(x, w, b)
    exact_gradients = torch.autograd.grad(exact.square().sum(), (x, w, b))
    with Bfloat16Products():
        close = torch.nn.functional.linear(x, w, b)
    close_gradients = torch.autograd.grad(close.square().sum(), (x, w, b))
    assert close.dtype == torch.float32
    assert not torch.equal(close, exact)
    for a, e in zip((close, *close_gradients), (exact, *exact_gradients)):
        assert (a - e).norm() < 0.02 * e.norm()
