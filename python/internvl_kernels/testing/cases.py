"""Benchmark cases as data: real shapes of the family, what runs against what, and what must move or be computed.

``bytes`` counts each input read once and each output written once, as the contracts state it; ``flops`` counts the multiply
and add of a product as two. Composition means what a PyTorch user would write for the same result, out of place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import ops, reference
from .._lazy import torch
from .hostile import normal

Call = Callable[[], Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """One op at one shape. ``build(dtype, threads)`` makes the inputs and returns (ours, the PyTorch composition)."""

    op: str
    shape: str
    build: Callable[[str, int], tuple[Call, Call]]
    bytes: Callable[[int], int]  # of the dtype's size
    flops: int = 0


def _norm(rows: int, cols: int, kind: str) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        x, branch = normal(rows, cols, dtype=dtype), normal(rows, cols, dtype=dtype, seed=1)
        w, b = normal(cols, dtype=dtype), normal(cols, dtype=dtype, seed=1)
        run: dict[str, Any] = {"threads": threads, "backend": "cpu"}
        if kind == "layer_norm":
            return lambda: ops.layer_norm(x, w, b, **run), lambda: reference.layer_norm(x, w, b)
        if kind == "rms_norm":
            return lambda: ops.rms_norm(x, w, **run), lambda: torch.nn.functional.rms_norm(x, (cols,), w, 1e-6)
        if kind == "add_layer_norm":
            return (
                lambda: ops.add_norm(x, branch, w, b, scale=b, **run),
                lambda: reference.add_norm(x, branch, w, b, scale=b),
            )
        return lambda: ops.add_norm(x, branch, w, rms=True, **run), lambda: _add_rms(x, branch, w)

    streams = 2 if kind in ("layer_norm", "rms_norm") else 4
    return Case(kind, f"rows={rows},cols={cols}", build, lambda s: streams * rows * cols * s, 8 * rows * cols)


def _add_rms(x: Any, branch: Any, weight: Any) -> Any:
    h = x + branch
    return h, torch.nn.functional.rms_norm(h, (h.shape[-1],), weight, 1e-6)


def _vision_qk_norm(rows: int, width: int) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        qkv, w = normal(rows, 3 * width, dtype=dtype), normal(width, dtype=dtype)

        def composed() -> Any:
            q, k, v = qkv.chunk(3, -1)
            form = torch.nn.functional.rms_norm
            return form(q, (width,), w, 1e-6), form(k, (width,), w, 1e-6), v

        return lambda: ops.vision_qk_norm(qkv, w, w, inplace=True, threads=threads, backend="cpu"), composed

    return Case("vision_qk_norm", f"rows={rows},cols={width}", build, lambda s: 4 * rows * width * s, 10 * rows * width)


def _patch_embed(tiles: int, side: int, width: int) -> Case:
    patches = (side // 14) ** 2

    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (tiles, side, side, 3), dtype=torch.uint8, generator=generator)
        weights = normal(width, 588, dtype=dtype), normal(width, dtype=dtype), normal(width, dtype=dtype)
        pos = normal(1 + patches, width, dtype=dtype)
        options: dict[str, Any] = {"mean": MEAN, "std": STD}
        return (
            lambda: ops.patch_embed(pixels, *weights, pos, threads=threads, backend="cpu", **options),
            lambda: reference.patch_embed(pixels, *weights, pos, **options),
        )

    moved = tiles * side * side * 3
    return Case(
        "patch_embed",
        f"tiles={tiles},side={side},cols={width}",
        build,
        lambda s: moved + (tiles + 1) * (1 + patches) * width * s + 588 * width * s,
        2 * tiles * patches * 588 * width,
    )


def _pixel_shuffle(tiles: int, side: int, width: int) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        x = normal(tiles, 1 + side * side, width, dtype=dtype)
        w, b = normal(4 * width, dtype=dtype), normal(4 * width, dtype=dtype, seed=1)
        return (
            lambda: ops.pixel_shuffle(x, weight=w, bias=b, threads=threads, backend="cpu"),
            lambda: reference.pixel_shuffle(x, weight=w, bias=b),
        )

    count = tiles * side * side * width
    return Case("pixel_shuffle", f"tiles={tiles},grid={side},cols={width}", build, lambda s: 2 * count * s, 8 * count)


def _embed(length: int, visual_rows: int, width: int) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        table, visual = normal(20_000, width, dtype=dtype), normal(visual_rows, width, dtype=dtype, seed=1)
        ids = torch.randint(0, 19_999, (length,), generator=torch.Generator().manual_seed(0))
        ids[5 : 5 + visual_rows] = 19_999

        def composed() -> Any:
            rows = torch.nn.functional.embedding(ids, table)
            return rows.masked_scatter((ids == 19_999).unsqueeze(-1), visual)

        run: dict[str, Any] = {"visual": visual, "image_token_id": 19_999, "threads": threads, "backend": "cpu"}
        return lambda: ops.embed_tokens(ids, table, **run), composed

    return Case(
        "embed_tokens",
        f"tokens={length},visual={visual_rows},cols={width}",
        build,
        lambda s: 2 * length * width * s + 8 * length,
    )


def _swiglu(rows: int, cols: int) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        x = normal(rows, 2 * cols, dtype=dtype)
        return lambda: ops.swiglu(x, threads=threads, backend="cpu"), lambda: reference.swiglu(x)

    return Case("swiglu", f"rows={rows},cols={cols}", build, lambda s: 3 * rows * cols * s, 6 * rows * cols)


def _linear_gelu(rows: int, inner: int, cols: int) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        x, w, b = normal(rows, inner, dtype=dtype), normal(cols, inner, dtype=dtype), normal(cols, dtype=dtype)
        return (
            lambda: ops.linear_gelu(x, w, b, threads=threads, backend="cpu"),
            lambda: reference.linear_gelu(x, w, b),
        )

    return Case(
        "linear_gelu",
        f"rows={rows},inner={inner},cols={cols}",
        build,
        lambda s: (rows * inner + cols * inner + rows * cols) * s,
        2 * rows * inner * cols,
    )


def _decode_attention(length: int, heads: int, kv_heads: int, dim: int, batch: int) -> Case:
    def build(dtype: str, threads: int) -> tuple[Call, Call]:
        q = normal(batch, heads, dim, dtype=dtype)
        k, v = (normal(batch * length, kv_heads, dim, dtype=dtype, seed=s) for s in (1, 2))
        spans = [(i, i + 1, i * length, length) for i in range(batch)]

        def composed() -> Any:
            keys, values = (t.view(batch, length, kv_heads, dim).transpose(1, 2) for t in (k, v))
            attend = torch.nn.functional.scaled_dot_product_attention
            return attend(q.unsqueeze(2), keys, values, enable_gqa=True)

        return lambda: ops.cached_attention(q, k, v, spans, decode=True, threads=threads, backend="cpu"), composed

    return Case(
        "cached_attention",
        f"batch={batch},keys={length},heads={heads}/{kv_heads},dim={dim}",
        build,
        lambda s: 2 * batch * (length * kv_heads + heads) * dim * s,
        4 * batch * length * heads * dim,
    )


# InternViT-300M (1024 wide) and 6B (3200), one tile of 1025 rows; Qwen2-0.5B and 7B widths for the language side.
CASES: tuple[Case, ...] = (
    _norm(1025, 1024, "layer_norm"),
    _norm(4100, 1024, "add_layer_norm"),
    _norm(1025, 3200, "rms_norm"),
    _norm(1025, 3200, "add_rms_norm"),
    _norm(8, 896, "add_rms_norm"),
    _vision_qk_norm(1025, 3200),
    _patch_embed(4, 448, 1024),
    _pixel_shuffle(4, 32, 1024),
    _embed(3500, 3328, 896),
    _swiglu(2048, 4864),
    _swiglu(4, 18944),
    _linear_gelu(1025, 1024, 4096),
    _decode_attention(2000, 14, 2, 64, 4),
)

__all__ = ["CASES", "Case"]
