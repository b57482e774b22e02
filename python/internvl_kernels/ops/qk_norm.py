"""RMSNorm of q and k across all heads, as InternViT-6B has it. Contract: csrc/kernels/norm/norm.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose
from ._call import start
from .norm import rms_norm_reference

if TYPE_CHECKING:
    from torch import Tensor


@checked
def vision_qk_norm(
    qkv: Any,
    q_weight: Any,
    k_weight: Any,
    *,
    eps: float = 1e-6,
    inplace: bool = False,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """RMSNorm of q and of k inside fused rows ``[..., 3D]`` = q | k | v, each over its full D columns, all heads together.

    q_weight, k_weight ``[D]``. Returns ``[..., 3D]`` with v unchanged; ``inplace`` lets the op reuse qkv's memory.
    """
    width = qkv.shape[-1] // 3
    if qkv.shape[-1] % 3 or width == 0:
        raise UnsupportedError(f"vision_qk_norm: qkv is {list(qkv.shape)}; allowed: a last dimension of 3 D")
    backend = choose("vision_qk_norm", backend, qkv, q_weight, k_weight)
    if backend == "reference":
        return vision_qk_norm_reference(qkv, q_weight, k_weight, eps=eps)
    call = start(backend, threads, qkv, q_weight, k_weight)
    rows = call.take(qkv, "qkv")
    out = rows if inplace else call.empty(rows.shape)
    weights = call.take(q_weight, "q_weight"), call.take(k_weight, "k_weight")
    if backend == "cuda":  # q and k in one launch
        both, pair = (call.part(t, slice(0, 2 * width)) for t in (rows, out))
        call.run("norm_pair", both, *weights, pair, eps, True)
    else:
        for i, weight in enumerate(weights):
            part, target = (call.part(t, slice(i * width, (i + 1) * width)) for t in (rows, out))
            call.run("norm", part, None, None, weight, None, None, target, eps, True)
    if not inplace:
        values = slice(2 * width, 3 * width)
        call.copy(call.part(out, values), call.part(rows, values))
    return call.give(out, qkv if inplace else None)


@checked_reference("q_weight float [D]", "k_weight q_weight [D]", "qkv q_weight [..., 3*D]")
def vision_qk_norm_reference(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, *, eps: float = 1e-6) -> Tensor:
    q, k, v = qkv.chunk(3, dim=-1)
    return torch.cat([rms_norm_reference(q, q_weight, eps=eps), rms_norm_reference(k, k_weight, eps=eps), v], dim=-1)


__all__ = ["vision_qk_norm", "vision_qk_norm_reference"]
