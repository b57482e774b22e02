"""Reader of SentencePiece model files (``tokenizer.model``): a protobuf of pieces, scores and a few settings.

Own reader of the wire format, so that neither protobuf nor sentencepiece is needed at run time. ``sentencepiece_codec``
encodes and decodes with what is read here.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # what a space is inside a piece


@dataclass(frozen=True)
class SentencePieceModel:
    """A parsed model. Ids are positions in ``pieces``."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]  # NORMAL .. BYTE
    algorithm: str  # "unigram" | "bpe"
    byte_fallback: bool
    unk_id: int
    bos_id: int  # -1: none
    eos_id: int
    pad_id: int
    unk_surface: str
    charsmap: bytes  # compiled normalisation rules; empty: identity
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    source: str = ""  # the file, for messages


_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


class _Malformed(Exception):
    pass


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("the data ends inside a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one message: int for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _Malformed("field number 0")
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _Malformed(f"wire type {wire}")
        if at + size > len(data):
            raise _Malformed("the data ends inside a field")
        yield number, data[at : at + size]
        at += size


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class _Message:
    """Last value of each field, with the type asked for."""

    def __init__(self, data: bytes) -> None:
        self._values = dict(_fields(data))

    def integer(self, number: int, default: int) -> int:
        value = self._values.get(number, default)
        if not isinstance(value, int):
            raise _Malformed(f"field {number} is not a number")
        return _signed(value) if value >= 0 else value

    def binary(self, number: int, default: bytes = b"") -> bytes:
        value = self._values.get(number, default)
        if not isinstance(value, bytes):
            raise _Malformed(f"field {number} is not a string")
        return value

    def text(self, number: int, default: str = "") -> str:
        return self.binary(number, default.encode()).decode("utf-8")


def _piece(data: bytes) -> tuple[str, float, int]:
    message = _Message(data)
    score = message.binary(2, b"\0\0\0\0")
    kind = message.integer(3, NORMAL)
    if len(score) != 4 or not math.isfinite(value := struct.unpack("<f", score)[0]) or not NORMAL <= kind <= BYTE:
        raise _Malformed(f"piece with score {score!r} and type {kind}")
    text = message.text(1)
    if not text or "\0" in text:
        raise _Malformed(f"piece {text!r}; none is empty or holds a zero byte")
    if kind == BYTE and not _BYTE_PIECE.fullmatch(text):
        raise _Malformed(f"byte piece {text!r}")
    return text, value, kind


def _parse(data: bytes, source: str) -> SentencePieceModel:
    pieces: list[tuple[str, float, int]] = []
    specs: dict[int, bytes] = {}
    for number, value in _fields(data):
        if number not in (1, 2, 3, 5):
            continue
        if not isinstance(value, bytes):
            raise _Malformed(f"field {number} is not a message")
        if number == 1:
            pieces.append(_piece(value))
        else:
            specs[number] = value
    if 2 not in specs or 3 not in specs:
        raise _Malformed("the settings behind the pieces are missing")
    trainer, normalizer, denormalizer = (_Message(specs.get(n, b"")) for n in (2, 3, 5))
    algorithm = {1: "unigram", 2: "bpe"}.get(trainer.integer(3, 1))
    if not pieces:
        raise _Malformed("no pieces")
    if algorithm is None:
        raise _Malformed(f"model type {trainer.integer(3, 1)}; unigram (1) and BPE (2) are supported")
    if trainer.integer(24, 0) or not normalizer.integer(5, 1) or denormalizer.binary(2):
        raise _Malformed("whitespace as suffix, unescaped whitespace and denormalisation rules are not supported")
    unknown = [i for i, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN]
    if len(unknown) != 1:
        raise _Malformed(f"{len(unknown)} unknown pieces; there must be one")
    words, scores, types = zip(*pieces)
    if len(set(words)) != len(words):
        raise _Malformed("a piece occurs twice")
    byte_fallback, held = bool(trainer.integer(35, 0)), {w for w, _, kind in pieces if kind == BYTE}
    if byte_fallback and not {f"<0x{b:02X}>" for b in range(256)} <= held:
        raise _Malformed("byte fallback without all 256 byte pieces")
    if held and not byte_fallback:
        raise _Malformed("byte pieces without byte fallback")
    if algorithm == "unigram" and not set(types) & {NORMAL, UNUSED}:
        raise _Malformed("no piece that a text could be made of")
    if algorithm == "unigram" and USER_DEFINED in types:
        raise _Malformed("user-defined symbols in a unigram model, which the library's versions score differently")
    special = {"bos_id": trainer.integer(41, 1), "eos_id": trainer.integer(42, 2), "pad_id": trainer.integer(43, -1)}
    for name, index in special.items():
        if index >= len(pieces):
            raise _Malformed(f"{name} {index} of {len(pieces)} pieces")
    return SentencePieceModel(
        pieces=words,
        scores=scores,
        types=types,
        algorithm=algorithm,
        byte_fallback=byte_fallback,
        unk_id=unknown[0],
        unk_surface=trainer.text(44, " \u2047 "),
        charsmap=normalizer.binary(2),
        add_dummy_prefix=bool(normalizer.integer(3, 1)),
        remove_extra_whitespaces=bool(normalizer.integer(4, 1)),
        source=source,
        **special,
    )


def load_sentencepiece(path: str | Path) -> SentencePieceModel:
    """Reads a model file. Raises CheckpointError naming the file if it is truncated, hostile or of an unknown kind."""
    path = Path(path)
    try:
        return _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    except (_Malformed, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a usable SentencePiece model: {error}") from error
