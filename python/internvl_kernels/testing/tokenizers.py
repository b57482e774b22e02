"""Small tokenizers in the forms that the family's repositories ship: files by name, for tests and small checkpoints.

The vocabulary is bytes or single characters, a few words, and the special tokens at ids of their own. Classes, flags
and settings are those of the published forms.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..io.sentencepiece import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, USER_DEFINED

VISUAL = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
_WORDS = ("the", "image", "USER", "ASSISTANT")
_GPT_OSS = (
    "<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>",
    "<|message|>", "<|call|>",
)  # fmt: skip
_CLITIC = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT_OSS_WORDS = "|".join(  # how its text is cut: words by their case, numbers by three digits, punctuation
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CLITIC}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CLITIC}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
Files = dict[str, str | bytes]


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _record(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def sentencepiece_model(pieces: Mapping[str, int], *, dummy_prefix: bool = True) -> bytes:
    """A SentencePiece BPE model file with byte fallback; ``pieces`` are piece -> type, the earlier the more wanted."""
    body = b""
    for rank, (piece, kind) in enumerate(pieces.items()):
        score = b"\x15" + struct.pack("<f", -rank)
        body += _record(1, _record(1, piece.encode()) + score + b"\x18" + _varint(kind))
    trainer = b"\x18\x02" + _varint(35 << 3) + b"\x01"
    normalizer = _record(1, b"identity") + b"\x18" + bytes([dummy_prefix]) + b"\x20\x00"
    return body + _record(2, trainer) + _record(3, normalizer)


def _pieces(head: Mapping[str, int]) -> dict[str, int]:
    """``head``, bytes, ASCII, and words with all their beginnings, because pieces are joined from the left."""
    plain = [SPACE, *map(chr, range(33, 127))]
    starts = [f"{SPACE}{word}"[:size] for word in _WORDS for size in range(2, len(word) + 2)]
    return {
        **head,
        **dict.fromkeys((f"<0x{byte:02X}>" for byte in range(256)), BYTE),
        **dict.fromkeys(plain + starts, NORMAL),
    }


def _token(content: str, **flags: bool) -> dict[str, Any]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **plain, **flags}


def _config(tokens: Mapping[int, dict[str, Any]], **settings: Any) -> str:
    listed = [token["content"] for token in tokens.values() if token["content"] in VISUAL]
    decoder = {str(index): token for index, token in tokens.items()}
    return json.dumps({"added_tokens_decoder": decoder, "additional_special_tokens": listed, **settings})


_BASE = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
_NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _behind(count: int, tokens: Sequence[str]) -> dict[int, dict[str, Any]]:
    return {count + number: _token(token) for number, token in enumerate(tokens)}


def _llama(**settings: Any) -> Files:
    """Vicuna and LLaMA-2: a dummy prefix and ``legacy`` off."""
    pieces = _pieces(_BASE)
    tokens = _behind(0, list(_BASE)) | _behind(len(pieces), VISUAL)
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False, **_NAMED}
    return {
        "tokenizer.model": sentencepiece_model(pieces),
        "tokenizer_config.json": _config(tokens, **config | settings),
    }


def _yi(**settings: Any) -> Files:
    """Yi: no dummy prefix, the ChatML tokens inside the model."""
    control = ("<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    pieces = _pieces({"<unk>": UNKNOWN, **dict.fromkeys(control, CONTROL)})
    tokens = _behind(0, ["<unk>", *control]) | _behind(len(pieces), VISUAL)
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": control[0],
        "eos_token": control[3],
        "unk_token": "<unk>",
    }
    model = sentencepiece_model(pieces, dummy_prefix=False)
    return {"tokenizer.model": model, "tokenizer_config.json": _config(tokens, **config | settings)}


def _internlm2(**settings: Any) -> Files:
    """InternLM2: the ChatML tokens take the places of pieces that were kept free."""
    pieces = _pieces({**_BASE, "[UNUSED_TOKEN_145]": USER_DEFINED, "[UNUSED_TOKEN_146]": USER_DEFINED})
    tokens = _behind(0, [*_BASE, "<|im_end|>", "<|im_start|>"]) | _behind(len(pieces), VISUAL)
    config = {"tokenizer_class": "InternLM2Tokenizer", "add_bos_token": True, "pad_token": "</s>", **_NAMED}
    return {
        "tokenizer.model": sentencepiece_model(pieces),
        "tokenizer_config.json": _config(tokens, **config | settings),
    }


def _phi3(**settings: Any) -> Files:
    """Phi-3: Llama's pieces; its own tokens eat the whitespace behind them and are no additional_special_tokens."""
    pieces = _pieces(_BASE)
    own = ("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>")
    tokens = _behind(0, list(_BASE)) | _behind(len(pieces), [*own, *VISUAL])
    for token in tokens.values():
        token["rstrip"] = token["content"] in ("</s>", *own[1:])
    tokens[2]["special"] = False
    named = {**_NAMED, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False, **named}
    return {
        "tokenizer.model": sentencepiece_model(pieces),
        "tokenizer_config.json": _config(tokens, **config | settings),
    }


def _gpt_oss(**settings: Any) -> Files:
    """GPT-OSS: byte-level BPE in tokenizer.json, no token before a text."""
    from tokenizers import pre_tokenizers

    vocab = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: dict[tuple[str, str], None] = {}
    for word in ("Ġthe", "Ġimage", *_WORDS, "system", "user", "assistant", "final", "analysis"):
        for size in range(1, len(word)):
            vocab.setdefault(word[: size + 1], len(vocab))
            merges[word[:size], word[size]] = None
    tokens = _behind(len(vocab), [*_GPT_OSS, *VISUAL])
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": GPT_OSS_WORDS}, "behavior": "Isolated", "invert": False}
    whole = {
        "version": "1.0",
        "added_tokens": [{"id": index, **token} for index, token in tokens.items()],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges]},
    }
    named = {"bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    return {"tokenizer.json": json.dumps(whole), "tokenizer_config.json": _config(tokens, **config | settings)}


FAMILIES: Mapping[str, Callable[..., Files]] = {
    "llama": _llama,
    "yi": _yi,
    "internlm2": _internlm2,
    "phi3": _phi3,
    "gpt_oss": _gpt_oss,
}


def tokenizer_files(family: str, **settings: Any) -> Files:
    """A repository's tokenizer files; ``settings`` replace keys of its tokenizer_config.json."""
    return FAMILIES[family](**settings)
