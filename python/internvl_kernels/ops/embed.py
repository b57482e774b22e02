"""Token embeddings with visual rows in their places. Contract: csrc/kernels/embed/embed.h."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose, is_torch
from ._call import on_device, start
from ._device import DeviceArray
from ._tensor import host

if TYPE_CHECKING:
    from torch import Tensor


@checked
def embed_tokens(
    input_ids: Any,
    table: Any,
    *,
    visual: Any = None,
    image_token_id: int | None = None,
    threads: int = 0,
    backend: str = "auto",
) -> Any:
    """Rows of ``table`` ``[V, H]`` at ``input_ids`` (int64 ``[...]``); returns ``[..., H]``.

    Positions holding ``image_token_id`` take the rows of ``visual`` ``[n, H]`` in order; their number must be n (0 without
    visual), and the id need not be a row of the table. Raises UnsupportedError naming both numbers, also for an id
    outside the table, before anything is written. The ids are read on the host: from a GPU they are fetched first.
    """
    if visual is not None and image_token_id is None:
        raise UnsupportedError("embed_tokens: visual without image_token_id; allowed: both or neither")
    backend = choose("embed_tokens", backend, table, input_ids, visual)
    if backend == "reference":
        return embed_tokens_reference(input_ids, table, visual=visual, image_token_id=image_token_id)
    call = start(backend, threads, table, visual)
    ids, rows = _on_host(input_ids), call.take(table, "table")
    if len(rows.shape) != 2:
        raise UnsupportedError(f"embed_tokens: table is {list(rows.shape)}; allowed: [V, H]")
    out = call.empty((math.prod(ids.shape), rows.shape[1]))
    call.run("embed", ids.reshape(-1), rows, call.take(visual, "visual"), out, image_token_id)
    return call.give(out).reshape(*ids.shape, rows.shape[1])


@checked_reference("input_ids int64 [...]", "table float [V, H]", "visual table [n, H]")
def embed_tokens_reference(
    input_ids: Tensor, table: Tensor, *, visual: Tensor | None = None, image_token_id: int | None = None
) -> Tensor:
    is_image = torch.zeros_like(input_ids, dtype=torch.bool) if image_token_id is None else input_ids == image_token_id
    text = input_ids[~is_image]
    outside = text[(text < 0) | (text >= len(table))]
    if len(outside):
        raise UnsupportedError(
            f"embed_tokens: input_ids holds {int(outside[0])}; allowed: 0 to {len(table) - 1}, the rows of table"
        )
    images, rows = int(is_image.sum()), 0 if visual is None else len(visual)
    if images != rows:
        raise UnsupportedError(
            f"embed_tokens: {images} image positions (id {image_token_id}) for {rows} visual rows; allowed: equal numbers"
        )
    found = torch.nn.functional.embedding(input_ids.masked_fill(is_image, 0), table)
    return found if visual is None else found.masked_scatter(is_image.unsqueeze(-1), visual)


def _on_host(ids: Any) -> Any:
    if not on_device(ids):
        return host(ids)
    return ids.cpu() if is_torch(ids) else DeviceArray(ids).numpy()


__all__ = ["embed_tokens", "embed_tokens_reference"]
