"""Files of packed weights (packed_cache): whatever lies under the name of one, the weights are those of the checkpoint bit for bit,
or a CheckpointError says what lies there. Bytes of values that change on the disk are not looked at, as its contract says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import internvl_kernels as ivk
from fuzz.scratch import fresh_folder, root
from fuzz.small import Base, bases, misplace, write
from fuzz.values import Rng, damaged
from internvl_kernels.io.checkpoint import load_weights
from internvl_kernels.io.layouts import PARTS
from internvl_kernels.io.packed_file import packed_weights
from internvl_kernels.models import storage
from internvl_kernels.ops import PackedWeight

ERRORS = (ivk.CheckpointError,)
WEIGHT = 4
_made: dict[str, tuple[Path, str, bytes, dict[str, Any]]] = {}


@dataclass(frozen=True)
class Case:
    base: Base
    kind: str
    seed: int


def case(rng: Rng) -> Case:
    kinds = ("header", "header", "values", "cut", "longer", "misplaced", "folder", "partial", "another", "fresh")
    return Case(rng.choice(bases()), rng.choice(kinds), rng.getrandbits(32))


def _packed(base: Base) -> tuple[Path, str, bytes, dict[str, Any]]:
    """The checkpoint's folder, the name and bytes of its packed file, and its weights without one."""
    if base.label not in _made:
        folder = write(base.files, "checkpoint " + base.label)
        cache = fresh_folder("making")
        _load(folder, base, cache)
        (file,) = cache.iterdir()
        plain = load_weights(
            folder, base.config, "float32", progress=False, storage=storage(base.config, torch.float32)
        )
        _made[base.label] = folder, file.name, file.read_bytes(), plain
    return _made[base.label]


def _load(folder: Path, base: Base, cache: Path) -> dict[str, Any]:
    run: dict[str, Any] = {"parts": PARTS, "progress": False, "storage": storage(base.config, torch.float32)}
    return packed_weights(cache, folder, base.config, "float32", **run)


def check(given: Case) -> None:
    rng = Rng(given.seed)
    folder, name, data, plain = _packed(given.base)
    cache = fresh_folder("cache")
    size, exact = 8 + int.from_bytes(data[:8], "little"), True
    if given.kind == "header":
        data = damaged(rng, data[:size]) + data[size:]
    elif given.kind == "values":
        at = rng.randrange(size, len(data))
        data, exact = data[:at] + rng.randbytes(1) + data[at + 1 :], False
    elif given.kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif given.kind == "longer":
        data += rng.randbytes(rng.choice((1, 64, 4096)))
    elif given.kind == "another":
        data = _packed(rng.choice(bases()))[2]
    if given.kind == "folder":
        cache = _odd_folder(rng, cache)
    elif given.kind == "partial":
        (cache / f".{name}.partial").write_bytes(data[:100])
        if rng.random() < 0.3:
            (cache / f".{name}.partial").unlink()
            (cache / f".{name}.partial").mkdir()
    elif given.kind != "fresh":
        (cache / name).write_bytes(data)
    if given.kind == "misplaced":
        misplace(rng, cache / name)
    found = _load(folder, given.base, cache)
    assert list(found) == list(plain)
    for key, weight in found.items():
        ours, theirs = (w.data if isinstance(w, PackedWeight) else w for w in (weight, plain[key]))
        assert ours.shape == theirs.shape
        if exact:
            assert torch.equal(ours, theirs), f"{key} is not what the checkpoint stores"


def _odd_folder(rng: Rng, cache: Path) -> Path:
    kind = rng.randrange(7)
    if kind == 0:
        (cache / "file").write_text("x")
        return cache / "file"
    if kind == 1:
        (cache / "loop").symlink_to("loop")
        return cache / "loop"
    if kind == 2:
        return cache / ("a" * 300)
    if kind == 3:
        return cache / "a" / "b" / "c"
    if kind == 4:
        (cache / "pipe").unlink(missing_ok=True)
        os.mkfifo(cache / "pipe")
        return cache / "pipe" / "x"
    if kind == 5:
        return Path("/proc/self/fd")
    return Path("/dev/null") if rng.random() < 0.5 else root() / "cache" / "\ud800"


def show(given: Case) -> str:
    return f"{given.base.label}, {given.kind}, inner seed {given.seed}"
