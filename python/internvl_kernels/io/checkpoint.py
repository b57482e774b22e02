"""Weights between a checkpoint directory and the flat dictionary of canonical tensors that the models read."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .._lazy import torch
from ..config import ModelConfig, TowerConfig
from ..errors import CheckpointError
from .config import read_config
from .hub import resolve
from .layouts import PARTS, Naming, Parameter, Piece, detect, ignored, parameters
from .quantized import Source, Sources, read_sources
from .save import save_checkpoint
from .shards import FLOATS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PARTS", "load_weights", "read_config", "resolve", "save_checkpoint"]

DTYPES = ("float32", "bfloat16", "float16")
_SHOWN = 5  # names in an error text
_FINITE_BLOCK = 1 << 22  # elements checked at once
_ROWS_BLOCK = 1 << 19  # elements on their way to what packs them


Storage = Callable[[str, "tuple[int, ...]"], Any]


class _Progress(Protocol):
    def __call__(self, done: int) -> None: ...


def load_weights(
    path: str | Path,
    config: ModelConfig | TowerConfig,
    dtype: str | torch.dtype,
    *,
    parts: Collection[str] = PARTS,
    check_finite: bool = False,
    progress: bool = True,
    storage: Storage | None = None,
    sink: Callable[[str, Any], None] | None = None,
) -> dict[str, Any]:
    """Every parameter of ``parts`` by its canonical name (layouts.py), contiguous on the CPU in ``dtype``.

    Files are mapped, each result is allocated once in its final dtype, and stored bytes are converted straight into
    it, in the order of the files; pages already read are dropped. So private memory stays at the size of the result.

    ``dtype``: "float32" | "bfloat16" | "float16", or torch's. ``parts``: some of "vision", "projector", "language";
    tensors of the others need not be complete. ``check_finite``: raise for a NaN or infinity, also one that the
    conversion makes. ``storage``: what a parameter of a name and shape is kept in, where that is not a tensor of ``dtype``:
    a tensor of another dtype, or something with ``dtype`` and ``write(rows, first)``, which is given 32 n rows at a time when
    it is one piece and all rows otherwise. ``sink``: takes each parameter as soon as it is complete; the result is then empty.

    Raises ``CheckpointError`` naming the tensor or file: missing, unknown or misshapen tensors, integers, cut or
    corrupt files, pickles.
    """
    final = _dtype(dtype)
    stored, wanted = described(Path(path), config, parts)
    jobs = sorted(
        ((stored[piece.name], parameter, piece) for parameter in wanted for piece in parameter.pieces),
        key=lambda job: (job[0].file.name, job[0].begin, job[2].begin),
    )
    made: dict[str, Any] = {}
    targets: dict[str, _Target] = {}
    sources = Sources()
    with _bar(sum(_bytes(source, piece) for source, _, piece in jobs), progress) as advance:
        for source, parameter, piece in jobs:
            if parameter.name not in made:
                place = None if storage is None else storage(parameter.name, parameter.shape)
                made[parameter.name] = torch.empty(parameter.shape, dtype=final) if place is None else place
                targets[parameter.name] = _Target(parameter, made[parameter.name])
                del place
            finite = (lambda block, of=source: _check_finite(block, of)) if check_finite else None
            block = piece.decode(sources.read(source, piece.begin, piece.size))
            if targets[parameter.name].fill(piece, block, finite):
                del targets[parameter.name]
                if sink is not None:
                    sink(parameter.name, made.pop(parameter.name))
            del block
            sources.release(source, piece.begin, piece.size)
            advance(_bytes(source, piece))
    return {parameter.name: made[parameter.name] for parameter in wanted if sink is None}


def _bytes(source: Source, piece: Piece) -> int:
    """What a piece takes in its file."""
    return source.nbytes * piece.size // max(math.prod(source.shape), 1)


def described(
    directory: Path, config: ModelConfig | TowerConfig, parts: Collection[str]
) -> tuple[dict[str, Source], list[Parameter]]:
    """All that a checkpoint stores, quantised tensors as what they stand for, and the parameters of ``parts`` that are made of
    it. Reads headers and checks them."""
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise CheckpointError(f"parts: {unknown[0]!r} is not one; allowed: {', '.join(PARTS)}")
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory")
    stored = read_sources(directory)
    naming = detect(stored, config.layout)
    wanted = list(parameters(config, naming, parts))
    _check(stored, wanted, config, naming)
    return stored, wanted


def _dtype(dtype: Any) -> torch.dtype:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise CheckpointError(f"dtype: {dtype!r}; allowed: {', '.join(DTYPES)}")
    return getattr(torch, name)


def _check(
    stored: Mapping[str, Source], wanted: list[Parameter], config: ModelConfig | TowerConfig, naming: Naming
) -> None:
    """Stored tensors must be the described ones: all of ``wanted``, nothing unknown, right shapes and floats."""
    pieces: list[Piece] = [piece for parameter in wanted for piece in parameter.pieces]
    missing = list(dict.fromkeys(f"{p.name} {list(p.stored)}" for p in pieces if p.name not in stored))
    if missing:
        raise CheckpointError(f"missing {_count(missing)} (layout {config.layout!r}): {_some(missing)}")
    known = {piece.name for parameter in parameters(config, naming) for piece in parameter.pieces}
    extra = [name for name in stored if name not in known and not ignored(name, config, naming)]
    if extra:
        raise CheckpointError(f"unknown {_count(extra)}, which this configuration does not have: {_some(extra)}")
    for piece in pieces:
        tensor = stored[piece.name]
        if tensor.shape != piece.stored:
            raise CheckpointError(
                f"{piece.name} has shape {list(tensor.shape)} in {tensor.file.name}; allowed: {list(piece.stored)}"
            )
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{piece.name} has dtype {tensor.dtype} in {tensor.file.name}; allowed: {', '.join(FLOATS)}"
            )


def _count(names: list[str]) -> str:
    return "tensor" if len(names) == 1 else f"{len(names)} tensors"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _passing(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory that goes back to the system when it is dropped: small blocks between large ones would stay in the allocator."""
    block = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(block, dtype=dtype).view(*shape)


class _Target:
    """Where a parameter's pieces go: its tensor, or rows on their way to what packs them."""

    def __init__(self, parameter: Parameter, place: Any) -> None:
        self._place, self._left = place, len(parameter.pieces)
        self._experts = len(parameter.shape) == 3 and not isinstance(place, torch.Tensor)
        self._waiting: dict[int, tuple[Tensor, int]] = {}  # experts with a piece missing, and how much of them is there
        self._whole = isinstance(place, torch.Tensor) or self._left > 1 or place.gated
        self._rows = place if isinstance(place, torch.Tensor) else None
        self._shape = parameter.shape

    def fill(self, piece: Piece, stored: Tensor, check: Callable[[Tensor], None] | None) -> bool:
        """Takes one piece; True when it was the last."""
        self._left -= 1
        if self._experts:
            each = math.prod(self._shape[1:])
            for part in stored.unflatten(0, (1, -1)) if piece.size <= each else stored:
                self._fill_expert(*divmod(piece.start, each), part.reshape(-1), check)
                piece = replace(piece, start=piece.start + part.numel())
            return self._left == 0
        if not self._whole:
            step = max(32, _ROWS_BLOCK // self._shape[1] // 32 * 32)
            for first in range(0, len(stored), step):
                rows = _passing((min(step, len(stored) - first), *self._shape[1:]), self._place.dtype)
                rows.copy_(stored[first : first + step])
                if check is not None:
                    check(rows)
                self._place.write(rows, first)
            return True
        if self._rows is None:
            self._rows = _passing(self._shape, self._place.dtype)
        block = self._rows.view(-1)[piece.start : piece.start + piece.size].view(piece.shape)
        block.copy_(stored)
        if check is not None:
            check(block)
        if self._left == 0 and self._rows is not self._place:
            self._place.write(self._rows)
        return self._left == 0

    def _fill_expert(self, expert: int, begin: int, part: Tensor, check: Callable[[Tensor], None] | None) -> None:
        rows, there = self._waiting.pop(expert, (None, 0))
        if rows is None:
            rows = _passing(self._shape[1:], self._place.dtype)
        block = rows.view(-1)[begin : begin + len(part)]
        block.copy_(part)
        if check is not None:
            check(block)
        if there + len(part) == rows.numel():
            self._place.write(rows[None], expert)
        else:
            self._waiting[expert] = rows, there + len(part)


def _check_finite(block: Tensor, source: Source) -> None:
    for part in block.view(-1).split(_FINITE_BLOCK):
        if not torch.isfinite(part).all():
            at = int((~torch.isfinite(block.view(-1))).nonzero()[0])
            raise CheckpointError(f"{source.name} in {source.file.name} is not finite as {block.dtype} at element {at}")


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[_Progress]:
    """A byte counter on standard error, where that is a terminal."""
    if not shown or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Loading weights", total=total)
        yield lambda done: progress.advance(task, done)
