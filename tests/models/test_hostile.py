"""Arguments of the wrong kind through the public class: each is refused by name, or does what it plainly means."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels.demo import checkpoint_path
from internvl_kernels.options import RuntimeOptions

ROOT = Path(__file__).parents[2]
PICTURE = np.full((60, 200, 3), 255, np.uint8)
FLOATS = torch.zeros(1, 3, 56, 56)
ENDLESS: dict[str, Any] = {"stop_token_ids": [], "max_new_tokens": 5}


@pytest.fixture(scope="module")
def model() -> ivk.Model:
    return ivk.load(checkpoint_path(), threads=1, progress=False)


@pytest.mark.parametrize("name", ["max_new_tokens", "top_k", "seed", "temperature", "top_p", "repetition_penalty"])
def test_numpy_numbers_are_numbers(model: ivk.Model, name: str) -> None:
    given = np.int64(2) if name in ("max_new_tokens", "top_k", "seed") else np.float32(0.5)
    options = {**ENDLESS, "do_sample": True, "seed": 3}
    ids = [[5, 6, 7]]
    expected = model.generate(ids, **{**options, name: given.item()})
    assert torch.equal(model.generate(ids, **{**options, name: given}), expected)


def test_stop_tokens_of_any_kind_stop(model: ivk.Model) -> None:
    first = int(model.generate([[5, 6, 7]], **ENDLESS)[0, 3])
    for stops in ([first], iter([first]), np.array([first]), {np.int64(first)}, torch.tensor([first])):
        assert model.generate([[5, 6, 7]], max_new_tokens=5, stop_token_ids=stops).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stop_token_ids", 5), ("stop_token_ids", "</s>"), ("temperature", 10**400)],
    ids=["a number", "text", "past a float"],
)
def test_odd_options_are_refused(model: ivk.Model, name: str, value: Any) -> None:
    with pytest.raises(ivk.UnsupportedError, match=name):
        model.generate([[5]], **{name: value})


STRANGE: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: "abc",
    "ragged": lambda: [[1, 2], [3]],
    "objects": lambda: np.array([[None]]),
    "a generator": lambda: (row for row in [[1, 2]]),
    "meta": lambda: torch.ones(1, 2, dtype=torch.int64, device="meta"),
    "sparse": lambda: torch.ones(1, 2, dtype=torch.int64).to_sparse(),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_ids_and_masks_that_are_none(model: ivk.Model, kind: str) -> None:
    for call in (model.logits, model.generate):
        with pytest.raises(ivk.UnsupportedError, match="input_ids"):
            call(STRANGE[kind]())
    if kind != "none":
        with pytest.raises(ivk.UnsupportedError, match="attention_mask"):
            model.generate([[1, 2]], attention_mask=STRANGE[kind]())


@pytest.mark.parametrize(
    "tiles",
    [
        np.array([None]),
        np.array(["tile.png"]),
        FLOATS.to("meta"),
        FLOATS.to_sparse(),
        torch._neg_view(FLOATS),
        FLOATS.expand(2, 3, 56, 56),
        FLOATS.to(torch.complex64),
    ],
    ids=["objects", "text", "meta", "sparse", "negative view", "expanded", "complex"],
)
def test_tiles_that_are_refused(model: ivk.Model, tiles: Any) -> None:
    for call in (model.vision, model.encode_tiles):
        with pytest.raises((ivk.ImageError, ivk.UnsupportedError), match="tiles"):
            call(tiles)


def test_tiles_of_any_memory_order(model: ivk.Model) -> None:
    random = np.random.default_rng(0)
    tiles = random.integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    expected = model.vision(tiles[:, ::-1, :, ::-1].copy())
    assert torch.equal(model.vision(tiles[:, ::-1, :, ::-1]), expected)
    tiles.flags.writeable = False  # as numpy's views of pictures are
    assert torch.equal(model.vision(tiles)[:, 0], model.vision(tiles.copy())[:, 0])
    floats = random.standard_normal((2, 56, 56, 3)).astype(np.float32)
    expected = model.vision(torch.from_numpy(floats).permute(0, 3, 1, 2).contiguous())
    assert torch.equal(model.vision(torch.from_numpy(floats).permute(0, 3, 1, 2)), expected)
    assert torch.equal(model.vision(floats.transpose(0, 3, 1, 2).astype(">f4")), expected)


@pytest.mark.parametrize("layers", [[], 99, True, ["a"], [1.0], "12"])
def test_layers_of_the_wrong_kind(model: ivk.Model, layers: Any) -> None:
    with pytest.raises(ivk.UnsupportedError, match="layers"):
        model.vision(FLOATS, layers=layers)


def test_an_empty_batch_has_empty_logits(model: ivk.Model) -> None:
    none = torch.zeros(0, 5, dtype=torch.int64)
    assert model.logits(none).shape == (0, 5, model.config.language.vocab_size)
    assert model.generate(none).shape == (0, 5)


@pytest.mark.parametrize("value", ["3", 1.5, True, 0, 10**9])
def test_max_tiles_is_checked_in_every_call(model: ivk.Model, value: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: model.tile(PICTURE, max_tiles=value),
        lambda: model.encode(PICTURE, max_tiles=value),
        lambda: model.prompt_ids("Q", PICTURE, max_tiles=value),
        lambda: model.plan([PICTURE], max_tiles=value),
        lambda: model.chat("Q", PICTURE, max_tiles=value),
    ]
    for call in calls:
        with pytest.raises((ivk.UnsupportedError, ivk.ImageError), match="max_tiles"):
            call()


def test_max_tiles_of_numpy_is_a_number(model: ivk.Model) -> None:
    assert model.chat("Q", PICTURE, max_tiles=np.int64(2), **ENDLESS) == model.chat(
        "Q", PICTURE, max_tiles=2, **ENDLESS
    )
    assert model.plan([np.int64(3)]).total_tiles == 3


@pytest.mark.parametrize("name", ["text_tokens", "max_new_tokens"])
@pytest.mark.parametrize("value", [-1, None, 1.5, "a"])
def test_plans_of_no_length_are_refused(model: ivk.Model, name: str, value: Any) -> None:
    with pytest.raises(ivk.UnsupportedError, match=name):
        model.plan([1], **{name: value})


def test_requests_and_frames_come_as_any_iterable(model: ivk.Model) -> None:
    requests = [{"question": "Q", **ENDLESS}, {"question": "R", "images": PICTURE, **ENDLESS}]
    assert model.batch_chat(r for r in requests) == model.batch_chat(requests)
    frames = model.encode(ivk.Video(f for f in [PICTURE, PICTURE]))
    assert torch.equal(frames[0], model.encode(ivk.Video([PICTURE, PICTURE]))[0])
    for wrong in (None, 5):
        with pytest.raises(ivk.UnsupportedError, match="requests"):
            model.batch_chat(wrong)
        with pytest.raises(ivk.ImageError, match="frames"):
            ivk.Video(wrong)
    with pytest.raises(ivk.UnsupportedError, match="history"):
        model.chat("Q", history=5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"path": None}, ivk.CheckpointError),
        ({"path": 3}, ivk.CheckpointError),
        ({"path": b"x"}, ivk.CheckpointError),
        ({"device": "banana"}, ivk.UnsupportedError),
        ({"device": "banana", "backend": "reference"}, ivk.UnsupportedError),
        ({"device": "meta"}, ivk.UnsupportedError),
        ({"device": "cuda:99"}, (ivk.BackendError, ivk.UnsupportedError)),
        ({"max_workspace": "9" * 400}, ivk.UnsupportedError),
    ],
    ids=["no path", "a number", "bytes", "device", "device of the reference", "meta", "absent device", "huge"],
)
def test_load_refuses_odd_values(options: dict[str, Any], error: Any) -> None:
    arguments = {"path": checkpoint_path(), "progress": False, **options}
    with pytest.raises(error, match=next(iter(options)) if "path" not in options else "path"):
        ivk.load(arguments.pop("path"), **arguments)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_every_name_of_the_host_means_the_kernels(device: Any) -> None:
    assert ivk.load_vision(checkpoint_path(), device=device, progress=False).backend == "cpu"


def test_thread_caps_in_parallel_leave_no_trace() -> None:
    """Two capped models in two threads: torch's count, which new threads inherit, is as before when both are done."""
    before = torch.get_num_threads()
    first, second = (RuntimeOptions.check("cpu", None, None, None, None, before + n) for n in (1, 2))
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with first.limited():
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    seen: list[int] = []

    def overlap() -> None:
        with second.limited():
            seen.append(torch.get_num_threads())
            leave.set()
            holder.join(10)

    other = threading.Thread(target=overlap)
    other.start()
    other.join(20)
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join(10)
    assert not holder.is_alive()
    assert seen == [before + 2, before]
