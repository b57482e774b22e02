"""What the rotary ops refuse before anything runs."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError
from ._backend import is_torch
from ._kinds import MOST
from ._layout import memory_gone


def check_heads(op: str, qkv: Any, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    sizes = f"num_heads={num_heads}, num_kv_heads={num_kv_heads}, head_dim={head_dim}"
    if num_heads < 1 or num_kv_heads < 1 or head_dim < 2 or head_dim % 2:
        raise UnsupportedError(f"{op}: {sizes}; allowed: at least one head of each kind, head_dim even")
    if len(qkv.shape) != 2 or qkv.shape[1] != (num_heads + 2 * num_kv_heads) * head_dim:
        raise UnsupportedError(
            f"{op}: qkv has shape {list(qkv.shape)}; allowed: [rows, {(num_heads + 2 * num_kv_heads) * head_dim}] for {sizes}"
        )


def check_table(positions: Any, head_dim: int, theta: float, frequencies: Any = None, scale: float = 1.0) -> None:
    shape, dtype = list(positions.shape), str(positions.dtype)
    if len(shape) != 1 or "bool" in dtype:
        raise UnsupportedError(f"rope_table: positions has shape {shape}, {dtype}; allowed: [rows] of numbers")
    if head_dim < 2 or head_dim % 2:
        raise UnsupportedError(f"rope_table: head_dim is {head_dim}; allowed: even, 2 and more")
    if not theta > 0:
        raise UnsupportedError(f"rope_table: theta is {theta}; allowed: greater than 0")
    if not abs(scale) <= MOST:
        raise UnsupportedError(f"rope_table: scale is {scale}; allowed: a number that float32 holds")
    if frequencies is not None:
        found, half = list(frequencies.shape), head_dim // 2
        if found not in ([half], [shape[0], half]) or str(frequencies.dtype).rpartition(".")[2] != "float64":
            raise UnsupportedError(
                f"rope_table: frequencies is {frequencies.dtype} {found}; allowed: float64 [{half}] or [{shape[0]}, {half}]"
            )
        if is_torch(frequencies) and memory_gone(frequencies):
            raise UnsupportedError(
                "rope_table: frequencies is a tensor whose memory was given back; allowed: one in memory"
            )
