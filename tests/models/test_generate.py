"""The decode loop: batches equal single runs bit for bit, one step serves all sequences, stops and limits hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from internvl_kernels import UnsupportedError, ops
from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.models import LanguageModel
from internvl_kernels.testing.checkpoints import IMAGE_TOKEN_ID, TEXT_MODELS, random_weights, tiny_config

LENGTHS = (1, 7, 40, 18, 2)


def language(text: str, backend: str = "cpu", **overrides: Any) -> LanguageModel:
    config = tiny_config(text, text_overrides=overrides)
    return LanguageModel(config.language, random_weights(config, seed=1), backend=backend)


def requests(*, lengths: tuple[int, ...] = LENGTHS, **options: Any) -> list[Request]:
    generator = torch.Generator().manual_seed(9)
    made = []
    for length in lengths:
        ids = torch.randint(8, 128, (length,), generator=generator)
        made.append(Request(ids, None, GenerationOptions(**options)))
    return made


def run(model: LanguageModel, todo: list[Request], **options: Any) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Tokens of every request, and the logits of every step."""
    seen: list[torch.Tensor] = []
    head = model.head
    model.head = lambda rows: seen.append(head(rows)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    decoder = Decoder(model, todo, image_token_id=IMAGE_TOKEN_ID, **options)
    with torch.no_grad():
        for _ in decoder:
            pass
    return decoder.tokens, seen


@pytest.mark.parametrize("text", TEXT_MODELS)
@pytest.mark.parametrize("prefill_rows", [2048, 16])
def test_batch_equals_one_at_a_time_bit_for_bit(text: str, prefill_rows: int) -> None:
    together, logits = run(language(text), requests(max_new_tokens=12), prefill_rows=prefill_rows)
    for row, request in enumerate(requests(max_new_tokens=12)):
        alone, own = run(language(text), [request], prefill_rows=prefill_rows)
        assert together[row] == alone[0]
        for step, (ours, theirs) in enumerate(zip(own, logits)):
            assert torch.equal(ours[0], theirs[row]), f"sequence {row}, step {step}"


def test_two_runs_are_bit_identical() -> None:
    first, second = (run(language("qwen3_moe"), requests(max_new_tokens=8))[1] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_cached_steps_equal_the_full_sequence() -> None:
    """Prefill and decode over the cache against one dense forward of the finished sequence."""
    model = language("qwen3_moe", "reference")
    request = requests(lengths=(9,), max_new_tokens=10)
    (tokens,), logits = run(model, request, prefill_rows=4)
    full = torch.cat([request[0].input_ids, torch.tensor(tokens)]).unsqueeze(0)
    dense = language("qwen3_moe", "reference").logits(full)[0, 8:-1]
    torch.testing.assert_close(torch.cat(logits), dense, rtol=1e-4, atol=1e-4)


def test_one_step_serves_all_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products per step do not grow with the number of sequences; a loop over requests would multiply them."""

    def count(todo: list[Request]) -> int:
        calls: Counter[str] = Counter()
        with monkeypatch.context() as patch:
            for name, real in (("linear", ops.linear), ("linear_swiglu", ops.linear_swiglu)):

                def counted(*arguments: Any, real: Any = real, **options: Any) -> Any:
                    calls["products"] += 1
                    return real(*arguments, **options)

                patch.setattr(ops, name, counted)
            run(language("qwen3"), todo)
        return calls["products"]

    one = count(requests(lengths=(5,), max_new_tokens=6))
    assert one == 6 * (2 * 4 + 1)  # steps x (layers x (qkv, o, gate_up, down) + head)
    assert count(requests(max_new_tokens=6)) == one


def test_sampling_is_seeded_and_independent_of_the_batch() -> None:
    model = language("qwen2")
    options = {"max_new_tokens": 16, "do_sample": True, "temperature": 1.5, "top_k": 50, "top_p": 0.95}
    together, _ = run(model, requests(seed=4, **options))
    again, _ = run(language("qwen2"), requests(seed=4, **options))
    other, _ = run(language("qwen2"), requests(seed=5, **options))
    assert together == again
    assert together != other
    for row, request in enumerate(requests(seed=4, **options)):
        assert run(language("qwen2"), [request])[0][0] == together[row]


def test_a_stop_token_ends_its_own_sequence_only() -> None:
    free, _ = run(language("qwen2"), requests(max_new_tokens=12))
    stop = free[2][3]
    stopped, _ = run(language("qwen2"), requests(max_new_tokens=12, stop_token_ids=[stop]))
    for row, tokens in enumerate(stopped):
        expected = free[row]
        end = expected.index(stop) + 1 if stop in expected else len(expected)
        assert tokens == expected[:end]


def test_a_finished_request_takes_no_more_steps_and_no_memory() -> None:
    """What ends an answer may be seen outside the loop only; the others go on, bit for bit."""
    model = language("qwen2")
    free, _ = run(model, requests(max_new_tokens=8))
    decoder = Decoder(model, requests(max_new_tokens=8), image_token_id=IMAGE_TOKEN_ID)
    with torch.no_grad():
        for step, produced in enumerate(decoder):
            assert ([row for row, _ in produced] == [0, 1, 3, 4]) == (step > 2)
            if step == 2:
                held = decoder._cache.used_pages
                decoder.finish(2)
                decoder.finish(2)
                assert decoder._cache.used_pages < held
    assert decoder.tokens == [tokens[: 3 if row == 2 else 8] for row, tokens in enumerate(free)]
    decoder.finish(0)  # has ended by itself


def test_generation_ends_at_the_context() -> None:
    model = language("qwen2", max_positions=20)
    (tokens,), _ = run(model, requests(lengths=(15,), max_new_tokens=50))
    assert len(tokens) == 6  # 15 + 5 rows fill the cache, and the last row still chooses a token
    with pytest.raises(UnsupportedError, match="20"):
        Decoder(model, requests(lengths=(20,)))


def test_repetition_penalty_changes_the_choice() -> None:
    plain, _ = run(language("qwen2"), requests(lengths=(6,), max_new_tokens=30))
    punished, _ = run(language("qwen2"), requests(lengths=(6,), max_new_tokens=30, repetition_penalty=1e4))
    assert len(set(punished[0])) == 30  # nothing seen before is ever chosen again
    assert plain != punished


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", True),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("stop_token_ids", [-1]),
        ("do_sample", 1),
    ],
)
def test_bad_options_name_themselves(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedError, match=name):
        GenerationOptions(**{name: value})


def test_empty_prompts_and_no_requests() -> None:
    model = language("qwen2")
    with pytest.raises(UnsupportedError, match="empty"):
        Decoder(model, [Request(torch.empty(0, dtype=torch.int64))])
    assert list(Decoder(model, [])) == []
