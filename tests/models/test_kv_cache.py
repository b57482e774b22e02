"""The paged KV cache: pages come and go with their sequences, memory is taken where it is written, dtypes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import UnsupportedError
from internvl_kernels.costs import PAGE, kv_bytes, page_count
from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.models import KVCache, LanguageModel
from internvl_kernels.testing.checkpoints import random_weights, tiny_config, write_tiny

CONFIG = tiny_config("qwen3").language
QUIET: dict[str, Any] = {"backend": "cpu", "progress": False}


def cache(*capacities: int, dtype: torch.dtype = torch.float32) -> KVCache:
    return KVCache(CONFIG, capacities, dtype, torch.device("cpu"))


def language(backend: str = "cpu", kv_dtype: torch.dtype | None = None) -> LanguageModel:
    config = tiny_config("qwen3", text_overrides={"max_positions": 512})
    return LanguageModel(config.language, random_weights(config, seed=1), backend=backend, kv_dtype=kv_dtype)


def requests(lengths: tuple[int, ...], new: tuple[int, ...]) -> list[Request]:
    generator = torch.Generator().manual_seed(2)
    ids = [torch.randint(8, 128, (length,), generator=generator) for length in lengths]
    return [Request(i, None, GenerationOptions(max_new_tokens=n)) for i, n in zip(ids, new)]


def test_pages_come_with_growth_and_go_with_the_sequence() -> None:
    pages = cache(PAGE + 1, 3 * PAGE)
    assert pages.used_pages == 0
    pages.grow(0, 1)
    pages.grow(1, PAGE)
    pages.grow(0, PAGE + 1)
    pages.grow(1, PAGE)  # has them
    assert pages.used_pages == 3
    assert pages.slots(0, PAGE - 1, PAGE + 1) == [PAGE - 1, 2 * PAGE]
    assert pages.slots(1, 0, 2) == [PAGE, PAGE + 1]
    assert pages.pages.tolist() == [0, 2, -1, 1, -1, -1]
    assert pages.span(5, 1, 3, 9) == (5, 11, 3, 9)
    pages.release(0)
    assert pages.used_pages == 1
    assert pages.pages.tolist() == [-1, -1, -1, 1, -1, -1]
    pages.grow(1, 3 * PAGE)  # takes those, before one that nobody had
    assert sorted(pages.slots(1, 0, 3 * PAGE)) == list(range(3 * PAGE))
    pages.release(1)
    pages.release(1)
    assert pages.used_pages == 0
    assert cache().pages.numel() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_layers_are_zeros_of_the_dtype(dtype: torch.dtype) -> None:
    k, v = cache(3, 70, dtype=dtype).layer(CONFIG.num_layers - 1)
    for t in (k, v):
        assert t.dtype == dtype
        assert t.shape == (3 * PAGE, CONFIG.num_kv_heads, CONFIG.head_dim)
        assert not t.any()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_reserved_memory_is_taken_where_it_is_written() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    large = cache(*[1 << 16] * 64)
    assert large._memory.numel() * 4 > 1 << 30
    assert resident() - before < 16 << 20
    large.grow(7, 10)
    large.layer(0)[0][large.slots(7, 0, 10)] = 1.0
    assert resident() - before < 16 << 20


def test_what_cannot_be_reserved_is_said() -> None:
    with pytest.raises(MemoryError, match=r"kv cache: \d+ bytes cannot be reserved"):
        cache(1 << 50)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_sequences_that_end_hand_their_pages_back_at_once(backend: str) -> None:
    todo = requests((70, 64, 1), (1, 3, 70))
    decoder, used = Decoder(language(backend), todo), []
    with torch.no_grad():
        for _ in decoder:
            used.append(decoder._cache.used_pages)
    assert used[:3] == [2, 3, 1]  # 64 + 1 keys at the second step; then only the last is left
    assert used[-2:] == [2, 0]
    assert len(used) == 70


@pytest.mark.parametrize("kv_dtype", [None, torch.bfloat16, torch.float16])
def test_batch_equals_one_at_a_time(kv_dtype: torch.dtype | None) -> None:
    """While neighbours end and their pages go to others."""
    lengths, new = (63, 1, 130, 64), (80, 5, 70, 90)
    model = language(kv_dtype=kv_dtype)

    def tokens(todo: list[Request]) -> list[list[int]]:
        decoder = Decoder(model, todo)
        with torch.no_grad():
            for _ in decoder:
                pass
        return decoder.tokens

    together = tokens(requests(lengths, new))
    assert [len(t) for t in together] == list(new)
    assert together == [tokens([request])[0] for request in requests(lengths, new)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "model", "qwen3")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kept", ["bfloat16", "float16"])
def test_kv_dtype(folder: Path, kept: str, backend: str) -> None:
    how = {**QUIET, "backend": backend}
    wide, model = ivk.load(folder, **how), ivk.load(folder, kv_dtype=kept, **how)
    ids = torch.randint(8, 200, (2, 90), generator=torch.Generator().manual_seed(0))
    expected, found = wide.logits(ids), model.logits(ids)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    plans = [m.plan([2], text_tokens=5) for m in (wide, model)]
    assert plans[0].bytes["kv cache"] == 2 * plans[1].bytes["kv cache"]
    assert plans[1].to_dict()["kv_dtype"] == kept
    assert f"kv cache ({kept})" in str(plans[1])
    requests = [{"question": q, "max_new_tokens": 9, "stop_token_ids": []} for q in ("one?", "two, which is longer?")]
    if backend == "cpu":
        assert model.batch_chat(requests) == [model.chat(**r) for r in requests]
    ids = ids[:, :70]
    assert model.generate(ids, max_new_tokens=3).shape[0] == 2


def test_a_wider_cache_under_bfloat16(folder: Path) -> None:
    narrow, model = (ivk.load(folder, dtype="bfloat16", kv_dtype=kept, **QUIET) for kept in (None, "float32"))
    ids = torch.randint(8, 200, (1, 90), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.logits(ids), narrow.logits(ids), rtol=0.1, atol=0.1)


def test_wrong_kv_dtypes_are_refused(folder: Path) -> None:
    for wrong in ("int8", "float64", 3):
        with pytest.raises(UnsupportedError, match=r"kv_dtype: .*; allowed: float32, bfloat16, float16, or None"):
            ivk.load(folder, kv_dtype=wrong, **QUIET)  # type: ignore[arg-type]


def test_plans_count_whole_pages() -> None:
    assert [page_count(n) for n in (0, 1, PAGE, PAGE + 1)] == [0, 1, 1, 2]
    assert kv_bytes(CONFIG, PAGE + 1, 2) == 2 * CONFIG.num_layers * 2 * PAGE * CONFIG.kv_size * 2
