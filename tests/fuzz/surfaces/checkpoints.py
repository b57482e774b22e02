"""Checkpoint folders: files missing, cut, damaged, exchanged or of another kind; configs and headers that do not belong together.
Either a CheckpointError, or weights of the shapes that the config says, bit for bit those stored where nothing was changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch

import internvl_kernels as ivk
from fuzz.small import Base, bases, misplace, write
from fuzz.values import Rng, changed, damaged, json_bytes
from internvl_kernels.io.checkpoint import load_weights, read_config
from internvl_kernels.io.layouts import PARTS, parameters
from internvl_kernels.io.pieces import Naming
from internvl_kernels.models import storage
from internvl_kernels.ops import PackedWeight

ERRORS = (ivk.CheckpointError,)
WEIGHT = 8
_SIZES = (0, 1, 2, 3, 16, 17, 24, 32, 128, 1024, 4096, 1 << 17, 1 << 20)


@dataclass
class Case:
    base: Base
    files: dict[str, bytes]
    dtype: str
    parts: tuple[str, ...]
    packed: bool
    seed: int
    moves: list[str] = field(default_factory=list)  # files whose place something else takes
    changes: list[str] = field(default_factory=list)


def case(rng: Rng) -> Case:
    base = rng.choice(bases())
    parts = PARTS if rng.random() < 0.6 else tuple(rng.sample(PARTS, rng.choice((1, 2))))
    made = Case(
        base,
        dict(base.files),
        rng.choice(("float32", "bfloat16", "float16")),
        parts,
        rng.random() < 0.4,
        rng.getrandbits(32),
    )
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rng.choice((_config, _sizes, _header, _header, _bytes, _swap, _move))(rng, made)
    return made


def _config(rng: Rng, case: Case) -> None:
    value = json.loads(case.base.files["config.json"])
    case.files["config.json"] = json_bytes(rng, changed(rng, value, ["layer_norm", "rms_norm", True, False, *_SIZES]))
    case.changes.append("config")


def _sizes(rng: Rng, case: Case) -> None:
    """Sizes that fit no file: nothing may grow with them before the files are looked at."""
    value = json.loads(case.base.files["config.json"])
    for name, section in value.items():
        if isinstance(section, dict):
            value[name] = {
                k: rng.choice(_SIZES) if type(v) is int and rng.random() < 0.3 else v for k, v in section.items()
            }
    case.files["config.json"] = json.dumps(value).encode()
    case.changes.append("sizes")


def _shards(case: Case) -> list[str]:
    return [name for name in case.files if name.endswith(".safetensors")]


def _header(rng: Rng, case: Case) -> None:
    name = rng.choice(_shards(case))
    data = case.files[name]
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        header = None
    if not isinstance(header, dict) or not header:  # damaged before
        return
    names = list(header)
    kind = rng.randrange(5)
    if kind == 0 and len(names) > 1:  # two tensors change their names
        one, other = rng.sample(names, 2)
        header[one], header[other] = header[other], header[one]
    elif kind == 1:
        gone = rng.choice(names)
        header[
            rng.choice((gone + "x", gone.replace("1", "2"), "lm_head.weight", gone.replace(".weight", ".qweight")))
        ] = header.pop(gone)
    elif kind == 2:
        entry = header[rng.choice(names)]
        if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
            entry["shape"] = rng.choice(
                (entry["shape"][::-1], [*entry["shape"], 1], entry["shape"][:-1], [0], [1, *entry["shape"]])
            )
    elif kind == 3:
        entry = header[rng.choice(names)]
        if isinstance(entry, dict):
            entry["dtype"] = rng.choice(("BF16", "F16", "F64", "I32", "I64", "BOOL", "F8_E4M3"))
    else:
        header = changed(rng, header, ["F32", "F16", "I32", [0, 0], [1], []])
    text = json_bytes(rng, header) if rng.random() < 0.1 else json.dumps(header).encode()
    case.files[name] = len(text).to_bytes(8, "little") + text + data[8 + size :]
    case.changes.append("header")


def _bytes(rng: Rng, case: Case) -> None:
    name = rng.choice(list(case.files))
    case.files[name] = damaged(rng, case.files[name])
    case.changes.append(f"bytes of {name}")


def _swap(rng: Rng, case: Case) -> None:
    """Files of another checkpoint."""
    other = rng.choice(bases())
    name = rng.choice(list(other.files))
    case.files[name] = other.files[name]
    case.changes.append(f"{name} of {other.label}")


def _move(rng: Rng, case: Case) -> None:
    case.moves.append(rng.choice(list(case.files)))


def check(given: Case) -> None:
    folder = write(given.files)
    rng = Rng(given.seed)
    for name in given.moves:
        given.changes.append(f"{misplace(rng, folder / name)} for {name}")
    config = read_config(folder)
    place = storage(config, torch.float32) if given.packed and given.dtype == "float32" else None
    run: dict[str, Any] = {"parts": given.parts, "progress": False, "storage": place}
    found = load_weights(folder, config, given.dtype, check_finite=rng.random() < 0.3, **run)
    described = list(parameters(config, Naming(), given.parts))
    assert list(found) == [p.name for p in described]
    for parameter in described:
        tensor = found[parameter.name]
        assert tuple(tensor.shape) == parameter.shape, parameter.name
        if not given.changes and not isinstance(tensor, PackedWeight):
            stored = given.base.weights[parameter.name].to(tensor.dtype)
            assert torch.equal(tensor, stored), f"{parameter.name} is not what was stored"
    for name in given.files:  # nothing is written to
        if (folder / name).is_file() and name.endswith(".safetensors") and name not in given.moves:
            assert (folder / name).read_bytes() == given.files[name]


def show(given: Case) -> str:
    return (
        f"{given.base.label}; {given.changes}; dtype {given.dtype}, parts {given.parts}, packed {given.packed}\n"
        + "\n".join(
            f"{name}: {data[:700]!r}" for name, data in given.files.items() if data != given.base.files.get(name)
        )
    )
