"""tokenizer.model: pieces, scores and settings of any kind, and the bytes of the protobuf damaged. Where the sentencepiece library
reads a model too, both give the same ids and texts."""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import dataclass

import sentencepiece

import internvl_kernels as ivk
from fuzz.scratch import fresh_folder
from fuzz.values import Rng, damaged, text
from internvl_kernels.io.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    load_sentencepiece,
)
from internvl_kernels.io.sentencepiece_codec import SentencePieceCodec

ERRORS = (ivk.CheckpointError,)
WEIGHT = 10
GUIDED = True
_CORPUS = ["the quick brown fox  jumps   over", "banana bandana aaaa", "你好 世界", "naïve ﬁne ½ Å e\u0301"] * 20


@dataclass(frozen=True)
class Case:
    data: bytes
    texts: tuple[str, ...]
    comparable: bool  # the library may be asked: its own reader does not check compiled rules


def case(rng: Rng) -> Case:
    texts = tuple(text(rng) for _ in range(3))
    if rng.random() < 0.5:
        data = _model(rng)
        if rng.random() < 0.2:
            return Case(damaged(rng, data), texts, False)
        return Case(data, texts, True)
    data = rng.choice(trained())
    return Case(damaged(rng, data), texts, False) if rng.random() < 0.8 else Case(data, texts, True)


@functools.lru_cache(maxsize=1)
def trained() -> list[bytes]:
    """Models with compiled normalisation rules, as the library trains them."""
    found = []
    for kind in ("bpe", "unigram"):
        for rule in ("nfkc", "identity"):
            file = io.BytesIO()
            options = {"vocab_size": 70, "hard_vocab_limit": False, "minloglevel": 2, "normalization_rule_name": rule}
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(_CORPUS), model_writer=file, model_type=kind, **options
            )
            found.append(file.getvalue())
    return found


def _varint(value: int) -> bytes:
    value %= 1 << 64
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _record(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _model(rng: Rng) -> bytes:
    pieces: list[tuple[str, int]] = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    fallback = rng.random() < 0.4
    if fallback:
        pieces += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    letters = f"abcxyz12.,{SPACE}\n"
    for _ in range(rng.choice((0, 5, 30))):
        word = "".join(rng.choice(letters) for _ in range(rng.choice((1, 1, 2, 3, 5))))
        pieces.append((word, rng.choice((NORMAL, NORMAL, NORMAL, NORMAL, USER_DEFINED, UNUSED))))
    for _ in range(rng.choice((0, 0, 0, 1))):
        odd = rng.choice(("", "\0", "é", "𝕏", "<0x41>", "<unk>", " ", "a b", "a" * 300))
        pieces.append((odd, rng.choice((NORMAL, CONTROL, BYTE, USER_DEFINED, UNKNOWN))))
    unique = list(dict(pieces).items()) if rng.random() < 0.9 else pieces
    if rng.random() < 0.1:
        rng.shuffle(unique)
    body = b""
    for rank, (piece, kind) in enumerate(unique):
        score = rng.choice((-rank, -rank, -rng.randrange(5), rng.choice((1e30, -1e38, 0.0, 1e-40))))
        body += _record(1, _record(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
    trainer = _number(3, rng.choice((1, 1, 2, 2, 2, 2, 3, 4))) + _number(35, int(fallback))
    if rng.random() < 0.2:
        trainer += b"".join(_number(field, rng.choice((0, 1, 2, -1, 500))) for field in (40, 41, 42, 43))
    if rng.random() < 0.1:
        trainer += _record(44, rng.choice((" ⁇ ", "", "x")).encode())
    flags = [_number(field, rng.randrange(2)) for field in (3, 4)] + [_number(5, 1)] * (rng.random() < 0.9)
    return body + _record(2, trainer) + _record(3, _record(1, b"identity") + b"".join(flags))


def check(given: Case) -> None:
    path = fresh_folder() / "tokenizer.model"
    path.write_bytes(given.data)
    codec = SentencePieceCodec(load_sentencepiece(path))
    theirs = sentencepiece.SentencePieceProcessor()
    if given.comparable:
        try:
            theirs.LoadFromSerializedProto(given.data)
        except RuntimeError as error:
            raise AssertionError(f"read here, but the sentencepiece library says {error}") from None
    for some in (*given.texts, "", " a  b ", "ab xyz", SPACE):
        if any("\ud800" <= char <= "\udfff" for char in some):  # refused by the tokenizer before
            continue
        ids = codec.encode(some)
        assert all(type(i) is int and 0 <= i < len(codec.model.pieces) for i in ids)
        decoded = codec.decode(ids)
        decoded.encode("utf-8")
        if given.comparable and "\0" not in some:
            assert ids == theirs.EncodeAsIds(some), f"{some!r}: {ids}, the library {theirs.EncodeAsIds(some)}"
            assert decoded == theirs.DecodeIds(ids), f"{ids}: {decoded!r}, the library {theirs.DecodeIds(ids)!r}"


def show(given: Case) -> str:
    return f"texts {given.texts!r}, data = {given.data!r}"
