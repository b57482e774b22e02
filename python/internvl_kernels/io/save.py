"""Canonical tensors -> a checkpoint directory in either published layout, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ModelConfig
from ..errors import CheckpointError
from .config_json import config_files
from .layouts import Parameter, Piece, naming_of, parameters
from .shards import CODES, INDEX, SINGLE, Entry, write_shard

if TYPE_CHECKING:
    from torch import Tensor

MAX_SHARD_BYTES = 5_000_000_000


def save_checkpoint(
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    path: str | Path,
    *,
    layout: str = "original",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    fused_experts: bool = False,
    prefixes: str = "legacy",
    extra_files: Mapping[str, bytes | str | Path] | None = None,
    overwrite: bool = False,
) -> None:
    """Write config.json, its companions and safetensors, so that ``read_config`` and ``load_weights`` give the same
    back bit for bit.

    ``weights``: every canonical parameter, each in its own float dtype. Layers of the tower past ``num_layers`` are
    not in it, so the written config counts only those that run. ``layout``: "original" | "hf". ``prefixes``: of "hf",
    "legacy" (read by every transformers) | "new". ``extra_files``: name -> content or a file to copy, such as the
    tokenizer's. ``overwrite``: replace a directory that is there.

    The directory appears complete or not at all. Raises ``CheckpointError``: tensors that do not fit ``config``, a
    config that the layout cannot express, a path that is taken.
    """
    for argument, value, allowed in (("layout", layout, ("original", "hf")), ("prefixes", prefixes, ("legacy", "new"))):
        if value not in allowed:
            raise CheckpointError(f"{argument}: {value!r}; allowed: {', '.join(allowed)}")
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes: {max_shard_bytes}; allowed: at least 1")
    naming = naming_of(config, layout, prefixes, fused_experts)
    described = list(parameters(config, naming))
    _check(weights, described)
    files: dict[str, bytes | str | Path] = dict(config_files(config, layout, dtype=_common_dtype(weights)))
    for name, content in (extra_files or {}).items():
        if name != os.path.basename(name) or not name or name.startswith("model.safetensors") or name == "config.json":
            raise CheckpointError(
                f"extra_files: {name!r}; allowed: a plain file name other than config.json and the weights'"
            )
        files[name] = content
    target = Path(path)
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not overwrite:
        raise CheckpointError(f"{target}: exists; allowed: a new or empty directory, or overwrite=True")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        work.chmod(0o755)
        for name, content in files.items():
            _write(work / name, content)
        _write_weights(work, weights, described, max_shard_bytes)
        _replace(work, target, taken)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check(weights: Mapping[str, Tensor], described: list[Parameter]) -> None:
    for parameter in described:
        if parameter.name not in weights:
            raise CheckpointError(f"weights: {parameter.name} {list(parameter.shape)} is missing")
        tensor = _facts(weights, parameter.name)
        if tuple(tensor.shape) != parameter.shape:
            raise CheckpointError(
                f"weights: {parameter.name} has shape {list(tensor.shape)}; allowed: {list(parameter.shape)}"
            )
        if str(tensor.dtype).removeprefix("torch.") not in CODES:
            raise CheckpointError(f"weights: {parameter.name} has dtype {tensor.dtype}; allowed: {', '.join(CODES)}")
    names = {parameter.name for parameter in described}
    extra = next((name for name in weights if name not in names), None)
    if extra is not None:
        raise CheckpointError(f"weights: {extra} is not a parameter of this configuration")


def _common_dtype(weights: Mapping[str, Tensor]) -> str:
    held: Counter[str] = Counter()
    for name in weights:
        tensor = _facts(weights, name)
        held[str(tensor.dtype).removeprefix("torch.")] += tensor.numel() * tensor.element_size()
    return max(held, key=lambda name: held[name])


def _write(file: Path, content: bytes | str | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, file)
    else:
        file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def _write_weights(directory: Path, weights: Mapping[str, Tensor], described: list[Parameter], limit: int) -> None:
    """Shards in the order of the forward pass, each as full as ``limit`` allows; a tensor larger than that gets its
    own.
    """
    shards: list[list[Entry]] = [[]]
    room = limit
    entries = list(_entries(weights, described))
    for entry in entries:
        if entry.nbytes > room and shards[-1]:
            shards.append([])
            room = limit
        shards[-1].append(entry)
        room -= entry.nbytes
    names = (
        [SINGLE]
        if len(shards) == 1
        else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    for name, shard in zip(names, shards):
        write_shard(directory / name, shard)
    if len(shards) > 1:
        weight_map = {entry.name: name for name, shard in zip(names, shards) for entry in shard}
        total = sum(entry.nbytes for entry in entries)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _entries(weights: Mapping[str, Tensor], described: list[Parameter]) -> Iterator[Entry]:
    """The stored tensors: all pieces of one belong to one parameter."""
    for parameter in described:
        dtype = _dtype_of(weights, parameter.name)
        of: dict[str, list[Piece]] = {}
        for piece in parameter.pieces:
            of.setdefault(piece.name, []).append(piece)
        for name, pieces in of.items():
            yield Entry(name, dtype, pieces[0].stored, partial(_assembled, weights, parameter.name, pieces))


def _assembled(weights: Mapping[str, Tensor], name: str, pieces: list[Piece]) -> Tensor:
    tensor = weights[name].detach().reshape(-1).cpu()
    parts = [(p, p.encode(tensor[p.start : p.start + p.size].view(p.shape))) for p in pieces]
    if len(parts) == 1:
        return parts[0][1]
    result = tensor.new_empty(math.prod(pieces[0].stored))
    for piece, part in parts:
        result[piece.begin : piece.begin + piece.size] = part
    return result


def _dtype_of(weights: Mapping[str, Tensor], name: str) -> str:
    return str(_facts(weights, name).dtype).removeprefix("torch.")


def _facts(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Shape and dtype of a weight; a mapping that makes its tensors when asked has them without (``meta``)."""
    meta = getattr(weights, "meta", None)
    return weights[name] if meta is None else meta(name)


def _replace(work: Path, target: Path, taken: bool) -> None:
    if not taken:
        work.rename(target)  # an empty directory in the way is replaced by the system
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = aside / "old"
    target.rename(old)
    try:
        work.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
