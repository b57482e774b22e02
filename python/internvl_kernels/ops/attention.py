"""Scaled dot-product attention, over whole sequences and over a slot cache. Heads share keys in groups (GQA)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ._arguments import checked, checked_reference
from ._attention import Spans, check, check_extras, check_spans, page_slots
from ._backend import choose
from ._call import on_device, start
from ._tensor import as_kind, put, to_torch

if TYPE_CHECKING:
    from torch import Tensor


@checked
def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    sinks: Any = None,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``softmax(scale * q k^T) v`` per head: q ``[B, L, Hq, d]``, k and v ``[B, S, Hkv, d]``; returns ``[B, L, Hq, d]``.

    Hq is a multiple of Hkv; query head h reads key head ``h // (Hq / Hkv)``. k and v share a dtype, q's or another: they are
    widened as they are read (the reference: made q's). scale defaults to ``d ** -0.5``. causal: query i
    sees key j iff ``j <= i + S - L`` (the last query sees every key), so L must not exceed S. d is at most 256 on the cpu
    backend. window: with causal, query i sees only the last that many of its keys. sinks ``[Hq]``: a logit per head that joins
    the sum of the softmax, unscaled and without a value. out: memory for the result, apart from the inputs. Contract:
    csrc/kernels/attention/attention.h.
    """
    check(q, k, v, causal)
    check_extras("attention", q, causal, window, sinks, scale)
    backend = choose("attention", backend, q, k, v, sinks, out)
    if backend == "reference":
        return put(attention_reference(q, k, v, causal=causal, scale=scale, window=window, sinks=sinks), out)
    if backend == "cpu" and _wide(q):
        wide, extra = _tensors(q=q, k=k, v=v), _tensor(sinks)
        return put(as_kind(attention_reference(*wide, causal=causal, scale=scale, window=window, sinks=extra), q), out)
    call = start(backend, threads, q, k, v, sinks)
    rows, keys, values, logits = (call.take(x, name) for x, name in ((q, "q"), (k, "k"), (v, "v"), (sinks, "sinks")))
    y = call.result(rows.shape, out)
    call.run("attention", rows, keys, values, y, causal, _scale(rows, scale), window or 0, logits)
    return call.give(y, out)


@checked_reference("q float [B, L, Hq, d]", "k float [B, S, Hkv, d]", "v k [B, S, Hkv, d]", "sinks q [Hq]")
def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    check(q, k, v, causal)
    check_extras("attention", q, causal, window, sinks, scale)
    k, v = k.to(q.dtype), v.to(q.dtype)
    batch, rows, heads, dim = q.shape
    keys, kv_heads = k.shape[1:3]
    grouped = q.transpose(1, 2).reshape(batch, kv_heads, heads // kv_heads, rows, dim)
    scores = grouped @ k.permute(0, 2, 3, 1).unsqueeze(2) * (dim**-0.5 if scale is None else scale)
    if causal:
        hidden = torch.ones(rows, keys, dtype=torch.bool, device=q.device).triu(keys - rows + 1)
        if window is not None:
            hidden |= torch.ones_like(hidden).tril(keys - rows - window)
        scores = scores.masked_fill(hidden, float("-inf"))
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if sinks is not None:
        logit = sinks.to(wide.dtype).reshape(1, kv_heads, -1, 1, 1).expand(*wide.shape[:-1], 1)
        weights = torch.cat([wide, logit], -1).softmax(-1)[..., :-1]
    else:
        weights = wide.softmax(-1)
    mixed = weights.to(v.dtype) @ v.transpose(1, 2).unsqueeze(2)
    return mixed.reshape(batch, heads, rows, dim).transpose(1, 2)


@checked
def cached_attention(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    spans: Spans,
    *,
    scale: float | None = None,
    window: int | None = None,
    sinks: Any = None,
    pages: Any = None,
    page_size: int | None = None,
    decode: bool = False,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Causal attention of rows of several sequences over a slot cache: q ``[rows, Hq, d]``, caches ``[slots, Hkv, d]``.

    spans: ``(row_begin, row_end, slot_begin, length)`` for each sequence, in row order and covering every row: its rows are
    the last ones of a sequence whose ``length`` keys lie at ``[slot_begin, slot_begin + length)``. Returns ``[rows, Hq, d]``.
    pages: int64 ``[n]``; slot_begin is then an index into it, and key i lies at slot ``pages[slot_begin + i // page_size] *
    page_size + i % page_size``. The slots change no bit. window, sinks, dtypes and out as in ``attention``.

    decode=True is the decode phase: every span is one new row. On the cpu backend the bits of a row depend, within a phase,
    neither on the span that brings it nor on the rows beside it (csrc/kernels/attention/attention.h). On the cuda backend pages
    are of a power of 2 slots, 64 and more; those in GPU memory are not looked at: what lies outside the cache reads as zeros.
    """
    check_spans(q, k_cache, v_cache, spans, decode, pages, page_size)
    check_extras("cached_attention", q, True, window, sinks, scale)
    backend = choose("cached_attention", backend, q, k_cache, v_cache, sinks, pages, out)
    if backend == "reference" or (backend == "cpu" and _wide(q)):
        rows, keys, values = _tensors(q=q, k_cache=k_cache, v_cache=v_cache) if _wide(q) else (q, k_cache, v_cache)
        extra: dict[str, Any] = {"sinks": _tensor(sinks), "pages": _tensor(pages)} if _wide(q) else {}
        extra = {"sinks": sinks, "pages": pages, **extra, "scale": scale, "window": window, "page_size": page_size}
        return put(as_kind(cached_attention_reference(rows, keys, values, spans, **extra), q), out)
    if backend == "cuda" and pages is not None and not on_device(pages):
        for _, _, begin, length in spans:  # in host memory they can be looked at
            page_slots(to_torch(pages, "pages"), page_size or 1, begin, length, k_cache.shape[0])
    call = start(backend, threads, q, k_cache, v_cache, sinks, pages, out)
    given = {"q": q, "k_cache": k_cache, "v_cache": v_cache, "sinks": sinks, "pages": pages}
    rows, keys, values, logits, table = (call.take(x, name) for name, x in given.items())
    y = call.result(q.shape, out)
    extras = (_scale(q, scale), window or 0, logits, decode, table, page_size or 0)
    call.run("cached_attention", rows, keys, values, y, list(spans), *extras)
    return call.give(y, out)


@checked_reference(
    "q float [rows, Hq, d]", "k_cache float [slots, Hkv, d]", "v_cache k_cache [slots, Hkv, d]", "sinks q [Hq]"
)
def cached_attention_reference(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    spans: Spans,
    *,
    scale: float | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
    pages: Tensor | None = None,
    page_size: int | None = None,
) -> Tensor:
    check_spans(q, k_cache, v_cache, spans, False, pages, page_size)
    extra: dict[str, Any] = {"causal": True, "scale": scale, "window": window, "sinks": sinks}
    parts = [q[:0]]
    for row, row_end, slot, length in spans:
        place: Any = slice(slot, slot + length)
        if page_size is not None:
            place = page_slots(pages, page_size, slot, length, len(k_cache))
        parts.append(attention_reference(q[None, row:row_end], k_cache[place][None], v_cache[place][None], **extra)[0])
    return torch.cat(parts)


def _wide(q: Any) -> bool:
    """float64, which no kernel has: the reference computes it."""
    return str(q.dtype).rpartition(".")[2] == "float64"


def _tensors(**tensors: Any) -> list[Tensor]:
    return [to_torch(value, name) for name, value in tensors.items()]


def _tensor(sinks: Any) -> Tensor | None:
    return None if sinks is None else to_torch(sinks, "sinks")


def _scale(q: Any, scale: float | None) -> float:
    return float(q.shape[-1] ** -0.5 if scale is None else scale)


__all__ = ["attention", "attention_reference", "cached_attention", "cached_attention_reference"]
