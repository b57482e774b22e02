"""max_workspace: whatever it is, the cpu backend gives the same bits; a limit that cannot be kept says what it takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import internvl_kernels as ivk
from internvl_kernels import costs, models
from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.models import LanguageModel
from internvl_kernels.testing.checkpoints import IMAGE_TOKEN_ID, TEXT_MODELS, random_weights, tiny_config, write_tiny

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "stop_token_ids": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "model", "qwen3_moe")


def loaded(folder: Path, limit: int | str | None = None, backend: str = "cpu") -> ivk.Model:
    return ivk.load(folder, backend=backend, max_workspace=limit, progress=False)


def requests(hidden: int, dtype: str) -> list[Request]:
    """Prompts around the edges of an attention block, one with visual rows in its middle."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for length in (1, 64, 65, 150):
        ids = torch.randint(8, 128, (length,), generator=generator)
        visual = None
        if length == 150:
            ids[60:80] = IMAGE_TOKEN_ID
            visual = torch.randn(20, hidden, generator=generator).to(getattr(torch, dtype))
        made.append(Request(ids, visual, GenerationOptions(max_new_tokens=3)))
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("text", TEXT_MODELS)
def test_prefill_chunks_change_no_bit(text: str, dtype: str) -> None:
    config = tiny_config(text)
    language = LanguageModel(config.language, random_weights(config, seed=1, dtype=dtype), backend="cpu")
    found = {}
    for rows in (2048, 1, 3, 16, 64, 100):
        decoder = Decoder(
            language, requests(48, dtype), image_token_id=IMAGE_TOKEN_ID, prefill_rows=rows, stop_token_ids=()
        )
        with torch.no_grad():
            last = decoder._prefill()
        found[rows] = last, decoder._cache._memory
    for rows, (last, cache) in found.items():
        assert torch.equal(last, found[2048][0]), f"last rows, chunks of {rows}"
        assert torch.equal(cache, found[2048][1]), f"keys and values, chunks of {rows}"


def call_generate(model: ivk.Model) -> Any:
    ids = torch.randint(8, 250, (3, 150), generator=torch.Generator().manual_seed(1))
    return model.generate(ids, **GREEDY).tolist()


def call_logits(model: ivk.Model) -> Any:
    ids = torch.randint(8, 250, (3, 150), generator=torch.Generator().manual_seed(1))
    ids[:, 70:78] = model.image_token_id
    tiles = np.random.default_rng(1).integers(0, 256, (6, 56, 56, 3), dtype=np.uint8)
    return model.logits(ids, tiles).numpy().tobytes()


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def chats() -> list[dict[str, Any]]:
    long = {"question": "Long? " * 20, "images": picture(300, 60), **GREEDY}
    return [long, {"question": "Short", **GREEDY}, {"question": "One", "images": picture(56, 56), **GREEDY}]


CALLS = {
    "generate": call_generate,
    "logits": call_logits,
    "chat": lambda m: m.chat(**chats()[0]),
    "stream": lambda m: list(m.stream(**chats()[0])),
    "batch_chat": lambda m: m.batch_chat(chats()),
}


def least(folder: Path, call: Any, backend: str) -> int:
    """What the refusal of a far too small limit says."""
    with pytest.raises(ivk.UnsupportedError, match="max_workspace=100 bytes") as caught:
        call(loaded(folder, 100, backend))
    said = re.search(r"needs (\d+); allowed: at least that", str(caught.value))
    assert said is not None, str(caught.value)
    return int(said[1])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_limits_change_no_bit(folder: Path, call: Any) -> None:
    expected, smallest = call(loaded(folder)), least(folder, call, "cpu")
    for limit in (smallest, smallest + 20_000, 2 * smallest, 10 * smallest):
        assert call(loaded(folder, limit)) == expected, f"max_workspace={limit}"


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_least_is_the_least(folder: Path, call: Any, backend: str) -> None:
    smallest = least(folder, call, backend)
    assert call(loaded(folder, smallest, backend))
    with pytest.raises(ivk.UnsupportedError, match=f"max_workspace={smallest - 1} bytes"):
        call(loaded(folder, smallest - 1, backend))


def test_a_refused_stream_has_not_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(folder, least(folder, CALLS["chat"], "cpu") - 1)
    monkeypatch.setattr(model._tower, "forward", None)  # nothing is encoded before the refusal
    with pytest.raises(ivk.UnsupportedError, match="max_workspace"):
        model.stream(**chats()[0])


def test_chunks_follow_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is what the plan says, and a smaller limit makes smaller chunks, down to single rows."""
    seen: list[int] = []
    real = LanguageModel.forward

    def forward(self: LanguageModel, h: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        seen.append(len(h))
        return real(self, h, *rest, **options)

    monkeypatch.setattr(LanguageModel, "forward", forward)
    ids = torch.randint(8, 250, (1, 200))
    chunks = []
    config = loaded(folder).config.language
    limits: list[Any] = [costs.prefill_workspace(config, rows, 200, 4, "cpu") for rows in (150, 70)]
    for limit in ("2GB", *limits, "least"):
        size = least(folder, lambda m: m.generate(ids, **GREEDY), "cpu") if limit == "least" else limit
        model = loaded(folder, size)
        seen.clear()
        model.generate(ids, max_new_tokens=1)
        planned = model.plan([], text_tokens=200, max_new_tokens=1).prefill_rows
        assert seen == [min(planned, 200 - done) for done in range(0, 200, planned)]
        chunks.append(planned)
    assert chunks[:3] == [200, 150, 70]
    assert 1 <= chunks[3] <= 8  # products of fewer rows are padded to 8


def test_decode_steps_are_split_only_under_need(folder: Path) -> None:
    config = loaded(folder).config.language
    ids = torch.randint(8, 250, (70, 5), generator=torch.Generator().manual_seed(2))
    assert costs.step_rows(config, 70, 11, 4, "cpu", 2_000_000_000) == 70
    limit = costs.decode_workspace(config, 50, 11, 4, "cpu")
    assert costs.step_rows(config, 70, 11, 4, "cpu", limit) == 50
    assert torch.equal(loaded(folder, limit).generate(ids, **GREEDY), loaded(folder).generate(ids, **GREEDY))


def test_logits_are_those_of_the_whole_sequence(folder: Path) -> None:
    """The chunked logits against one dense forward without a cache."""
    for backend in ("cpu", "reference"):
        model = loaded(folder, None, backend)
        ids = torch.randint(8, 250, (2, 90))
        with torch.no_grad():
            dense = model._language.logits(ids)
        for limit in (None, 1_000_000):
            chunked = models.logits(model._language, ids, None, model.image_token_id, limit)
            torch.testing.assert_close(chunked, dense, rtol=1e-4, atol=1e-4)
