"""What attention's ops refuse before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._kinds import MOST

Spans = Sequence[tuple[int, int, int, int]]


def check(q: Any, k: Any, v: Any, causal: bool) -> None:
    if len(q.shape) != 4 or len(k.shape) != 4 or tuple(k.shape) != tuple(v.shape):
        raise UnsupportedError(
            f"attention: q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}; allowed: q [B, L, Hq, d], k and v [B, S, Hkv, d]"
        )
    _check_kv_dtypes("attention", q, k=k, v=v)
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


def _check_kv_dtypes(op: str, q: Any, **others: Any) -> None:
    """k and v of one floating dtype, q's or another; float64 goes with itself alone."""
    _check_dtypes(op, q)
    (k_name, k), (v_name, v) = others.items()
    if k.dtype != q.dtype:
        kind, wide = (str(x.dtype).rpartition(".")[2] for x in (k, q))
        if wide == "float64" or kind not in ("float32", "bfloat16", "float16"):
            allowed = "float64" if wide == "float64" else "float32, bfloat16 or float16"
            raise UnsupportedError(f"{op}: {k_name} is {k.dtype}; allowed: {allowed}, with q {q.dtype}")
    if v.dtype != k.dtype:
        raise UnsupportedError(f"{op}: {k_name} is {k.dtype}, {v_name} is {v.dtype}; allowed: one dtype for both")


def check_extras(op: str, q: Any, causal: bool, window: int | None, sinks: Any, scale: float | None) -> None:
    check_scale(op, scale)
    if window is not None and (window < 1 or not causal):
        raise UnsupportedError(f"{op}: window is {window}, causal={causal}; allowed: 1 or more, with causal, or None")
    if sinks is not None:
        _check_dtypes(op, q, sinks=sinks)
        if list(sinks.shape) != [q.shape[-2]]:
            raise UnsupportedError(f"{op}: sinks is {list(sinks.shape)}; allowed: [Hq], {q.shape[-2]} of them")


def check_scale(op: str, scale: float | None) -> None:
    if scale is not None and not abs(scale) <= MOST:
        raise UnsupportedError(f"{op}: scale is {scale}; allowed: a number that float32 holds, or None")


def check_spans(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    spans: Spans,
    decode: bool,
    pages: Any = None,
    page_size: int | None = None,
) -> None:
    if len(q.shape) != 3 or len(k_cache.shape) != 3 or tuple(k_cache.shape) != tuple(v_cache.shape):
        raise UnsupportedError(
            f"cached_attention: q {list(q.shape)}, k_cache {list(k_cache.shape)}, v_cache {list(v_cache.shape)}; "
            "allowed: q [rows, Hq, d], caches [slots, Hkv, d]"
        )
    _check_kv_dtypes("cached_attention", q, k_cache=k_cache, v_cache=v_cache)
    (rows, heads, dim), (slots, kv_heads, k_dim) = q.shape, k_cache.shape
    if dim != k_dim or dim < 1 or kv_heads < 1 or heads % kv_heads:
        raise UnsupportedError(
            f"cached_attention: q {list(q.shape)}, k_cache {list(k_cache.shape)}; allowed: one d, and Hq a multiple of Hkv"
        )
    if (pages is None) != (page_size is None) or (page_size is not None and page_size < 1):
        raise UnsupportedError(
            f"cached_attention: page_size is {page_size}; allowed: 1 and more with pages, None without"
        )
    if pages is not None and (len(pages.shape) != 1 or str(pages.dtype).rpartition(".")[2] != "int64"):
        raise UnsupportedError(f"cached_attention: pages is {pages.dtype} {list(pages.shape)}; allowed: int64 [n]")
    size = page_size or 1
    room, unit = (slots, "slots") if pages is None else (len(pages), "pages")
    expected = 0
    for index, (row, row_end, slot, length) in enumerate(spans):
        taken = -(-length // size)
        if row != expected or row_end <= row or row_end - row > length or slot < 0 or slot + taken > room:
            raise UnsupportedError(
                f"cached_attention: spans[{index}] = {(row, row_end, slot, length)} with {rows} rows and {room} {unit}; allowed: "
                f"row_begin {expected}, row_end above it, length of at least the rows, {unit} inside the cache"
            )
        if decode and row_end - row > 1:
            raise UnsupportedError(
                f"cached_attention: spans[{index}] has {row_end - row} rows; allowed with decode=True: one row each"
            )
        expected = row_end
    if expected != rows:
        raise UnsupportedError(f"cached_attention: spans cover {expected} rows; allowed: all {rows} of q")


def page_slots(pages: Any, page_size: int, begin: int, length: int, slots: int) -> Any:
    """The slots of a span's keys, for the reference: ``pages`` a torch tensor."""
    mine = pages[begin : begin + -(-length // page_size)]
    for offset, page in enumerate(mine.tolist()):
        if not 0 <= page < slots // page_size:
            raise UnsupportedError(
                f"cached_attention: pages[{begin + offset}] is {page}; allowed: 0 to {slots // page_size - 1}, whole pages of "
                f"{page_size} slots"
            )
    steps = torch.arange(page_size, device=mine.device)
    return (mine[:, None] * page_size + steps).reshape(-1)[:length]
