"""The two engines under ``Tokenizer``: the ``tokenizers`` library and the SentencePiece codec."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ..errors import CheckpointError
from .fields import show
from .sentencepiece import CONTROL, SPACE, load_sentencepiece
from .sentencepiece_codec import SentencePieceCodec, SentencePieceStream
from .tokenizer_files import AddedToken, TokenizerFiles, read_json

# How the byte-level tokenizers cut text into words before BPE, by tokenizer_class.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACES = re.compile(r"\s*")
_LONGEST_PATTERN, _MOST_REPEATS, _MOST_GROWTH = 10_000, 10_000, 4096
_T = TypeVar("_T")


def _guarded(file: Path, action: Callable[[], _T]) -> _T:
    """Runs the library on checkpoint data; whatever it throws, panics included, becomes a CheckpointError."""
    try:
        return action()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is a BaseException
        raise CheckpointError(f"{file}: not a usable tokenizer: {error}") from error


def _check_steps(file: Path, settings: object) -> None:
    """Refuses regular expressions whose repetitions, and steps whose replacements, take gigabytes: where memory lacks, the
    library ends the process.
    """
    left = [value for key, value in settings.items() if key != "model"] if isinstance(settings, dict) else []
    growth = 1
    while left:
        part = left.pop()
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        if not isinstance(part, dict):
            continue
        pattern, content = part.get("Regex"), part.get("content")
        if isinstance(pattern, str):
            counts = [int(n[:9]) for n in re.findall(r"[{,]\s*(\d+)", pattern)]
            if len(pattern) > _LONGEST_PATTERN or math.prod(max(n, 1) for n in counts) > _MOST_REPEATS:
                raise CheckpointError(
                    f"{file}: the pattern {show(pattern)}; allowed: {_LONGEST_PATTERN} characters, counts in braces whose "
                    f"product is at most {_MOST_REPEATS}"
                )
        if part.get("type") == "ByteLevel":
            growth *= 2
        elif part.get("type") == "Replace" and isinstance(content, str):
            growth *= max(len(content), 1)
    if growth > _MOST_GROWTH:
        raise CheckpointError(
            f"{file}: its steps make a text up to {growth} times longer; allowed: {_MOST_GROWTH} times"
        )


class JsonBackend:
    """A ``tokenizers.Tokenizer`` with the added tokens of the small files at their ids."""

    bos_by_default = None  # the file's own post-processor decides

    def __init__(self, engine: tokenizers.Tokenizer, file: Path, files: TokenizerFiles, named: dict[str, str]) -> None:
        self._engine, self._file = engine, file
        self.named = named
        engine.no_padding()
        engine.no_truncation()
        self._add(file, files)
        known = engine.get_added_tokens_decoder()
        self.special_ids = {i for i, token in known.items() if token.special or token.content in files.specials}
        self.vocab_size = 1 + max(engine.get_vocab().values(), default=-1)
        self._byte_level = isinstance(engine.decoder, decoders.ByteLevel)

    @classmethod
    def from_file(cls, file: Path, files: TokenizerFiles) -> JsonBackend:
        text = _guarded(file, lambda: file.read_text(encoding="utf-8"))
        _check_steps(file, _guarded(file, lambda: json.loads(text)))
        return cls(_guarded(file, lambda: tokenizers.Tokenizer.from_str(text)), file, files, {})

    def _add(self, file: Path, files: TokenizerFiles) -> None:
        known = {token.content for token in self._engine.get_added_tokens_decoder().values()}
        missing = [_engine_token(token) for token in files.added if token.content not in known]
        _guarded(file, lambda: self._engine.add_tokens(missing))
        for token in files.added:
            held = self._engine.token_to_id(token.content)
            if held != token.id:
                raise CheckpointError(f"{file}: token {token.content!r} has id {held}; the files beside say {token.id}")

    def encode(self, text: str, add_special: bool) -> list[int]:
        return _guarded(self._file, lambda: self._engine.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return _guarded(self._file, lambda: self._engine.decode(list(ids), skip_special_tokens=False))

    def stream(self) -> _JsonStream:
        return _JsonStream(self)

    def token_to_id(self, token: str) -> int | None:
        return self._engine.token_to_id(token)

    def token(self, index: int) -> str | None:
        return self._engine.id_to_token(index) if 0 <= index < self.vocab_size else None

    def holds(self, index: int, text: str) -> bool:
        """Whether ``text``, which ends with this id, may still change when the next id comes."""
        if text.endswith("\ufffd"):
            return True
        return not self._byte_level and bool(_BYTE_TOKEN.fullmatch(self.token(index) or ""))


class _JsonStream:
    """Decodes a short window with one earlier id as context, because decoders treat the start of a text specially."""

    def __init__(self, backend: JsonBackend) -> None:
        self._backend = backend
        self._context: list[int] = []
        self._window: list[int] = []

    def push(self, index: int) -> str:
        self._window.append(index)
        text = self._text()
        if self._backend.holds(index, text):
            return ""
        self._context, self._window = [index], []
        return text

    def _text(self) -> str:
        whole = self._backend.decode(self._context + self._window)
        return whole[len(self._backend.decode(self._context)) :] if self._context else whole

    def flush(self) -> str:
        text = self._text() if self._window else ""
        self._context, self._window = self._window[-1:] or self._context, []
        return text


def _engine_token(token: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        token.content,
        special=token.special,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
        normalized=token.normalized,
    )


def _merges(file: Path) -> list[tuple[str, str]]:
    text = _guarded(file, lambda: file.read_text(encoding="utf-8"))
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise CheckpointError(f"{file}: line {number}: {line[:80]!r} is not a pair")
        pairs.append((parts[0], parts[1]))
    return pairs


def byte_level_backend(path: Path, files: TokenizerFiles) -> JsonBackend:
    """Byte-level BPE from vocab.json and merges.txt: Qwen2Tokenizer and GPT2Tokenizer."""
    kind = files.tokenizer_class
    if kind not in ("Qwen2Tokenizer", "GPT2Tokenizer"):
        raise CheckpointError(
            f"{path / 'tokenizer_config.json'}: tokenizer_class {kind!r} with vocab.json; "
            "known are 'Qwen2Tokenizer' and 'GPT2Tokenizer'"
        )
    file = path / "vocab.json"
    vocab = read_json(file)
    for token, index in vocab.items():
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 1 << 31:
            raise CheckpointError(f"{file}: {token!r} has id {index!r}")
    owners = {index: token for token, index in vocab.items()}
    if len(owners) != len(vocab):
        raise CheckpointError(f"{file}: {len(vocab) - len(owners)} ids are given twice")
    for added in files.added:  # into the vocabulary, so that they get their own ids even where ids are skipped
        if owners.get(added.id, added.content) != added.content or vocab.get(added.content, added.id) != added.id:
            raise CheckpointError(f"{file}: added token {added.content!r}, id {added.id}, contradicts the vocabulary")
        vocab[added.content] = added.id
    pairs = _merges(path / "merges.txt")
    engine = tokenizers.Tokenizer(_guarded(path / "merges.txt", lambda: models.BPE(vocab, pairs)))
    prefix = bool(files.switch("add_prefix_space"))
    if kind == "Qwen2Tokenizer":
        engine.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(tokenizers.Regex(_QWEN2_WORDS), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([words, level])
    else:
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=True)
    engine.decoder = decoders.ByteLevel()
    # Both classes have <|endoftext|> where no file says otherwise, and Qwen has no BOS.
    named = {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    named["pad_token" if kind == "Qwen2Tokenizer" else "bos_token"] = "<|endoftext|>"
    rest = sorted(set({**named, **files.named}.values()) & set(vocab) - {added.content for added in files.added})
    engine.add_tokens([_engine_token(AddedToken(content, vocab[content], special=True)) for content in rest])
    return JsonBackend(engine, file, files, named)


class SentencePieceBackend:
    """A SentencePiece model with added tokens in front of it, as the Python classes of the family's releases work.

    Each stretch of text between added tokens is encoded by itself. Where the dummy prefix goes depends on the class:

    - InternLM2, InternLM3, Llama with ``legacy`` (its default): before each stretch, as the model file says.
    - Llama with ``legacy: false``: before the whole text, unless ``add_prefix_space`` is false. Text that begins with an
      added token begins with a lone "\u2581" then, except where that token has a name (``bos_token`` ...) or is one of
      ``additional_special_tokens``. By Phi-3's files every phi3-chat prompt begins with it (UNVERIFIED: the files of
      the InternVL releases were not seen).
    """

    bos_by_default = True

    def __init__(self, codec: SentencePieceCodec, files: TokenizerFiles) -> None:
        self._codec = codec
        model = codec.model
        marks = {"bos": model.bos_id, "eos": model.eos_id, "unk": model.unk_id, "pad": model.pad_id}
        self.named = {f"{name}_token": model.pieces[i] for name, i in marks.items() if i >= 0}
        self._tokens = dict(enumerate(model.pieces))
        self._tokens.update({token.id: token.content for token in files.added})
        self._ids = {content: i for i, content in self._tokens.items()}
        self._ids.update({token.content: token.id for token in files.added})  # an added token goes before a piece
        added = {token.content: token for token in files.added}
        for content in {*self.named.values(), *files.named.values()} - set(added):
            if content in self._ids:
                added[content] = AddedToken(content, self._ids[content], special=True)
        self._cut = added
        self._added = {token.id: token for token in added.values()}
        self.special_ids = {i for i, token in self._added.items() if token.special}
        self.special_ids |= {i for i, kind in enumerate(model.types) if kind == CONTROL and i not in self._added}
        self.vocab_size = 1 + max(self._tokens)
        ordered = sorted(added.values(), key=lambda token: -len(token.content))
        self._pattern = re.compile("|".join(map(_pattern, ordered)) or r"(?!)")
        self._each = files.tokenizer_class != "LlamaTokenizer" or files.switch("legacy") is not False
        self._first = files.switch("add_prefix_space") is not False
        listed = files.listed | set({**self.named, **files.named}.values())
        self._listed = {self._ids[content] for content in listed if content in self._ids}

    @classmethod
    def from_file(cls, file: Path, files: TokenizerFiles) -> SentencePieceBackend:
        return cls(SentencePieceCodec(load_sentencepiece(file)), files)

    def _stretches(self, text: str) -> Iterator[tuple[str, int | None]]:
        """(text, id of the added token behind it or None at the end), whitespace that a token eats left out."""
        at = 0
        for found in self._pattern.finditer(text):
            token = self._cut[found.group()]
            stretch = text[min(at, found.start()) : found.start()]
            yield stretch.rstrip() if token.lstrip else stretch, token.id
            spaces = _SPACES.match(text, found.end()) if token.rstrip else None
            at = found.end() if spaces is None else spaces.end()
        yield text[at:], None

    def encode(self, text: str, add_special: bool) -> list[int]:
        ids: list[int] = []
        text = text if self._each else text.replace(SPACE, " ")
        for number, (stretch, token) in enumerate(self._stretches(text)):
            if self._each or number:
                ids += self._codec.encode(stretch, prefix=None if self._each else False)
            elif text:
                ids += self._start(stretch, token)
            if token is not None:
                ids.append(token)
        return ids

    def _start(self, stretch: str, token: int | None) -> list[int]:
        """The first stretch where only the whole text has a prefix; ``token`` is the added token behind it."""
        ids = self._codec.encode(stretch or SPACE * self._first, prefix=self._first and bool(stretch))
        return [] if token in self._listed and ids == [self._ids.get(SPACE)] else ids

    def decode(self, ids: Sequence[int]) -> str:
        stream = self.stream()
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self) -> _AddedTokenStream:
        return _AddedTokenStream(self._added, self._codec.stream())

    def token_to_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def token(self, index: int) -> str | None:
        return self._tokens.get(index)


def _pattern(token: AddedToken) -> str:
    content = re.escape(token.content)
    return rf"(?<!\w){content}(?!\w)" if token.single_word else content


class _AddedTokenStream:
    def __init__(self, added: dict[int, AddedToken], inner: SentencePieceStream) -> None:
        self._added = added
        self._inner = inner

    def push(self, index: int) -> str:
        token = self._added.get(index)
        return self._inner.push(index) if token is None else self._inner.flush() + token.content

    def flush(self) -> str:
        return self._inner.flush()
