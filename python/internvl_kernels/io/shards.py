"""safetensors files, read and written by their published format: 8 bytes of header length, a JSON header, the
tensors' bytes.

The header is checked whole before any byte is used, so a cut, corrupt or hostile file ends in a ``CheckpointError``
that names it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import CheckpointError
from .fields import parse_object, read_object, show

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 << 20  # the format's own limit
_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8, "BOOL": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
}  # fmt: skip
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CODES = {name: code for code, name in FLOATS.items()}
_READABLE = FLOATS | {"I32": "int32", "U8": "uint8"}  # the latter: codes of quantised matrices


@dataclass(frozen=True)
class StoredTensor:
    name: str
    file: Path
    dtype: str  # the format's code, such as "BF16"
    shape: tuple[int, ...]
    begin: int  # first byte, from the start of the file
    nbytes: int

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        return (self,)


def has_weights(directory: Path) -> bool:
    return (directory / SINGLE).is_file() or (directory / INDEX).is_file()


def read_shards(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name: ``model.safetensors`` alone, or the shards that the index lists."""
    if (directory / SINGLE).is_file():
        return read_header(directory / SINGLE)
    if not (directory / INDEX).is_file():
        raise CheckpointError(_no_weights(directory))
    index = directory / INDEX
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: weight_map is {show(weight_map)}; allowed: an object of tensor names to file names"
        )
    for name, file in weight_map.items():
        if not isinstance(file, str) or file != os.path.basename(file) or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: {show(name)} is in {show(file)}; allowed: a .safetensors file of the same directory"
            )
    found: dict[str, StoredTensor] = {}
    for file in sorted(set(weight_map.values())):
        if not _is_there(directory / file):
            raise CheckpointError(f"{directory / file}: the shard is missing; {INDEX} lists it")
        for name, tensor in read_header(directory / file).items():
            if name in found:
                raise CheckpointError(f"{name}: stored twice, in {found[name].file.name} and in {file}")
            if weight_map.get(name) != file:
                raise CheckpointError(f"{name}: stored in {file}, but {INDEX} has it in {show(weight_map.get(name))}")
            found[name] = tensor
    for name, file in weight_map.items():
        if name not in found:
            raise CheckpointError(f"{name}: {INDEX} has it in {file}, but that shard does not hold it")
    return found


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name longer than any
        return False


def _no_weights(directory: Path) -> str:
    files = sorted(f.name for f in directory.iterdir()) if directory.is_dir() else []
    shards = [f for f in files if f.endswith(".safetensors")]
    pickles = [f for f in files if f.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if shards:
        return f"{directory}: has {shards[0]} but neither {SINGLE} nor {INDEX}"
    if pickles:
        return (
            f"{directory}: has only {pickles[0]}, a pickle, which can run code when read; allowed: safetensors "
            f"({SINGLE}, or shards with {INDEX}). Convert it with transformers' save_pretrained"
        )
    return f"{directory}: holds no weights; allowed: {SINGLE}, or shards with {INDEX}"


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file. Their bytes must fill the file: no hole, overlap, cut or tail."""
    try:
        with file.open("rb") as stream:
            total = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            size = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or size > min(_MAX_HEADER, total - 8):
                raise CheckpointError(
                    f"{file}: corrupt or truncated: {total} bytes cannot hold the header of {size} bytes it announces"
                )
            header = parse_object(stream.read(size), f"{file}: header", constants=False)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        raise CheckpointError(
            f"{file}: corrupt header: __metadata__ is {show(metadata)}; allowed: an object of strings"
        )
    tensors = [_tensor(file, name, entry, 8 + size) for name, entry in header.items()]
    end = 8 + size
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.nbytes)):
        if tensor.begin != end:
            raise CheckpointError(
                f"{file}: corrupt header: {tensor.name} begins at byte {tensor.begin}, the one before it ends at {end}"
            )
        end += tensor.nbytes
    if end > total:
        first = min((t for t in tensors if t.begin + t.nbytes > total), key=lambda t: t.begin)
        raise CheckpointError(f"{file}: truncated: {total} bytes of {end}; {first.name} is the first tensor cut off")
    if end < total:
        raise CheckpointError(f"{file}: corrupt: {total - end} bytes follow the last tensor")
    return {tensor.name: tensor for tensor in tensors}


def _tensor(file: Path, name: str, entry: Any, data: int) -> StoredTensor:
    def whole(values: Any) -> bool:
        return all(type(v) is int and 0 <= v < 1 << 60 for v in values)

    if not isinstance(entry, dict):
        raise CheckpointError(f"{file}: corrupt header: {show(name)} is {show(entry)}; allowed: an object")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise CheckpointError(f"{file}: {name} has dtype {show(dtype)}; allowed: {', '.join(FLOATS)}")
    if not isinstance(shape, list) or not whole(shape) or len(shape) > 8:
        raise CheckpointError(f"{file}: corrupt header: {name} has shape {show(shape)}; allowed: up to 8 sizes")
    if (
        not isinstance(span, list)
        or not whole(span)
        or len(span) != 2
        or span[1] - span[0] != math.prod(shape) * _SIZES[dtype]
    ):
        raise CheckpointError(
            f"{file}: corrupt header: {name} has data_offsets {show(span)}; allowed: a span of "
            f"{math.prod(shape) * _SIZES[dtype]} bytes for {dtype} {list(shape)}"
        )
    return StoredTensor(name, file, dtype, tuple(shape), data + span[0], span[1] - span[0])


class MappedShard:
    """A safetensors file in memory, read on demand. Private mapping: nothing written to a view reaches the file."""

    def __init__(self, file: Path) -> None:
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        with file.open("rb") as stream:  # writable only because torch warns about read-only buffers
            self._map = mmap.mmap(stream.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """A view of the file's bytes in the stored dtype and shape."""
        dtype = getattr(torch, _READABLE[stored.dtype])
        if stored.begin % _SIZES[stored.dtype] == 0:
            view = torch.frombuffer(self._map, dtype=dtype, count=math.prod(stored.shape), offset=stored.begin)
        else:  # rare: a writer that does not align
            raw = torch.frombuffer(self._map, dtype=torch.uint8, count=stored.nbytes, offset=stored.begin)
            view = raw.clone().view(dtype)
        return view.view(stored.shape)

    def release(self, stored: StoredTensor) -> None:
        """Drop the tensor's whole pages from this process, so that a large file never stays resident."""
        page = mmap.PAGESIZE
        begin, end = -(-stored.begin // page) * page, (stored.begin + stored.nbytes) // page * page
        if end > begin:
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: ``make`` gives its elements, flat on the CPU, when their turn comes."""

    name: str
    dtype: str  # a key of CODES
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Entry:
        return cls(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), lambda: tensor.reshape(-1))

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _SIZES[CODES[self.dtype]]


def write_shard(file: Path, entries: Iterable[Entry]) -> None:
    """One safetensors file, streamed tensor by tensor.

    Larger items first keep every tensor aligned.
    """
    ordered = sorted(entries, key=lambda entry: -_SIZES[CODES[entry.dtype]])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for entry in ordered:
        end = begin + entry.nbytes
        header[entry.name] = {"dtype": CODES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            stream.write(entry.make().contiguous().view(torch.uint8).numpy().data)
