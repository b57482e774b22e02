"""The command ``internvl-kernels``. Heavy imports happen inside the commands, so ``--help`` is instant."""

from __future__ import annotations

import typer

from . import chat, check, demo, encode, machine, tiles
from . import models as released
from ._common import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run InternVL with its own kernels: straight from a published checkpoint, nothing else to install.",
)
for command in (
    demo.demo, machine.info, released.models, chat.chat, encode.encode, tiles.tiles, machine.plan, check.bench, check.verify,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    app(prog_name="internvl-kernels")


__all__ = ["app", "main"]
