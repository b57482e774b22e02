"""Damaged and contradicting tokenizer files: a CheckpointError that names the file, never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from internvl_kernels import CheckpointError
from internvl_kernels.io.tokenizer import load_tokenizer


def qwen2(path: Path, **config: Any) -> Path:
    """A Qwen2 repository without merges: 256 bytes, then two added tokens."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    (path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (path / "merges.txt").write_text("#version: 0.2\n")
    added = {"256": {"content": "<|endoftext|>", "special": True}, "257": {"content": "<img>", "special": True}}
    head = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "added_tokens_decoder": added}
    (path / "tokenizer_config.json").write_text(json.dumps({**head, **config}))
    return path


def test_the_files_themselves_are_good(tmp_path: Path) -> None:
    assert load_tokenizer(qwen2(tmp_path)).token_id("<img>") == 257


def broken(name: str, content: str) -> Any:
    def write(path: Path) -> None:
        (path / name).write_text(content, encoding="utf-8", errors="surrogateescape")

    return pytest.param(write, name, id=f"{name}: {content[:24]}")


@pytest.mark.parametrize(
    ("write", "name"),
    [
        *[broken("tokenizer.json", text) for text in ("", "{", "[]", "null", '{"model": 1}', "{" * 5000, "\udcff")],
        *[broken("vocab.json", text) for text in ('{"a": 0', "[1]", '{"a": "x"}', '{"a": -1}', '{"a": 0, "b": 0}')],
        *[broken("merges.txt", text) for text in ("a", "a b c", "zz yy", "a  b")],
        *[broken("tokenizer_config.json", text) for text in ("", "[]", "[" * 100_000, '{"tokenizer_class": 3}')],
        broken("tokenizer_config.json", '{"tokenizer_class": "MyTokenizer"}'),
        broken("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        broken("tokenizer_config.json", '{"added_tokens_decoder": {"-1": {"content": "a"}}}'),
        broken("tokenizer_config.json", '{"added_tokens_decoder": {"1": {"content": ""}}}'),
        broken("tokenizer_config.json", '{"added_tokens_decoder": []}'.replace("[]", "[1]")),
        broken("tokenizer_config.json", '{"eos_token": 5}'),
        broken("added_tokens.json", '{"a": "b"}'),
        broken("added_tokens.json", '{"a": 99999999999999}'),
        broken("added_tokens.json", '{"": 5000}'),
        broken("special_tokens_map.json", "{"),
    ],
)
def test_broken_files(write: Any, name: str, tmp_path: Path) -> None:
    qwen2(tmp_path)
    write(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(tmp_path)
    assert name in str(caught.value) or "empty string" in str(caught.value)


def test_contradictions(tmp_path: Path) -> None:
    qwen2(tmp_path, added_tokens_decoder={"5": {"content": "<x>"}})
    with pytest.raises(CheckpointError, match=r"vocab\.json: added token '<x>', id 5, contradicts"):
        load_tokenizer(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<y>": 700}')
    qwen2(tmp_path, added_tokens_decoder={"700": {"content": "<x>"}})
    with pytest.raises(CheckpointError, match="token id 700 is given to '<y>' and '<x>'"):
        load_tokenizer(tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="not a directory"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: not a usable"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(CheckpointError, match=r"'T5Tokenizer' with a tokenizer\.model"):
        load_tokenizer(tmp_path)


def test_a_named_token_without_content_beside_another_file(tmp_path: Path) -> None:
    """An empty object in special_tokens_map.json names nothing, and must not be looked up."""
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": {}}')
    with pytest.raises(CheckpointError, match=r"special_tokens_map|no tokenizer"):
        load_tokenizer(tmp_path)
