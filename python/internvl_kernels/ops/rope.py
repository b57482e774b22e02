"""Rotary position embedding on fused qkv rows, with per-head QK-norm and the KV append. Contract: csrc/kernels/rope/rope.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose
from ._call import on_device, start
from ._rope import check_heads
from ._tensor import put, to_torch
from .norm import rms_norm_reference

if TYPE_CHECKING:
    from torch import Tensor


@checked
def qkv_rope(
    qkv: Any,
    cos: Any,
    sin: Any,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    q_weight: Any = None,
    k_weight: Any = None,
    eps: float = 1e-6,
    threads: int = 0,
    backend: str = "auto",
) -> tuple[Any, Any, Any]:
    """Split fused qkv rows into heads, RMS-normalise q and k per head, rotate them: ``(q, k, v)``.

    qkv ``[rows, (num_heads + 2 * num_kv_heads) * head_dim]`` float32 | bfloat16 | float16, q heads first, then k, then v.
    cos, sin float32 ``[rows, head_dim / 2]`` (``rope_table``); the rotation pairs element i with i + head_dim / 2 (half-split,
    NeoX). q_weight, k_weight ``[head_dim]`` of qkv's dtype, both or neither: with them each head is normalised first as
    ``rms_norm`` does. The rotation is computed in fp32 from the rounded norm and rounded once.
    Returns contiguous q ``[rows, num_heads, head_dim]``, k and v ``[rows, num_kv_heads, head_dim]``.
    """
    heads = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
    check_heads("qkv_rope", qkv, **heads)
    backend = choose("qkv_rope", backend, qkv, cos, sin, q_weight, k_weight)
    if backend == "reference":
        return qkv_rope_reference(qkv, cos, sin, **heads, q_weight=q_weight, k_weight=k_weight, eps=eps)
    call = start(backend, threads, qkv, cos, sin, q_weight, k_weight)
    rows = call.take(qkv, "qkv")
    q, k, v = (call.empty((qkv.shape[0], n, head_dim)) for n in (num_heads, num_kv_heads, num_kv_heads))
    run = _taken(call, cos=cos, sin=sin, q_weight=q_weight, k_weight=k_weight)
    call.run("qkv_rope", rows, *run, q, k, v, None, eps)
    return call.give(q), call.give(k), call.give(v)


@checked_reference("qkv float [rows, width]", "cos,sin wide [rows, head_dim/2]", "q_weight,k_weight qkv [head_dim]")
def qkv_rope_reference(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = _heads(qkv, num_heads, num_kv_heads, head_dim, q_weight, k_weight, eps)
    return _rotate(q, cos, sin, q.dtype), _rotate(k, cos, sin, k.dtype), v.contiguous()


@checked
def qkv_rope_append(
    qkv: Any,
    cos: Any,
    sin: Any,
    k_cache: Any,
    v_cache: Any,
    slots: Any,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    q_weight: Any = None,
    k_weight: Any = None,
    eps: float = 1e-6,
    out: Any = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """``qkv_rope`` whose k and v go straight into the cache, in one pass: returns q ``[rows, num_heads, head_dim]``.

    k_cache, v_cache ``[num_slots, num_kv_heads, head_dim]``, of one dtype, qkv's or another, written in place at int64 slots
    ``[rows]``, rounded once. A slot outside the cache or named twice raises UnsupportedError before anything is written; slots in
    GPU memory are not looked at: one outside writes nothing. out: memory for q.
    """
    heads: dict[str, Any] = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
    check_heads("qkv_rope_append", qkv, **heads)
    norm: dict[str, Any] = {"q_weight": q_weight, "k_weight": k_weight, "eps": eps}
    others = (cos, sin, k_cache, v_cache, slots, q_weight, k_weight, out)
    backend = choose("qkv_rope_append", backend, qkv, *others)
    if backend == "reference":
        return put(qkv_rope_append_reference(qkv, cos, sin, k_cache, v_cache, slots, **heads, **norm), out)
    if backend == "cuda" and not on_device(slots):
        _check_slots(to_torch(slots, "slots"), k_cache.shape[0])
    call = start(backend, threads, qkv, *others)
    rows = call.take(qkv, "qkv")
    q = call.result((qkv.shape[0], num_heads, head_dim), out)
    run = _taken(call, cos=cos, sin=sin, q_weight=q_weight, k_weight=k_weight)
    k, v, places = _taken(call, k_cache=k_cache, v_cache=v_cache, slots=slots)
    call.run("qkv_rope", rows, *run, q, k, v, places, eps)
    call.give(k, k_cache), call.give(v, v_cache)
    return call.give(q, out)


@checked_reference(
    "qkv float [rows, width]",
    "cos,sin wide [rows, head_dim/2]",
    "q_weight,k_weight qkv [head_dim]",
    "k_cache float [num_slots, num_kv_heads, head_dim]",
    "v_cache k_cache [num_slots, num_kv_heads, head_dim]",
    "slots int64 [rows]",
)
def qkv_rope_append_reference(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if cache.numel() and any(step == 0 and size > 1 for step, size in zip(cache.stride(), cache.shape)):
            raise UnsupportedError(
                f"qkv_rope_append: {name} is expanded, {list(cache.shape)}; allowed: memory of its own"
            )
    _check_slots(slots, k_cache.shape[0])
    q, k, v = _heads(qkv, num_heads, num_kv_heads, head_dim, q_weight, k_weight, eps)
    k_cache[slots], v_cache[slots] = _rotate(k, cos, sin, k_cache.dtype), v.to(v_cache.dtype)
    return _rotate(q, cos, sin, q.dtype)


def _taken(call: Any, **tensors: Any) -> list[Any]:
    return [call.take(value, name) for name, value in tensors.items()]


def _check_slots(slots: Tensor, count: int) -> None:
    low, high = (int(slots.min()), int(slots.max())) if slots.numel() else (0, -1)
    if low < 0 or high >= count or slots.unique().numel() != slots.numel():
        raise UnsupportedError(
            f"qkv_rope_append: {slots.numel()} slots in [{low}, {high}]; allowed: distinct, 0 to {count - 1}"
        )


def _heads(qkv: Tensor, num_heads: int, num_kv_heads: int, head_dim: int, *norm: Any) -> Any:
    """q, k and v of fused rows, normalised where norm = (q_weight, k_weight, eps) has weights."""
    check_heads("qkv_rope", qkv, num_heads, num_kv_heads, head_dim)
    q_weight, k_weight, eps = norm
    if (q_weight is None) != (k_weight is None):
        raise UnsupportedError("qkv_rope: one of q_weight and k_weight is absent; allowed: both or neither")
    q, k, v = qkv.unflatten(-1, (-1, head_dim)).split([num_heads, num_kv_heads, num_kv_heads], dim=-2)
    if q_weight is not None:
        q, k = rms_norm_reference(q, q_weight, eps=eps), rms_norm_reference(k, k_weight, eps=eps)
    return q, k, v


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    first, second = (x if x.dtype == torch.float64 else x.float()).chunk(2, dim=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(dtype)


__all__ = [
    "qkv_rope",
    "qkv_rope_append",
    "qkv_rope_append_reference",
    "qkv_rope_reference",
]
