"""What the small JSON files beside a tokenizer say: added tokens with their ids, special tokens, BOS and EOS habits.

Files read: ``tokenizer_config.json``, ``special_tokens_map.json``, ``added_tokens.json``. Nothing in them is executed;
``auto_map`` and the like are ignored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .fields import refuse_surrogates, show

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class AddedToken:
    """A string that is cut out of the text before anything else is done with it."""

    content: str
    id: int
    special: bool = False
    lstrip: bool = False  # whitespace on that side belongs to the token
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


@dataclass(frozen=True)
class TokenizerFiles:
    path: Path
    tokenizer_class: str | None  # without a trailing "Fast"
    named: dict[str, str] = field(default_factory=dict)  # "bos_token" -> "<s>"
    specials: frozenset[str] = frozenset()  # contents that decode(skip_special=True) leaves out
    listed: frozenset[str] = frozenset()  # those of them that have a name or are additional_special_tokens
    added: tuple[AddedToken, ...] = ()  # by id
    settings: dict[str, Any] = field(default_factory=dict)  # tokenizer_config.json

    def switch(self, name: str) -> bool | None:
        """A boolean of tokenizer_config.json, None where it is absent or null."""
        value = self.settings.get(name)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"{self.path / 'tokenizer_config.json'}: {name} is {value!r}, not true or false")
        return value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError naming the file."""
    try:
        data = path.read_bytes()
        value = json.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object was expected, not {type(value).__name__}")
    refuse_surrogates(data, value, str(path))
    return value


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _content(token: Any, where: str) -> str | None:
    """A special token is written as a string or as an object with ``content``."""
    value = token.get("content") if isinstance(token, dict) else token
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{where}: {token!r} is not a token")
    return value


def _id(value: Any, where: str) -> int:
    written = isinstance(value, str) and re.fullmatch(r"\d{1,10}", value, re.ASCII) is not None
    index = int(value) if written or type(value) is int else -1
    if not 0 <= index < 1 << 31:
        raise CheckpointError(f"{where}: {show(value)} is not a token id")
    return index


def read_tokenizer_files(path: Path) -> TokenizerFiles:
    """Collects the small files. Later formats win: added_tokens_decoder over added_tokens.json, config over the map."""
    config_file, map_file = path / "tokenizer_config.json", path / "special_tokens_map.json"
    config, special_map = _optional(config_file), _optional(map_file)
    named: dict[str, str] = {}
    specials: set[str] = set()
    flags: dict[str, dict[str, Any]] = {}  # lstrip and the like, for tokens that added_tokens.json gives an id only
    for file, source in ((map_file, special_map), (config_file, config)):
        for name in _NAMES:
            content = _content(source.get(name), f"{file}: {name}")
            if content is not None:
                named[name] = content
        for key in ("additional_special_tokens", "extra_special_tokens"):
            extra = source.get(key) or []
            for token in extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else []:
                content = _content(token, f"{file}: {key}")
                if content is not None:
                    specials.add(content)
                if content is not None and isinstance(token, dict):
                    flags[content] = token
        for name in _NAMES:
            token = source.get(name)
            if isinstance(token, dict) and isinstance(token.get("content"), str):
                flags[token["content"]] = token
    specials |= set(named.values())
    listed = frozenset(specials)

    ids: dict[str, int] = {}
    legacy_file = path / "added_tokens.json"
    for content, index in _optional(legacy_file).items():
        ids[content] = _id(index, f"{legacy_file}: {content!r}")
    decoder = config.get("added_tokens_decoder") or {}
    where = f"{config_file}: added_tokens_decoder"
    if not isinstance(decoder, dict):
        raise CheckpointError(f"{where} is not an object")
    for key, token in decoder.items():
        written = _content(token, where)
        if not written:
            raise CheckpointError(f"{where}: token {key} has no content")
        ids[written] = _id(key, where)
        if isinstance(token, dict):
            flags[written] = token
            if token.get("special"):
                specials.add(written)
    owners: dict[int, str] = {}
    for content, index in ids.items():
        if owners.setdefault(index, content) != content:
            raise CheckpointError(f"{path}: token id {index} is given to {owners[index]!r} and {content!r}")
    added = [_added_token(c, index, c in specials, flags.get(c, {})) for c, index in ids.items()]
    kind = config.get("tokenizer_class")
    if kind is not None and not isinstance(kind, str):
        raise CheckpointError(f"{config_file}: tokenizer_class is {kind!r}")
    return TokenizerFiles(
        path=path,
        tokenizer_class=kind.removesuffix("Fast") if kind else None,
        named=named,
        specials=frozenset(specials),
        listed=listed,
        added=tuple(sorted(added, key=lambda token: token.id)),
        settings=config,
    )


def _added_token(content: str, index: int, special: bool, flags: dict[str, Any]) -> AddedToken:
    if not content:
        raise CheckpointError(f"added token {index} is an empty string")
    switches = {name: bool(flags.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
    return AddedToken(content, index, special, normalized=bool(flags.get("normalized", not special)), **switches)
