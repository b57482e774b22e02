"""Pixels to tower input: normalise, patch projection, CLS and position embedding. Contract: csrc/kernels/patch_embed/patch_embed.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ._backend import choose
from ._tensor import as_kind, to_torch

if TYPE_CHECKING:
    from torch import Tensor


def patch_embed(
    tiles: Any,
    weight: Any,
    bias: Any,
    cls: Any,
    pos: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    patch_size: int = 14,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Tower input ``[T, 1 + N, D]``: row 0 is ``cls + pos[0]``, row 1 + n the projection of patch n (row-major) plus ``pos[1 + n]``.

    tiles uint8 ``[T, H, W, 3]``, normalised here as ``(x / 255 - mean) / std`` per channel in fp32, or float ``[T, 3, H, W]``
    already normalised; H and W multiples of ``patch_size``. weight ``[D, 3 * patch_size**2]`` (a Conv2d weight flattened as
    channel, row, column); bias, cls ``[D]``; pos ``[1 + N, D]`` for this grid. All but tiles have one dtype, the result's.
    """
    if choose("patch_embed", backend, tiles, weight, bias, cls, pos) == "reference":
        return patch_embed_reference(tiles, weight, bias, cls, pos, mean=mean, std=std, patch_size=patch_size)
    tensors = [to_torch(t) for t in (tiles, weight, bias, cls, pos)]
    return as_kind(patch_embed_reference(*tensors, mean=mean, std=std, patch_size=patch_size), weight)


def patch_embed_reference(
    tiles: Tensor,
    weight: Tensor,
    bias: Tensor,
    cls: Tensor,
    pos: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    patch_size: int = 14,
) -> Tensor:
    if tiles.dtype == torch.uint8:
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        channel_mean, channel_std = (torch.tensor(v, dtype=wide, device=tiles.device) for v in (mean, std))
        tiles = ((tiles.to(wide) / 255 - channel_mean) / channel_std).permute(0, 3, 1, 2)
    kernel = weight.reshape(-1, 3, patch_size, patch_size)
    patches = (
        torch.nn.functional.conv2d(tiles.to(weight.dtype), kernel, bias, stride=patch_size).flatten(2).transpose(1, 2)
    )
    return torch.cat([cls.expand(len(tiles), 1, -1), patches], dim=1) + pos


__all__ = ["patch_embed", "patch_embed_reference"]
