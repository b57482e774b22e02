"""Attention with RMSNorm of q and k on the way: csrc/kernels/attention/attention_norm.h. On CUDA; elsewhere the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._attention import check, check_scale
from ._backend import choose
from ._call import start
from ._tensor import dtype_name, put

if TYPE_CHECKING:
    from torch import Tensor


@checked
def normed_attention(
    q: Any,
    k: Any,
    v: Any,
    q_factor: Any,
    k_factor: Any,
    weight: Any,
    *,
    scale: float | None = None,
    out: Any = None,
    backend: str = "auto",
) -> Any:
    """``attention`` of q times ``q_factor`` times ``weight``, and k times ``k_factor``: RMSNorm over all heads of each row.

    q ``[B, L, Hq, d]``, k and v ``[B, S, Hkv, d]`` as ``attention`` takes them, not causal; float32 ``q_factor [B, L]`` and
    ``k_factor [B, S]`` of ``row_factors``, ``weight [Hq, d]``: q's norm weight times k's. Returns ``[B, L, Hq, d]``.
    """
    check(q, k, v, False)
    check_scale("normed_attention", scale)
    wanted = {"q_factor": q.shape[:2], "k_factor": k.shape[:2], "weight": q.shape[2:]}
    for (name, shape), given in zip(wanted.items(), (q_factor, k_factor, weight)):
        if tuple(given.shape) != tuple(shape) or dtype_name(given) != "float32":
            found = f"{dtype_name(given)} {list(given.shape)}"
            raise UnsupportedError(f"normed_attention: {name} is {found}; allowed: float32 {list(shape)}")
    scale = float(q.shape[-1] ** -0.5 if scale is None else scale)
    if choose("normed_attention", backend, q, k, v, q_factor, k_factor, weight, out) == "reference":
        return put(normed_attention_reference(q, k, v, q_factor, k_factor, weight, scale=scale), out)
    call = start("cuda", 0, q, k, v, q_factor, k_factor, weight, out)
    names = {"q": q, "k": k, "v": v, "q_factor": q_factor, "k_factor": k_factor, "weight": weight}
    taken = {name: call.take(x, name) for name, x in names.items()}
    rows, keys, values = (taken.pop(name) for name in "qkv")
    y = call.result(rows.shape, out)
    call.run("attention", rows, keys, values, y, False, scale, 0, None, **taken)
    return call.give(y, out)


@checked_reference(
    "q float [B, L, Hq, d]", "k q [B, S, Hkv, d]", "v q [B, S, Hkv, d]", "q_factor wide [B, L]", "k_factor wide [B, S]",
    "weight wide [Hq, d]",
)  # fmt: skip
def normed_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_factor: Tensor,
    k_factor: Tensor,
    weight: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    batch, rows, heads, dim = q.shape
    kv_heads = k.shape[2]
    normed = (q.to(wide) * (q_factor[..., None, None] * weight).to(wide)).to(q.dtype).to(wide)
    grouped = normed.transpose(1, 2).reshape(batch, kv_heads, heads // kv_heads, rows, dim)
    scores = grouped @ k.to(wide).permute(0, 2, 3, 1).unsqueeze(2)
    scores = scores * k_factor[:, None, None, None, :].to(wide) * (dim**-0.5 if scale is None else scale)
    mixed = scores.softmax(-1).to(v.dtype) @ v.transpose(1, 2).unsqueeze(2)
    return mixed.reshape(batch, heads, rows, dim).transpose(1, 2)


__all__ = ["normed_attention", "normed_attention_reference"]
