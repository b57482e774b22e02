"""Mixed precision for training on the CPU: products of ``linear`` in bfloat16, everything else in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from torch import Tensor


class _Product(torch.autograd.Function):
    """``x @ w.T`` of float32 tensors, computed on values rounded to bfloat16; so are both gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        x16, w16 = x.flatten(0, -2).bfloat16(), w.bfloat16()
        ctx.save_for_backward(x16, w16)
        return (x16 @ w16.T).float().unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x16, w16 = ctx.saved_tensors
        g16 = g.flatten(0, -2).bfloat16()
        return (g16 @ w16).float().unflatten(0, g.shape[:-1]), (g16.T @ x16).float()


class Bfloat16Products(TorchFunctionMode):
    """Inside this context ``torch.nn.functional.linear`` of float32 tensors takes ``_Product``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.linear and not kwargs and args[0].dtype == torch.float32:
            x, w, *bias = args
            y = _Product.apply(x, w)
            return y if not bias or bias[0] is None else y + bias[0]
        return func(*args, **kwargs)


__all__ = ["Bfloat16Products"]
