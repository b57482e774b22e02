"""Every shipped form of a tokenizer against transformers, the tokenizers library and sentencepiece."""

from __future__ import annotations

import functools
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers

from internvl_kernels import CheckpointError, UnsupportedError
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer

CORPUS = ["the quick brown fox's dog isn't here, 12345 times\n\n", "你好世界 naïve café e\u0301", "aaaa  bb\tc"] * 20
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
HOSTILE = [
    "",
    " ",
    "  a   b  ",
    "\n\n\r\n \t\u3000\u00a0",
    "你好，世界！これはテスト",
    "😀👨‍👩‍👧🏳️‍🌈",
    "e\u0301\u0323 A\u030a ᄀ\u1161 가 ﬁ",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a<img> <IMG_CONTEXT><IMG_CONTEXT></img> b <quad> c<note> d",
    "<|im_start|<|im_end|>>",
    "\x00\x01\x7f\ufffd\U0010ffff",
    "IT'S i'm We'LL 1234567",
    "the quick brown fox " * 5000,
    "x" * 20_000,
]
texts = st.lists(
    st.sampled_from([*SPECIALS, "<quad>", "<note>", " ", "  ", "\n", "the", "'s", "12", "你", "e\u0301"])
    | st.characters(exclude_categories=["Cs"]),
    max_size=25,
).map("".join)
fuzz = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@functools.cache
def bpe_files() -> tuple[str, str]:
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(engine.to_str())["model"]
    return json.dumps(model["vocab"]), "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]) + "\n"


def flags(content: str, special: bool = True, **more: bool) -> dict[str, Any]:
    return {"content": content, "special": special, "lstrip": False, "rstrip": False, "normalized": False, **more}


def qwen2(path: Path, *, form: str = "decoder", first: int | None = None, **config: Any) -> Path:
    """A Qwen2 repository: ``form`` "decoder" (tokenizer_config.json alone) or "legacy" (three small files)."""
    vocab, merges = bpe_files()
    (path / "vocab.json").write_text(vocab, encoding="utf-8")
    (path / "merges.txt").write_text(merges, encoding="utf-8")
    first = len(json.loads(vocab)) if first is None else first
    head = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    head.update(bos_token=None, add_bos_token=False, model_max_length=10**6)
    tokens = [*map(flags, SPECIALS), flags("<quad>", False), flags("<note>", lstrip=True, rstrip=True)]
    if form == "decoder":
        head["added_tokens_decoder"] = {str(first + i): token for i, token in enumerate(tokens)}
    else:
        extra = [t if t["lstrip"] else t["content"] for t in tokens[1:] if t["special"]]
        special_map = {"eos_token": flags("<|im_end|>"), "additional_special_tokens": extra}
        (path / "special_tokens_map.json").write_text(json.dumps(special_map))
        (path / "added_tokens.json").write_text(json.dumps({t["content"]: first + i for i, t in enumerate(tokens)}))
    (path / "tokenizer_config.json").write_text(json.dumps({**head, **config}))
    return path


def check_against(ours: Tokenizer, theirs: Any) -> None:
    """Same ids, same text, and streaming gives the text of decode."""

    def check(text: str) -> None:
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text[:80]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text[:80]
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, skip_special_tokens=False), text[:80]
        stream = ours.stream()
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids)

    for text in HOSTILE:
        check(text)
    fuzz(given(texts)(check))()


def check_stream(ours: Tokenizer) -> None:
    """Any ids at all, also of no token: pieces join to decode, and no valid character comes out in halves."""

    @fuzz
    @given(st.lists(st.integers(-3, ours.vocab_size + 3), max_size=30), st.booleans())
    def check(ids: list[int], skip: bool) -> None:
        stream = ours.stream(skip_special=skip)
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids, skip_special=skip)

    check()
    for text in ("你好", "😀", "e\u0301"):
        stream = ours.stream()
        pieces = [stream.push(i) for i in ours.encode(f"a{text}b")]
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("form", ["decoder", "legacy"])
def test_qwen2_files(form: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = load_tokenizer(qwen2(tmp_path, form=form))
    # Both forms say the same; transformers reads the newer one.
    check_against(ours, AutoTokenizer.from_pretrained(qwen2(tmp_path)))
    check_stream(ours)
    size = len(json.loads(bpe_files()[0]))
    assert [ours.token_id(t) for t in [*SPECIALS, "<quad>", "<note>"]] == list(range(size, size + 8))
    assert (ours.eos_id, ours.pad_id, ours.bos_id, ours.vocab_size) == (size + 2, size, None, size + 8)
    assert ours.token_id("<nothing>") is None
    assert ours.token(size + 3) == "<img>"
    assert ours.token(size + 8) is None
    assert ours.special_ids == {*range(size, size + 6), size + 7}


def test_tokenizer_json(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(qwen2(tmp_path)).save_pretrained(tmp_path / "json")
    ours = load_tokenizer(tmp_path / "json")
    check_against(ours, AutoTokenizer.from_pretrained(tmp_path / "json"))
    check_stream(ours)
    assert not (tmp_path / "json" / "vocab.json").exists()


def test_added_tokens_missing_from_tokenizer_json(tmp_path: Path) -> None:
    path = qwen2(tmp_path)
    file = tmp_path / "tokenizer.json"
    vocab, merges = bpe_files()
    pairs = [tuple(line.split(" ")) for line in merges.splitlines()[1:]]
    Engine(models.BPE(json.loads(vocab), pairs)).save(str(file))
    assert load_tokenizer(path).token_id("<IMG_CONTEXT>") == len(json.loads(vocab)) + 5
    qwen2(tmp_path, first=len(json.loads(vocab)) + 1)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: token '<\|endoftext\|>' has id"):
        load_tokenizer(path)


def test_ids_with_gaps(tmp_path: Path) -> None:
    ours = load_tokenizer(qwen2(tmp_path, first=5000))
    assert ours.token_id("<IMG_CONTEXT>") == 5005
    assert ours.encode("<img>a</img>") == [5003, *ours.encode("a"), 5004]
    assert ours.decode([4000, 5005, *ours.encode("a")]) == "a"


def llama_engine(path: Path) -> Any:
    """tokenizer.json in the form of Llama: SentencePiece pieces, byte fallback, a BOS from the post-processor."""
    from transformers import LlamaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    processor = sentencepiece.SentencePieceProcessor(model_proto=sp_model())
    vocab = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    theirs = LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab), add_bos_token=True, legacy=False)
    theirs.save_pretrained(path)
    return theirs


@functools.cache
def sp_model() -> bytes:
    file = io.BytesIO()
    symbols = [f"[UNUSED_TOKEN_{i}]" for i in range(4)]
    options = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "vocab_size": 420}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=file,
        remove_extra_whitespaces=False,
        user_defined_symbols=symbols,
        character_coverage=0.99,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return file.getvalue()


def test_llama_tokenizer_json(tmp_path: Path) -> None:
    theirs = llama_engine(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.encode("the fox")[0] == ours.bos_id == 1
    check_against(ours, theirs)
    check_stream(ours)


def internlm2(path: Path, **config: Any) -> tuple[Tokenizer, sentencepiece.SentencePieceProcessor, dict[str, int]]:
    """tokenizer.model with added tokens: some over ids that the model has already, the others behind them."""
    (path / "tokenizer.model").write_bytes(sp_model())
    processor = sentencepiece.SentencePieceProcessor(model_proto=sp_model())
    ids = {"<unk>": 0, "<s>": 1, "</s>": 2, "<|im_end|>": 4, "<|im_start|>": 5}
    ids.update({t: processor.get_piece_size() + i for i, t in enumerate(SPECIALS[3:])})
    head = {"tokenizer_class": "InternLM2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    head["auto_map"] = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    head["added_tokens_decoder"] = {str(i): flags(t) for t, i in ids.items()}
    (path / "tokenizer_config.json").write_text(json.dumps({**head, **config}))
    return load_tokenizer(path), processor, ids


@pytest.mark.parametrize("legacy", [True, False], ids=["InternLM2", "Llama, legacy false"])
def test_tokenizer_model(legacy: bool, tmp_path: Path) -> None:
    """The published rule, written out: cut at added tokens, each stretch through sentencepiece, BOS in front."""
    config = {} if legacy else {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    ours, processor, added = internlm2(tmp_path, **config)
    cut = re.compile("(" + "|".join(map(re.escape, added)) + ")")

    def expected(text: str) -> list[int]:
        text = text if legacy or not text else "\u2581" + text.replace("\u2581", " ")
        parts = [part for part in cut.split(text) if part]
        if parts[0:1] == ["\u2581"] and parts[1:] and parts[1] in ("<s>", "</s>", "<unk>"):  # the tokens with a name
            del parts[0]
        ids = [1]
        for part in parts:
            if part in added:
                ids.append(added[part])
            elif legacy:
                ids += processor.encode(part)
            else:  # no dummy prefix: behind a character that never merges, which is then taken away
                ids += processor.encode("\x00" + part)[2:]
        return ids

    def check(text: str) -> None:
        ids = ours.encode(text)
        assert ids == expected(text), text[:80]
        assert ours.encode(text, add_special=False) == ids[1:]
        plain = [i for i in ids if i not in added.values()]
        assert ours.decode(ids) == processor.decode(plain), text[:80]
        stream = ours.stream()
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids)

    for text in HOSTILE:
        check(text)
    fuzz(given(texts)(check))()
    check_stream(ours)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 2)
    assert ours.vocab_size == processor.get_piece_size() + 3
    assert ours.token_id("<|im_start|>") == 5
    assert ours.decode([5, 4], skip_special=False) == "<|im_start|><|im_end|>"


def test_tokenizer_model_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sp_model())
    ours = load_tokenizer(tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_proto=sp_model())
    assert ours.encode("the fox") == [1, *processor.encode("the fox")]
    assert ours.encode("</s>", add_special=False) == [2]


def test_bos_and_eos_switches(tmp_path: Path) -> None:
    ours, processor, _ = internlm2(tmp_path, add_bos_token=False, add_eos_token=True)
    assert ours.encode("fox") == [*processor.encode("fox"), 2]
    with pytest.raises(CheckpointError, match="bos is to be added, but bos_token names no known token"):
        internlm2(tmp_path, bos_token="<begin>")
    with pytest.raises(CheckpointError, match="add_bos_token is 'yes'"):
        internlm2(tmp_path, add_bos_token="yes")


def test_stripping_added_tokens(tmp_path: Path) -> None:
    tokens = {"4": flags("<a>", lstrip=True), "5": flags("<b>", rstrip=True), "6": flags("<w>", single_word=True)}
    ours, processor, _ = internlm2(tmp_path, added_tokens_decoder=tokens)
    encoded = processor.encode
    assert ours.encode("x  <a> y", add_special=False) == [*encoded("x"), 4, *encoded(" y")]
    assert ours.encode("x <b>  y", add_special=False) == [*encoded("x "), 5, *encoded("y")]
    assert ours.encode("x<w>y", add_special=False) == encoded("x<w>y")
    assert ours.encode("x <w> y", add_special=False) == [*encoded("x "), 6, *encoded(" y")]


def test_checkpoint_code_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "tokenization_internlm2.py").write_text(f"open({str(mark)!r}, 'w')\nclass InternLM2Tokenizer: pass\n")
    internlm2(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83d x \ude00"])
def test_lone_surrogates(text: str, tmp_path: Path) -> None:
    for ours in (load_tokenizer(qwen2(tmp_path)), internlm2(tmp_path)[0]):
        with pytest.raises(UnsupportedError, match="lone surrogate"):
            ours.encode(text)
    with pytest.raises(UnsupportedError, match="text is bytes"):
        ours.encode(b"a")  # type: ignore[arg-type]
