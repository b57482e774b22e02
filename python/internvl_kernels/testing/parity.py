"""Small, awkward problems for every op: what ``verify`` runs on the machine at hand.

Sizes stand below, at and above one vector, odd, and across a work item's edge, so that a loop that ends one element early or
late shows. ``tests/kernels`` go further; this list is for a few seconds on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .._lazy import torch
from .hostile import DTYPES, massive_channels, normal

Arguments = tuple[list[Any], dict[str, Any]]


@dataclass(frozen=True)
class Problem:
    """One op on one shape. ``make(dtype)`` gives positional and keyword arguments, always the same."""

    family: str  # folder in csrc/kernels, or the op's file where torch computes it
    op: str
    label: str
    make: Callable[[str], Arguments]
    dtypes: tuple[str, ...] = DTYPES
    changed: tuple[int, ...] = ()  # positions of arguments that the op writes into: results too
    run: dict[str, Any] = field(default_factory=dict)  # keywords of the kernel alone, such as inplace


def problems() -> Iterator[Problem]:
    """Every problem, family by family."""
    for family in (_norm, _gemm, _attention, _pixel_shuffle, _embed, _rope, _moe, _sample, _patch_embed, _image):
        yield from family()


def _norm() -> Iterator[Problem]:
    for columns in (1, 15, 47, 129):
        yield from _norm_of(columns)
    yield Problem(
        "norm", "vision_qk_norm", "3 x 35 columns",
        lambda d: ([normal(2, 3, 105, dtype=d), normal(35, dtype=d, seed=1), normal(35, dtype=d, seed=2)], {}),
    )  # fmt: skip


def _norm_of(columns: int) -> Iterator[Problem]:
    def hard(dtype: str) -> Any:
        return massive_channels(2, 3, columns, dtype=dtype)

    def two(dtype: str) -> list[Any]:
        return [normal(2, 3, columns, dtype=dtype), normal(2, 3, columns, dtype=dtype, seed=2)]

    def row(dtype: str, seed: int) -> Any:
        return normal(columns, dtype=dtype, seed=seed)

    text = f"{columns} columns"
    yield Problem("norm", "rms_norm", text, lambda d: ([hard(d), row(d, 1)], {"eps": 1e-5}))
    yield Problem("norm", "rms_norm", f"{text}, one rounding", lambda d: ([hard(d), row(d, 1)], {"once": True}))
    yield Problem("norm", "layer_norm", text, lambda d: ([hard(d), row(d, 1), row(d, 3)], {}))
    yield Problem("norm", "layer_norm", f"{text}, no bias", lambda d: ([hard(d), row(d, 1)], {}))
    scaled = f"{text}, rms, scale"
    yield Problem("norm", "add_norm", scaled, lambda d: ([*two(d), row(d, 4)], {"scale": row(d, 5), "rms": True}))
    yield Problem("norm", "add_norm", f"{text}, layer", lambda d: ([*two(d), row(d, 4), row(d, 6)], {}))
    yield Problem("norm", "add_scaled", text, lambda d: ([*two(d), row(d, 5)], {}))


def _gemm() -> Iterator[Problem]:
    for m, n, k in ((1, 5, 47), (3, 33, 64), (6, 20, 33), (2, 1, 16)):
        for bias in (True, False):

            def rows(dtype: str, m: int = m, n: int = n, k: int = k, bias: bool = bias) -> Arguments:
                shift = normal(n, dtype=dtype, seed=3) if bias else None
                x, weight = normal(m, k, dtype=dtype), normal(n, k, dtype=dtype, seed=2)
                if n == 1:  # nothing larger in the row, so its sum must not be what large terms leave
                    x, weight, shift = x.abs(), weight.abs(), None if shift is None else shift.abs()
                return [x, weight, shift], {}

            text = f"{m} x {n} x {k}{', bias' if bias else ''}"
            yield Problem("gemm", "linear", f"{text}, decode", rows, run={"decode": True})
            yield Problem("gemm", "linear", text, rows)
            yield Problem("gemm", "linear_gelu", text, rows)

            def onto(dtype: str, m: int = m, n: int = n, make: Any = rows, bias: bool = bias) -> Arguments:
                scale = normal(n, dtype=dtype, seed=5) if bias else None
                residual = normal(m, n, dtype=dtype, seed=4)
                if n == 1:
                    residual, scale = residual.abs(), None if scale is None else scale.abs()
                return make(dtype)[0], {"residual": residual, "scale": scale}

            yield Problem("gemm", "linear_residual", text, onto)
    for m, n, k in ((1, 5, 47), (3, 33, 64), (6, 16, 33)):

        def gated(dtype: str, m: int = m, n: int = n, k: int = k) -> Arguments:
            return [normal(m, k, dtype=dtype), normal(2 * n, k, dtype=dtype, seed=2)], {}

        for decode in (False, True):
            text = f"{m} x {n} x {k}{', decode' if decode else ''}"
            yield Problem("gemm", "linear_swiglu", text, gated, run={"decode": decode})

    def clamped(dtype: str) -> Arguments:
        x, weight = normal(3, 33, dtype=dtype), normal(34, 33, dtype=dtype, seed=2)
        return [x, weight, normal(34, dtype=dtype, seed=3)], {"limit": 1.5}

    yield Problem("gemm", "linear_swiglu", "3 x 17 x 33 with bias and limit", clamped)
    for inner in (1, 15, 33, 64):

        def fused(dtype: str, inner: int = inner) -> Arguments:
            return [normal(3, 2 * inner, dtype=dtype, scale=3.0)], {}

        yield Problem("gemm", "swiglu", f"{inner} columns", fused)


def _attention() -> Iterator[Problem]:
    for causal, rows, keys in ((False, 5, 5), (True, 7, 7), (True, 3, 9), (True, 1, 17)):

        def heads(dtype: str, causal: bool = causal, rows: int = rows, keys: int = keys) -> Arguments:
            q = normal(2, rows, 4, 16, dtype=dtype)
            return [q, normal(2, keys, 2, 16, dtype=dtype, seed=1), normal(2, keys, 2, 16, dtype=dtype, seed=2)], {
                "causal": causal
            }

        yield Problem("attention", "attention", f"{rows} over {keys}{', causal' if causal else ''}", heads)

    def windowed(dtype: str) -> Arguments:
        arguments, options = heads(dtype, True, 6, 9)
        return arguments, {**options, "window": 4, "sinks": normal(4, dtype=dtype, seed=3)}

    yield Problem("attention", "attention", "6 over 9, window and sinks", windowed)

    def cached_window(dtype: str) -> Arguments:
        arguments, _ = cached(dtype)
        return arguments, {"window": 4, "sinks": normal(4, dtype=dtype, seed=3)}

    def cached(dtype: str) -> Arguments:
        cache = [normal(32, 2, 24, dtype=dtype, seed=s) for s in (1, 2)]
        return [normal(6, 4, 24, dtype=dtype), *cache, [(0, 1, 3, 9), (1, 5, 12, 7), (5, 6, 31, 1)]], {}

    yield Problem("attention", "cached_attention", "three sequences", cached)
    yield Problem("attention", "cached_attention", "three sequences, window and sinks", cached_window)

    def new_rows(dtype: str) -> Arguments:
        cache = [normal(32, 2, 24, dtype=dtype, seed=s) for s in (1, 2)]
        return [normal(3, 4, 24, dtype=dtype), *cache, [(0, 1, 3, 9), (1, 2, 12, 7), (2, 3, 31, 1)]], {}

    yield Problem("attention", "cached_attention", "a new row of three", new_rows, run={"decode": True})

    def paged(dtype: str) -> Arguments:
        (q, k, v, _), _ = new_rows(dtype)
        pages = torch.tensor([5, 0, 3, 2])
        return [q, k, v, [(0, 1, 0, 9), (1, 2, 2, 7), (2, 3, 3, 1)]], {"pages": pages, "page_size": 5}

    yield Problem("attention", "cached_attention", "pages of 5", paged)
    yield Problem("attention", "cached_attention", "a new row of three, pages of 5", paged, run={"decode": True})


def _pixel_shuffle() -> Iterator[Problem]:
    for version, grid, factor, width, drop in (
        ("v2", (4, 6), 2, 5, True),
        ("v1", (4, 6), 2, 8, True),
        ("v2", (4, 4), 4, 3, False),
    ):
        for norm in (False, True):

            def shuffle(
                dtype: str, version: str = version, grid: tuple[int, int] = grid, factor: int = factor, width: int = width,
                drop: bool = drop, norm: bool = norm,
            ) -> Arguments:  # fmt: skip
                size = width * factor**2
                options: dict[str, Any] = {"grid": grid, "factor": factor, "version": version, "drop_cls": drop}
                if norm:
                    options |= {"weight": normal(size, dtype=dtype, seed=1), "bias": normal(size, dtype=dtype, seed=2)}
                return [normal(2, grid[0] * grid[1] + drop, width, dtype=dtype)], options

            text = f"{grid[0]} x {grid[1]} by {factor}, {version}{', norm' if norm else ''}"
            yield Problem("pixel_shuffle", "pixel_shuffle", text, shuffle)


def _embed() -> Iterator[Problem]:
    def text(dtype: str) -> Arguments:
        return [torch.tensor([[0, 6, 3], [6, 1, 2]]), normal(7, 5, dtype=dtype)], {}

    def pictures(dtype: str) -> Arguments:
        ids = torch.tensor([[1, 9, 9, 2], [9, 0, 5, 9]])
        return [ids, normal(9, 17, dtype=dtype)], {"visual": normal(4, 17, dtype=dtype, seed=1), "image_token_id": 9}

    yield Problem("embed", "embed_tokens", "text", text)
    yield Problem("embed", "embed_tokens", "with visual rows", pictures)


def _rope() -> Iterator[Problem]:
    positions = torch.tensor([0.0, 1.0, 2.5, 4095.0, 32767.0])
    yield Problem("rope", "rope_table", "5 positions", lambda d: ([positions.clone(), 24, 1e6], {}), ("float32",))

    def scaled(dtype: str) -> Arguments:
        steps = 0.5 ** torch.arange(12, dtype=torch.float64)
        return [positions.clone(), 24, 1e6], {"frequencies": steps, "scale": 1.25}

    yield Problem("rope", "rope_table", "5 positions, frequencies of their own", scaled, ("float32",))
    for dim in (2, 24, 64):
        for normed in (False, True):

            def rotate(dtype: str, dim: int = dim, normed: bool = normed) -> Arguments:
                qkv = normal(5, (4 + 2 * 2) * dim, dtype=dtype)
                angles = normal(5, dim // 2, scale=3.0, seed=1)
                options: dict[str, Any] = {"num_heads": 4, "num_kv_heads": 2, "head_dim": dim, "eps": 1e-6}
                if normed:
                    options |= {
                        "q_weight": normal(dim, dtype=dtype, seed=2),
                        "k_weight": normal(dim, dtype=dtype, seed=3),
                    }
                return [qkv, angles.cos(), angles.sin()], options

            def append(dtype: str, dim: int = dim, rotate: Callable[..., Arguments] = rotate) -> Arguments:
                arguments, options = rotate(dtype)
                caches = [normal(9, 2, dim, dtype=dtype, seed=s) for s in (4, 5)]
                return [*arguments, *caches, torch.tensor([7, 0, 3, 4, 8])], options

            text = f"head of {dim}{', norms' if normed else ''}"
            yield Problem("rope", "qkv_rope", text, rotate)
            yield Problem("rope", "qkv_rope_append", text, append, changed=(3, 4))


def _moe() -> Iterator[Problem]:
    for count, k in ((4, 2), (17, 8), (128, 8), (3, 3)):
        for normalize in (True, False):

            def route(dtype: str, count: int = count, k: int = k, normalize: bool = normalize) -> Arguments:
                logits = normal(5, count, dtype=dtype, scale=2.0)
                logits[0, 1:3] = logits[0].max()  # equal ones: the lower expert first
                return [logits, k], {"normalize": normalize}

            yield Problem("moe", "moe_route", f"{k} of {count}{'' if normalize else ', plain'}", route)
    chosen = torch.tensor([[3, 0], [3, 1], [0, 3], [1, 0], [3, 0]])
    order = torch.tensor([1, 4, 7, 9, 3, 6, 0, 2, 5, 8])  # of ``chosen``, by expert

    def experts(dtype: str) -> Arguments:
        gate_up, down = (
            normal(4, 2 * 17, 24, dtype=dtype, seed=1, scale=0.2),
            normal(4, 24, 17, dtype=dtype, seed=2, scale=0.2),
        )
        return [normal(5, 24, dtype=dtype), gate_up, down, normal(5, 2, dtype=dtype, seed=3).abs(), chosen.clone()], {}

    yield Problem("moe", "moe_permute", "5 tokens, one expert idle", lambda d: ([chosen.clone(), 4], {}), ("float32",))
    for width in (1, 33, 64):

        def combine(dtype: str, width: int = width) -> Arguments:
            return [normal(10, width, dtype=dtype), normal(5, 2, dtype=dtype, seed=1).abs(), order.clone()], {}

        yield Problem("moe", "moe_combine", f"{width} columns", combine)
    yield Problem("moe", "moe_experts", "5 tokens of 4 experts", experts)

    def clamped(dtype: str) -> Arguments:
        given, _ = experts(dtype)
        biases = {"gate_up_bias": normal(4, 34, dtype=dtype, seed=4), "down_bias": normal(4, 24, dtype=dtype, seed=5)}
        return given, {**biases, "limit": 0.75}

    yield Problem("moe", "moe_experts", "5 tokens of 4 experts with biases and a limit", clamped)


def _sample() -> Iterator[Problem]:
    for vocab in (1, 17, 1500):

        def last(dtype: str, vocab: int = vocab) -> Arguments:
            logits = normal(4, vocab, dtype=dtype)
            top = logits.max() + 1
            logits[1, vocab - 1], logits[2, vocab // 2 :], logits[3, 0] = top, top, top
            return [logits], {}

        yield Problem("sample", "argmax", f"{vocab} tokens", last)
    for top_k, top_p, temperature in ((0, 1.0, 1.0), (5, 1.0, 0.7), (0, 0.8, 1.3), (7, 0.9, 1.0)):

        def draw(dtype: str, k: int = top_k, p: float = top_p, temperature: float = temperature) -> Arguments:
            uniform = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1 - 2**-53], dtype=torch.float64)
            options = {"temperature": temperature, "top_k": k, "top_p": p, "uniform": uniform}
            return [normal(8, 211, dtype=dtype, scale=2.0)], options

        yield Problem("sample", "sample", f"top_k {top_k}, top_p {top_p}", draw)
    yield Problem(
        "sample", "penalise", "two rows", lambda d: ([normal(2, 19, dtype=d), torch.tensor([[0, 3, 3], [18, 1, 0]]), 1.3], {})
    )  # fmt: skip


def _patch_embed() -> Iterator[Problem]:
    for kind, patch, width in (("bytes", 3, 17), ("bytes", 14, 32), ("floats", 3, 17), ("floats", 2, 5)):

        def embed(dtype: str, kind: str = kind, patch: int = patch, width: int = width) -> Arguments:
            height, across = 2 * patch, 3 * patch
            tiles = normal(2, 3, height, across, dtype=dtype, seed=4)
            if kind == "bytes":
                generator = torch.Generator().manual_seed(5)
                tiles = torch.randint(0, 256, (2, height, across, 3), generator=generator, dtype=torch.uint8)
            weight = normal(width, 3 * patch**2, dtype=dtype, seed=1, scale=0.3)
            rows = [
                normal(width, dtype=dtype, seed=2),
                normal(width, dtype=dtype, seed=3),
                normal(7, width, dtype=dtype, seed=6),
            ]
            return [tiles, weight, *rows], {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "patch_size": patch}

        yield Problem("patch_embed", "patch_embed", f"{kind}, patch {patch}, width {width}", embed)


def _image() -> Iterator[Problem]:
    cuts: tuple[tuple[int, int, tuple[int, int], int, bool], ...] = (
        (37, 61, (2, 1), 14, True),
        (9, 5, (1, 2), 28, True),
        (1, 1, (1, 1), 14, False),
        (90, 300, (3, 1), 16, True),
    )
    for height, width, grid, size, thumbnail in cuts:

        def cut(dtype: str, height: int = height, width: int = width, rest: Any = (grid, size, thumbnail)) -> Arguments:
            generator = torch.Generator().manual_seed(height)
            pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()
            return [pixels, rest[0], rest[1]], {"thumbnail": rest[2]}

        text = f"{width} x {height} to {grid[0]} x {grid[1]} of {size}"
        yield Problem("image", "tile_pixels", text, cut, ("uint8",))


__all__ = ["Problem", "problems"]
