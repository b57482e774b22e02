"""The SentencePiece reader and codec against the sentencepiece library, on models trained or written here."""

from __future__ import annotations

import functools
import io
import struct
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_kernels import CheckpointError
from internvl_kernels.io.sentencepiece import load_sentencepiece
from internvl_kernels.io.sentencepiece_codec import SentencePieceCodec

CORPUS = [
    "the quick brown fox  jumps   over the lazy dog, again and again",
    "InternVL reads pictures: tables, charts, 12345 numbers and handwriting",
    "banana bandana aaaa aaaaaaaa",
    "你好 世界 你好吗 文字 図形 表",
    "naïve café résumé ﬁne ½ Å e\u0301 한국어 русский",
    "def f(x):\n\treturn x\n",
] * 20
HOSTILE = [
    "",
    " ",
    "   ",
    " a  b   ",
    "\n\n\t \r\n",
    "\u3000\u00a0\u200b\ufeff",
    "你好世界，这是一个没有空格的很长的句子。",
    "😀👨‍👩‍👧🏳️‍🌈",
    "e\u0301\u0302\u0323 A\u030a ᄀ\u1161\u11a8 가",
    "ﬁ ½ ０１２ ①",
    "\u2581\u2581a\u2581 \u2581",
    "<s></s><unk><0x41><pad>",
    "\x00\x01\x7f\ufffd\uffff\U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaa baaaa",
    "the " * 50,
]
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
    "bpe, no prefix": {"model_type": "bpe", "add_dummy_prefix": False, "normalization_rule_name": "identity"},
    "bpe, nfkc, trimmed": {"model_type": "bpe", "remove_extra_whitespaces": True},
    "bpe, symbols": {"model_type": "bpe", "user_defined_symbols": ["<sep>", "aab", "\t"]},
    "bpe over words": {"model_type": "bpe", "split_by_whitespace": False, "byte_fallback": True},
    "unigram": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity"},
    "unigram, nfkc, trimmed": {"model_type": "unigram", "remove_extra_whitespaces": True},
}


def train(**options: Any) -> bytes:
    file = io.BytesIO()
    defaults = {"vocab_size": 460 if options.get("byte_fallback") else 190, "remove_extra_whitespaces": False}
    defaults.update(hard_vocab_limit=False, character_coverage=0.985, minloglevel=2)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=file, **{**defaults, **options}
    )
    return file.getvalue()


def both(data: bytes, directory: Path) -> tuple[SentencePieceCodec, sentencepiece.SentencePieceProcessor]:
    path = directory / "tokenizer.model"
    path.write_bytes(data)
    return SentencePieceCodec(load_sentencepiece(path)), sentencepiece.SentencePieceProcessor(model_proto=data)


@functools.cache
def trained(kind: str) -> bytes:
    return train(**KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_strings(kind: str, tmp_path: Path) -> None:
    ours, theirs = both(trained(kind), tmp_path)
    for text in HOSTILE + CORPUS[:6]:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.normalize(text) == theirs.normalize(text).replace(" ", "\u2581"), text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text)), text


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_and_any_ids(kind: str, tmp_path: Path) -> None:
    ours, theirs = both(trained(kind), tmp_path)
    parts = st.sampled_from(
        ["a", "b", "an", " ", "  ", "\n", "\t", "the", "你", "é", "e\u0301", "ﬁ", "\u2581", "<sep>", "aab"]
    )
    texts = st.lists(parts | st.characters(exclude_categories=["Cs"]), max_size=30).map("".join)
    space = theirs.piece_to_id("\u2581")
    ids = st.lists(st.integers(0, theirs.get_piece_size() - 1) | st.just(space), max_size=20)

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(texts, ids)
    def check(text: str, ids: list[int]) -> None:
        if kind.startswith("bpe") or kind == "llama":  # unigram paths of equal score differ by a rounding
            assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        stream = ours.stream()
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids)

    check()


def test_very_long_strings(tmp_path: Path) -> None:
    ours, theirs = both(trained("llama"), tmp_path)
    for text in ("the quick brown fox " * 10_000, "a" * 50_000, "你好世界" * 5_000):
        assert ours.encode(text) == theirs.encode(text)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def record(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def written(pieces: list[tuple[str, float, int]], *, model_type: int = 2, prefix: bool = False) -> bytes:
    """A model file from a table of (piece, score, type)."""
    body = b""
    for piece, score, kind in pieces:
        body += record(1, record(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))
    normalizer = record(1, b"identity") + b"\x18" + bytes([prefix]) + b"\x20\x00"
    return body + record(2, b"\x18" + bytes([model_type])) + record(3, normalizer)


HEAD = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]


@pytest.mark.parametrize(
    "pieces",
    [
        # equal scores: the leftmost pair goes first
        [("a", -9, 1), ("b", -9, 1), ("ab", -1, 1), ("ba", -1, 1), ("aba", -2, 1), ("bab", -2, 1)],
        # characters that are no pieces of their own
        [("a", -9, 1), ("ab", -1, 1), ("abc", -2, 1), ("cb", -3, 1)],
        # pieces that may only serve on the way
        [("a", -9, 1), ("b", -9, 1), ("c", -9, 1), ("ab", -1, 5), ("abc", -2, 1), ("bc", -3, 5), ("bcb", -4, 5)],
        # symbols that are matched first
        [("a", -9, 1), ("b", -9, 1), ("ab", -1, 1), ("ba", 0, 4), ("bab", 0, 4), ("c", -9, 1), ("bc", -2, 1)],
    ],
    ids=["equal scores", "missing characters", "unused", "user defined"],
)
@pytest.mark.parametrize("prefix", [False, True])
def test_tables_written_by_hand(pieces: list[tuple[str, float, int]], prefix: bool, tmp_path: Path) -> None:
    ours, theirs = both(written(HEAD + pieces, prefix=prefix), tmp_path)

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(st.text("abcx ", max_size=16))
    def check(text: str) -> None:
        assert ours.encode(text) == theirs.encode(text)

    check()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data, path = trained("bpe, no prefix"), tmp_path / "tokenizer.model"
    end = data.index(b"identity") + 8  # inside the last settings that must be there
    for size in [*range(0, 400), *range(400, end, 37), end]:
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
            load_sentencepiece(path)


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    data, path = trained("bpe, nfkc, trimmed"), tmp_path / "tokenizer.model"
    loaded = 0

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=8))
    def check(changes: list[tuple[int, int]]) -> None:
        nonlocal loaded
        damaged = bytearray(data)
        for at, value in changes:
            damaged[at] = value
        path.write_bytes(damaged)
        try:
            SentencePieceCodec(load_sentencepiece(path)).encode("ﬁne ½ 你好 abc")
            loaded += 1
        except CheckpointError:
            pass

    check()
    assert loaded  # most damage is in the rules and changes little


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "settings behind the pieces"),
        (written([]), "no pieces"),
        (written(HEAD, model_type=3), "model type 3"),
        (written([*HEAD, ("a", 0.0, 1), ("a", 0.0, 1)]), "occurs twice"),
        (written([("a", 0.0, 1), *HEAD[1:]]), "0 unknown pieces"),
        (written([*HEAD, ("a", float("nan"), 1)]), "piece with score"),
        (written([*HEAD, ("a", 0.0, 9)]), "type 9"),
        (written([*HEAD, ("<0xZZ>", 0.0, 6)]), "byte piece '<0xZZ>'"),
        (written(HEAD) + record(2, b"\x18\x02\x98\x02\x01"), "byte fallback without"),
        (written(HEAD) + record(2, b"\x18\x02\xc8\x02\x63"), "bos_id 99 of 3"),
        (written(HEAD) + record(3, b"\x28\x00"), "unescaped whitespace"),
        (written(HEAD)[:-1], "ends inside"),
        (b"\x0b" + written(HEAD), "wire type 3"),
        (written([("\u00e9", 0.0, 1), *HEAD]).replace("\u00e9".encode(), b"\xff\xfe"), "utf-8"),
    ],
)
def test_refused_by_name(data: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"tokenizer.model.*{text}"):
        load_sentencepiece(path)


def test_missing_file_and_broken_rules(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.model: cannot be read"):
        load_sentencepiece(tmp_path / "no.model")
    path = tmp_path / "tokenizer.model"
    for rules in (b"\x01", b"\x00\x00\x00\x00", b"\xff\xff\xff\x00abcd"):
        path.write_bytes(written(HEAD) + record(3, record(2, rules)))
        with pytest.raises(CheckpointError, match="broken normalisation rules"):
            SentencePieceCodec(load_sentencepiece(path))


def test_scores_past_the_range_of_float32() -> None:
    """The lowest score less the penalty of an unknown piece is no float32: it is infinite, and nothing breaks."""
    from internvl_kernels.io.sentencepiece_codec import _float32

    assert _float32(-3.5e38) == float("-inf")
    assert _float32(1e39) == float("inf")
    assert _float32(0.1) == struct.unpack("<f", struct.pack("<f", 0.1))[0]
