"""What a request will cost before any work is done: tiles, tokens, FLOPs and peak bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config import LanguageConfig, ModelConfig, VisionConfig


def vision_parameters(c: VisionConfig) -> int:
    """Parameters of the layers that run, embeddings included."""
    d, rms = c.hidden_size, c.norm == "rms_norm"
    norms = 2 * (d if rms else 2 * d) + (2 * d if c.qk_norm else 0)
    attention = 3 * d * d + (3 * d if c.qkv_bias else 0) + d * d + d
    mlp = 2 * d * c.intermediate_size + c.intermediate_size + d
    stem = 3 * c.patch_size**2 * d + d + d + (1 + c.num_patches) * d
    return stem + c.num_layers * (norms + attention + mlp + 2 * d)


def projector_parameters(c: ModelConfig) -> int:
    wide, hidden = c.projector.input_size, c.projector.hidden_size
    return 2 * wide + wide * hidden + hidden + hidden * hidden + hidden


def language_parameters(c: LanguageConfig) -> int:
    h = c.hidden_size
    attention = h * (c.q_size + 2 * c.kv_size) + c.q_size * h
    attention += (c.q_size + 2 * c.kv_size if c.qkv_bias else 0) + (h if c.output_bias else 0)
    attention += 2 * c.head_dim if c.qk_norm else 0
    total = c.vocab_size * h * (1 if c.tied_embeddings else 2) + h
    for layer in range(c.num_layers):
        sparse = c.is_sparse(layer)
        mlp = c.num_experts * (h + 3 * h * c.expert_size) if sparse else 3 * h * c.intermediate_size
        total += attention + mlp + 2 * h
    return total


def vision_flops(c: VisionConfig, tiles: int) -> int:
    """Multiply-adds counted as two, GEMMs and attention."""
    s, d = 1 + c.num_patches, c.hidden_size
    layer = 2 * s * (4 * d * d + 2 * d * c.intermediate_size) + 4 * s * s * d
    return tiles * (c.num_layers * layer + 2 * c.num_patches * 3 * c.patch_size**2 * d)


def language_flops(c: LanguageConfig, tokens: int) -> int:
    """Prefill of ``tokens`` tokens with one row of logits."""
    h, total = c.hidden_size, 2 * c.hidden_size * c.vocab_size
    for layer in range(c.num_layers):
        sparse = c.is_sparse(layer)
        inner = c.experts_per_token * 3 * h * c.expert_size + c.num_experts * h if sparse else 3 * h * c.intermediate_size
        total += 2 * tokens * (h * (c.q_size + 2 * c.kv_size) + c.q_size * h + inner) + 2 * tokens * (tokens + 1) * c.q_size
    return total


@dataclass(frozen=True)
class Plan:
    """One row per image or video, and the peak. Bytes and FLOPs are computed from shapes, not measured."""

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
    bytes: dict[str, int]  # weights, tiles, tower workspace, visual tokens, prefill workspace, kv cache

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
        decoder = b["visual tokens"] + b["prefill workspace"] + b["kv cache"]
        return b["weights"] + b["tiles"] + max(tower, decoder)

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
            "vision_flops": self.vision_flops,
            "prefill_flops": self.prefill_flops,
            "bytes": dict(self.bytes),
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
            cost.add_row(name, human_bytes(size))
        cost.add_section()
        cost.add_row("peak", human_bytes(self.peak_bytes))
        cost.add_row("tiles per pass", str(self.micro_batch))
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


def human_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_bytes(value: int | str | None) -> int | None:
    """``"2GB"``, ``"512MiB"``, an integer, or None. Raises UnsupportedError."""
    import re

    from .errors import UnsupportedError

    if value is None:
        return None
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", str(value).strip().upper()) if not isinstance(value, bool) else None
    if match is None or float(match[1]) <= 0:
        raise UnsupportedError(f"max_workspace: {value!r}; allowed: a positive number of bytes, or text such as '2GB' or '512MiB'")
    return int(float(match[1]) * units[match[2] or ""])


__all__ = ["Plan", "human_bytes", "parse_bytes"]
