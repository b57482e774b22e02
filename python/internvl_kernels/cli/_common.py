"""What every command shares: error lines, JSON, the options that choose how a model runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import BackendError, CheckpointError, ImageError, UnsupportedError

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
FAILED = 1  # a check found something wrong
REFUSED = 2  # the request cannot be carried out as asked

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Backend = Annotated[str, typer.Option(help="auto, reference, cpu or cuda.", rich_help_panel="How it runs")]
Threads = Annotated[
    int | None, typer.Option(help="Cap on CPU threads [dim](default: torch's)[/dim].", rich_help_panel="How it runs")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32 (default), bfloat16 or float16: what is computed in.", rich_help_panel="How it runs"),
]
Weights = Annotated[
    str | None,
    typer.Option(help="What matrices are stored in, same names [dim](default: --dtype)[/dim].", rich_help_panel="How it runs"),
]  # fmt: skip
KvDtype = Annotated[
    str | None,
    typer.Option(help="What keys and values are stored in, same names [dim](default: --dtype)[/dim].", rich_help_panel="How it runs"),
]  # fmt: skip
Workspace = Annotated[
    str | None,
    typer.Option(help="Limit for temporaries, such as 512MiB: tiles and prompts go in passes under it.", rich_help_panel="How it runs"),
]  # fmt: skip
PackedCache = Annotated[
    str | None,
    typer.Option(
        "--packed-cache", metavar="FOLDER|auto", help="Keep packed weights in a file there and map it; auto: the user's cache folder.",
        show_default=False, rich_help_panel="How it runs",
    ),
]  # fmt: skip
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT", help="Directory of a checkpoint, or a hub id in the local cache.", show_default=False
    ),
]
MaxTiles = Annotated[
    int | None, typer.Option(help="Most tiles of one image [dim](default: the checkpoint's)[/dim].", show_default=False)
]

VisualStride = Annotated[
    float | None,
    typer.Option(help="V2PE: positions of a visual token, up to 1 [dim](default: the checkpoint's)[/dim]."),
]


class Commands(TyperGroup):
    """Commands in their given order; the package's own errors become one red line and exit code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (CheckpointError, ImageError, UnsupportedError, BackendError, OSError) as error:
            from rich.text import Text

            line = " ".join(str(error).split())
            console(stderr=True).print(Text(f"error: {line}", style="bold red"), soft_wrap=True)
            raise typer.Exit(REFUSED) from None


def console(stderr: bool = False) -> Console:
    from rich.console import Console

    screen = Console(stderr=stderr, highlight=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = 120  # a file or a pipe has no width of its own
    return screen


def say(pieces: Iterable[str]) -> str:
    """Write an answer as it comes and return it whole. On screen, control characters of a model can't steer the terminal."""
    answer = ""
    for piece in pieces:
        answer += piece
        sys.stdout.write(piece.translate(_CONTROL))
        sys.stdout.flush()
    sys.stdout.write("\n")
    return answer


def packed_cache(folder: str | None) -> bool | str | None:
    """The option as the argument of ``load``."""
    return True if folder == "auto" else folder


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def save_picture(image: Any, path: Path) -> None:
    """Write by the suffix; an unknown suffix is refused by name."""
    try:
        image.save(path)
    except ValueError as error:
        raise ImageError(f"--out: {path}: {error}") from None


def run_table(model: Any, threads: int | None) -> dict[str, Any]:
    """What runs where, of a loaded model."""
    from ..ops._backend import cpu

    return {
        "backend": model.backend,
        "isa": cpu().current_isa() if model.backend == "cpu" else None,
        "threads": threads or _torch_threads(),
        "dtype": model.dtype,
    }


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def stages(times: dict[str, float]) -> dict[str, float]:
    """Seconds by stage, in order, of ``Model.times`` (its "tokens" is a count)."""
    return {name: times[name] for name in ("load", "tiling", "vision", "prefill", "decode") if name in times}
