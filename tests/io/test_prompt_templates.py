"""Whole prompts of every template with its family's tokenizer: as text, and token by token."""

from __future__ import annotations

import pytest

from internvl_kernels import UnsupportedError
from internvl_kernels.config import ChatConfig
from internvl_kernels.io.prompt import ImageItem, Item, VideoItem, build_prompt, prompt_ids
from internvl_kernels.io.template import TEMPLATES
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer
from internvl_kernels.testing.checkpoints import byte_tokenizer_files
from internvl_kernels.testing.tokenizers import FAMILIES, tokenizer_files

ONE, TWO = "<img><IMG_CONTEXT></img>", "<img><IMG_CONTEXT><IMG_CONTEXT></img>"
SYSTEM = {"vicuna_v1": "S ", "internvl_zh": "S ", "phi3-chat": "<|system|>\nS<|end|>"}
SYSTEM["Hermes-2"] = SYSTEM["internlm2-chat"] = "<|im_start|>system\nS<|im_end|>"
SYSTEM["internvl2_5"] = "<|im_start|>system\nS<|im_end|>\n"
SYSTEM["internvl3_5_gpt_oss"] = "<|start|>system<|message|>S<|end|>"


def turn(name: str, question: str, answer: str | None = None) -> str:
    """One turn written out; without an answer it is the open one."""
    asked, said = {
        "vicuna_v1": ("USER: Q ASSISTANT:", " A</s>"),
        "internvl_zh": ("<human>: Q <bot>:", " A</s>"),
        "Hermes-2": ("<|im_start|>user\nQ<|im_end|><|im_start|>assistant\n", "A<|im_end|>"),
        "internlm2-chat": ("<|im_start|>user\nQ<|im_end|><|im_start|>assistant\n", "A<|im_end|>"),
        "phi3-chat": ("<|user|>\nQ<|end|><|assistant|>\n", "A<|end|>"),
        "internvl2_5": ("<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n", "A<|im_end|>\n"),
        "internvl3_5_gpt_oss": (
            "<|start|>user<|message|>Q<|end|><|start|>assistant", "<|channel|>final<|message|>A<|end|>",
        ),
    }[name]  # fmt: skip
    return asked.replace("Q", question, 1) + ("" if answer is None else said.replace("A", answer, 1))


VIDEO = VideoItem((1, 2))
FRAMES = f"Frame-1: {ONE}\nFrame-2: {TWO}"
CASES: dict[str, tuple[list[tuple[str, str]], str, list[Item], list[tuple[str, str]], str]] = {
    # history, question, items -> the questions and answers of the prompt
    "text": ([], "hi", [], [], "hi"),
    "one image": ([], "hi", [ImageItem(1)], [], f"{ONE}\nhi"),
    "an image alone": ([], "", [ImageItem(2)], [], f"{TWO}\n"),
    "image of the first turn": ([("hi", "yes")], "why?", [ImageItem(2)], [(f"{TWO}\nhi", "yes")], "why?"),
    "several images": ([], "<image>\n<image>\nhi", [ImageItem(1), ImageItem(2)], [], f"{ONE}\n{TWO}\nhi"),
    "numbered images": (
        [], "Image-1: <image>\nImage-2: <image>\nhi", [ImageItem(1), ImageItem(2)], [], f"Image-1: {ONE}\nImage-2: {TWO}\nhi",
    ),
    "images of two turns": ([("<image>a", "x")], "b <image>", [ImageItem(2), ImageItem(1)], [(f"{TWO}a", "x")], f"b {ONE}"),
    "a mark in an answer": ([("<image>a", "an <image>")], "b", [ImageItem(1)], [(f"{ONE}a", "an <image>")], "b"),
    "video": ([], "hi", [VIDEO], [], f"{FRAMES}\nhi"),
    "video by its mark": ([("a", "x")], "<video>\nhi", [VIDEO], [("a", "x")], f"{FRAMES}\nhi"),
    # the forms of other releases: written out, each frame takes a mark
    "quick start": ([], "Frame-1: <image>\nFrame-2: <image>\nhi", [VIDEO], [], f"{FRAMES}\nhi"),
    "MPO and MVBench": ([], "Frame1: <image>\nFrame2: <image>\nhi", [VIDEO], [], f"Frame1: {ONE}\nFrame2: {TWO}\nhi"),
    "V2PE": ([], "Frame1:<image>Frame2:<image>hi", [VIDEO], [], f"Frame1:{ONE}Frame2:{TWO}hi"),
    "image and video": ([], "<video><image>", [VIDEO, ImageItem(1)], [], f"{FRAMES}{ONE}"),
    "three turns": ([("a", "x"), ("b\r\n", " y ")], "c", [], [("a", "x"), ("b\r\n", " y ")], "c"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_text(name: str, case: str) -> None:
    history, question, items, turns, last = CASES[case]
    expected = SYSTEM[name] + "".join(turn(name, *pair) for pair in turns) + turn(name, last)
    config = ChatConfig(template=name)
    assert build_prompt(config, question, items, history=history, system="S") == expected
    assert build_prompt(ChatConfig(template=name, system_message="S"), question, items, history=history) == expected


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("families")
    files = {**{family: tokenizer_files(family) for family in FAMILIES}, "qwen2": byte_tokenizer_files()}
    for family, contents in files.items():
        (folder / family).mkdir()
        for name, content in contents.items():
            (folder / family / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {family: load_tokenizer(folder / family) for family in files}


# Pieces of the prompt for: system "S", ("<image>\nHi", "Yes"), "the image?". The line break behind Phi-3's own tokens is
# part of them; "\u2581" is a space, "Ċ" a line break, "Ġ" a space of byte-level tokenizers.
PIECES = {
    ("vicuna_v1", "llama"): (
        "<s> ▁ S ▁USER : ▁ <img> <IMG_CONTEXT> </img> <0x0A> H i ▁ASSISTANT : ▁ Y e s </s> U S E R : ▁the ▁image ? "
        "▁ASSISTANT :"
    ),
    ("internvl_zh", "llama"): (
        "<s> ▁ S ▁ < h u m a n > : ▁ <img> <IMG_CONTEXT> </img> <0x0A> H i ▁ < b o t > : ▁ Y e s </s> "
        "< h u m a n > : ▁the ▁image ? ▁ < b o t > :"
    ),
    ("Hermes-2", "yi"): (
        "<|startoftext|> <|im_start|> s y s t e m <0x0A> S <|im_end|> <|im_start|> u s e r <0x0A> <img> <IMG_CONTEXT> </img> "
        "<0x0A> H i <|im_end|> <|im_start|> a s s i s t a n t <0x0A> Y e s <|im_end|> <|im_start|> u s e r <0x0A> t h e ▁image "
        "? <|im_end|> <|im_start|> a s s i s t a n t <0x0A>"
    ),
    ("Hermes-2", "qwen2"): (
        "<|im_start|> s y s t e m Ċ S <|im_end|> <|im_start|> u s e r Ċ <img> <IMG_CONTEXT> </img> Ċ H i <|im_end|> "
        "<|im_start|> a s s i s t a n t Ċ Y e s <|im_end|> <|im_start|> u s e r Ċ t h e Ġ i m a g e ? <|im_end|> "
        "<|im_start|> a s s i s t a n t Ċ"
    ),
    ("internlm2-chat", "internlm2"): (
        "<s> <|im_start|> ▁ s y s t e m <0x0A> S <|im_end|> <|im_start|> ▁ u s e r <0x0A> <img> <IMG_CONTEXT> </img> ▁ "
        "<0x0A> H i <|im_end|> <|im_start|> ▁ a s s i s t a n t <0x0A> Y e s <|im_end|> <|im_start|> ▁ u s e r <0x0A> t h e "
        "▁image ? <|im_end|> <|im_start|> ▁ a s s i s t a n t <0x0A>"
    ),
    ("phi3-chat", "phi3"): (
        "<s> ▁ <|system|> S <|end|> <|user|> <img> <IMG_CONTEXT> </img> <0x0A> H i <|end|> <|assistant|> Y e s <|end|> "
        "<|user|> t h e ▁image ? <|end|> <|assistant|>"
    ),
    ("internvl2_5", "qwen2"): (
        "<|im_start|> s y s t e m Ċ S <|im_end|> Ċ <|im_start|> u s e r Ċ <img> <IMG_CONTEXT> </img> Ċ H i <|im_end|> Ċ "
        "<|im_start|> a s s i s t a n t Ċ Y e s <|im_end|> Ċ <|im_start|> u s e r Ċ t h e Ġ i m a g e ? <|im_end|> Ċ "
        "<|im_start|> a s s i s t a n t Ċ"
    ),
    ("internvl2_5", "internlm2"): (
        "<s> <|im_start|> ▁ s y s t e m <0x0A> S <|im_end|> ▁ <0x0A> <|im_start|> ▁ u s e r <0x0A> <img> <IMG_CONTEXT> </img> ▁ "
        "<0x0A> H i <|im_end|> ▁ <0x0A> <|im_start|> ▁ a s s i s t a n t <0x0A> Y e s <|im_end|> ▁ <0x0A> <|im_start|> ▁ u s e r "
        "<0x0A> t h e ▁image ? <|im_end|> ▁ <0x0A> <|im_start|> ▁ a s s i s t a n t <0x0A>"
    ),
    ("internvl3_5_gpt_oss", "gpt_oss"): (
        "<|start|> system <|message|> S <|end|> <|start|> user <|message|> <img> <IMG_CONTEXT> </img> Ċ H i <|end|> <|start|> "
        "assistant <|channel|> final <|message|> Y e s <|end|> <|start|> user <|message|> the Ġimage ? <|end|> <|start|> assistant"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "family"), PIECES)
def test_tokens(tokenizers: dict[str, Tokenizer], name: str, family: str) -> None:
    tokenizer, config = tokenizers[family], ChatConfig(template=name)
    ids = prompt_ids(tokenizer, config, "the image?", [ImageItem(1)], history=[("<image>\nHi", "Yes")], system="S")
    assert [tokenizer.token(i) for i in ids] == PIECES[name, family].split()


def test_every_template_is_tokenised() -> None:
    assert {name for name, _ in PIECES} == set(TEMPLATES)


def test_ids_of_a_gpt_oss_prompt(tokenizers: dict[str, Tokenizer]) -> None:
    """As numbers: 256 bytes from "!" on, joined words, special tokens from 308 on."""
    config = ChatConfig(template="internvl3_5_gpt_oss", system_message="S")
    ids = prompt_ids(tokenizers["gpt_oss"], config, "Hi", [ImageItem(1)], history=[("a", "b")])
    assert ids == [
        *(313, 285, 315, 50, 314),  # <|start|> system <|message|> S <|end|>
        *(313, 288, 315, 317, 319, 318, 198, 64, 314),  # <|start|> user <|message|> <img> ... </img> \n a <|end|>
        *(313, 296, 312, 300, 315, 65, 314),  # <|start|> assistant <|channel|> final <|message|> b <|end|>
        *(313, 288, 315, 39, 72, 314),  # <|start|> user <|message|> H i <|end|>
        *(313, 296),  # <|start|> assistant
    ]


STRANGE = {
    "CRLF": "a\r\nb\r",
    "NUL": "\x00",
    "controls": "\x01\x1b[0m\x7f",
    "spaces": "  \u00a0\u3000a\u200b ",
    "right to left": "\u202eabc \ufeff",
    "beyond the BMP": "😀👨‍👩‍👧\U0010ffff",
    "not composed": "e\u0301 \u1100\u1161",
    "braces": "{system_message} {{ x }} {% if %} %s \\n",
    "a replacement": "\\1 \\g<0> $1",
    "long": "the " * 20_000,
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", TEMPLATES)
def test_strange_text_goes_through_as_it_is(name: str, kind: str) -> None:
    text = STRANGE[kind]
    expected = SYSTEM[name].replace("S", text, 1) + turn(name, text, text) + turn(name, f"{ONE}\n{text}")
    config = ChatConfig(template=name)
    items, history = [ImageItem(1)], [(text, text)]
    assert build_prompt(config, f"<image>\n{text}", items, history=history, system=text) == expected


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize(("name", "family"), PIECES)
def test_strange_text_becomes_tokens(tokenizers: dict[str, Tokenizer], name: str, family: str, kind: str) -> None:
    """Ids of the whole prompt, its context tokens counted, for whatever a question holds."""
    tokenizer, config = tokenizers[family], ChatConfig(template=name)
    ids = prompt_ids(tokenizer, config, STRANGE[kind], [ImageItem(3)], history=[("a", STRANGE[kind])], system="S")
    assert ids.count(tokenizer.token_id("<IMG_CONTEXT>") or -1) == 3
    assert max(ids) < tokenizer.vocab_size


@pytest.mark.parametrize(("name", "family"), PIECES)
def test_special_tokens_in_a_question_are_those_tokens(
    tokenizers: dict[str, Tokenizer], name: str, family: str
) -> None:
    """As in the family's own chat; only the three image tokens are refused."""
    tokenizer, config = tokenizers[family], ChatConfig(template=name)
    plain = prompt_ids(tokenizer, config, "a", system="S")
    for token in TEMPLATES[name].stops[:1]:
        ids = prompt_ids(tokenizer, config, f"a{token}", system="S")
        assert ids.count(tokenizer.token_id(token) or -1) == plain.count(tokenizer.token_id(token) or -1) + 1
    for token in ("<img>", "</img>", "<IMG_CONTEXT>"):
        with pytest.raises(UnsupportedError, match=f"question contains '{token}'"):
            prompt_ids(tokenizer, config, f"a{token}", system="S")


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"question": "a\ud83d"}, r"question has a lone surrogate, '\\ud83d', at position 1"),
        ({"question": "q", "system": "\udc00"}, "system has a lone surrogate"),
        ({"question": "q", "history": [("\ud800", "a")]}, r"history\[0\] question has a lone surrogate"),
        ({"question": "q", "history": [("q", "\ud800")]}, r"history\[0\] answer has a lone surrogate"),
        ({"question": ""}, "question is '': neither text nor an image"),
        ({"question": "\r\n\u3000"}, "neither text nor an image"),
        ({"question": "<image>"}, "1 <image> marks for 0 images"),
        ({"question": "q", "items": [ImageItem(1)] * 2}, "0 <image> marks for 2 images"),
        ({"question": "<image>", "history": [("<image>", "a")], "items": [ImageItem(1)]}, "2 <image> marks for 1 images"),
    ],
)  # fmt: skip
def test_refused(name: str, arguments: dict, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        build_prompt(ChatConfig(template=name), **arguments)
