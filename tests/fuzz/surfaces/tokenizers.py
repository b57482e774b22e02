"""Tokenizer files: tokenizer.json, vocab.json with merges.txt, tokenizer.model, and the small files beside them, damaged as JSON and as
bytes. What is read must encode any text to ids of its own and stream what it decodes; the rest is a CheckpointError."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import tokenizers as library

import internvl_kernels as ivk
from fuzz.small import misplace, write
from fuzz.values import TEXTS, Rng, changed, damaged, json_bytes, text
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer
from internvl_kernels.testing.checkpoints import byte_tokenizer_files
from internvl_kernels.testing.tokenizers import FAMILIES, tokenizer_files

ERRORS = (ivk.CheckpointError,)
WEIGHT = 15
_CLASSES = (
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "InternLM2Tokenizer",
    "Qwen2Tokenizer",
    "GPT2Tokenizer",
    "PreTrainedTokenizerFast",
)
_SWITCHES = (
    "add_bos_token",
    "add_eos_token",
    "legacy",
    "add_prefix_space",
    "lstrip",
    "rstrip",
    "special",
    "normalized",
    "single_word",
)


@dataclass(frozen=True)
class Case:
    label: str
    files: dict[str, bytes]
    texts: tuple[str, ...]
    misplaced: str | None
    seed: int
    whole: bool  # as the family's repositories ship them


def _other_engines() -> dict[str, str]:
    """tokenizer.json of models and steps that the family does not use, and that the library reads all the same."""
    found = {}
    words = {"[UNK]": 0, "a": 1, "b": 2, "ab": 3, "##b": 4, "x y": 5, "é": 6, "\u2581": 7, "<0x41>": 8}
    steps: dict[str, Any] = {
        "WordPiece": library.models.WordPiece(words, unk_token="[UNK]"),
        "WordLevel": library.models.WordLevel(words, unk_token="[UNK]"),
        "Unigram": library.models.Unigram([(word, -float(i)) for word, i in words.items()], unk_id=0),
        "BPE": library.models.BPE(words, [("a", "b")], unk_token="[UNK]", fuse_unk=True, byte_fallback=True),
    }
    for name, model in steps.items():
        engine = library.Tokenizer(model)
        n, p = library.normalizers, library.pre_tokenizers
        engine.normalizer = n.Sequence([n.NFKC(), n.Lowercase(), n.Strip(), n.Replace("c", "a"), n.Prepend("\u2581")])
        engine.pre_tokenizer = p.Sequence(
            [p.Metaspace(), p.Punctuation(), p.Digits(), p.Split(library.Regex(r"\s+"), "isolated")]
        )
        engine.post_processor = library.processors.TemplateProcessing(single="[UNK] $A", special_tokens=[("[UNK]", 0)])
        d = library.decoders
        engine.decoder = d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])
        engine.enable_padding(length=4, pad_token="[UNK]")
        engine.enable_truncation(3)
        found[name] = engine.to_str()
    return found


@functools.lru_cache(maxsize=1)
def bases() -> dict[str, dict[str, Any]]:
    """Files by name, JSON parsed."""
    found: dict[str, dict[str, Any]] = {"bytes": dict(byte_tokenizer_files())}
    found |= {family: dict(tokenizer_files(family)) for family in FAMILIES}
    found |= {name: {"tokenizer.json": data, "tokenizer_config.json": "{}"} for name, data in _other_engines().items()}
    for files in found.values():
        files["special_tokens_map.json"] = json.dumps(
            {"bos_token": {"content": "<s>", "lstrip": False}, "pad_token": "</s>"}
        )
        for name, data in files.items():
            files[name] = (
                json.loads(data) if name.endswith(".json") else data.encode() if isinstance(data, str) else data
            )
    return found


def case(rng: Rng) -> Case:
    label = rng.choice(list(bases()))
    files = dict(bases()[label])
    if rng.random() < 0.7:
        del files["special_tokens_map.json"]
    if rng.random() < 0.1:
        files["added_tokens.json"] = {"<extra>": rng.choice((0, 5, 262, 263, 300, 10**6, 2**31 - 1, -1, 2**40))}
    changes = rng.choice((0, 1, 1, 1, 2))
    for _ in range(changes):
        name = rng.choice(list(files))
        value = files[name]
        words = [*_CLASSES, *_SWITCHES, True, False, "<s>", "</s>", "<0x41>", *TEXTS[:20]]
        if isinstance(value, bytes):
            files[name] = damaged(rng, value)
        elif name == "tokenizer_config.json" and isinstance(value, dict) and rng.random() < 0.5:
            key = rng.choice(
                (
                    *_SWITCHES[:4],
                    "tokenizer_class",
                    "bos_token",
                    "eos_token",
                    "added_tokens_decoder",
                    "extra_special_tokens",
                )
            )
            files[name] = {
                **value,
                key: rng.choice(
                    (True, False, None, *_CLASSES, "<s>", {"content": "x"}, {"7": {"content": "x"}}, [], 3)
                ),
            }
        else:
            files[name] = changed(rng, value, words)
    if rng.random() < 0.05:
        other = bases()[rng.choice(list(bases()))]
        name = rng.choice(list(other))
        files[name] = other[name]
    data = {name: value if isinstance(value, bytes) else json_bytes(rng, value) for name, value in files.items()}
    moved = rng.choice(list(data)) if rng.random() < 0.05 else None
    whole = not changes and moved is None and label in ("bytes", *FAMILIES) and data == _plain(label)
    return Case(label, data, tuple(text(rng) for _ in range(3)), moved, rng.getrandbits(32), whole)


def _plain(label: str) -> dict[str, bytes]:
    files = {name: value for name, value in bases()[label].items() if name != "special_tokens_map.json"}
    return {name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in files.items()}


def check(given: Case) -> None:
    folder = write(given.files)
    if given.misplaced is not None:
        misplace(Rng(given.seed), folder / given.misplaced)
    tokenizer = load_tokenizer(folder)
    for some in (*given.texts, "a b<s>", ""):
        round_trip(tokenizer, some, given.whole)


def round_trip(tokenizer: Tokenizer, some: str, exact: bool) -> None:
    """exact: what streams is what decodes, which a damaged decoder may not keep."""
    for special in (True, False):
        try:
            ids = tokenizer.encode(some, add_special=special)
        except ivk.UnsupportedError as error:
            if "surrogate" not in str(error):
                raise AssertionError(str(error)) from None
            return
        assert all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids), (
            f"{ids} of {tokenizer.vocab_size} for {some!r}"
        )
        for skip in (True, False):
            whole = tokenizer.decode(ids, skip_special=skip)
            assert isinstance(whole, str)
            whole.encode("utf-8")
            stream = tokenizer.stream(skip_special=skip)
            pieces = "".join([stream.push(i) for i in ids]) + stream.flush()
            assert isinstance(pieces, str)
            assert pieces == whole or not exact, f"streamed {pieces!r}, decoded {whole!r}"
        for index in (-1, 0, tokenizer.vocab_size, 2**40, *ids[:2]):
            name = tokenizer.token(index)
            assert name is None or isinstance(name, str)
        assert tokenizer.decode([-1, tokenizer.vocab_size, 2**40]) == ""
    assert all(
        i is None or 0 <= i < tokenizer.vocab_size for i in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    )


def show(given: Case) -> str:
    parts = [f"based on {given.label}, texts {given.texts!r}, misplaced {given.misplaced}"]
    for name, data in given.files.items():
        base = bases()[given.label].get(name)
        if data != (base if isinstance(base, bytes) else json.dumps(base).encode()):
            parts.append(f"{name}: {_difference(base, data)}")
    return "\n".join(parts)


def _difference(base: Any, data: bytes) -> str:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return repr(data[:500])

    def walk(a: Any, b: Any, path: str) -> list[str]:
        if a == b:
            return []
        if isinstance(a, dict) and isinstance(b, dict):
            return [line for key in {**a, **b} for line in walk(a.get(key, "-"), b.get(key, "-"), f"{path}.{key}")]
        return [f"{path}: {a!r:.60} -> {b!r:.200}"]

    return "; ".join(walk(base, value, ""))
