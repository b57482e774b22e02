"""safetensors headers: what is read is what the safetensors library reads, and a well-formed file is never refused; else a
CheckpointError. Behind an index, several such files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

import internvl_kernels as ivk
from fuzz.scratch import fresh_folder
from fuzz.values import TEXTS, Rng, changed, damaged, json_bytes
from internvl_kernels.io.quantized import Sources, read_sources
from internvl_kernels.io.shards import FLOATS, INDEX, SINGLE, read_shards

ERRORS = (ivk.CheckpointError,)
WEIGHT = 15
GUIDED = True
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1, "I64": 8, "BOOL": 1, "F8_E4M3": 1}
_NAMES = ("a", "b.weight", "x.qweight", "x.qzeros", "x.scales", "y_blocks", "y_scales", "lm_head.weight", "é", "")


@dataclass(frozen=True)
class Case:
    files: dict[str, bytes]
    whole: bool  # as a writer makes it


def case(rng: Rng) -> Case:
    if rng.random() < 0.7:
        data, whole = _file(rng, [rng.choice(_NAMES) for _ in range(rng.randrange(5))])
        return Case({SINGLE: data}, whole)
    names = ["m-1.safetensors", "m-2.safetensors"][: rng.choice((1, 2, 2))]
    files, listed, whole = {}, {}, True
    for number, name in enumerate(names):
        held = [f"{number}.{tensor}" for tensor in rng.sample(_NAMES, rng.randrange(4))]
        files[name], good = _file(rng, held, rng.random() < 0.3)
        listed |= dict.fromkeys(held, name)
        whole &= good and bool(held)
    index: Any = {"metadata": {"total_size": 1}, "weight_map": listed}
    if rng.random() < 0.6:
        words = [
            *names,
            *listed,
            "m-3.safetensors",
            "../m-1.safetensors",
            "/dev/zero",
            "m-1.safetensors/",
            "config.json",
            *TEXTS,
        ]
        index, whole = changed(rng, index, words), False
    files[INDEX] = json_bytes(rng, index)
    whole &= files[INDEX] in (json.dumps(index).encode(), json.dumps(index, indent=2).encode())
    return Case(files, whole and bool(listed))


def _file(rng: Rng, names: list[str], hurt: bool = True) -> tuple[bytes, bool]:
    header: dict[str, Any] = {}
    if rng.random() < 0.3:
        header["__metadata__"] = {"format": "pt"}
    end = 0
    for name in dict.fromkeys(names):
        code = rng.choice(list(_SIZES)) if rng.random() < 0.5 else rng.choice(("F32", "BF16"))
        shape = [rng.choice((0, 1, 1, 2, 3, 8)) for _ in range(rng.randrange(4))]
        size = math.prod(shape) * _SIZES[code]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    whole = True
    if hurt and rng.random() < 0.6:
        header, whole = (
            changed(rng, header, [*_SIZES, "F4", "C64", "I16", 8, 16, [0, 0], [0, 8], [8, 0], [0, 2**63], [1, 1]]),
            False,
        )
    text = json_bytes(rng, header) if not whole else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * rng.choice((0, 0, 3, 8, -len(text) % 8))
    data = len(text).to_bytes(8, "little") + text + rng.randbytes(end)
    if hurt and rng.random() < 0.4:
        data, whole = damaged(rng, data), False
    return data, whole


def check(given: Case) -> None:
    folder = fresh_folder()
    for name, data in given.files.items():
        (folder / name).write_bytes(data)
    try:
        stored = read_shards(folder)
    except ivk.CheckpointError as error:
        if given.whole:
            raise AssertionError(f"a well-formed file is refused: {error}") from None
        raise
    expected = {}
    for file in {tensor.file for tensor in stored.values()}:
        expected |= _theirs(file)
    ours = {name: (tensor.dtype, list(tensor.shape)) for name, tensor in stored.items()}
    assert ours == {name: found[:2] for name, found in expected.items()}
    sources, joined = Sources(), read_sources(folder)
    for name, tensor in stored.items():
        found = joined.get(name)
        if tensor.dtype in FLOATS and found is tensor and math.prod(tensor.shape):
            read = sources.read(tensor, 0, math.prod(tensor.shape))
            assert torch.equal(read.reshape(-1).view(torch.uint8), expected[name][2].reshape(-1).view(torch.uint8)), (
                f"bytes of {name}"
            )
            sources.release(tensor, 0, math.prod(tensor.shape))


def _theirs(file: Path) -> dict[str, tuple[str, list[int], torch.Tensor]]:
    """What the library reads."""
    found = {}
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                part = opened.get_slice(name)
                found[name] = (part.get_dtype(), list(part.get_shape()), opened.get_tensor(name))
    except (SafetensorError, ValueError) as error:
        raise AssertionError(f"read here, but the safetensors library refuses {file.name}: {error}") from None
    return found


def show(given: Case) -> str:
    return f"whole={given.whole}, files = {given.files!r}"
