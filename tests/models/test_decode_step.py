"""Recorded decode steps: the bits of the same ops called one by one, whatever comes and goes; and the recording itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from internvl_kernels import UnsupportedError, ops
from internvl_kernels.generate import Decoder, GenerationOptions, Request
from internvl_kernels.models import DecodeSteps, KVCache, LanguageModel, Piece, Positions, forward_pieces, storage
from internvl_kernels.ops import PackedWeight
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing.checkpoints import random_weights, tiny_config
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.hostile import normal

POSITIONS = [Positions(0)] * 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def language(text: str = "qwen3", stored: str = "float32", kv: str = "float32", threads: int = 2) -> LanguageModel:
    config = tiny_config(text, text_overrides={"max_positions": 512})
    place, weights = storage(config, DTYPES[stored]), {}
    for name, tensor in random_weights(config, seed=1).items():
        kept = place(name, tuple(tensor.shape))
        if isinstance(kept, PackedWeight):
            kept.write(tensor.to(DTYPES[stored]))
        elif kept is not None:
            kept.copy_(tensor)
        weights[name] = tensor if kept is None else kept
    return LanguageModel(config.language, weights, backend="cpu", threads=threads, kv_dtype=DTYPES[kv])


def steps(model: LanguageModel, one_by_one: bool, lengths: tuple[int, ...]) -> list[torch.Tensor]:
    """Sequences that begin at once and end one after the other, each row's result in the order of its step."""
    cache = KVCache(model.config, [n + 1 for n in lengths], model.kv_dtype, model.device)
    recorded = DecodeSteps(model, cache, POSITIONS)
    found = []
    for at in range(max(lengths)):
        pieces = [Piece(i, at, at + 1) for i, n in enumerate(lengths) if at < n]
        ids = torch.tensor([8 + (7 * at + p.sequence) % 100 for p in pieces])
        if one_by_one:
            found.append(forward_pieces(model, cache, model.embed(ids), pieces, POSITIONS, decode=True))
        else:
            found.append(recorded(ids, pieces).clone())
        for i, n in enumerate(lengths):
            if at == n - 1:
                cache.release(i)
    return found


@pytest.mark.parametrize("text", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize(("stored", "kv"), [("float32", "float32"), ("bfloat16", "float16"), ("float16", "bfloat16")])
def test_bits_are_those_of_the_ops(text: str, stored: str, kv: str) -> None:
    model = language(text, stored, kv)
    assert model.recordable
    for one, two in zip(steps(model, True, (3, 140, 70)), steps(model, False, (3, 140, 70)), strict=True):
        same_bits(one, two)
    for one, two in zip(
        steps(model, True, (66,)), steps(language(text, stored, kv, threads=1), False, (66,)), strict=True
    ):
        same_bits(one, two)


def test_what_is_not_recorded_goes_op_by_op() -> None:
    plain = tiny_config("qwen3")
    for model in (
        LanguageModel(plain.language, random_weights(plain, seed=1), backend="cpu"),
        LanguageModel(plain.language, random_weights(plain, seed=1), backend="reference"),
        language("qwen3_moe"),
    ):
        assert not model.recordable
        for one, two in zip(steps(model, True, (5, 2)), steps(model, False, (5, 2)), strict=True):
            same_bits(one, two)


def test_a_step_runs_no_op(monkeypatch: pytest.MonkeyPatch) -> None:
    model, called = language(), []
    request = Request(torch.arange(8, 20), None, GenerationOptions(max_new_tokens=6))
    decoder = iter(Decoder(model, [request]))
    next(decoder), next(decoder)
    gemm = ops.linear
    monkeypatch.setattr(ops, "linear", lambda *a, **k: called.append(a) or gemm(*a, **k))
    next(decoder)
    assert len(called) == 1  # the head's


@pytest.mark.parametrize("first", [True, False])
def test_recorded_in_one_mode_and_run_in_another(first: bool) -> None:
    model = language()
    cache = KVCache(model.config, [8], model.kv_dtype, model.device)
    recorded, ids, found = DecodeSteps(model, cache, POSITIONS), torch.tensor([9]), []
    for inference in (first, not first, first):
        with torch.inference_mode(inference), torch.no_grad():
            found.append(recorded(ids, [Piece(0, 0, 1)]).clone())
    same_bits(found[1], found[0])
    same_bits(found[2], found[0])


def test_an_interrupted_recording_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = language()
    cache = KVCache(model.config, [8], model.kv_dtype, model.device)
    recorded, ids = DecodeSteps(model, cache, POSITIONS), torch.tensor([9])

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ops, "linear_swiglu", fail)
        with pytest.raises(KeyboardInterrupt):
            recorded(ids, [Piece(0, 0, 1)])
    expected = forward_pieces(model, cache, model.embed(ids), [Piece(0, 0, 1)], POSITIONS, decode=True)
    for _ in range(3):
        same_bits(recorded(ids, [Piece(0, 0, 1)]), expected)


def test_program() -> None:
    x, weight, y = normal(3, 32), ops.pack_weight(normal(48, 32, seed=1)), torch.zeros(3, 48)
    program = cpu().Program()
    program.record()
    try:
        with pytest.raises(UnsupportedError, match="another is recorded"):
            cpu().Program().record()
        with pytest.raises(UnsupportedError, match="after its end"):
            program.run([])
        with pytest.raises(UnsupportedError, match=r"swiglu: .* called while a program is recorded"):
            ops.swiglu(normal(3, 32), backend="cpu")
        ops.linear(x, weight, out=y, backend="cpu")
    finally:
        program.stop()
    assert len(program) == 1
    with pytest.raises(UnsupportedError, match="holds calls already"):
        program.record()
    ops.swiglu(normal(3, 32), backend="cpu")
    x.copy_(normal(3, 32, seed=5))
    expected = ops.linear(x, weight, backend="cpu")
    held = x
    del x, weight  # the program holds what it names
    program.run([])
    same_bits(y, expected)
    held[0, 0] = float("nan")
    program.run([])
    assert y[0].isnan().all()
    assert not y[1:].isnan().any()
