"""Token embeddings with visual rows in their places. Contract: csrc/kernels/embed/embed.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._backend import choose
from ._tensor import as_kind, to_torch

if TYPE_CHECKING:
    from torch import Tensor


def embed_tokens(
    input_ids: Any,
    table: Any,
    *,
    visual: Any = None,
    image_token_id: int | None = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Rows of ``table`` ``[V, H]`` at ``input_ids`` (int64 ``[...]``); positions of ``image_token_id`` take ``visual`` ``[n, H]`` in order.

    Returns ``[..., H]``. With ``image_token_id`` given, the number of its positions must equal n (0 without visual); it need
    not be a row of the table. Raises UnsupportedError naming both numbers, also for an id outside the table.
    """
    if visual is not None and image_token_id is None:
        raise UnsupportedError("embed_tokens: visual without image_token_id; allowed: both or neither")
    if choose("embed_tokens", backend, table, visual) == "reference":
        return embed_tokens_reference(input_ids, table, visual=visual, image_token_id=image_token_id)
    ids, rows = to_torch(input_ids), to_torch(table)
    return as_kind(embed_tokens_reference(ids, rows, visual=to_torch(visual), image_token_id=image_token_id), table)


def embed_tokens_reference(
    input_ids: Tensor, table: Tensor, *, visual: Tensor | None = None, image_token_id: int | None = None
) -> Tensor:
    is_image = torch.zeros_like(input_ids, dtype=torch.bool) if image_token_id is None else input_ids == image_token_id
    text = input_ids[~is_image]
    outside = text[(text < 0) | (text >= len(table))]
    if len(outside):
        raise UnsupportedError(
            f"embed_tokens: id {int(outside[0])}; allowed: 0 to {len(table) - 1} (table {list(table.shape)})"
        )
    images, rows = int(is_image.sum()), 0 if visual is None else len(visual)
    if images != rows:
        raise UnsupportedError(
            f"embed_tokens: {images} image positions (id {image_token_id}) for {rows} visual rows; allowed: equal"
        )
    found = (
        table[input_ids.masked_fill(is_image, 0)] if len(table) else table.new_empty(*input_ids.shape, table.shape[1])
    )
    return found if visual is None else found.masked_scatter(is_image.unsqueeze(-1), visual.to(table.dtype))


__all__ = ["embed_tokens", "embed_tokens_reference"]
