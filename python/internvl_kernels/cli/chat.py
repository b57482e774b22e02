"""The command chat: questions to a checkpoint."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ImageError, UnsupportedError
from ._common import (
    Backend,
    Checkpoint,
    Dtype,
    Json,
    KvDtype,
    MaxTiles,
    PackedCache,
    Threads,
    VisualStride,
    Weights,
    Workspace,
    console,
    packed_cache,
    print_json,
    run_table,
    say,
    stages,
)  # fmt: skip

if TYPE_CHECKING:
    from ..model import Model


def chat(
    checkpoint: Checkpoint,
    question: Annotated[str | None, typer.Argument(help="Left out: a conversation, one question per line of input.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="An image of the first question; repeatable.")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A folder of frames, or one frame; all given make one video.")] = None,
    system: Annotated[str | None, typer.Option(help="System message [dim](default: the template's)[/dim].")] = None,
    max_tiles: MaxTiles = None,
    visual_stride: VisualStride = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", rich_help_panel="Choosing tokens")] = 256,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw tokens, not take the best.", rich_help_panel="Choosing tokens")
    ] = False,
    temperature: Annotated[float, typer.Option(rich_help_panel="Choosing tokens")] = 1.0,
    top_p: Annotated[float, typer.Option(rich_help_panel="Choosing tokens")] = 1.0,
    top_k: Annotated[int, typer.Option(help="0: no limit.", rich_help_panel="Choosing tokens")] = 0,
    repetition_penalty: Annotated[float, typer.Option(rich_help_panel="Choosing tokens")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of --sample.", rich_help_panel="Choosing tokens")] = None,
    backend: Backend = "auto",
    dtype: Dtype = None,
    weights: Weights = None,
    kv_dtype: KvDtype = None,
    threads: Threads = None,
    max_workspace: Workspace = None,
    packed: PackedCache = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Ask a checkpoint about images, or talk to it.

    Without a question, every line of standard input is one; the answers become history, and the images belong to the first.
    With --json a single question is answered.
    """
    if as_json and question is None:
        raise UnsupportedError("--json: answers one question; give QUESTION")
    from ..model import load

    begin = time.perf_counter()
    model = load(
        checkpoint, backend=backend, dtype=dtype, threads=threads, max_workspace=max_workspace, progress=not as_json,
        packed_cache=packed_cache(packed), weights=weights, kv_dtype=kv_dtype,
    )  # fmt: skip
    loaded = time.perf_counter() - begin
    images: list[Any] = [*(image or []), *_video(video or [])]
    options: dict[str, Any] = {
        "system": system, "max_tiles": max_tiles, "max_new_tokens": max_new_tokens, "do_sample": sample, "temperature": temperature,
        "top_p": top_p, "top_k": top_k, "repetition_penalty": repetition_penalty, "seed": seed,
        "visual_stride": visual_stride,
    }  # fmt: skip
    if question is None:
        _talk(model, images, options)
        return
    if as_json:
        answer = model.chat(question, images, **options)
        times = {"load": loaded, **model.times}
        print_json(
            {"question": question, "answer": answer, **run_table(model, threads), "tokens": int(times["tokens"]), "seconds": stages(times)}
        )  # fmt: skip
        return
    say(model.stream(question, images, **options))


def _talk(model: Model, images: list[Any], options: dict[str, Any]) -> None:
    """Questions from standard input until it ends; a prompt mark is shown only to a person."""
    person = sys.stdin.isatty()
    history: list[tuple[str, str]] = []
    if person:
        console().print("[dim]One question per line; Ctrl-D ends.[/dim]")
    while True:
        if person:
            console().print("[bold cyan]> [/]", end="")
        line = sys.stdin.readline()
        if not line:
            break
        if line.strip():
            answer = say(model.stream(line.strip(), images, history=history, **options))
            history.append((line.strip(), answer))


def _video(paths: list[Path]) -> list[Any]:
    """One Video of every frame named or found, or nothing."""
    from PIL import Image

    from ..io.images import Video

    frames: list[Path] = []
    for path in paths:
        if path.is_dir():
            known = Image.registered_extensions()
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known)
            if not inside:
                raise ImageError(f"--video: {path} holds no pictures")
            frames += inside
        else:
            frames.append(path)
    return [Video(frames)] if frames else []
