"""Greedy choice, repetition penalty, sampling: plain loops, transformers, distribution, edges, bits, refusals."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.ops.sample import philox4x32
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.hostile import DTYPES, VIEWS, integers, normal, refused
from internvl_kernels.testing.invariance import check_invariant

NAN, INF = float("nan"), float("inf")
BACKENDS = ["cpu", "reference"]
BELOW_ONE = float(np.nextafter(1.0, 0.0))
SETTINGS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for temperature, top_k, top_p in (
        *((1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (0.5, 20, 0.9), (2.0, 1, 1.0)),
        *((1.0, 0, 1e-9), (1e-6, 0, 1.0), (50.0, 0, 0.99), (1.0, 10**9, 1.0)),
    )
]


def kept(row: Any, *, temperature: float, top_k: int, top_p: float) -> tuple[list[int], np.ndarray]:
    """The tokens that may be drawn, best first, and their probabilities: the rule as sorted Python lists."""
    row = row.double().numpy()
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[: top_k or None]
    p = np.exp((row[order] - row[order[0]]) / temperature)
    p /= p.sum()
    count = next((i + 1 for i, mass in enumerate(np.cumsum(p)) if mass >= top_p), len(p))
    order, p = order[:count], p[:count]
    order = [i for i, mass in zip(order, p) if mass > 0]
    return order, p[: len(order)] / p.sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("vocab", [1, 2, 15, 17, 63, 1024, 1025, 5000])
def test_argmax_is_the_lowest_of_the_largest(vocab: int, backend: str, dtype: str) -> None:
    for logits in (normal(20, vocab, dtype=dtype), integers(20, vocab, dtype=dtype), torch.full((3, vocab), -INF)):
        expected = [row.index(max(row)) for row in logits.tolist()]
        assert ops.argmax(logits, backend=backend).tolist() == expected
    zeros = torch.zeros(1, vocab)
    zeros[0, 0] = -0.0
    assert ops.argmax(zeros, backend=backend).tolist() == [0]
    infinite = normal(1, vocab)
    infinite[0, vocab // 2 :] = INF
    assert ops.argmax(infinite, backend=backend).tolist() == [vocab // 2]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("vocab", [1, 7, 16, 40, 3000])
def test_argmax_refuses_nan_wherever_it_is(vocab: int, backend: str) -> None:
    for place in {0, vocab // 2, vocab - 1}:
        logits = normal(3, vocab)
        logits[1, place] = NAN
        with pytest.raises(UnsupportedError, match=r"argmax: row 1 of logits .* holds NaN"):
            ops.argmax(logits, backend=backend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_sample_against_sorted_lists(setting: dict[str, Any], backend: str, dtype: str) -> None:
    logits = normal(1, 300, dtype=dtype, scale=3.0).repeat(64, 1)
    uniform = np.linspace(0.0, BELOW_ONE, 64)
    tokens, p = kept(logits[0], **setting)
    running = np.cumsum(p)
    for u, token in zip(uniform, ops.sample(logits, **setting, uniform=uniform, backend=backend).tolist()):
        place = tokens.index(token)  # fails for a token that was cut
        assert (running[place - 1] if place else 0.0) <= u + 1e-12
        assert u < running[place] + 1e-12


@pytest.mark.parametrize("vocab", [1, 2, 63, 64, 65, 4095, 4097, 20_000])
@pytest.mark.parametrize("scale", [0.0, 0.01, 8.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_is_the_reference(dtype: str, scale: float, vocab: int) -> None:
    """Flat rows rank every token, steep ones a few; equal logits abound in 16 bits."""
    logits = normal(6, vocab, dtype=dtype, scale=scale)
    uniform = torch.tensor([0.0, 0.1, 0.5, 0.9, 0.999, 0.999999], dtype=torch.float64)
    for top_k, top_p in ((0, 1.0), (0, 0.9), (50, 0.9), (vocab, 0.5), (vocab - 1, 1.0), (5000, 1.0)):
        how = {"temperature": 0.8, "top_k": top_k, "top_p": top_p, "uniform": uniform}
        same_bits(ops.sample(logits, **how, backend="cpu"), reference.sample(logits, **how), f"{top_k} {top_p}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_sampled_frequencies(backend: str) -> None:
    draws = 4000
    logits = normal(1, 12, scale=1.5)
    for setting in ({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, {"temperature": 1.4, "top_k": 7, "top_p": 0.95}):
        uniform = ops.uniforms(7, range(draws))
        seen = Counter(ops.sample(logits.repeat(draws, 1), **setting, uniform=uniform, backend=backend).tolist())
        tokens, p = kept(logits[0], **setting)
        assert set(seen) <= set(tokens)
        chi_square = sum((seen[t] - draws * q) ** 2 / (draws * q) for t, q in zip(tokens, p))
        assert chi_square < 30.0  # at most 11 degrees of freedom: 0.2 % by chance, and the seed is fixed


@pytest.mark.parametrize("backend", BACKENDS)
def test_edges_of_the_uniform_and_of_the_cuts(backend: str) -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, -INF, 1.0]])

    def draw(u: float, **how: Any) -> int:
        how = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **how}
        return int(ops.sample(logits, **how, uniform=[u], backend=backend))

    assert draw(0.0) == 1
    assert draw(BELOW_ONE) == 0, "a forbidden token is never drawn"
    assert draw(BELOW_ONE, top_k=1) == 1
    assert draw(BELOW_ONE, top_k=2) == 2
    assert draw(BELOW_ONE, top_p=5e-324) == 1
    assert draw(BELOW_ONE, temperature=5e-324) == 2
    assert draw(BELOW_ONE, temperature=1e300) == 0
    alone = torch.full((1, 9), -INF)
    alone[0, 6] = -1e30
    for u in (0.0, 0.5, BELOW_ONE):
        how = {"temperature": 0.01, "top_k": 0, "top_p": 0.5, "uniform": [u]}
        assert ops.sample(alone, **how, backend=backend).tolist() == [6]
    assert ops.sample(logits[:0], temperature=1.0, top_k=0, top_p=1.0, uniform=[], backend=backend).shape == (0,)


def test_against_transformers_warpers() -> None:
    from transformers import generation

    logits = normal(5, 400, scale=2.0)
    for top_k, top_p, temperature in ((0, 0.7, 1.0), (30, 1.0, 0.6), (30, 0.8, 1.5)):
        scores = generation.TemperatureLogitsWarper(temperature)(None, logits)
        if top_k:
            scores = generation.TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = generation.TopPLogitsWarper(top_p)(None, scores)
        for row, theirs in zip(logits, scores.softmax(-1)):
            tokens, p = kept(row, temperature=temperature, top_k=top_k, top_p=top_p)
            assert set(tokens) == set(theirs.nonzero().flatten().tolist())
            np.testing.assert_allclose(theirs[tokens].numpy(), p, rtol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.5])
def test_penalty_against_transformers(penalty: float, dtype: str, backend: str) -> None:
    from transformers.generation import RepetitionPenaltyLogitsProcessor

    logits = normal(3, 40, dtype=dtype)
    before = logits.clone()
    ids = torch.tensor([[1, 5, 5, 39], [0, 0, 0, 0], [7, 8, 9, 7]])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    same_bits(ops.penalise(logits, ids, penalty, backend=backend), expected)
    same_bits(ops.penalise(logits, ids.tolist(), penalty, backend=backend), expected)
    same_bits(logits, before, "the caller's logits")
    ragged = ops.penalise(logits, [[1, 5, 39], [], [9]], penalty, backend=backend)
    same_bits((ragged[0], ragged[1]), (expected[0], logits[1]))
    assert (ragged[2] != logits[2]).nonzero().flatten().tolist() == ([] if penalty == 1.0 else [9])


@pytest.mark.parametrize("dtype", DTYPES)
def test_greedy_bits_do_not_move(dtype: str) -> None:
    logits = normal(9, 3001, dtype=dtype)
    tokens = check_invariant(lambda threads: ops.argmax(logits, threads=threads))
    same_bits(ops.argmax(logits[5:6]), tokens[5:6], "one row alone")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("top_k", [0, 40])
def test_sampled_bits_do_not_move(top_k: int, dtype: str) -> None:
    logits, uniform = normal(9, 3001, dtype=dtype), ops.uniforms(range(9), 4)
    how: dict[str, Any] = {"temperature": 0.9, "top_k": top_k, "top_p": 0.95}
    tokens = check_invariant(lambda threads: ops.sample(logits, **how, uniform=uniform, threads=threads))
    for row in (0, 5, 8):
        alone = ops.sample(logits[row : row + 1], **how, uniform=uniform[row : row + 1])
        same_bits(alone, tokens[row : row + 1], f"row {row} alone")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str, dtype: str) -> None:
    logits, uniform = normal(4, 100, dtype=dtype), ops.uniforms(3, range(4))
    strange = VIEWS[view](logits)
    same_bits(ops.argmax(strange), ops.argmax(logits))
    how = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "uniform": uniform}
    same_bits(ops.sample(strange, **how), ops.sample(logits, **how))


def test_numpy_in_numpy_out() -> None:
    logits = normal(4, 20)
    how = {"temperature": 1.0, "top_k": 3, "top_p": 0.9, "uniform": ops.uniforms(3, range(4))}
    for ours, expected in (
        (ops.argmax(logits.numpy()), ops.argmax(logits)),
        (ops.sample(logits.numpy(), **how), ops.sample(logits, **how)),
        (ops.penalise(logits.numpy(), [[1]] * 4, 1.2), ops.penalise(logits, [[1]] * 4, 1.2)),
    ):
        assert isinstance(ours, np.ndarray)
        same_bits(ours, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("poison", [[NAN], [INF], [NAN, INF], [-INF] * 30], ids=str)
def test_rows_without_a_distribution_are_refused(poison: list[float], backend: str) -> None:
    logits = normal(5, 30)
    logits[3, : len(poison)] = torch.tensor(poison)
    logits[4] = NAN
    for top_k in (0, 4):
        with pytest.raises(UnsupportedError, match=r"row 3 of logits \[5, 30\] holds NaN, \+inf or nothing but -inf"):
            ops.sample(logits, temperature=1.0, top_k=top_k, top_p=1.0, uniform=[0.5] * 5, backend=backend, threads=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; allowed: greater than 0 .greedy is do_sample=False"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": NAN}, "temperature is nan"),
        ({"temperature": INF}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": NAN}, "top_p is nan"),
        ({"uniform": [0.5]}, "uniform is"),
        ({"uniform": [0.5, 1.0]}, "uniform.* is .*1"),
        ({"uniform": [0.5, -0.1]}, "uniform.* is .*-0.1"),
        ({"uniform": [0.5, NAN]}, "uniform.* is .*nan"),
    ],
    ids=str,
)
def test_refused_by_name(changes: dict[str, Any], text: str, backend: str) -> None:
    how = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "uniform": [0.1, 0.2], **changes}
    with pytest.raises(UnsupportedError, match=text):
        ops.sample(normal(2, 9), **how, backend=backend)


def test_strange_tensors_are_refused() -> None:
    for _, strange, text in refused(normal(3, 8)):
        with pytest.raises(UnsupportedError, match=text):
            ops.argmax(strange, backend="cpu")
        with pytest.raises(UnsupportedError, match=text):
            ops.sample(strange, temperature=1.0, top_k=0, top_p=1.0, uniform=[0.5] * 3, backend="cpu")
    with pytest.raises(UnsupportedError, match=r"logits is float32\[3\]"):
        ops.argmax(normal(3), backend="cpu")
    for ids, penalty, text in (
        ([[40]], 1.1, r"token_ids in \[40, 40\]; allowed: 0 to 39"),
        ([[-1]], 1.1, r"\[-1, -1\]"),
        ([[1]], 0.0, "penalty is 0.0"),
        ([[1], [2]], 1.1, "2 rows of token_ids for 1"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            ops.penalise(normal(1, 40), ids, penalty)


def test_philox_known_answers() -> None:
    """The three vectors published with the algorithm."""
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0]
    for words, expected in (
        ([0] * 6, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 6, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        wide = [np.uint64(w) for w in words]
        assert [int(w) for w in philox4x32(wide[:4], wide[4:])] == expected


def test_uniforms_depend_on_seed_and_step_alone() -> None:
    assert ops.uniforms(0, 0) == ((0x6627E8D5 << 32 | 0xE169C58D) >> 11) * 2.0**-53
    steps = ops.uniforms(123, range(5000))
    assert steps.dtype == np.float64
    assert ((steps >= 0) & (steps < 1)).all()
    assert len(set(steps)) == 5000
    assert abs(steps.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(steps[1:], steps[:-1])[0, 1]) < 0.05
    assert [ops.uniforms(123, s) for s in (0, 17, 4999)] == list(steps[[0, 17, 4999]])
    assert list(ops.uniforms([5, 123, 2**64 - 1], 17)) == [ops.uniforms(s, 17) for s in (5, 123, 2**64 - 1)]
    assert ops.uniforms(1, 2) != ops.uniforms(2, 1)
    for seed, step, text in ((-1, 0, "seed is -1"), (0, -3, "step is -3"), (2**64, 0, "seed is 18446744073709551616")):
        with pytest.raises(UnsupportedError, match=text):
            ops.uniforms(seed, step)
