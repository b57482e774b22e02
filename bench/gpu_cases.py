"""Cases of bench/gpu.py: one op at one real shape, ours and its peers on the same inputs, and what it must compute and move."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from internvl_kernels import ops, reference

Call = Callable[[], Any]


class Absent(Exception):
    """A peer that this machine lacks, with the reason."""


@dataclass(frozen=True)
class Case:
    """make(place) with ``place`` putting host tensors where kernels read them gives ours; peers(tensors) the others by name."""

    op: str
    shape: str
    flops: float
    bytes: float
    inputs: dict[str, torch.Tensor]
    ours: Callable[[dict[str, Any]], Any]
    exact: Callable[[dict[str, torch.Tensor]], Any]  # on float64 host tensors
    peers: dict[str, Callable[[dict[str, torch.Tensor]], Call]] = field(default_factory=dict)


def some(*shape: int, dtype: str, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).to(getattr(torch, dtype))


def need(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise Absent(f"{name} is not installed")
    return importlib.import_module(name)


def compiled(run: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Call]:
    def make(t: dict[str, Any]) -> Call:
        made = torch.compile(run)
        return lambda: made(t)

    return make


def eager(run: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Call]:
    return lambda t: lambda: run(t)


def product(m: int, n: int, k: int, epilogue: str, dtype: str, label: str) -> Case:
    t = {
        "x": some(m, k, dtype=dtype),
        "weight": some(n, k, dtype=dtype, seed=1, scale=k**-0.5),
        "bias": some(n, dtype=dtype, seed=2),
    }
    if epilogue == "residual":
        t |= {"residual": some(m, n, dtype=dtype, seed=3), "scale": some(n, dtype=dtype, seed=4)}

    def plain(t: dict[str, Any]) -> Any:
        y = F.linear(t["x"], t["weight"], t["bias"])
        if epilogue == "gelu":
            return F.gelu(y)
        return torch.addcmul(t["residual"], y, t["scale"]) if epilogue == "residual" else y

    def ours(t: dict[str, Any]) -> Any:
        if epilogue == "residual":
            return ops.linear_residual(t["x"], t["weight"], t["bias"], residual=t["residual"], scale=t["scale"])
        return (ops.linear_gelu if epilogue == "gelu" else ops.linear)(t["x"], t["weight"], t["bias"])

    moved = (m * k + n * k + m * n * (2 if epilogue == "residual" else 1)) * 2
    peers = {"cuBLAS through torch": eager(plain), "torch.compile": compiled(plain)}
    return Case(f"linear, {epilogue}", f"{label} {m} x {n} x {k}", 2.0 * m * n * k, moved, t, ours, plain, peers)


def attention(tiles: int, rows: int, heads: int, dim: int, dtype: str, label: str) -> Case:
    t = {"qkv": some(tiles, rows, 3, heads, dim, dtype=dtype)}

    def parts(t: dict[str, Any]) -> list[Any]:
        return [t["qkv"][:, :, i] for i in range(3)]

    def sdpa(t: dict[str, Any]) -> Any:
        q, k, v = (part.transpose(1, 2) for part in parts(t))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    def flash(t: dict[str, Any]) -> Call:
        run = need("flash_attn").flash_attn_func
        return lambda: run(*parts(t))

    def memory_efficient(t: dict[str, Any]) -> Call:
        need("xformers")
        run = importlib.import_module("xformers.ops").memory_efficient_attention
        return lambda: run(*parts(t))

    flops, moved = 4.0 * tiles * heads * rows * rows * dim, 4.0 * tiles * rows * heads * dim * 2
    peers = {"torch SDPA": eager(sdpa), "FlashAttention": flash, "xFormers": memory_efficient}
    shape = f"{label} {tiles} x {rows} x {heads} x {dim}"
    return Case("attention", shape, flops, moved, t, lambda t: ops.attention(*parts(t)), sdpa, peers)


def norm(rows: int, cols: int, rms: bool, dtype: str, label: str) -> Case:
    t = {
        "x": some(rows, cols, dtype=dtype),
        "weight": some(cols, dtype=dtype, seed=1),
        "bias": some(cols, dtype=dtype, seed=2),
    }

    def plain(t: dict[str, Any]) -> Any:
        if rms:
            return reference.rms_norm(t["x"], t["weight"])
        return F.layer_norm(t["x"], (cols,), t["weight"], t["bias"], 1e-6)

    def ours(t: dict[str, Any]) -> Any:
        return ops.rms_norm(t["x"], t["weight"]) if rms else ops.layer_norm(t["x"], t["weight"], t["bias"])

    peers = {"torch": eager(plain), "torch.compile": compiled(plain)}
    name = "rms_norm" if rms else "layer_norm"
    return Case(name, f"{label} {rows} x {cols}", 8.0 * rows * cols, 4.0 * rows * cols, t, ours, plain, peers)


def normed_product(m: int, n: int, k: int, rms: bool, gelu: bool, dtype: str, label: str) -> Case:
    """The norm folded into the product, with the statistics that the product before it told."""
    t = {"x": some(m, k, dtype=dtype), "weight": some(n, k, dtype=dtype, seed=1, scale=k**-0.5)}
    t |= {"gain": 1 + some(k, dtype=dtype, seed=2, scale=0.1), "bias": some(n, dtype=dtype, seed=3)}
    t |= {"shift": some(k, dtype=dtype, seed=4, scale=0.1)}
    folded = ops.fold_norm(t["weight"], t["gain"], t["bias"], None if rms else t["shift"])
    t |= {"folded": folded[0], "columns": folded[1], "statistics": reference.row_statistics(t["x"])}

    def plain(t: dict[str, Any]) -> Any:
        if rms:
            y = reference.rms_norm(t["x"], t["gain"], eps=1e-6)
        else:
            y = F.layer_norm(t["x"], (k,), t["gain"], t["shift"], 1e-6)
        y = F.linear(y, t["weight"], t["bias"])
        return F.gelu(y) if gelu else y

    def ours(t: dict[str, Any]) -> Any:
        return ops.linear_folded(t["x"], t["statistics"], t["folded"], t["columns"], eps=1e-6, rms=rms, gelu=gelu)

    moved = (m * k + n * k + m * n) * 2 + m * -(-k // 32) * 8 + 8 * n
    peers = {"torch": eager(plain), "torch.compile": compiled(plain)}
    name = f"{'rms' if rms else 'layer'} norm folded into {'gelu' if gelu else 'linear'}"
    return Case(name, f"{label} {m} x {n} x {k}", 2.0 * m * n * k, moved, t, ours, plain, peers)


def normed_attention(tiles: int, rows: int, heads: int, dim: int, dtype: str, label: str) -> Case:
    """RMSNorm of q and k across all heads on the way into attention."""
    width = heads * dim
    t = {"qkv": some(tiles, rows, 3, heads, dim, dtype=dtype)}
    t |= {name: 1 + some(width, dtype=dtype, seed=seed, scale=0.1) for name, seed in (("q_gain", 1), ("k_gain", 2))}
    flat = t["qkv"].reshape(tiles * rows, 3 * width)[:, : 2 * width]
    t["statistics"] = reference.row_statistics(flat)
    t["weight"] = (t["q_gain"].float() * t["k_gain"].float()).reshape(heads, dim)

    def ours(t: dict[str, Any]) -> Any:
        factors = ops.row_factors(t["statistics"], 2)
        q, k, v = (t["qkv"][:, :, i] for i in range(3))
        return ops.normed_attention(q, k, v, *(factors[i].reshape(tiles, rows) for i in range(2)), t["weight"])

    def plain(t: dict[str, Any]) -> Any:
        qkv = t["qkv"].reshape(tiles, rows, 3 * width)
        normed = reference.vision_qk_norm(qkv, t["q_gain"], t["k_gain"]).reshape(tiles, rows, 3, heads, dim)
        q, k, v = (normed[:, :, i].transpose(1, 2) for i in range(3))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    flops, moved = 4.0 * tiles * heads * rows * rows * dim, 4.0 * tiles * rows * width * 2 + tiles * rows * width / 2
    peers = {"torch SDPA after its norms": eager(plain), "torch.compile": compiled(plain)}
    shape = f"{label} {tiles} x {rows} x {heads} x {dim}"
    return Case("q and k norms, attention", shape, flops, moved, t, ours, plain, peers)


def patches(tiles: int, width: int, dtype: str, label: str, side: int = 448) -> Case:
    count = (side // 14) ** 2
    pixels = torch.randint(
        0, 256, (tiles, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    t = {"tiles": pixels, "weight": some(width, 588, dtype=dtype, scale=0.04), "bias": some(width, dtype=dtype, seed=1)}
    t |= {"cls": some(width, dtype=dtype, seed=2), "pos": some(1 + count, width, dtype=dtype, seed=3)}
    known: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

    def run(door: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda t: door.patch_embed(t["tiles"], t["weight"], t["bias"], t["cls"], t["pos"], **known)

    flops = 2.0 * tiles * count * 588 * width
    moved = tiles * side * side * 3 + ((tiles + 1) * (1 + count) * width + 588 * width) * 2
    peers = {"torch": eager(run(reference)), "torch.compile": compiled(run(reference))}
    return Case("patch_embed", f"{label} {tiles} tiles", flops, moved, t, run(ops), run(reference), peers)


def cases(dtype: str, tiles: tuple[int, ...], small: bool) -> Iterator[Case]:
    """Every op of a tower's layer at the widths of both towers; ``small``: the same at shapes for the virtual GPU."""
    towers = [("300M", 1024, 16, 64, 4096, False), ("6B", 3200, 25, 128, 12800, True)]
    if small:
        towers = [("300M style", 128, 2, 64, 256, False), ("6B style", 256, 2, 128, 512, True)]
    for label, width, heads, dim, inner, rms in towers:
        for count in tiles:
            rows = count * (65 if small else 1025)
            yield norm(rows, width, rms, dtype, label)
            yield product(rows, 3 * width, width, "linear", dtype, f"{label} qkv")
            yield normed_product(rows, 3 * width, width, rms, False, dtype, label)
            yield attention(count, rows // count, heads, dim, dtype, label)
            if rms:
                yield normed_attention(count, rows // count, heads, dim, dtype, label)
            yield product(rows, width, width, "residual", dtype, f"{label} proj")
            yield product(rows, inner, width, "gelu", dtype, f"{label} fc1")
            yield normed_product(rows, inner, width, rms, True, dtype, f"{label} fc1")
            yield product(rows, width, inner, "residual", dtype, f"{label} fc2")
            yield patches(count, width, dtype, label, 56 if small else 448)
