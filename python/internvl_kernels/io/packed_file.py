"""Weights as the cpu backend keeps them, in one file that processes map instead of packing a checkpoint again.

The file is plain safetensors: canonical names (layouts.py), packed matrices as their panels and the rest as they are, every
tensor at a multiple of 64 bytes, U8 tensors between them where the sizes do not come out even. Its name and its metadata hold
what its bytes follow from: the checkpoint, the dtypes, the parts, how each parameter is kept, and the layout of panels. What
differs in any of these has another name, so no stale file is ever read; a file is never changed once it has its name.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import math
import mmap
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import torch
from ..config import ModelConfig, TowerConfig
from ..errors import CheckpointError
from ..ops._packed import PackedWeight, packed_layout
from .checkpoint import Storage, described, load_weights
from .layouts import PARTS
from .shards import CODES

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "1"  # raise it when the same metadata comes to mean other bytes: another order of rows in a parameter, say
ALIGNMENT = 64


def packed_weights(
    folder: Path,
    directory: Path,
    config: ModelConfig | TowerConfig,
    dtype: str,
    *,
    parts: Collection[str] = PARTS,
    progress: bool = True,
    storage: Storage | None = None,
) -> dict[str, Any]:
    """What ``load_weights`` gives, bit for bit, as views of a file in ``folder`` that is mapped read-only and shared.

    Where the file is missing it is made first: each parameter is written when it is packed, so private memory holds a few of
    them. It appears under its name whole or not at all, and of several processes one makes it while the others wait.

    Raises ``CheckpointError`` as ``load_weights``, and for a folder that cannot be written or has no room. A file of the right
    name and wrong content is refused too, never replaced: ours get their names only when whole and on the disk, so it is
    someone else's, or the disk fails, and both are better seen. Only sizes and the header are looked at; as with any mapped
    checkpoint, bits that change on the disk are not noticed.
    """
    stored, wanted = described(directory, config, parts)
    shards = sorted({part.file for source in stored.values() for part in source.parts})
    checkpoint = _fingerprint(directory, shards)
    places = {parameter.name: _place(parameter.name, parameter.shape, dtype, storage) for parameter in wanted}
    packed = sorted({str(p.dtype).removeprefix("torch.") for p in places.values() if isinstance(p, PackedWeight)})
    facts = {"dtype": dtype, "weights": ",".join(packed or [dtype]), "parts": ",".join(p for p in PARTS if p in parts)}
    contents = _Contents.of(places, checkpoint, facts)
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", directory.resolve().name)[:80]
    file = folder / f"{stem}-{contents.key}.safetensors"
    refusals = _Refusals(file, contents.size)
    with refusals:
        there = file.exists()
    if not there:
        with _alone(folder, refusals) as alone:
            if not file.exists():  # else another process made it while this one waited
                run: dict[str, Any] = {"parts": parts, "progress": progress, "storage": storage}
                with _Writer(file, contents, refusals, alone) as writer:
                    load_weights(directory, config, dtype, sink=writer.take, **run)
                    if _fingerprint(directory, shards) != checkpoint:
                        raise CheckpointError(f"{directory}: changed while it was read; load it again")
                    writer.finish()
    with refusals:
        return _mapped(file, contents, places)


def _place(name: str, shape: tuple[int, ...], dtype: str, storage: Storage | None) -> Any:
    """What the parameter is kept in, without memory."""
    with torch.device("meta"):
        place = None if storage is None else storage(name, shape)
        return torch.empty(shape, dtype=getattr(torch, dtype)) if place is None else place


def _data(place: Any) -> Tensor:
    return place.data if isinstance(place, PackedWeight) else place


def _fingerprint(directory: Path, shards: Sequence[Path]) -> str:
    """Tells checkpoints apart without reading weights. Paths are in it because archives and image layers set one mtime on all
    they hold: files that differ in nothing else of this list must not be taken for each other."""
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for file in shards:
        found = file.stat()
        with file.open("rb") as stream:
            header = stream.read(int.from_bytes(stream.read(8), "little"))
        facts = [file.name, os.path.realpath(file), found.st_size, found.st_mtime_ns]
        digest.update(json.dumps([*facts, hashlib.sha256(header).hexdigest()]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Contents:
    """A file before it is written: its header, the first byte of each parameter, its size."""

    key: str
    header: bytes
    begins: Mapping[str, int]
    size: int

    @classmethod
    def of(cls, places: Mapping[str, Any], checkpoint: str, facts: Mapping[str, str]) -> _Contents:
        kept = hashlib.sha256()
        entries: dict[str, Any] = {}
        ends, begin = {}, 0
        for name, place in places.items():
            data = _data(place)
            kind = repr(place) if isinstance(place, PackedWeight) else f"{data.dtype} {list(data.shape)}"
            kept.update(f"{name}: {kind}\n".encode())
            end = begin + data.numel() * data.element_size()
            code = CODES[str(data.dtype).removeprefix("torch.")]
            entries[name] = {"dtype": code, "shape": list(data.shape), "data_offsets": [begin, end]}
            ends[name] = begin
            begin = -(-end // ALIGNMENT) * ALIGNMENT
            if begin > end:  # the format has no holes
                entries[f"{name}.padding"] = {"dtype": "U8", "shape": [begin - end], "data_offsets": [end, begin]}
        layout = {"format": FORMAT, "layout": packed_layout(), "checkpoint": checkpoint, "kept": kept.hexdigest()}
        metadata = {"content": "packed weights of internvl-kernels", **layout, **facts}
        text = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        header = len(text).to_bytes(8, "little") + text
        key = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:32]
        return cls(key, header, {name: len(header) + first for name, first in ends.items()}, len(header) + begin)


class _Writer:
    """The file under a name of its own until ``finish``; without that nothing is left of it."""

    def __init__(self, file: Path, contents: _Contents, refusals: _Refusals, alone: bool) -> None:
        self._file, self._contents, self._refusals = file, contents, refusals
        # Alone, what a killed process left is taken over; else each writer has its own.
        self._partial = file.with_name(f".{file.name}.{'' if alone else secrets.token_hex(8) + '.'}partial")

    def __enter__(self) -> _Writer:
        with self._refusals:
            self._partial.unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._stream = os.fdopen(os.open(self._partial, flags, 0o666), "r+b")
            try:
                self._reserve()
                self._stream.write(self._contents.header)
            except BaseException:
                self._drop()
                raise
        return self

    def _reserve(self) -> None:
        """All of the room at once: a full disk is refused before the work."""
        try:
            os.posix_fallocate(self._stream.fileno(), 0, self._contents.size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.ftruncate(self._stream.fileno(), self._contents.size)  # a file system that cannot: writing will tell

    def take(self, name: str, place: Any) -> None:
        """Writes a parameter that is complete."""
        with self._refusals:
            self._stream.seek(self._contents.begins[name])
            self._stream.write(_data(place).reshape(-1).view(torch.uint8).numpy().data)

    def finish(self) -> None:
        with self._refusals:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._partial.replace(self._file)
            folder = os.open(self._file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    def _drop(self) -> None:
        self._partial.unlink(missing_ok=True)
        with suppress(OSError):  # what it still held does not fit either, and the file is gone
            self._stream.close()


def _mapped(file: Path, contents: _Contents, places: Mapping[str, Any]) -> dict[str, Any]:
    if not file.is_file():
        raise _unfit(file, "not a file")
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != contents.size:
            raise _unfit(file, f"{size} bytes, not {contents.size}")
        if stream.read(len(contents.header)) != contents.header:
            raise _unfit(file, "another header")
        pages = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    # A ctypes array claims to be writable, so torch does not warn about read-only memory; a write to it would end the process.
    whole = (ctypes.c_ubyte * size).from_address(pages.ctypes.data)
    whole.pages = pages  # type: ignore[attr-defined]  # as long as a tensor holds the one, the other stays mapped
    result = {}
    for name, place in places.items():
        like = _data(place)
        flat = torch.frombuffer(whole, dtype=like.dtype, count=math.prod(like.shape), offset=contents.begins[name])
        view = flat.view(like.shape)
        result[name] = place.over(view) if isinstance(place, PackedWeight) else view
    return result


def _unfit(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"packed_cache: {file} is cut, corrupt or of other origin ({why}); delete it, and the next load writes it anew"
    )


@contextmanager
def _alone(folder: Path, refusals: _Refusals) -> Iterator[bool]:
    """One process at a time in ``folder``, whose own lock leaves no file behind: waiting is quicker than packing too, and leaves
    one file to share. Where the file system has no locks (False) each process packs, and the last one's file stays."""
    with refusals:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


class _Refusals:
    """The system's refusals, in our words."""

    def __init__(self, file: Path, size: int) -> None:
        self._file, self._size = file, size

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (OSError, UnicodeError)):
            raise CheckpointError(
                f"packed_cache: {self._file}: {getattr(error, 'strerror', None) or error}; allowed: a folder that can be "
                f"written and has room for {self._size} bytes, or None"
            ) from None


__all__ = ["packed_weights"]
