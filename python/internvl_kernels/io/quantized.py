"""What a checkpoint stores, as matrices of numbers: plain tensors, and those that stand for one by their codes and scales.

  AWQ, 4 bits, "gemm" form   X.qweight i32 [in, out/8], X.qzeros i32 [in/g, out/8], X.scales f16 [in/g, out]: X.weight
                             [out, in], (code - zero) * scale. A word's nibbles, low to high, are columns 0 2 4 6 1 3 5 7.
  MXFP4                      X_blocks u8 [E, out, in/32, 16], X_scales u8 [E, out, in/32]: X [E, in, out], the four-bit float
                             of each nibble, low first, times 2^(scale - 127); a scale of 255 is NaN.

Codes become numbers as they are read, in fp32 and without rounding; whole rows at a time, so that a large matrix is never
held twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._lazy import torch
from ..errors import CheckpointError
from .shards import MappedShard, StoredTensor, read_shards

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = 1 << 22  # codes that are numbers at a time


@dataclass(frozen=True)
class Quantised:
    """A matrix by its codes: ``parts`` are codes, zeros and scales of AWQ, blocks and scales of MXFP4."""

    name: str
    kind: str  # "awq" | "mxfp4"
    shape: tuple[int, ...]
    dtype: str  # code of what its numbers are made for
    parts: tuple[StoredTensor, ...]

    @property
    def file(self) -> Path:
        return self.parts[0].file

    @property
    def begin(self) -> int:
        return self.parts[0].begin

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


Source = StoredTensor | Quantised


def read_sources(directory: Path) -> dict[str, Source]:
    """Every tensor of a checkpoint by name, quantised ones under the name that they stand for."""
    return join(read_shards(directory))


def join(stored: Mapping[str, StoredTensor]) -> dict[str, Source]:
    """Raises ``CheckpointError`` for codes without their scales and for shapes that do not belong together."""
    found: dict[str, Source] = dict(stored)
    for name in stored:
        if name.endswith(".qweight"):
            made: Quantised = _awq(stored, name.removesuffix(".qweight"))
        elif name.endswith("_blocks"):
            made = _mxfp4(stored, name.removesuffix("_blocks"))
        else:
            continue
        for part in made.parts:
            del found[part.name]
        if made.name in stored:
            raise CheckpointError(f"{made.name}: stored both plain and quantised, in {made.file.name}")
        found[made.name] = made
    return found


def _part(stored: Mapping[str, StoredTensor], name: str, dtypes: tuple[str, ...], dims: int) -> StoredTensor:
    part = stored.get(name)
    if part is None:
        raise CheckpointError(f"missing tensor: {name}, of a quantised matrix")
    if part.dtype not in dtypes or len(part.shape) != dims or 0 in part.shape:
        raise CheckpointError(
            f"{name} is {part.dtype} {list(part.shape)} in {part.file.name}; allowed: {' or '.join(dtypes)} of {dims} dimensions"
        )
    return part


def _awq(stored: Mapping[str, StoredTensor], stem: str) -> Quantised:
    codes = _part(stored, f"{stem}.qweight", ("I32",), 2)
    zeros = _part(stored, f"{stem}.qzeros", ("I32",), 2)
    scales = _part(stored, f"{stem}.scales", ("F16", "BF16", "F32"), 2)
    (inner, words), groups = codes.shape, zeros.shape[0]
    if inner % groups or zeros.shape != (groups, words) or scales.shape != (groups, 8 * words):
        raise CheckpointError(
            f"{codes.name} {list(codes.shape)}, qzeros {list(zeros.shape)} and scales {list(scales.shape)} in {codes.file.name}; "
            "allowed: [in, out/8], [in/g, out/8] and [in/g, out], AWQ's gemm form"
        )
    return Quantised(f"{stem}.weight", "awq", (8 * words, inner), scales.dtype, (codes, zeros, scales))


def _mxfp4(stored: Mapping[str, StoredTensor], stem: str) -> Quantised:
    blocks = _part(stored, f"{stem}_blocks", ("U8",), 4)
    scales = _part(stored, f"{stem}_scales", ("U8",), 3)
    experts, outer, groups, width = blocks.shape
    if width != 16 or scales.shape != (experts, outer, groups):
        raise CheckpointError(
            f"{blocks.name} {list(blocks.shape)} and scales {list(scales.shape)} in {blocks.file.name}; allowed: [E, out, in/32, 16] "
            "and [E, out, in/32]"
        )
    return Quantised(stem, "mxfp4", (experts, 32 * groups, outer), "BF16", (blocks, scales))


class Sources:
    """Reads elements of sources from files that it maps once."""

    def __init__(self) -> None:
        self._files: dict[Path, MappedShard] = {}

    def read(self, source: Source, begin: int, count: int) -> Tensor:
        """Elements ``[begin, begin + count)``, flat: views of the file in the stored dtype, or numbers in fp32."""
        if isinstance(source, StoredTensor):
            return self._tensor(_span(source, begin, count))
        each = math.prod(source.shape[1:])
        assert begin % each == count % each == 0  # the layouts cut between rows
        first, last = begin // each, (begin + count) // each
        return (_awq_rows if source.kind == "awq" else _mxfp4_rows)(self, source, first, last).reshape(-1)

    def release(self, source: Source, begin: int, count: int) -> None:
        """Their pages need not stay in memory."""
        if isinstance(source, StoredTensor):
            self._file(source.file).release(_span(source, begin, count))
            return
        for part in source.parts:
            self._file(part.file).release(part)

    def part(self, stored: StoredTensor) -> Tensor:
        return self._tensor(stored)

    def _tensor(self, stored: StoredTensor) -> Tensor:
        return self._file(stored.file).tensor(stored)

    def _file(self, file: Path) -> MappedShard:
        if file not in self._files:
            self._files[file] = MappedShard(file)
        return self._files[file]


def _span(source: StoredTensor, begin: int, count: int) -> StoredTensor:
    size = source.nbytes // max(math.prod(source.shape), 1)
    return replace(source, shape=(count,), begin=source.begin + begin * size, nbytes=count * size)


def _nibbles(words: Tensor) -> Tensor:
    """AWQ's words ``[rows, n]`` as codes ``[rows, 8 n]``."""
    shifts = torch.tensor([0, 16, 4, 20, 8, 24, 12, 28], dtype=torch.int32)
    return ((words[..., None] >> shifts) & 15).flatten(-2)


def _awq_rows(files: Sources, source: Quantised, first: int, last: int) -> Tensor:
    """Rows of the weight are columns of its codes."""
    codes, zeros, scales = map(files.part, source.parts)
    inner, groups = len(codes), len(zeros)
    result = torch.empty(last - first, inner)
    step = max(8, _COLUMNS // inner // 8 * 8)
    for begin in range(first // 8 * 8, last, step):
        words, end = slice(begin // 8, -(-min(begin + step, last) // 8)), min(begin + step, last)
        centred = _nibbles(codes[:, words]).unflatten(0, (groups, -1)) - _nibbles(zeros[:, words])[:, None]
        numbers = (centred * scales[:, None, 8 * words.start : 8 * words.stop].float()).flatten(0, 1).t()
        low = max(begin, first)
        result[low - first : end - first] = numbers[low - begin : end - begin]
    return result


def _mxfp4_rows(files: Sources, source: Quantised, first: int, last: int) -> Tensor:
    blocks, scales = map(files.part, source.parts)
    halves = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    numbers = torch.cat([halves, -halves])
    result = torch.empty(last - first, *source.shape[1:])
    for e in range(first, last):
        codes = torch.stack([blocks[e] & 15, blocks[e] >> 4], -1).flatten(-2).int()
        power = scales[e].int()
        value = torch.ldexp(numbers[codes], (power - 127)[..., None])
        value.masked_fill_((power == 255)[..., None], float("nan"))
        result[e - first] = value.flatten(-2).t()
    return result
