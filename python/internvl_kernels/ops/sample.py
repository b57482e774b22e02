"""The next token: greedy choice, repetition penalty, sampling by inverse CDF, and its random numbers.
Contract: csrc/kernels/sample/sample.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._tensor import as_kind, empty, host, to_torch

if TYPE_CHECKING:
    from torch import Tensor


@checked
def argmax(logits: Any, *, threads: int = 0, backend: str = "auto") -> Any:
    """Index of the largest logit of every row, the lowest one among equals: int64 ``[B]``.

    logits ``[B, V]`` float32 | bfloat16 | float16, V >= 1. A NaN raises UnsupportedError naming its row.
    """
    if choose("argmax", backend, logits) == "reference":
        return argmax_reference(logits)
    logits = host(logits)
    tokens = empty(logits, logits.shape[:1], "int64")
    cpu().argmax(logits, tokens, threads)
    return tokens


@checked_reference("logits float [B, V]")
def argmax_reference(logits: Tensor) -> Tensor:
    _refuse_rows("argmax", logits, logits.isnan().any(-1), "NaN")
    index = torch.arange(logits.shape[-1], device=logits.device)
    best = logits == logits.amax(-1, keepdim=True)
    return torch.where(best, index, logits.shape[-1]).amin(-1)


@checked
def penalise(
    logits: Any, token_ids: Any | Sequence[Sequence[int]], penalty: float, *, threads: int = 0, backend: str = "auto"
) -> Any:
    """Repetition penalty: logits of the tokens seen are divided by ``penalty`` when positive, multiplied when negative.

    logits ``[B, V]``; token_ids: B sequences of ids (an int64 tensor ``[B, L]``, or a list of rows of any lengths); a token counts
    once however often it occurs. penalty > 0; 1 changes nothing. Returns a new tensor of logits' shape and dtype. An id
    outside the vocabulary raises UnsupportedError.
    """
    if choose("penalise", backend, logits) == "reference":
        return penalise_reference(logits, token_ids, penalty)
    return as_kind(
        penalise_reference(to_torch(logits, "logits"), token_ids, penalty), logits
    )  # a few gathered elements of a copy


@checked_reference("logits float [B, V]")
def penalise_reference(logits: Tensor, token_ids: Tensor | Sequence[Sequence[int]], penalty: float) -> Tensor:
    if not penalty > 0:
        raise UnsupportedError(f"penalise: penalty is {penalty}; allowed: greater than 0 (1 for none)")
    if not all(map(_are_ids, [token_ids] if hasattr(token_ids, "dtype") else token_ids)):
        raise UnsupportedError("penalise: token_ids holds something other than integers; allowed: rows of token ids")
    if len(token_ids) != len(logits):
        raise UnsupportedError(f"penalise: {len(token_ids)} rows of token_ids for {len(logits)} rows of logits")
    rows = []
    for row, seen in zip(logits, token_ids):
        ids = torch.as_tensor(seen, dtype=torch.int64, device=logits.device)
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < row.shape[0]):
            raise UnsupportedError(
                f"penalise: token_ids in [{int(ids.min())}, {int(ids.max())}]; allowed: 0 to {row.shape[0] - 1} as logits"
            )
        old = row[ids]
        rows.append(row.index_put((ids,), torch.where(old < 0, old * penalty, old / penalty)))
    return torch.stack(rows) if rows else logits.clone()


@checked
def sample(
    logits: Any,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    uniform: Any | Sequence[float],
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """One token per row, drawn by inverse CDF with the row's own uniform number: int64 ``[B]``.

    logits ``[B, V]`` float32 | bfloat16 | float16; uniform float64 ``[B]`` in [0, 1). In this order: logits / temperature; the
    ``top_k`` largest stay (0: all; equal logits: the lower index first); of those the most likely ones stay until their
    probabilities reach ``top_p`` (at least one; 1: all). The token is the first, by descending probability, whose cumulated
    probability exceeds uniform times the total, so it depends on its own row only. Computed in fp64.
    Raises UnsupportedError for temperature <= 0, top_k < 0, top_p outside (0, 1], a uniform outside [0, 1), and rows with
    NaN, +inf or nothing but -inf.
    """
    check_sampling(temperature, top_k, top_p)
    if choose("sample", backend, logits) == "reference":
        uniform = torch.as_tensor(uniform, dtype=torch.float64, device=logits.device)
        return sample_reference(logits, temperature=temperature, top_k=top_k, top_p=top_p, uniform=uniform)
    logits = host(logits)
    tokens = empty(logits, logits.shape[:1], "int64")
    numbers = np.ascontiguousarray(host(uniform), dtype=np.float64)
    cpu().sample(logits, numbers, tokens, temperature, top_k, top_p, threads)
    return tokens


@checked_reference("logits float [B, V]", "uniform float64 [B]")
def sample_reference(logits: Tensor, *, temperature: float, top_k: int, top_p: float, uniform: Tensor) -> Tensor:
    check_sampling(temperature, top_k, top_p)
    if not bool(((uniform >= 0) & (uniform < 1)).all()):
        raise UnsupportedError(
            f"sample: uniform is {uniform.tolist()} for logits {list(logits.shape)}; allowed: one per row, in [0, 1)"
        )
    best = logits.amax(-1, keepdim=True) if logits.shape[0] else logits[:, :1]
    _refuse_rows("sample", logits, ~best[:, 0].isfinite(), "NaN, +inf or nothing but -inf")
    order = logits.sort(dim=-1, descending=True, stable=True).indices[:, : top_k or None]
    # the distance to the best logit first: a small temperature must not overflow
    weight = ((logits.double() - best.double()) / temperature).exp().gather(-1, order)
    cumulated = weight.cumsum(-1)
    before = cumulated - weight
    kept = ((before < top_p * cumulated[:, -1:]) & (weight > 0)).sum(-1, keepdim=True).clamp(min=1)
    total = cumulated.gather(-1, kept - 1)
    pick = torch.searchsorted(cumulated, uniform[:, None] * total, right=True).minimum(kept - 1)
    return order.gather(-1, pick)[:, 0]


@checked
def uniforms(seed: int | Sequence[int], step: int | Sequence[int]) -> Any:
    """Counter-based random numbers in [0, 1), a function of (seed, step) alone: a float for two integers, else float64 ``[n]``.

    Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) with the seed as key and the step as counter; the first 53 bits count.
    seed and step are integers from 0 to 2^64 - 1.
    """
    key, counter = _words("seed", seed), _words("step", step)
    words = np.broadcast_arrays(*counter, np.uint64(0), np.uint64(0), *key)
    first, second = philox4x32(words[:4], words[4:])[:2]
    numbers = np.asarray((first << np.uint64(32) | second) >> np.uint64(11)) * 2.0**-53
    return numbers if numbers.ndim else float(numbers)


def philox4x32(counter: Sequence[Any], key: Sequence[Any], rounds: int = 10) -> list[Any]:
    """Four 32-bit words, held in uint64, from four counter words and two key words."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c, k = list(counter), list(key)
    for _ in range(rounds):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> half) ^ c[1] ^ k[0], b & low, (a >> half) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return c


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Raise UnsupportedError for sampling parameters outside their range."""
    if not 0 < temperature < float("inf"):
        raise UnsupportedError(f"temperature is {temperature}; allowed: greater than 0 (greedy is do_sample=False)")
    if top_k < 0:
        raise UnsupportedError(f"top_k is {top_k}; allowed: 0 (all) and more")
    if not 0 < top_p <= 1:
        raise UnsupportedError(f"top_p is {top_p}; allowed: greater than 0, at most 1 (1 keeps all)")


def _words(name: str, value: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    for v in [value] if isinstance(value, int) else value:
        if not 0 <= int(v) < 2**64:
            raise UnsupportedError(f"uniforms: {name} is {v}; allowed: 0 to 2^64 - 1")
    wide = np.asarray(value, dtype=np.uint64)
    return wide & np.uint64(0xFFFFFFFF), wide >> np.uint64(32)


def _are_ids(row: Any) -> bool:
    if hasattr(row, "dtype"):
        return bool(row.shape) and (0 in row.shape or "int" in str(row.dtype))
    return isinstance(row, (list, tuple, range)) and all(isinstance(i, (int, np.integer)) for i in row)


def _refuse_rows(op: str, logits: Tensor, bad: Tensor, what: str) -> None:
    if bool(bad.any()):
        raise UnsupportedError(f"{op}: row {int(bad.nonzero()[0, 0])} of logits {list(logits.shape)} holds {what}")


__all__ = [
    "argmax",
    "argmax_reference",
    "check_sampling",
    "penalise",
    "penalise_reference",
    "philox4x32",
    "sample",
    "sample_reference",
    "uniforms",
]
