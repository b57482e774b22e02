"""Forty tiles, videos of 64 frames, prompts in small chunks, and what does not fit the context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import internvl_kernels as ivk
from internvl_kernels.testing.checkpoints import write_tiny

TOKENS = 4  # of a tile of 56 pixels
OPTIONS = {"max_new_tokens": 6, "stop_token_ids": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_tiny(tmp_path_factory.mktemp("long") / "tiny")
    config = (path / "config.json").read_text()
    assert '"max_position_embeddings": 1024' in config
    (path / "config.json").write_text(
        config.replace('"max_position_embeddings": 1024', '"max_position_embeddings": 2048')
    )
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> ivk.Model:
    return ivk.load(folder, backend="cpu", progress=False)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_forty_tiles(model: ivk.Model, folder: Path) -> None:
    page = picture(800, 500)
    tiles = model.tile(page, max_tiles=40)
    assert (tiles.grid, len(tiles.pixels)) == ((8, 5), 41)
    ids = model.prompt_ids("Read it.", page, max_tiles=40)
    assert ids.count(model.image_token_id) == 41 * TOKENS
    answer = model.chat("Read it.", page, max_tiles=40, **OPTIONS)
    small = ivk.load(folder, backend="cpu", max_workspace="200KB", progress=False)
    plan = small.plan([41], text_tokens=60)
    assert plan.micro_batch < 41
    assert plan.prefill_rows < 41 * TOKENS
    assert small.chat("Read it.", page, max_tiles=40, **OPTIONS) == answer
    reference = ivk.load(folder, backend="reference", progress=False)
    assert reference.chat("Read it.", page, max_tiles=40, **OPTIONS) == answer


def test_a_video_of_64_frames(model: ivk.Model) -> None:
    frames = [picture(90, 60, seed) for seed in range(64)]
    ids = model.prompt_ids("<video>\nWhat happens?", ivk.Video(frames))
    assert ids.count(model.image_token_id) == 64 * TOKENS
    text = model.tokenizer.decode(ids, skip_special=False)
    assert text.index("Frame-1: ") < text.index("Frame-63: ") < text.index("Frame-64: ")
    answer = model.chat("<video>\nWhat happens?", ivk.Video(frames), **OPTIONS)
    spelled = "".join(f"Frame-{k + 1}: <image>\n" for k in range(64)) + "What happens?"
    assert model.chat(spelled, ivk.Video(frames), **OPTIONS) == answer
    requests = [
        {"question": "<video>\nWhat happens?", "images": ivk.Video(frames), **OPTIONS},
        {"question": "Read it.", "images": picture(800, 500), "max_tiles": 40, **OPTIONS},
    ]
    assert model.batch_chat(requests)[0] == answer


def test_past_the_context_nothing_runs(model: ivk.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model has 2,048 positions: 260 frames do not fit, and no tile is encoded to find out."""
    frames = ivk.Video([picture(60, 60)] * 260)
    monkeypatch.setattr(model, "encode_tiles", lambda *_: pytest.fail("encoded"))
    for call in (model.chat, model.stream):
        with pytest.raises(ivk.UnsupportedError, match=r"\d{4} tokens; allowed: fewer than 2048, the model's context"):
            call("<video>\nWhat?", frames, **OPTIONS)
    with pytest.raises(ivk.UnsupportedError, match=r"tokens at \d+ positions; allowed: fewer than 2048"):
        model.chat("<video>\nWhat?", ivk.Video([picture(60, 60)] * 460), visual_stride=0.5, **OPTIONS)


def test_more_tiles_than_the_context_by_a_smaller_stride(model: ivk.Model) -> None:
    """V2PE lets the same model take them: tokens past the context stand at positions within it."""
    pages, question = [picture(800, 500, seed) for seed in range(14)], "<image>" * 14
    run = {"max_tiles": 40, **OPTIONS}
    with pytest.raises(ivk.UnsupportedError, match="fewer than 2048"):
        model.chat(question, pages, **run)
    plans = [model.plan(pages, max_tiles=40, visual_stride=stride) for stride in (1, 1 / 8)]
    assert [plan.fits_context for plan in plans] == [False, True]
    assert plans[1].context == 2048 + 14 * (41 * TOKENS - 21)  # 164 tokens take 20.5 positions, rounded up
    requests = [{"question": question, "images": pages, "visual_stride": 1 / 8, **run}, {"question": "hi", **OPTIONS}]
    together = model.batch_chat(requests)
    assert together == [model.chat(question, pages, visual_stride=1 / 8, **run), model.chat("hi", **OPTIONS)]
    plain = model.chat("<image>" * 5, pages[:5], **run)
    assert model.chat("<image>" * 5, pages[:5], visual_stride=1, **run) == plain


@pytest.mark.parametrize("stride", [0, -0.5, 1.5, float("nan"), "1", True, [1]])
def test_strides_that_are_refused(model: ivk.Model, stride: object) -> None:
    ids = [[9, 10]]
    calls = (lambda: model.logits(ids, visual_stride=stride), lambda: model.generate(ids, visual_stride=stride))
    for call in (*calls, lambda: model.chat("x", visual_stride=stride)):
        with pytest.raises(ivk.UnsupportedError, match=r"visual_stride: .*; allowed: greater than 0, at most 1"):
            call()
