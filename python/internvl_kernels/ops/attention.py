"""Scaled dot-product attention, over whole sequences and over a slot cache. Heads share keys in groups (GQA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, cpu
from ._tensor import as_kind, empty, host, to_torch

if TYPE_CHECKING:
    from torch import Tensor

Spans = Sequence[tuple[int, int, int, int]]


@checked
def attention(
    q: Any, k: Any, v: Any, *, causal: bool = False, scale: float | None = None, threads: int = 0, backend: str = "auto"
) -> Any:
    """``softmax(scale * q k^T) v`` per head: q ``[B, L, Hq, d]``, k and v ``[B, S, Hkv, d]``; returns ``[B, L, Hq, d]``.

    Hq is a multiple of Hkv; query head h reads key head ``h // (Hq / Hkv)``. scale defaults to ``d ** -0.5``. causal: query i
    sees key j iff ``j <= i + S - L`` (the last query sees every key), so L must not exceed S. d is at most 256 on the cpu
    backend. Contract: csrc/kernels/attention/attention.h.
    """
    _check(q, k, v, causal)
    if choose("attention", backend, q, k, v) == "reference":
        return attention_reference(q, k, v, causal=causal, scale=scale)
    if _wide(q):
        return as_kind(attention_reference(*_tensors(q=q, k=k, v=v), causal=causal, scale=scale), q)
    q = host(q)
    y = empty(q, q.shape)
    cpu().attention(q, host(k), host(v), y, causal, _scale(q, scale), threads)
    return y


@checked_reference("q float [B, L, Hq, d]", "k,v q [B, S, Hkv, d]")
def attention_reference(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None) -> Tensor:
    _check(q, k, v, causal)
    batch, rows, heads, dim = q.shape
    keys, kv_heads = k.shape[1:3]
    grouped = q.transpose(1, 2).reshape(batch, kv_heads, heads // kv_heads, rows, dim)
    scores = grouped @ k.permute(0, 2, 3, 1).unsqueeze(2) * (dim**-0.5 if scale is None else scale)
    if causal:
        hidden = torch.ones(rows, keys, dtype=torch.bool, device=q.device).triu(keys - rows + 1)
        scores = scores.masked_fill(hidden, float("-inf"))
    wide = scores if scores.dtype == torch.float64 else scores.float()
    mixed = wide.softmax(-1).to(v.dtype) @ v.transpose(1, 2).unsqueeze(2)
    return mixed.reshape(batch, heads, rows, dim).transpose(1, 2)


@checked
def cached_attention(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    spans: Spans,
    *,
    scale: float | None = None,
    decode: bool = False,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Causal attention of rows of several sequences over a slot cache: q ``[rows, Hq, d]``, caches ``[slots, Hkv, d]``.

    spans: ``(row_begin, row_end, slot_begin, length)`` for each sequence, in row order and covering every row: its rows are
    the last ones of a sequence whose ``length`` keys lie at ``[slot_begin, slot_begin + length)``. Returns ``[rows, Hq, d]``.

    decode=True is the decode phase: every span is one new row. On the cpu backend a row's bits depend neither on the span that
    brings it nor on the rows beside it, and decode changes none (csrc/kernels/attention/attention.h).
    """
    _check_spans(q, k_cache, v_cache, spans, decode)
    if choose("cached_attention", backend, q, k_cache, v_cache) == "reference":
        return cached_attention_reference(q, k_cache, v_cache, spans, scale=scale)
    if _wide(q):
        rows, keys, values = _tensors(q=q, k_cache=k_cache, v_cache=v_cache)
        return as_kind(cached_attention_reference(rows, keys, values, spans, scale=scale), q)
    q = host(q)
    y = empty(q, q.shape)
    cpu().cached_attention(q, host(k_cache), host(v_cache), y, list(spans), _scale(q, scale), threads)
    return y


@checked_reference("q float [rows, Hq, d]", "k_cache,v_cache q [slots, Hkv, d]")
def cached_attention_reference(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, spans: Spans, *, scale: float | None = None
) -> Tensor:
    _check_spans(q, k_cache, v_cache, spans, False)
    parts = [q[:0]]
    for row, row_end, slot, length in spans:
        k, v = k_cache[slot : slot + length], v_cache[slot : slot + length]
        parts.append(attention_reference(q[None, row:row_end], k[None], v[None], causal=True, scale=scale)[0])
    return torch.cat(parts)


def _wide(q: Any) -> bool:
    """float64, which no kernel has: the reference computes it."""
    return str(q.dtype).rpartition(".")[2] == "float64"


def _tensors(**tensors: Any) -> list[Tensor]:
    return [to_torch(value, name) for name, value in tensors.items()]


def _scale(q: Any, scale: float | None) -> float:
    return float(q.shape[-1] ** -0.5 if scale is None else scale)


def _check(q: Any, k: Any, v: Any, causal: bool) -> None:
    if len(q.shape) != 4 or len(k.shape) != 4 or tuple(k.shape) != tuple(v.shape):
        raise UnsupportedError(
            f"attention: q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}; allowed: q [B, L, Hq, d], k and v [B, S, Hkv, d]"
        )
    _check_dtypes("attention", q, k=k, v=v)
    (batch, rows, heads, dim), (k_batch, keys, kv_heads, k_dim) = q.shape, k.shape
    if batch != k_batch or dim != k_dim or dim < 1 or kv_heads < 1 or heads % kv_heads:
        raise UnsupportedError(
            f"attention: q {list(q.shape)}, k {list(k.shape)}; allowed: one B and d, and Hq a multiple of Hkv"
        )
    if (causal and rows > keys) or (keys < 1 and rows > 0):
        raise UnsupportedError(
            f"attention: {rows} queries over {keys} keys, causal={causal}; allowed: at least one key, and L <= S when causal"
        )


def _check_dtypes(op: str, q: Any, **others: Any) -> None:
    for name, value in others.items():
        if value.dtype != q.dtype:
            raise UnsupportedError(f"{op}: {name} is {value.dtype}; allowed: q's dtype, {q.dtype}")
    if str(q.dtype).rpartition(".")[2] not in ("float32", "float64", "bfloat16", "float16"):
        raise UnsupportedError(f"{op}: q is {q.dtype}; allowed: floating point")


def _check_spans(q: Any, k_cache: Any, v_cache: Any, spans: Spans, decode: bool) -> None:
    if len(q.shape) != 3 or len(k_cache.shape) != 3 or tuple(k_cache.shape) != tuple(v_cache.shape):
        raise UnsupportedError(
            f"cached_attention: q {list(q.shape)}, k_cache {list(k_cache.shape)}, v_cache {list(v_cache.shape)}; "
            "allowed: q [rows, Hq, d], caches [slots, Hkv, d]"
        )
    _check_dtypes("cached_attention", q, k_cache=k_cache, v_cache=v_cache)
    (rows, heads, dim), (slots, kv_heads, k_dim) = q.shape, k_cache.shape
    if dim != k_dim or dim < 1 or kv_heads < 1 or heads % kv_heads:
        raise UnsupportedError(
            f"cached_attention: q {list(q.shape)}, k_cache {list(k_cache.shape)}; allowed: one d, and Hq a multiple of Hkv"
        )
    expected = 0
    for index, (row, row_end, slot, length) in enumerate(spans):
        if row != expected or row_end <= row or row_end - row > length or slot < 0 or slot + length > slots:
            raise UnsupportedError(
                f"cached_attention: spans[{index}] = {(row, row_end, slot, length)} with {rows} rows and {slots} slots; allowed: "
                f"row_begin {expected}, row_end above it, length of at least the rows, slots inside the cache"
            )
        if decode and row_end - row > 1:
            raise UnsupportedError(
                f"cached_attention: spans[{index}] has {row_end - row} rows; allowed with decode=True: one row each"
            )
        expected = row_end
    if expected != rows:
        raise UnsupportedError(f"cached_attention: spans cover {expected} rows; allowed: all {rows} of q")


__all__ = ["attention", "attention_reference", "cached_attention", "cached_attention_reference"]
