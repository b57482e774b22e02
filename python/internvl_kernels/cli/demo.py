"""The command demo: the shipped model reads a handwritten number."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ._common import Backend, Dtype, Json, Threads, console, print_json, run_table, save_picture, say, stages


def demo(
    image: Annotated[
        Path | None, typer.Option(help="Read this picture instead of a held-out strip.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which strip to draw.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the picture with its tile grid goes.")] = Path("internvl-demo.png"),
    backend: Backend = "auto",
    dtype: Dtype = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """A small InternVL, shipped in this package, reads a number of handwritten digits.

    The strip is drawn from scans that its training never saw. The same code runs it as any other checkpoint: tiling,
    vision tower, pixel shuffle, projector, mixture-of-experts language model, decode loop.
    """
    from ..demo import QUESTION, checkpoint_path
    from ..io.draw import draw_tiles, image_text
    from ..io.images import open_image
    from ..model import load

    begin = time.perf_counter()
    model = load(checkpoint_path(), backend=backend, dtype=dtype, threads=threads, progress=False)
    loaded = time.perf_counter() - begin
    picture, truth = (open_image(image), None) if image else held_out_strip(seed)
    cut = model.tile(picture)
    save_picture(draw_tiles(picture, cut), out)
    screen = console()
    if not as_json:
        from ..io.draw import grid_text

        if screen.is_terminal and screen.color_system in ("256", "truecolor"):
            screen.print(image_text(picture))
        screen.print(grid_text(cut.grid, cut.thumbnail))
        screen.print(f"[bold]question[/bold]  {QUESTION}")
        screen.print("[bold]answer[/bold]    ", end="")
    answer = (model.chat(QUESTION, picture) if as_json else say(model.stream(QUESTION, picture))).strip()
    tokens = int(model.times["tokens"])
    result: dict[str, Any] = {
        "question": QUESTION, "answer": answer, "truth": truth, "correct": None if truth is None else answer == truth,
        "source": str(image) if image else f"held-out strip, seed {seed}", "width": picture.width, "height": picture.height,
        "grid": list(cut.grid), "tiles": len(cut), "visual_tokens": len(cut) * model.config.tokens_per_tile, "tokens": tokens,
        **run_table(model, threads), "seconds": stages({"load": loaded, **model.times}), "picture": str(out),
    }  # fmt: skip
    if as_json:
        print_json(result)
        return
    if truth is not None:
        mark = "[bold green]right[/bold green]" if answer == truth else "[bold red]wrong[/bold red]"
        screen.print(f"[bold]truth[/bold]     {truth}  {mark}")
    screen.print(_report(result))


def held_out_strip(seed: int) -> tuple[Any, str]:
    """A picture drawn from scans that the demo model has not seen, and the number in it."""
    import numpy as np

    from ..demo.strips import compose, held_out

    strip = compose(np.random.default_rng(seed), held_out())
    return strip.image, strip.text


def _report(result: dict[str, Any]) -> Any:
    """Panel: what ran where, and how long each stage took."""
    from rich.panel import Panel
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    table.add_column(justify="right")
    where = f"{result['backend']} backend" + (f", instruction set {result['isa']}" if result["isa"] else "")
    table.add_row(
        "ran on", f"{where}, {result['threads']} thread{'s' if result['threads'] > 1 else ''}, {result['dtype']}"
    )
    columns, rows = result["grid"]
    table.add_row(
        "picture", f"{result['source']}, {result['width']} x {result['height']}, saved as {result['picture']}"
    )
    seconds, tokens = result["seconds"], result["tokens"]
    what = {
        "load": "weights and tokenizer",
        "tiling": f"{columns} x {rows} grid, {result['tiles']} tiles",
        "vision": f"{result['visual_tokens']} visual tokens",
        "prefill": "prompt to the first token",
        "decode": f"{tokens - 1} more tokens"
        + (f", {(tokens - 1) / seconds['decode']:.0f} per second" if seconds.get("decode") else ""),
    }
    for stage, took in seconds.items():
        table.add_row(stage, what[stage], f"{took * 1e3:.1f} ms")
    return Panel(table, title="what ran where", title_align="left", expand=False)
