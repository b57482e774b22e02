"""Tokenizers of every form that published repositories ship, behind one class.

``tokenizer.json`` and ``vocab.json`` + ``merges.txt`` run in the ``tokenizers`` library; ``tokenizer.model`` runs in
``sentencepiece_codec``. Checkpoint code is never executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointError, UnsupportedError
from .tokenizer_backends import JsonBackend, SentencePieceBackend, byte_level_backend
from .tokenizer_files import TokenizerFiles, read_tokenizer_files

_SENTENCEPIECE_CLASSES = ("LlamaTokenizer", "InternLM2Tokenizer", "InternLM3Tokenizer", "InternLMTokenizer")


class TextStream(Protocol):
    """Turns ids into text as they come. ``push`` gives only complete characters; ``flush`` gives what is left."""

    def push(self, token_id: int) -> str: ...

    def flush(self) -> str: ...


class _SkippingStream:
    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._known = tokenizer._backend
        self._inner = tokenizer._backend.stream()

    def push(self, token_id: int) -> str:
        token_id = int(token_id)
        if token_id in self._skipped or self._known.token(token_id) is None:
            return ""
        return self._inner.push(token_id)

    def flush(self) -> str:
        return self._inner.flush()


class Tokenizer:
    """A checkpoint's tokenizer. Made by ``load_tokenizer``.

    vocab_size   one more than the highest id that means something (the model's table may be longer)
    special_ids  ids that ``decode(skip_special=True)`` leaves out
    bos_id, eos_id, pad_id   ids or None; bos_token, eos_token the strings
    """

    def __init__(self, backend: JsonBackend | SentencePieceBackend, files: TokenizerFiles) -> None:
        self._backend = backend
        self.special_ids: frozenset[int] = frozenset(backend.special_ids)
        self.vocab_size: int = backend.vocab_size
        named = {**backend.named, **files.named}
        self.bos_token, self.eos_token = named.get("bos_token"), named.get("eos_token")
        self.bos_id = self._named_id(self.bos_token)
        self.eos_id = self._named_id(self.eos_token)
        self.pad_id = self._named_id(named.get("pad_token"))
        bos, eos = files.switch("add_bos_token"), files.switch("add_eos_token")
        bos = backend.bos_by_default if bos is None else bos
        for switch, index, name in ((bos, self.bos_id, "bos"), (eos, self.eos_id, "eos")):
            if switch and index is None:
                raise CheckpointError(f"{files.path}: {name} is to be added, but {name}_token names no known token")
        self._before = [self.bos_id] if bos and self.bos_id is not None else []
        self._after = [self.eos_id] if eos and self.eos_id is not None else []
        self._own_specials = bos is None and not eos  # what tokenizer.json's post-processor adds

    def _named_id(self, token: str | None) -> int | None:
        return None if token is None else self._backend.token_to_id(token)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids, with the BOS (Llama, InternLM2; none for Qwen) that the published tokenizer adds by default.

        Special tokens written in the text become their ids, as in the published tokenizers. Raises UnsupportedError
        for text with lone surrogates.
        """
        if not isinstance(text, str):
            raise UnsupportedError(f"text is {type(text).__name__}, not str")
        surrogate = re.search("[\ud800-\udfff]", text)
        if surrogate:
            raise UnsupportedError(f"text: lone surrogate {surrogate.group()!a} at position {surrogate.start()}")
        ids = self._backend.encode(text, add_special and self._own_specials)
        return [*self._before, *ids, *self._after] if add_special else ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of the ids; invalid UTF-8 gives U+FFFD, ids of no token (padding rows of a table) give nothing."""
        skipped = self.special_ids if skip_special else frozenset()
        return self._backend.decode([i for i in map(int, ids) if i not in skipped and self.token(i) is not None])

    def stream(self, *, skip_special: bool = True) -> TextStream:
        """A decoder for ids that come one by one: the pieces it returns, joined, are ``decode`` of all ids."""
        return _SkippingStream(self, skip_special)

    def token_id(self, token: str) -> int | None:
        """Id of one token by its string, None when there is none."""
        return self._backend.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        """The string of one id as the vocabulary writes it, None when there is none."""
        return self._backend.token(token_id)


def _choose(path: Path, files: TokenizerFiles) -> JsonBackend | SentencePieceBackend:
    if (path / "tokenizer.json").is_file():
        return JsonBackend.from_file(path / "tokenizer.json", files)
    kind = files.tokenizer_class
    pieces = (path / "tokenizer.model").is_file()
    words = (path / "vocab.json").is_file() and (path / "merges.txt").is_file()
    if words and not (pieces and kind in _SENTENCEPIECE_CLASSES):
        return byte_level_backend(path, files)
    if pieces:
        if kind is not None and kind not in _SENTENCEPIECE_CLASSES:
            allowed = ", ".join(_SENTENCEPIECE_CLASSES)
            raise CheckpointError(f"{path}: tokenizer_class {kind!r} with a tokenizer.model; known are {allowed}")
        return SentencePieceBackend.from_file(path / "tokenizer.model", files)
    raise CheckpointError(f"{path}: no tokenizer; tokenizer.json, vocab.json + merges.txt or tokenizer.model is needed")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Tokenizer of a checkpoint directory, from tokenizer.json, else vocab.json + merges.txt, else tokenizer.model.

    Raises CheckpointError naming the file that is missing, truncated, inconsistent or of an unknown kind.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: not a directory")
    files = read_tokenizer_files(path)
    return Tokenizer(_choose(path, files), files)
