"""The decoder of every language model of the family, on flat rows of tokens.

A layer does not know where its rows come from. ``DenseAttention`` serves full sequences of one length (training, logits);
``CachedAttention`` serves any mix of prefill chunks and single decode rows over a KV cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .. import ops
from .._lazy import torch
from ..config import LanguageConfig
from ..costs import PAGE
from ..errors import UnsupportedError
from ._space import Space
from ._weights import group, layers
from .kv_cache import KVCache, Span
from .rotary import Rotary

if TYPE_CHECKING:
    from torch import Tensor


class Attention(Protocol):
    """Rotary embedding and attention of one layer: fused q|k|v rows in, head outputs ``[rows, q_size]`` out.

    seen: window and sinks of the layer, where it has them.
    """

    def __call__(
        self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor, heads: dict[str, Any], seen: dict[str, Any]
    ) -> Tensor: ...


class DenseAttention:
    """``batch`` causal sequences of ``length`` rows each, no cache; differentiable on the reference backend."""

    def __init__(self, batch: int, length: int, **run: Any) -> None:
        self._shape = (batch, length)
        self._run = run

    def __call__(
        self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor, heads: dict[str, Any], seen: dict[str, Any]
    ) -> Tensor:
        q, k, v = (t.reshape(*self._shape, *t.shape[1:]) for t in ops.qkv_rope(qkv, cos, sin, **heads, **self._run))
        mixed = ops.attention(q, k, v, causal=True, **seen, **self._run)
        return mixed.reshape(len(qkv), mixed.shape[2] * mixed.shape[3])


class CachedAttention:
    """Rows of several sequences: appends their keys and values, then attends over each sequence's own pages."""

    def __init__(
        self,
        cache: KVCache,
        spans: Sequence[Span],
        slots: Tensor,
        *,
        decode: bool = False,
        space: Space | None = None,
        **run: Any,
    ) -> None:
        self._cache, self._slots, self._run, self._space = cache, slots, run, space or Space()
        self._read: dict[str, Any] = {"spans": list(spans), "pages": cache.pages, "page_size": PAGE, "decode": decode}

    def __call__(
        self, layer: int, qkv: Tensor, cos: Tensor, sin: Tensor, heads: dict[str, Any], seen: dict[str, Any]
    ) -> Tensor:
        k, v = self._cache.layer(layer)
        rows, count, dim = len(qkv), heads["num_heads"], heads["head_dim"]
        out = self._space(rows * qkv.shape[1], rows, count, dim)
        q = ops.qkv_rope_append(qkv, cos, sin, k, v, self._slots, **heads, out=out, **self._run)
        place = self._space(0, rows, count, dim)
        mixed = ops.cached_attention(q, k, v, **self._read, **seen, out=place, **self._run)
        return mixed.reshape(rows, -1)


class LanguageModel:
    """The decoder on canonical weights ``language.*``."""

    def __init__(
        self,
        config: LanguageConfig,
        weights: Mapping[str, Tensor],
        *,
        backend: str = "auto",
        threads: int = 0,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        self.config = config
        self._run: dict[str, Any] = {"backend": backend, "threads": threads}
        self._kv_dtype = kv_dtype
        self._weights = group(weights, "language.")
        self._layers = layers(weights, "language", config.num_layers)
        self._embed: Any = self._weights["embed.weight"]
        self._head: Any = self._weights.get("head.weight", self._embed)
        self.rotary = Rotary(config, **self._run)

    @property
    def dtype(self) -> torch.dtype:
        return self._weights["norm.weight"].dtype

    @property
    def kv_dtype(self) -> torch.dtype:
        """Of keys and values in a cache."""
        return self._kv_dtype or self.dtype

    @property
    def device(self) -> torch.device:
        return self._weights["norm.weight"].device

    def embed(self, input_ids: Tensor, visual: Tensor | None = None, image_token_id: int | None = None) -> Tensor:
        """Token embeddings ``[..., H]``; positions holding ``image_token_id`` take the rows of ``visual`` in order."""
        table = self._embed
        if isinstance(table, ops.PackedWeight) or table.dtype != self.dtype:
            input_ids, table, image_token_id = self._chosen_rows(input_ids, image_token_id)
        return ops.embed_tokens(input_ids, table, visual=visual, image_token_id=image_token_id, **self._run)

    def _chosen_rows(self, input_ids: Tensor, image_token_id: int | None) -> tuple[Tensor, Tensor, int | None]:
        """The rows that ``input_ids`` name, in the dtype of the computation, and the ids that name them there."""
        known, ids = torch.unique(input_ids, return_inverse=True)
        image = known == image_token_id if image_token_id is not None else torch.zeros_like(known, dtype=torch.bool)
        outside = known[~image & ((known < 0) | (known >= len(self._embed)))]
        if len(outside):
            raise UnsupportedError(
                f"embed_tokens: input_ids holds {int(outside[0])}; allowed: 0 to {len(self._embed) - 1}, the rows of table"
            )
        wanted = known.masked_fill(image, 0)
        rows = self._embed.rows(wanted) if isinstance(self._embed, ops.PackedWeight) else self._embed[wanted]
        place = int(image.nonzero()[0]) if bool(image.any()) else len(known)  # an id that stands nowhere
        return ids, rows.to(self.dtype), None if image_token_id is None else place

    def forward(
        self, h: Tensor, positions: Tensor, lengths: Tensor, attend: Attention, *, decode: bool = False
    ) -> Tensor:
        """Hidden rows ``[rows, H]`` at ``positions [rows]``, of prompts of ``lengths [rows]`` positions (rotary.py), through every
        layer; returns the rows after the final norm.

        decode: the rows are single new tokens; products then stream the weights for few rows. h's memory may be reused.
        """
        return self.rotated(h, *self.rotary(positions, lengths), attend, decode=decode)

    def rotated(
        self,
        h: Tensor,
        cos: Tensor,
        sin: Tensor,
        attend: Attention,
        *,
        decode: bool = False,
        narrow: Space | None = None,
        wide: Space | None = None,
    ) -> Tensor:
        """``forward`` with its rotary table given. narrow, wide: memory for rows of H, and for those between products."""
        c, run, rows = self.config, self._run, len(h)
        product: dict[str, Any] = {**run, "decode": decode}
        heads = {"num_heads": c.num_heads, "num_kv_heads": c.num_kv_heads, "head_dim": c.head_dim, "eps": c.norm_eps}
        norm: dict[str, Any] = {"eps": c.norm_eps, **({"once": True} if c.norm_once else {}), **run}
        beside, within = narrow or Space(), wide or Space()
        y = ops.rms_norm(h, self._layers[0]["norm1.weight"], out=beside(0, *h.shape), **norm)
        for i, w in enumerate(self._layers):
            # One name for rows that follow each other: none is held longer than it is read.
            y = ops.linear(
                y, w["qkv.weight"], w.get("qkv.bias"), out=within(0, rows, c.q_size + 2 * c.kv_size), **product
            )
            norms = {"q_weight": w.get("q_norm.weight"), "k_weight": w.get("k_norm.weight")}
            y = attend(i, y, cos, sin, {**heads, **norms}, self._seen(i, w))
            y = ops.linear(y, w["o.weight"], w.get("o.bias"), out=beside(0, *h.shape), **product)
            h, y = ops.add_norm(h, y, w["norm2.weight"], rms=True, inplace=True, out=beside(0, *h.shape), **norm)
            y = self._experts(y, w, product) if c.is_sparse(i) else self._mlp(y, w, product, beside, within)
            following = self._layers[i + 1]["norm1.weight"] if i + 1 < c.num_layers else self._weights["norm.weight"]
            h, y = ops.add_norm(h, y, following, rms=True, inplace=True, out=beside(0, *h.shape), **norm)
        return y

    def _seen(self, layer: int, w: Mapping[str, Tensor]) -> dict[str, Any]:
        c = self.config
        window = {"window": c.window} if layer in c.window_layers else {}
        return window | ({"sinks": w["sinks"]} if c.sinks else {})

    def head(self, rows: Tensor, *, decode: bool = True) -> Tensor:
        """Logits ``[rows, vocab]`` of normed rows; decode: of those that choose a token, one per sequence."""
        return ops.linear(rows, self._head, decode=decode, **self._run)

    @property
    def recordable(self) -> bool:
        """Whether a step is made of kernels of the cpu backend alone: packed weights, no experts."""
        c = self.config
        dense = not any(c.is_sparse(i) for i in range(c.num_layers))
        return dense and isinstance(self._layers[0]["qkv.weight"], ops.PackedWeight)

    @property
    def backend(self) -> str:
        return str(self._run["backend"])

    @property
    def vocab_rows(self) -> int:
        return len(self._head)

    def check_context(self, positions: int, tokens: int, *, more: bool = False) -> None:
        """Raises UnsupportedError where a sequence does not fit the context; more: or leaves no room for an answer."""
        context = self.config.context
        if positions > context - more:
            at_most = f"fewer than {context}" if more else f"at most {context}"
            taken = f"{tokens} tokens" if positions == tokens else f"{tokens} tokens at {positions} positions"
            raise UnsupportedError(f"input_ids: {taken}; allowed: {at_most}, the model's context")

    def logits(self, input_ids: Tensor, visual: Tensor | None = None, image_token_id: int | None = None) -> Tensor:
        """``[B, L]`` ids -> ``[B, L, vocab]`` without a cache, all rows at once; differentiable on the reference backend."""
        batch, length = input_ids.shape
        self.check_context(length, length)
        h = self.embed(input_ids, visual, image_token_id).reshape(batch * length, self.config.hidden_size)
        positions = torch.arange(length, device=h.device).repeat(batch)
        y = self.forward(h, positions, torch.full_like(positions, length), DenseAttention(batch, length, **self._run))
        return self.head(y, decode=False).reshape(batch, length, len(self._head))

    def cached(
        self,
        cache: KVCache,
        spans: Sequence[Span],
        slots: Tensor,
        *,
        decode: bool = False,
        space: Space | None = None,
    ) -> CachedAttention:
        return CachedAttention(cache, spans, slots, decode=decode, space=space, **self._run)

    def _mlp(
        self, y: Tensor, w: Mapping[str, Tensor], product: Mapping[str, Any], beside: Space, within: Space
    ) -> Tensor:
        out = within(0, len(y), self.config.intermediate_size)
        inner = ops.linear_swiglu(y, w["gate_up.weight"], out=out, **product)
        return ops.linear(inner, w["down.weight"], out=beside(0, *y.shape), **product)

    def _experts(self, y: Tensor, w: Mapping[str, Tensor], product: Mapping[str, Any]) -> Tensor:
        c = self.config
        scores = ops.linear(y, w["router.weight"], w.get("router.bias"), **product)
        weights, experts = ops.moe_route(scores, c.experts_per_token, normalize=c.norm_topk_prob, **self._run)
        form: dict[str, Any] = {}
        if c.expert_bias:
            form = {
                "gate_up_bias": w["experts.gate_up_bias"],
                "down_bias": w["experts.down_bias"],
                "limit": c.expert_limit,
            }
        return ops.moe_experts(y, w["experts.gate_up"], w["experts.down"], weights, experts, **form, **product)
