"""The public class: shapes, chat in all its forms, batches, streams, plans, and refusals that name what was wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import internvl_kernels as ivk
from internvl_kernels import costs
from internvl_kernels.testing.checkpoints import write_tiny

GREEDY: dict[str, Any] = {"max_new_tokens": 12, "stop_token_ids": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "model", "qwen3_moe")


@pytest.fixture(scope="module")
def model(folder: Path) -> ivk.Model:
    return ivk.load(folder, backend="cpu", progress=False)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_backends_agree(folder: Path, model: ivk.Model) -> None:
    reference = ivk.load(folder, backend="reference", progress=False)
    tiles = ivk.tile_image(picture(200, 90), size=56, max_tiles=6)
    for ours, theirs in (
        (model.vision(tiles), reference.vision(tiles)),
        (model.encode_tiles(tiles), reference.encode_tiles(tiles)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert model.chat("What?", picture(200, 90), **GREEDY) == reference.chat("What?", picture(200, 90), **GREEDY)


def test_vision_layers_and_pools(model: ivk.Model) -> None:
    tiles = np.zeros((2, 56, 56, 3), np.uint8)
    last = model.vision(tiles)
    assert last.shape == (2, 17, 64)
    states = model.vision(tiles, layers=[-1, 0, -2])
    assert torch.equal(states[0], last)
    assert torch.equal(model.vision(tiles, pool="cls"), last[:, 0])
    torch.testing.assert_close(model.vision(tiles, pool="mean"), last[:, 1:].mean(1))
    normalised = (torch.zeros(2, 3, 56, 56) - torch.tensor(model.config.tiling.mean)[:, None, None]) / torch.tensor(
        model.config.tiling.std
    )[:, None, None]
    torch.testing.assert_close(model.vision(normalised), last, rtol=1e-4, atol=1e-4)
    assert model.vision(np.zeros((1, 84, 56, 3), np.uint8)).shape == (1, 25, 64)  # interpolated positions


def test_encode_unequal_tile_counts(model: ivk.Model) -> None:
    images = [picture(56, 56), picture(300, 60, 1), ivk.Video([picture(56, 56, 2), picture(80, 50, 3)])]
    tokens = model.encode(images)
    per_tile = model.config.tokens_per_tile
    counts = [1, len(model.tile(images[1])), 2]
    assert [t.shape for t in tokens] == [(n * per_tile, 48) for n in counts]
    for image, together in zip(images, tokens):
        assert torch.equal(model.encode(image)[0], together)
    assert model.encode([]) == []


def test_micro_batches_change_nothing(folder: Path, model: ivk.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    need = costs.encode_workspace(model.config, 2, 4, "cpu")
    small = ivk.load(folder, backend="cpu", max_workspace=need, progress=False)
    tiles = np.random.default_rng(0).integers(0, 256, (7, 56, 56, 3), dtype=np.uint8)
    expected, states = model.encode_tiles(tiles), model.vision(tiles, layers=[0, -1])
    passes: list[int] = []
    embed = small._tower.embed
    monkeypatch.setattr(small._tower, "embed", lambda part: passes.append(len(part)) or embed(part))
    assert torch.equal(small.encode_tiles(tiles), expected)
    assert passes == [2, 2, 2, 1]
    assert all(map(torch.equal, small.vision(tiles, layers=[0, -1]), states))
    roomy = ivk.load(folder, backend="cpu", max_workspace=300_000, progress=False).plan([40])
    assert (
        costs.encode_workspace(model.config, roomy.micro_batch, 4, "cpu") == roomy.bytes["tower workspace"] <= 300_000
    )
    for call in (lambda m: m.vision(tiles), lambda m: m.encode_tiles(tiles), lambda m: m.plan([7])):
        with pytest.raises(ivk.UnsupportedError, match=r"max_workspace=10 bytes: one tile.* needs \d+"):
            call(ivk.load(folder, backend="cpu", max_workspace=10, progress=False))


def test_batch_chat_is_one_at_a_time(model: ivk.Model) -> None:
    requests = [
        {"question": "One?", "images": picture(56, 56), **GREEDY},
        {"question": "No picture", **GREEDY},
        {"question": "Two: <image> and <image>", "images": [picture(300, 60, 1), picture(90, 200, 2)], **GREEDY},
        {"question": "Video", "images": ivk.Video([picture(56, 56, 3)] * 3), "do_sample": True, "seed": 3, **GREEDY},
        {"question": "And now?", "images": [picture(60, 60, 4)], "history": [("<image>\nWhat?", "A thing")], **GREEDY},
    ]
    together = model.batch_chat(requests)
    assert together == [model.chat(**r) for r in requests]
    assert together == model.batch_chat(requests)
    assert model.batch_chat([]) == []


def test_stream_is_chat_in_pieces(model: ivk.Model) -> None:
    pieces = list(model.stream("Tell", picture(56, 56), **GREEDY))
    assert "".join(pieces) == model.chat("Tell", picture(56, 56), **GREEDY)
    assert set(model.times) >= {"tiling", "vision", "prefill", "decode", "tokens"}
    with pytest.raises(ivk.UnsupportedError, match="temperature"):
        model.stream("Tell", temperature=-1)  # before the first piece is asked for


def test_prompt_ids_are_what_chat_sends(model: ivk.Model) -> None:
    ids = model.prompt_ids("Read it", picture(200, 60), system="S")
    tiles = len(model.tile(picture(200, 60)))
    assert ids.count(model.image_token_id) == tiles * model.config.tokens_per_tile
    expected = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n<img>" + "<IMG_CONTEXT>" * (tiles * 4)
        + "</img>\nRead it<|im_end|>\n<|im_start|>assistant\n"
    )  # fmt: skip
    assert model.tokenizer.decode(ids, skip_special=False) == expected
    out = model.generate([ids], model.tile(picture(200, 60)), **GREEDY)
    text = model.tokenizer.decode(out[0, len(ids) :].tolist())
    assert text == model.chat("Read it", picture(200, 60), system="S", **GREEDY)


def test_generate_padding_and_stops(model: ivk.Model) -> None:
    rows = [model.prompt_ids("Hi"), model.prompt_ids("A longer question?")]
    width = max(map(len, rows))
    left, mask = torch.zeros(2, width, dtype=torch.int64), torch.zeros(2, width, dtype=torch.int64)
    for i, row in enumerate(rows):
        left[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    out = model.generate(left, attention_mask=mask, **GREEDY)
    assert out.shape == (2, width + 12)
    for i, row in enumerate(rows):
        alone = model.generate([row], **GREEDY)
        assert torch.equal(out[i, width:], alone[0, len(row) :])
    stop = int(out[0, width + 2])
    stopped = model.generate(left, attention_mask=mask, max_new_tokens=12, stop_token_ids=[stop])
    where = out[0, width:].tolist().index(stop)
    assert stopped[0, width + where + 1 :].eq(model.tokenizer.pad_id).all()


def test_logits_take_visual_rows_in_order(model: ivk.Model) -> None:
    tiles = np.random.default_rng(1).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    ids = torch.randint(0, 256, (2, 12))
    ids[:, 3:7] = model.image_token_id
    both = model.logits(ids, tiles)
    assert both.shape == (2, 12, 264)
    for row in range(2):
        assert torch.equal(model.logits(ids[row : row + 1], tiles[row : row + 1])[0], both[row])
    assert not torch.equal(model.logits(ids, tiles[::-1].copy()), both)


def test_plan_counts_before_any_work(model: ivk.Model) -> None:
    plan = model.plan([picture(300, 60), ivk.Video([picture(9, 9)] * 5), 13])
    assert plan.tiles == (len(model.tile(picture(300, 60))), 5, 13)
    assert plan.total_visual_tokens == plan.total_tiles * model.config.tokens_per_tile
    assert plan.peak_bytes > plan.bytes["weights"] > 0
    assert "peak" in str(plan)
    assert plan.to_dict()["tiles"] == plan.total_tiles
    assert not model.plan([400]).fits_context


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.chat("Q", picture(9, 9), max_new_tokens=0), "max_new_tokens"),
        (lambda m: m.chat("", **GREEDY), "question"),
        (lambda m: m.chat(3), "question"),
        (lambda m: m.chat("Q", beams=4), "beams"),
        (lambda m: m.chat("Q", max_tiles=0), "max_tiles"),
        (lambda m: m.chat("<image> <image>", picture(9, 9)), "image"),
        (lambda m: m.chat("x" * 2000), "1024"),
        (lambda m: m.batch_chat(["Q"]), "requests"),
        (lambda m: m.logits([[1, m.image_token_id]], None), "no tiles"),
        (lambda m: m.logits([[1, m.image_token_id]], np.zeros((1, 56, 56, 3), np.uint8)), "4 visual tokens"),
        (lambda m: m.logits([1, 2]), "input_ids"),
        (lambda m: m.logits([[1, 9999]]), "9999"),
        (lambda m: m.logits(torch.zeros(1, 2000, dtype=torch.int64)), "1024"),
        (lambda m: m.generate([[1.5]]), "input_ids"),
        (lambda m: m.generate([[1, 2]], attention_mask=[[1]]), "attention_mask"),
        (lambda m: m.generate([[1, 2]], attention_mask=[[0, 0]]), "empty"),
        (lambda m: m.vision(np.zeros((1, 56, 56, 3), np.uint8), pool="max"), "pool"),
        (lambda m: m.vision(np.zeros((1, 56, 56, 3), np.uint8), layers=[9]), "layers"),
        (lambda m: m.plan([0]), "images_or_tile_counts"),
    ],
)
def test_refusals_name_the_argument(model: ivk.Model, call: Any, words: str) -> None:
    with pytest.raises(ivk.UnsupportedError, match=words):
        call(model)


@pytest.mark.parametrize(
    ("tiles", "words"),
    [
        (np.zeros((0, 56, 56, 3), np.uint8), "zero tiles"),
        (np.zeros((1, 57, 56, 3), np.uint8), "57 x 56"),
        (np.zeros((1, 13, 13, 3), np.uint8), "13 x 13"),
        (np.zeros((1, 56, 56), np.uint8), "tiles"),
        (np.zeros((1, 56, 56, 3), np.int32), "int32"),
        (np.zeros((1, 3, 56, 56), np.uint8), "tiles"),
        ("tile.png", "str"),
    ],
)
def test_bad_tiles(model: ivk.Model, tiles: Any, words: str) -> None:
    with pytest.raises(ivk.ImageError, match=words):
        model.encode_tiles(tiles)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"backend": "tpu"}, ivk.UnsupportedError, "tpu"),
        ({"backend": "cuda"}, ivk.BackendError, "(?i)cuda"),
        ({"dtype": "int4"}, ivk.UnsupportedError, "int4"),
        ({"weights": "int8"}, ivk.UnsupportedError, "int8"),
        ({"threads": 0}, ivk.UnsupportedError, "threads"),
        ({"max_workspace": "lots"}, ivk.UnsupportedError, "lots"),
        ({"device": "cuda", "backend": "cpu"}, ivk.UnsupportedError, "device"),
    ],
)
def test_load_refuses(folder: Path, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ivk.load(folder, progress=False, **options)


def test_load_vision_reads_the_tower_alone(folder: Path, model: ivk.Model) -> None:
    tower = ivk.load_vision(folder, backend="cpu", progress=False)
    tiles = np.random.default_rng(2).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)
    assert torch.equal(tower.vision(tiles), model.vision(tiles))
    assert not hasattr(tower, "chat")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_low_precision_runs(folder: Path, model: ivk.Model, dtype: str, backend: str) -> None:
    low = ivk.load(folder, backend=backend, dtype=dtype, progress=False)
    tiles = np.random.default_rng(3).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    ours, full = low.encode_tiles(tiles), model.encode_tiles(tiles)
    assert ours.dtype == getattr(torch, dtype)
    error = (ours.double() - full).norm() / full.double().norm()
    assert error < (0.03 if dtype == "bfloat16" else 0.005)
    assert isinstance(low.chat("Q", picture(90, 60), **GREEDY), str)


def test_thread_cap_is_kept_and_restored(folder: Path) -> None:
    before = torch.get_num_threads()
    one = ivk.load(folder, backend="cpu", threads=1, progress=False)
    two = ivk.load(folder, backend="cpu", threads=2, progress=False)
    tiles = np.random.default_rng(4).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)
    assert torch.equal(one.encode_tiles(tiles), two.encode_tiles(tiles))
    assert one.chat("Q", picture(90, 60), **GREEDY) == two.chat("Q", picture(90, 60), **GREEDY)
    assert torch.get_num_threads() == before
