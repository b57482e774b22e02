"""A tower at its real width on the virtual GPU: counts of each launch beside the contract's floor, and a model's time. What comes
before the layers and the projector behind them run once, and one layer for all.

python bench/cuda_layer.py [--tower 300M] [--tiles 1 13] [--dtype bfloat16] [--checks] [--out FOLDER]

Counts are exact; microseconds are modelled (bench/cuda_model.py), never measured. --checks runs with races, bounds and definedness
on, and compares the layer with the reference. --out writes a dated markdown report.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from cuda_model import A100, floor_us, modelled

LANGUAGE = {"300M": 4096, "6B": 5120}  # what the projector makes, as in InternVL2.5-8B and -38B
TOWERS = {"300M": (1024, 16, 4096, 24, False), "6B": (3200, 25, 12800, 45, True)}  # D, heads, inner, layers, 6B's style
HEADS = (
    "launch", "blocks", "products issued", "conflicts", "sectors", "distinct bytes", "registers", "floor us",
    "modelled us", "of floor", "whole waves us", "of waves", "bound by",
)  # fmt: skip


def steps(name: str, rows: int, dtype: str, tiles: int) -> list[tuple[str, float, float]]:
    """(launch, FLOPs, bytes of the contract) of one layer over ``tiles`` tiles of ``rows`` rows.

    bfloat16: norms are folded into the products behind them, which read statistics of rows that the ones before them tell.
    float16: its stream is in float32 and normed by launches of its own.
    """
    d, _, inner, _, large = TOWERS[name]
    m, size, folds = rows * tiles, 2, dtype == "bfloat16"
    wide, part = 2 if folds else 4, m * 8 // 32  # bytes of the stream's elements; of the statistics of one column

    def product(key: str, n: int, k: int, biased: bool = True, told: int = 0) -> tuple[str, float, float]:
        if key in ("proj", "fc2"):  # layer scale and residual
            moved = (m * k + n * k + 2 * n) * size + 2 * m * n * wide
        else:
            moved = (m * k + n * k + m * n) * size + (k * part + 8 * n if folds else n * biased * size)
        return key, 2.0 * m * n * k, float(moved + told * part)

    def norm(key: str) -> list[tuple[str, float, float]]:
        return [] if folds else [(key, 0.0, float(m * d * (wide + size) + (1 if large else 2) * d * size))]

    known = d if folds else 0
    found = [*norm("norm1"), product("qkv", 3 * d, d, not large, 2 * d if large else 0)]
    if large:
        found.append(("q, k factors", 0.0, float(2 * d * part + 2 * m * 4)))
    attention = 4 * m * d * size + (2 * m * 4 + d * 4 if large else 0)
    found += [("attention", 4.0 * tiles * rows * rows * d, float(attention)), product("proj", d, d, told=known)]
    return [*found, *norm("norm2"), product("fc1", inner, d), product("fc2", d, inner, told=known)]


def before(name: str, rows: int, dtype: str, tiles: int) -> list[tuple[str, float, float]]:
    d, m, patches = TOWERS[name][0], rows * tiles, rows - 1
    wide = 2 if dtype == "bfloat16" else 4
    moved = tiles * patches * 588 + (588 + 2 + rows) * d * 2 + m * d * wide
    found = [("patch_embed", 2.0 * tiles * patches * 588 * d, float(moved))]
    return [*found, ("row statistics", 0.0, float(m * d * 2 + m * d // 32 * 8))] if dtype == "bfloat16" else found


def after(name: str, rows: int, dtype: str, tiles: int) -> list[tuple[str, float, float]]:
    d, h = TOWERS[name][0], LANGUAGE[name]
    k, m = 4 * d, tiles * (rows - 1) // 4
    shuffle = m * k * (4 if dtype == "bfloat16" else 6) + 2 * k * 2
    found = [("shuffle and norm", 0.0, float(shuffle))]
    found.append(("projector fc1", 2.0 * m * h * k, float((m * k + h * k + h + m * h) * 2)))
    return [*found, ("projector fc2", 2.0 * m * h * h, float((m * h + h * h + h + m * h) * 2))]


def projector(name: str, dtype: str) -> Any:
    from internvl_kernels import DeviceArray
    from internvl_kernels.config import ProjectorConfig
    from internvl_kernels.models import Projector

    d, h = TOWERS[name][0], LANGUAGE[name]
    shapes = {"norm.weight": (4 * d,), "norm.bias": (4 * d,), "fc1.weight": (h, 4 * d), "fc1.bias": (h,)}
    shapes |= {"fc2.weight": (h, h), "fc2.bias": (h,)}
    made = {key: DeviceArray(torch.ones(shape, dtype=getattr(torch, dtype))) for key, shape in shapes.items()}
    weights: Any = {f"projector.{key}": array for key, array in made.items()}
    return Projector(ProjectorConfig(vision_size=d, hidden_size=h), weights, backend="cuda")


def run(name: str, tiles: int, dtype: str, checks: bool, vgpu: Any) -> tuple[list[dict[str, Any]], float, float | None]:
    """Everything's launches with one layer, the seconds they took here, and if asked the worst error against the reference."""
    from internvl_kernels.config import VisionConfig
    from internvl_kernels.models import CudaTower, VisionTower
    from internvl_kernels.ops._backend import cuda

    d, heads, inner, _, large = TOWERS[name]
    config = VisionConfig(
        hidden_size=d, num_layers=1, num_heads=heads, intermediate_size=inner, image_size=448, patch_size=14,
        norm="rms_norm" if large else "layer_norm", norm_eps=1e-6, qkv_bias=not large, qk_norm=large,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int, about: float = 0.0) -> torch.Tensor:
        scale = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
        return (torch.randn(*shape, generator=generator) * scale + about).to(getattr(torch, dtype))

    shapes: dict[str, tuple[int, ...]] = {
        "patch.weight": (d, 588),
        "patch.bias": (d,),
        "cls": (d,),
        "positions": (1025, d),
    }
    layer: dict[str, tuple[int, ...]] = {"qkv.weight": (3 * d, d), "proj.weight": (d, d), "proj.bias": (d,)}
    layer |= {
        "fc1.weight": (inner, d),
        "fc1.bias": (inner,),
        "fc2.weight": (d, inner),
        "fc2.bias": (d,),
        "ls1": (d,),
        "ls2": (d,),
    }
    layer |= {"norm1.weight": (d,), "norm2.weight": (d,)}
    layer |= (
        {"q_norm.weight": (d,), "k_norm.weight": (d,)}
        if large
        else {"norm1.bias": (d,), "norm2.bias": (d,), "qkv.bias": (3 * d,)}
    )
    shapes |= {f"layers.0.{key}": shape for key, shape in layer.items()}
    weights = {
        f"vision.{key}": some(*shape, about=float("norm" in key and "weight" in key)) for key, shape in shapes.items()
    }
    known: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    tower = CudaTower(config, weights, **known)
    pixels = torch.randint(0, 256, (tiles, 448, 448, 3), dtype=torch.uint8, generator=generator)
    plan, project = tower.load(pixels), projector(name, dtype)
    vgpu.reset()
    begin = time.perf_counter()
    hidden = plan.layers(0, 1)
    found = torch.empty(hidden.shape, dtype=getattr(torch, hidden.dtype))
    hidden.copy_to(found)
    project(hidden)
    cuda().synchronize(0, 0)
    seconds = time.perf_counter() - begin
    vgpu.assert_clean()
    launches = vgpu.counters()
    if not checks:
        return launches, seconds, None
    wide = {key: tensor.float() for key, tensor in weights.items()}
    exact = VisionTower(config, wide, backend="cpu", **known)(pixels)
    assert isinstance(exact, torch.Tensor)
    return launches, seconds, float((found.float() - exact).norm() / exact.norm())


def table(title: str, rows: list[list[str]]) -> Table:
    made = Table(title=title, title_justify="left")
    for number, head in enumerate(HEADS):
        made.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


Totals = dict[str, float]


def rows_of(steps: list[tuple[str, float, float]], launches: list[dict[str, Any]]) -> tuple[list[list[str]], Totals]:
    rows, total = [], {"launches": float(len(steps)), "floor": 0.0, "us": 0.0, "waves": 0.0}
    for (step, flops, moved), launch in zip(steps, launches, strict=True):
        counters, model, floor = launch["counters"], modelled(A100, launch), floor_us(A100, flops, moved)
        sectors = counters["global_load_sectors"] + counters["global_store_sectors"]
        least = counters["global_load_sectors_min"] + counters["global_store_sectors_min"]
        unique = counters["unique_bytes_read"] + counters["unique_bytes_written"]
        conflicts = counters["bank_conflicts"] / max(counters["shared_wavefronts"], 1)
        waves = max(model["waves us"], floor if not flops else 0.0)
        for key, value in (("floor", floor), ("us", model["us"] + A100.gap), ("waves", waves)):
            total[key] += value
        rows.append([
            step, str(launch["grid"][0] * launch["grid"][1] * launch["grid"][2]),
            f"{counters['mma_flops'] / flops:.3f} x" if flops else "", f"{conflicts:.2%}",
            f"{sectors / least:.3f} x", f"{unique / moved:.3f} x", str(launch["registers"]), f"{floor:.1f}", f"{model['us']:.1f}",
            f"{model['us'] / floor:.2f}", f"{waves:.1f}", f"{model['us'] / waves:.2f}", str(model["bound"]),
        ])  # fmt: skip
    return rows, total


def sum_row(label: str, total: Totals) -> list[str]:
    floor, us, waves = (total[key] for key in ("floor", "us", "waves"))
    return [label, f"{total['launches']:.0f}", "", "", "", "", "", f"{floor:.1f}", f"{us:.1f}", f"{us / floor:.2f}", f"{waves:.1f}",
            f"{us / waves:.2f}", ""]  # fmt: skip


def report(name: str, tiles: int, dtype: str, launches: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of every launch, and sums of a layer and of all that a picture's tiles go through."""
    rows: list[list[str]] = []
    whole: Totals = dict.fromkeys(("launches", "floor", "us", "waves"), 0.0)
    for part in (before, steps, after):
        expected = part(name, 1025, dtype, tiles)
        found, total = rows_of(expected, launches[: len(expected)])
        launches = launches[len(expected) :]
        rows += [*found, sum_row("layer, with gaps", total)] if part is steps else found
        times = TOWERS[name][3] if part is steps else 1
        whole = {key: value + times * total[key] for key, value in whole.items()}
    assert not launches, "launches that nobody expects"
    return [*rows, sum_row(f"tower of {TOWERS[name][3]} such layers, projector", whole)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", choices=sorted(TOWERS), default="300M")
    parser.add_argument("--tiles", type=int, nargs="+", default=[1])
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument(
        "--checks", action="store_true", help="every check of the virtual GPU on, and the reference beside it"
    )
    parser.add_argument("--out", metavar="FOLDER")
    o = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "vgpu"))
    import vgpu

    vgpu.activate(device="a100", print=False, threads=1 if o.checks else 2, sms=A100.multiprocessors)
    if not o.checks:
        vgpu.configure(races=0, bounds=0, definedness=0)
    lines: list[str] = []
    for tiles in o.tiles:
        launches, seconds, error = run(o.tower, tiles, o.dtype, o.checks, vgpu)
        rows = report(o.tower, tiles, o.dtype, launches)
        said = "" if error is None else f"; every check on, no finding; relative L2 to fp32 {error:.1e}"
        title = f"InternViT-{o.tower}, {tiles} tile(s) of 1025 rows, {o.dtype}; times modelled for {A100.name}{said}"
        Console(width=200).print(table(title, rows), f"executed in {seconds:.0f} s on the virtual GPU", sep="\n")
        lines += [f"## {title}", "", "| " + " | ".join(HEADS) + " |", "|---" + "|---:" * (len(HEADS) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines += [
            "",
            f"Executed in {seconds:.0f} s on the virtual GPU.",
            "",
        ]
    if o.out:
        day = datetime.date.today().isoformat()
        command = " ".join(["python", "bench/cuda_layer.py", *sys.argv[1:]])
        note = "Counts of the virtual GPU are exact; microseconds are modelled from them (bench/cuda_model.py), not measured."
        head = [f"# InternViT-{o.tower} on CUDA, counted, {day}", "", f"`{command}`", "", note, ""]
        path = Path(o.out) / f"{day}-cuda-layer-{o.tower}{'-checked' if o.checks else ''}.md"
        path.write_text("\n".join([*head, *lines]))


if __name__ == "__main__":
    main()
