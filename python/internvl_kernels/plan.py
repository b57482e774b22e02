"""What a request will cost before any work is done: tiles, tokens, FLOPs and peak bytes."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .config import ModelConfig, VisionConfig
from .costs import (
    chunk_rows,
    decode_workspace,
    encode_workspace,
    kv_bytes,
    language_flops,
    model_parameters,
    most,
    prefill_workspace,
    require_for_answer,
    tiles_a_pass,
    tower_workspace,
    vision_flops,
    vision_matrices,
    vision_parameters,
)
from .errors import UnsupportedError, shown
from .ops._backend import cpu


@dataclass(frozen=True)
class Plan:
    """One row per image or video, and the peak. Bytes and FLOPs are computed from shapes, not measured.

    The peak is that of ``chat`` and ``generate``: weights, tiles, visual tokens, KV cache, the threads' scratch, and the larger of the two
    phases' temporaries (a micro-batch through tower and projector; a prefill chunk, or a decode step with its logits). The temporaries are
    what max_workspace bounds. Not counted: the interpreter, a picture while it is decoded, what the caller holds and is given, and
    the code that oneDNN compiles and keeps, some 0.6 MB for each shape of product (a new prompt length brings new ones), up to 1024.
    """

    names: tuple[str, ...]
    grids: tuple[tuple[int, int] | None, ...]  # (columns, rows); None where tile counts were given
    tiles: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    text_tokens: int  # assumed for the prompt around the images
    new_tokens: int
    context: int
    micro_batch: int
    vision_flops: int
    prefill_flops: int
    prefill_rows: int  # of a prefill chunk
    kv_dtype: str  # of the KV cache
    # weights, tiles, tower workspace, visual tokens, prefill workspace, decode workspace, kv cache, kernel scratch
    bytes: dict[str, int]
    weights_mapped: bool = False  # they are pages of a file (packed_cache), which all processes that map it share

    @property
    def total_tiles(self) -> int:
        return sum(self.tiles)

    @property
    def total_visual_tokens(self) -> int:
        return sum(self.visual_tokens)

    @property
    def prompt_tokens(self) -> int:
        return self.total_visual_tokens + self.text_tokens

    @property
    def fits_context(self) -> bool:
        return self.prompt_tokens < self.context

    @property
    def peak_bytes(self) -> int:
        """Weights and tiles stay; the tower and the decoder do not run at the same time."""
        b = self.bytes
        tower = b["tower workspace"] + b["visual tokens"]
        decoder = b["visual tokens"] + max(b["prefill workspace"], b["decode workspace"]) + b["kv cache"]
        return b["weights"] + b["kernel scratch"] + b["tiles"] + max(tower, decoder)

    def to_dict(self) -> dict[str, Any]:
        items = [
            {"name": n, "grid": g, "tiles": t, "visual_tokens": v}
            for n, g, t, v in zip(self.names, self.grids, self.tiles, self.visual_tokens)
        ]
        return {
            "items": items,
            "tiles": self.total_tiles,
            "visual_tokens": self.total_visual_tokens,
            "text_tokens": self.text_tokens,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "context": self.context,
            "fits_context": self.fits_context,
            "micro_batch": self.micro_batch,
            "prefill_rows": self.prefill_rows,
            "kv_dtype": self.kv_dtype,
            "vision_flops": self.vision_flops,
            "prefill_flops": self.prefill_flops,
            "bytes": dict(self.bytes),
            "weights_mapped": self.weights_mapped,
            "peak_bytes": self.peak_bytes,
        }

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        items = Table(title="Plan", title_justify="left")
        for column, justify in (("item", "left"), ("grid", "right"), ("tiles", "right"), ("visual tokens", "right")):
            items.add_column(column, justify=justify)  # type: ignore[arg-type]
        for name, grid, tiles, tokens in zip(self.names, self.grids, self.tiles, self.visual_tokens):
            items.add_row(name, f"{grid[0]} x {grid[1]}" if grid else "-", str(tiles), str(tokens))
        items.add_section()
        items.add_row("total", "", str(self.total_tiles), str(self.total_visual_tokens))
        cost = Table(show_header=False)
        cost.add_column()
        cost.add_column(justify="right")
        for name, size in self.bytes.items():
            mapped = name == "weights" and self.weights_mapped
            note = ", mapped and shared" if mapped else f" ({self.kv_dtype})" if name == "kv cache" else ""
            cost.add_row(name + note, human_bytes(size))
        cost.add_section()
        cost.add_row("peak", human_bytes(self.peak_bytes))
        cost.add_row("tiles per pass", str(self.micro_batch))
        cost.add_row("rows per prefill chunk", str(self.prefill_rows))
        cost.add_row("tower", f"{self.vision_flops / 1e12:.3f} TFLOP")
        cost.add_row("prefill", f"{self.prefill_flops / 1e12:.3f} TFLOP")
        fits = "" if self.fits_context else "  [red]does not fit[/red]"
        cost.add_row("prompt tokens", f"{self.prompt_tokens} of {self.context}{fits}")
        return Group(items, cost)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=100, force_terminal=False, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()


@dataclass(frozen=True)
class TowerPlan:
    """Tiles of one size through the tower alone, ``VisionModel.vision``: bytes and FLOPs from shapes, not measured.

    The peak is weights, the caller's tiles, the temporaries of a micro-batch (what max_workspace bounds, less what is given back
    if there is but one), the threads' scratch and what is given back.
    """

    tiles: int
    size: tuple[int, int]  # height, width in pixels
    layers: int  # hidden states of which something is given back
    micro_batch: int
    flops: int
    bytes: dict[str, int]  # weights, tiles, tower workspace, kernel scratch, features

    @property
    def peak_bytes(self) -> int:
        return sum(self.bytes.values())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "peak_bytes": self.peak_bytes}

    def __str__(self) -> str:
        head = f"{self.tiles} tiles of {self.size[0]} x {self.size[1]}, {self.micro_batch} a pass, {self.flops / 1e12:.3f} TFLOP"
        rows = [*self.bytes.items(), ("peak", self.peak_bytes)]
        return "\n".join([head, *(f"  {name:16s}{human_bytes(size):>12s}" for name, size in rows)])


def make_tower_plan(
    c: VisionConfig,
    tiles: int,
    size: tuple[int, int],
    layers: int,
    *,
    rows: int | None = None,
    itemsize: int,
    stored: int,
    backend: str,
    limit: int,
    threads: int,
) -> TowerPlan:
    """Plan for ``tiles`` uint8 tiles with activations of ``itemsize`` and matrices of ``stored`` bytes a value.

    rows: those of each hidden state and tile that are given back; None: all of them.
    """
    every = 1 + (size[0] // c.patch_size) * (size[1] // c.patch_size)
    rows = every if rows is None else rows
    kept = (
        0 if backend == "cuda" else (layers - 1) * rows
    )  # while the last one is computed; cuda hands them to the host

    def need(count: int) -> int:
        return tower_workspace(c, count, itemsize, backend, *size, kept)

    together = min(tiles, most(limit, need, min(tiles, tiles_a_pass(c, backend, threads, *size)), "one tile"))
    vectors = vision_parameters(c) - vision_matrices(c)
    scratch = 0
    if backend == "cpu":
        products = (
            cpu().gemm_scratch(max(c.intermediate_size, c.hidden_size), True),
            cpu().gemm_scratch(3 * c.patch_size**2, False),
        )
        scratch = threads * max(*products, cpu().attention_scratch(c.head_dim))
    found = {
        "weights": vision_matrices(c) * stored + vectors * itemsize,
        "tiles": tiles * 3 * size[0] * size[1],
        "tower workspace": need(together),
        "kernel scratch": scratch,
        "features": tiles * layers * rows * c.hidden_size * itemsize,
    }
    if together == tiles and backend != "cuda":
        found["tower workspace"] -= found["features"]  # of the only pass
    return TowerPlan(tiles, size, layers, together, vision_flops(c, tiles, every), found)


def human_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_bytes(value: int | str | None, name: str = "max_workspace") -> int | None:
    """``"2GB"``, ``"512MiB"``, an integer, or None. Raises UnsupportedError."""
    if value is None:
        return None
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
    match = (
        re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", str(value).strip().upper())
        if not isinstance(value, bool)
        else None
    )
    if match is None or not 0 < float(match[1]) < 2**60:
        raise UnsupportedError(
            f"{name}: {shown(value)}; allowed: a positive number of bytes, or text such as '2GB' or '512MiB'"
        )
    return int(float(match[1]) * units[match[2] or ""])


def kernel_scratch(c: ModelConfig, backend: str, threads: int) -> int:
    """What the threads of the cpu backend keep between products and attentions, each as much as its largest needed."""
    if backend != "cpu":
        return 0
    v, p, t = c.vision, c.projector, c.language
    inner = (
        v.intermediate_size,
        v.hidden_size,
        p.input_size,
        p.hidden_size,
        t.q_size,
        t.intermediate_size,
        t.expert_size,
    )
    products = (
        cpu().gemm_scratch(max(inner), True),
        cpu().gemm_scratch(3 * v.patch_size**2, False),
    )  # patches: not packed
    return threads * max(*products, *map(cpu().attention_scratch, (v.head_dim, t.head_dim)))


def make_plan(
    config: ModelConfig,
    items: Sequence[tuple[str, tuple[int, int] | None, int]],
    *,
    itemsize: int,
    stored: int | None = None,
    kv_dtype: str = "float32",
    backend: str,
    limit: int,
    threads: int,
    text_tokens: int,
    new_tokens: int,
    mapped: bool = False,
    visual_stride: float = 1.0,
) -> Plan:
    """Plan for ``items`` = (name, grid or None, tiles) with activations of ``itemsize`` and weights of ``stored`` bytes on ``backend``.

    limit: bytes of max_workspace; UnsupportedError when one tile, or one row of the prompt, does not keep it. mapped: whether the
    weights are those of a file (packed_cache).
    """
    for name, value, least in (("text_tokens", text_tokens, 0), ("max_new_tokens", new_tokens, 0)):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
            raise UnsupportedError(f"{name}: {shown(value)}; allowed: an integer of at least {least}")
    counts = [count for _, _, count in items]
    tiles = sum(counts)
    tokens = [count * config.tokens_per_tile for count in counts]
    prompt = sum(tokens) + text_tokens
    saved = sum(
        count - math.ceil(count * visual_stride) for count in tokens
    )  # positions that visual tokens do not take
    context, run = config.language.context + saved, (itemsize, backend)
    keys, longest = max(min(prompt, context), 1), max(min(prompt + new_tokens, context), 1)
    tile = (config.tiling.size, config.tiling.size)
    require_for_answer(config, limit, keys, longest, *run, tile if tiles else None)
    together = min(tiles, tiles_a_pass(config.vision, backend, threads))
    per_pass = most(limit, lambda n: encode_workspace(config, n, *run), together, "one tile") if tiles else 1
    rows = min(chunk_rows(config.language, keys, *run, limit), keys)
    size = {
        "weights": model_parameters(config) * (stored or itemsize),
        # All tiles of several images are also joined into one array.
        "tiles": (2 if len(items) > 1 else 1) * tiles * config.tiling.size**2 * 3,
        "tower workspace": encode_workspace(config, per_pass, *run) if tiles else 0,
        "visual tokens": sum(tokens) * config.language.hidden_size * itemsize,
        "prefill workspace": prefill_workspace(config.language, rows, keys, *run),
        "decode workspace": decode_workspace(config.language, 1, longest, *run),
        "kv cache": kv_bytes(config.language, longest, {"float32": 4}.get(kv_dtype, 2)),
        "kernel scratch": kernel_scratch(config, backend, threads),
    }
    return Plan(
        names=tuple(name for name, _, _ in items),
        grids=tuple(grid for _, grid, _ in items),
        tiles=tuple(counts),
        visual_tokens=tuple(tokens),
        text_tokens=text_tokens,
        new_tokens=new_tokens,
        context=context,
        micro_batch=per_pass,
        prefill_rows=rows,
        kv_dtype=kv_dtype,
        vision_flops=vision_flops(config.vision, tiles),
        prefill_flops=language_flops(config.language, prompt),
        bytes=size,
        weights_mapped=mapped,
    )


__all__ = ["Plan", "TowerPlan", "human_bytes", "make_plan", "make_tower_plan", "parse_bytes"]
