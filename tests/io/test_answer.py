"""Where answers end and which part of them is shown: whole, token by token, and cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_kernels.config import ChatConfig
from internvl_kernels.io.answer import Answers, AnswerStream, Finder
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer
from internvl_kernels.testing.checkpoints import byte_tokenizer_files
from internvl_kernels.testing.tokenizers import FAMILIES, tokenizer_files

fuzz = settings(max_examples=100, deadline=None, derandomize=True, database=None)
GPT_OSS = ChatConfig(template="internvl3_5_gpt_oss")
FINAL, ANALYSIS, AGAIN = "<|channel|>final<|message|>", "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("families")
    files = {**{family: tokenizer_files(family) for family in FAMILIES}, "qwen2": byte_tokenizer_files()}
    for family, contents in files.items():
        (folder / family).mkdir()
        for name, content in contents.items():
            (folder / family / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {family: load_tokenizer(folder / family) for family in files}


class Pieces:
    """A tokenizer whose id i is the i-th of some strings, as far as AnswerStream looks at one."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces

    def token_id(self, token: str) -> None:
        return None  # no mark and no stop is one token

    def stream(self) -> Pieces:
        return self

    def push(self, token_id: int) -> str:
        return self.pieces[token_id]

    def flush(self) -> str:
        return ""


def read(stream: AnswerStream, ids: Sequence[int]) -> list[str]:
    """What is shown after each id and at the end, each time from the beginning."""
    shown = [""]
    for index in ids:
        shown.append(shown[-1] + stream.push(index))
    return [*shown, shown[-1] + stream.flush()]


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


WRITTEN = {  # what the model wrote -> the answer
    "": "",
    "Hello": "Hello",
    f"{FINAL}Hello": "Hello",
    f"{FINAL}Hello<|return|>": "Hello",
    f"{FINAL}Hello<|return|>{FINAL}more": "Hello",
    f"{FINAL}": "",
    f"{FINAL}<|return|>": "",
    f"{ANALYSIS}So: a < b.{AGAIN}{FINAL}Hello<|return|>": "Hello",
    f"{ANALYSIS}a{AGAIN}{ANALYSIS}b{AGAIN}{FINAL}Hello 你好 😀<|return|>": "Hello 你好 😀",
    f"{ANALYSIS}no answer yet": "",
    f"{ANALYSIS}no answer{AGAIN}": "",
    f"{ANALYSIS}a<|return|>": "",
    f"{ANALYSIS}a{AGAIN}{ANALYSIS[:13]}": "",
    "<|channel|>": "",
    "<|channel|>fin": "",
    "<|channel|>final": "",
    f"<|start|>assistant{FINAL}Hello": "Hello",
    "<|start|>assistant<|message|>Hello": "Hello",
    "<|message|>Hello": "Hello",
    f"{FINAL}a{AGAIN}{FINAL}b<|return|>": "ab",
    f"{FINAL}a<|end|>b": "a",
    f"{ANALYSIS}a{FINAL}b": "b",
    f"{ANALYSIS}a<|message|>b": "",
    f"{FINAL}a<|message|>b": "ab",
    "<|channel|>finalists<|message|>a": "",
    "<|channel|>analysis final<|message|>a": "",
    "<|channel|> final <|message|>a": "a",
    f"<|channel|>commentary to=functions.f{'x' * 500}<|message|>{{}}{AGAIN}{FINAL}Hello": "Hello",
    f"{FINAL}1 < 2 <| 3 <|end of it": "1 < 2 <| 3 <|end of it",
    f"{FINAL} \n a\n\n": " \n a\n\n",
    f"{FINAL}x <": "x <",
}


@pytest.mark.parametrize(("written", "answer"), WRITTEN.items())
def test_channels_as_tokens(tokenizers: dict[str, Tokenizer], written: str, answer: str) -> None:
    """The marks are tokens of GPT-OSS's tokenizer; every prefix of the answer's tokens shows a beginning of it."""
    tokenizer = tokenizers["gpt_oss"]
    shown = read(Answers(GPT_OSS, tokenizer).stream(), tokenizer.encode(written))
    assert shown[-1] == answer
    assert all(answer.startswith(text) for text in shown)


@pytest.mark.parametrize(("written", "answer"), WRITTEN.items())
def test_channels_as_text(tokenizers: dict[str, Tokenizer], written: str, answer: str) -> None:
    """The same where no mark is a token, one byte or a few characters at a time."""
    for family in ("qwen2", "llama"):
        tokenizer = tokenizers[family]
        ids = tokenizer.encode(written, add_special=False)
        assert read(Answers(GPT_OSS, tokenizer).stream(), ids)[-1] == answer

    @fuzz
    @given(st.lists(st.integers(0, 9), max_size=12))
    def check(sizes: list[int]) -> None:
        pieces = cut(written, sizes)
        shown = read(Answers(GPT_OSS, Pieces(pieces)).stream(), range(len(pieces)))
        assert shown[-1] == answer
        assert all(answer.startswith(text) for text in shown)

    check()


@pytest.mark.parametrize("written", [w for w, answer in WRITTEN.items() if answer == "Hello"])
def test_cut_anywhere(tokenizers: dict[str, Tokenizer], written: str) -> None:
    """max_new_tokens may end an answer inside a mark: no part of one is ever shown."""
    for size in range(len(written)):
        pieces = list(written[:size])
        shown = read(Answers(GPT_OSS, Pieces(pieces)).stream(), range(size))
        lone = written[:size].endswith("<") and not written[:size].endswith("a <")  # a lone character may be text
        assert "Hello".startswith(shown[-1].removesuffix("<" if lone else "")), (written[:size], shown[-1])
    ids = tokenizers["gpt_oss"].encode(written)
    for size in range(len(ids)):
        assert "Hello".startswith(read(Answers(GPT_OSS, tokenizers["gpt_oss"]).stream(), ids[:size])[-1])


def test_what_looks_like_a_mark_is_text_where_marks_are_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["gpt_oss"]
    written = "Write <|channel|>final<|message|>, then <|end|>."
    ids = [
        *tokenizer.encode(FINAL),
        *(i for c in written for i in tokenizer.encode(c)),
        *tokenizer.encode("<|return|>"),
    ]
    assert read(Answers(GPT_OSS, tokenizer).stream(), ids)[-1] == written


@pytest.mark.parametrize(
    ("name", "family", "eos", "stops"),
    [
        ("vicuna_v1", "llama", (), ["</s>"]),
        ("internvl_zh", "llama", (2,), ["</s>"]),
        ("Hermes-2", "yi", (), ["<|im_end|>", "<|endoftext|>"]),
        ("Hermes-2", "qwen2", (), ["<|im_end|>", "<|endoftext|>"]),
        ("internlm2-chat", "internlm2", (2,), ["</s>", "<|im_end|>"]),
        ("phi3-chat", "phi3", (), ["<|end|>"]),
        ("internvl2_5", "qwen2", (256,), ["<|endoftext|>", "<|im_end|>"]),
        ("internvl3_5_gpt_oss", "gpt_oss", (), ["<|return|>"]),
        ("internvl3_5_gpt_oss", "gpt_oss", (310, 314, 316), ["<|return|>", "<|call|>"]),  # 314: <|end|>
        (None, "qwen2", (256,), ["<|endoftext|>", "<|im_end|>"]),  # Jinja: the tokenizer's end of sequence
        (None, "gpt_oss", (314,), ["<|return|>"]),
    ],
)
def test_stops_that_are_tokens(
    tokenizers: dict[str, Tokenizer], name: str | None, family: str, eos: tuple[int, ...], stops: list[str]
) -> None:
    tokenizer = tokenizers[family]
    config = ChatConfig(template=name, chat_template="x", eos_token_ids=eos)
    answers = Answers(config, tokenizer)
    assert answers.stop_ids == {tokenizer.token_id(stop) for stop in stops}
    assert answers.stop_texts == ()
    assert answers.channels == (family == "gpt_oss")
    stop = tokenizer.token_id(stops[0])
    ids = [*tokenizer.encode("a b", add_special=False), stop]
    assert read(answers.stream(), [i for i in ids if i is not None])[-1] == "a b"


@pytest.mark.parametrize(
    ("name", "family", "stops"),
    [
        ("Hermes-2", "llama", ("<|im_end|>", "<|endoftext|>")),
        ("internvl2_5", "gpt_oss", ("<|im_end|>",)),
        ("internvl3_5_gpt_oss", "qwen2", ("<|return|>",)),
        ("vicuna_v1", "qwen2", ("</s>",)),
        ("phi3-chat", "internlm2", ("<|end|>",)),
    ],
)
def test_stops_that_are_no_tokens(
    tokenizers: dict[str, Tokenizer], name: str, family: str, stops: tuple[str, ...]
) -> None:
    tokenizer = tokenizers[family]
    answers = Answers(ChatConfig(template=name), tokenizer)
    assert answers.stop_texts == stops
    for stop in stops:
        for text in ("", "a", "你好 😀", f"{stop[:3]}", f"<{stop[:-1]} ", "a\n"):
            stream = answers.stream()
            ids = tokenizer.encode(f"{text}{stop}b{stop}", add_special=False)
            shown = read(stream, ids)
            assert shown[-1] == text
            assert stream.done
            assert all(text.startswith(part) for part in shown)
    assert not answers.stream().done


@fuzz
@given(
    st.lists(
        st.sampled_from(["<|im_end|>", "<|endoftext|>", "<|im_", "end|>", "<", "<|", "|>", "a", " ", "你"]), max_size=8
    ),
    st.lists(st.integers(0, 7), max_size=15),
)
def test_text_stops_in_any_pieces(parts: list[str], sizes: list[int]) -> None:
    whole = "".join(parts)
    ends = [at for stop in ("<|im_end|>", "<|endoftext|>") if (at := whole.find(stop)) >= 0]
    pieces = cut(whole, sizes)
    stream = Answers(ChatConfig(template="Hermes-2"), Pieces(pieces)).stream()
    shown = read(stream, range(len(pieces)))
    expected = whole[: min(ends, default=len(whole))]
    assert shown[-1] == expected  # without a stop nothing is lost, not even what looks like the beginning of one
    assert all(expected.startswith(text) for text in shown)
    assert stream.done == bool(ends)


def test_a_stop_token_leaves_what_was_held_back(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["llama"]
    stream = Answers(ChatConfig(template="Hermes-2", eos_token_ids=(2,)), tokenizer).stream()
    ids = [*tokenizer.encode("a <|im_", add_special=False), 2]
    assert read(stream, [*ids, *ids])[-2:] == ["a ", "a <|im_"]
    assert stream.done


def test_a_mark_is_used_once() -> None:
    """Its end is no beginning of the next one."""
    finder = Finder(["aba", "xa"])
    assert finder.push("caba") == [("c", "aba"), ("", None)]
    assert finder.push("ba") == [("b", None)]
    assert finder.flush() == "a"
    assert finder.flush() == ""


def test_a_jinja_template_of_channels_ends_at_return(tmp_path: Path) -> None:
    """Whatever the tokenizer calls its end of sequence."""
    for name, content in tokenizer_files("gpt_oss", eos_token="<|endoftext|>").items():
        (tmp_path / name).write_text(str(content))
    answers = Answers(ChatConfig(template=None, chat_template="x"), load_tokenizer(tmp_path))
    assert answers.stop_ids == {309, 310}


def test_given_stop_ids_replace_all_stops(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["llama"]
    answers = Answers(ChatConfig(template="Hermes-2", eos_token_ids=(2,)), tokenizer)
    ids = tokenizer.encode("a<|im_end|>b</s>c", add_special=False)
    assert read(answers.stream(), ids)[-1] == "a"
    assert read(answers.stream([]), ids)[-1] == "a<|im_end|>bc"  # </s> is a special token
    assert read(answers.stream([2]), ids[: ids.index(2) + 1])[-1] == "a<|im_end|>b"


def test_long_answers_take_linear_time_and_hold_little(tmp_path: Path) -> None:
    pieces = ["<|im_" * 10] * 20_000
    stream = Answers(ChatConfig(template="Hermes-2"), Pieces(pieces)).stream()
    shown = sum(len(stream.push(index)) for index in range(len(pieces)))
    assert len("".join(pieces)) - shown == len("<|im_")
    head = Answers(GPT_OSS, Pieces(["<|channel|>", "x" * 100])).stream()
    assert not any(head.push(i) for i in [0, *[1] * 1000])
    assert len(head._channels._head) == 64
