"""The family's tokenizers in their published forms against the classes and libraries that those forms are written for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer
from internvl_kernels.testing.tokenizers import FAMILIES, VISUAL, tokenizer_files

PARTS = [
    *VISUAL[:4], "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|end|>", "<|start|>",
    "<|channel|>final<|message|>", "the", " image", "USER", " ASSISTANT:", "It's", "HELLO", "camelCase", "12345", "!?\n",
    "\n", "\r\n", " ", "   ", "\t", "\u2581", "\u3000", "\x00", "你好", "e\u0301", "😀", "/",
]  # fmt: skip
texts = st.lists(st.sampled_from(PARTS) | st.characters(exclude_categories=["Cs"]), max_size=20).map("".join)
fuzz = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def write(path: Path, family: str, **config: object) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in tokenizer_files(family, **config).items():
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("families")
    return {family: load_tokenizer(write(folder / family, family)) for family in FAMILIES}


# What LlamaTokenizer of transformers 4.37.2 and 4.57.6 gives from the same files: the class that the family's own code
# asks for (use_fast=False). Since transformers 5 there is no such class.
PHI3_PROMPT = "<|system|>\nS<|end|><|user|>\n<img><IMG_CONTEXT></img>\nHi<|end|><|assistant|>\n"
VICUNA_PROMPT = "S USER: <img><IMG_CONTEXT></img>\nthe image ASSISTANT: Yes</s>USER: Hi ASSISTANT:"
BY_TRANSFORMERS_4 = [
    ("phi3", "", [1]),
    ("phi3", PHI3_PROMPT, [1, 259, 378, 310, 379, 380, 381, 383, 382, 13, 299, 332, 379, 376]),
    ("phi3", "the image", [1, 356, 361]),
    ("phi3", "<s>the", [1, 1, 343, 331, 328]),
    ("phi3", "</s> the", [1, 259, 2, 343, 331, 328]),
    ("phi3", "<img> the", [1, 381, 356]),
    ("phi3", "  <|user|> \n\u2581the", [1, 259, 259, 259, 380, 343, 331, 328]),
    ("phi3", "\u2581<|end|>", [1, 259, 259, 379]),
    ("llama", "", [1]),
    (
        "llama",
        VICUNA_PROMPT,
        [
            1,
            259,
            310,
            365,
            285,
            259,
            375,
            377,
            376,
            13,
            343,
            331,
            328,
            361,
            374,
            285,
            259,
            316,
            328,
            342,
            2,
            312,
            310,
            296,
        ]
        + [309, 285, 259, 299, 332, 374, 285],
    ),
    (
        "llama",
        " <human>: Hi <bot>:",
        [1, 259, 259, 287, 331, 344, 336, 324, 337, 289, 285, 259, 299, 332, 259, 287, 325, 338, 343, 289, 285],
    ),
    ("llama", "<s>the", [1, 1, 343, 331, 328]),
    ("llama", "<img> the", [1, 375, 356]),
    ("llama", " the", [1, 259, 356]),
    ("yi", "<|im_start|>user\nthe<|im_end|>", [1, 3, 346, 344, 330, 343, 15, 345, 333, 330, 4]),
    ("yi", " the image", [1, 358, 363]),
]


@pytest.mark.parametrize(("family", "text", "ids"), BY_TRANSFORMERS_4)
def test_llama_like_transformers_4(tokenizers: dict[str, Tokenizer], family: str, text: str, ids: list[int]) -> None:
    assert tokenizers[family].encode(text) == ids


@pytest.mark.parametrize("family", ["internlm2", "yi"])
def test_sentencepiece_like_transformers_5(tokenizers: dict[str, Tokenizer], family: str, tmp_path: Path) -> None:
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    theirs = SentencePieceBackend.from_pretrained(write(tmp_path / family, family), legacy=True)
    ours = tokenizers[family]

    @fuzz
    @given(texts)
    def check(text: str) -> None:
        assert ours.encode(text, add_special=False) == theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == [ours.bos_id, *ours.encode(text, add_special=False)]

    check()


@pytest.mark.parametrize("kind", ["InternLM2Tokenizer", "InternLM3Tokenizer", "LlamaTokenizer"])
@pytest.mark.parametrize("prefix_space", [None, True, False])
def test_each_stretch_as_the_model_says(kind: str, prefix_space: bool | None, tmp_path: Path) -> None:
    """The rule of these classes: cut at added tokens, each stretch through sentencepiece itself, BOS in front."""
    path = write(tmp_path / "x", "internlm2", tokenizer_class=kind, add_prefix_space=prefix_space)
    ours, model = load_tokenizer(path), (path / "tokenizer.model").read_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    added = {t["content"]: int(i) for i, t in json.loads((path / "tokenizer_config.json").read_text())[
        "added_tokens_decoder"
    ].items()}  # fmt: skip
    cut = re.compile("(" + "|".join(map(re.escape, added)) + ")")

    @fuzz
    @given(texts)
    def check(text: str) -> None:
        parts = [[added[p]] if p in added else processor.encode(p) for p in cut.split(text)]
        assert ours.encode(text) == [1, *(i for part in parts for i in part)]

    check()
    assert ours.encode("[UNUSED_TOKEN_145]", add_special=False)[-1] == ours.token_id("<|im_end|>") == 3


def test_gpt_oss_like_transformers(tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    ours = tokenizers["gpt_oss"]
    theirs = PreTrainedTokenizerFast.from_pretrained(write(tmp_path / "x", "gpt_oss"))

    @fuzz
    @given(texts)
    def check(text: str) -> None:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, skip_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)

    check()
    assert ours.encode("")[:1] == []  # no token before a text
    assert [ours.token(i) for i in ours.encode("It's HTMLPage 12345")] == [
        *["I", "t", "'", "s", "Ġ", "H", "T", "M", "L", "P", "a", "g", "e", "Ġ"], *"12345"
    ]  # fmt: skip
    assert ours.encode(" the")[0] == ours.token_id("Ġthe")
    assert ours.eos_token == "<|return|>"


def test_which_tokenizers_begin_with_a_token(tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    first = {family: ours.encode("the")[0] == ours.bos_id for family, ours in tokenizers.items()}
    assert first == {"llama": True, "yi": True, "internlm2": True, "phi3": True, "gpt_oss": False}
    assert [ours.bos_token for ours in tokenizers.values()] == [
        "<s>",
        "<|startoftext|>",
        "<s>",
        "<s>",
        "<|startoftext|>",
    ]
    off = load_tokenizer(write(tmp_path / "off", "yi", add_bos_token=False))
    assert off.encode("the") == tokenizers["yi"].encode("the")[1:]


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "gpt_oss"])
def test_added_tokens_of_older_files(tokenizers: dict[str, Tokenizer], family: str, tmp_path: Path) -> None:
    """added_tokens.json and special_tokens_map.json say the same as added_tokens_decoder; only flags have no place."""
    path = write(tmp_path / "x", family)
    config = json.loads((path / "tokenizer_config.json").read_text())
    tokens = {token["content"]: int(index) for index, token in config.pop("added_tokens_decoder").items()}
    special = {"additional_special_tokens": config.pop("additional_special_tokens")}
    special |= {name: config.pop(name) for name in list(config) if name.endswith("_token") and "add" not in name}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "special_tokens_map.json").write_text(json.dumps(special))
    (path / "added_tokens.json").write_text(json.dumps(tokens))
    older, ours = load_tokenizer(path), tokenizers[family]
    assert (older.bos_id, older.eos_id, older.pad_id, older.vocab_size) == (
        ours.bos_id,
        ours.eos_id,
        ours.pad_id,
        ours.vocab_size,
    )
    for text in ("", "the image", "a<img><IMG_CONTEXT></img>b", "<s>x</s>", "<|im_start|>user<|im_end|>", "x<|end|>y"):
        assert older.encode(text) == ours.encode(text)


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_of_every_family(tokenizers: dict[str, Tokenizer], family: str) -> None:
    ours = tokenizers[family]

    @fuzz
    @given(st.lists(st.integers(0, ours.vocab_size + 2), max_size=25), st.booleans())
    def check(ids: list[int], skip: bool) -> None:
        stream = ours.stream(skip_special=skip)
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids, skip_special=skip)

    check()


def test_an_added_token_goes_before_a_piece_of_the_same_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "internlm2")
    config = json.loads((path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["4"]["content"] = "\u2581the"  # a piece of the model, with another id
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(path)
    assert ours.token_id("\u2581the") == 4
    assert ours.encode("\u2581the") == [1, 4]


@pytest.mark.parametrize("side", ["lstrip", "rstrip"])
def test_long_whitespace_beside_a_token_takes_linear_time(side: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", "phi3")
    config = json.loads((path / "tokenizer_config.json").read_text())
    for token in config["added_tokens_decoder"].values():
        token[side] = True
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(path)
    begin = time.perf_counter()
    ids = ours.encode("\n" * 100_000 + "<img>" + "\n" * 100_000)
    assert time.perf_counter() - begin < 10  # the quadratic way took 26 seconds
    assert len(ids) == 100_000 + 2 + (side == "rstrip")  # BOS, the token, and a space where nothing was left of it
