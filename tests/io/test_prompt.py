"""Marks, image tokens and their counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers

from internvl_kernels import UnsupportedError
from internvl_kernels.config import ChatConfig
from internvl_kernels.io.prompt import ImageItem, VideoItem, build_prompt, prompt_ids
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer

PLAIN = ChatConfig(template="internvl2_5", system_message="S")
HEAD = "<|im_start|>system\nS<|im_end|>\n"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif c['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HF = ChatConfig(template=None, chat_template=CHATML)


def ctx(n: int) -> str:
    return "<img>" + "<IMG_CONTEXT>" * n + "</img>"


def user(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def test_text_only() -> None:
    assert build_prompt(PLAIN, "Hi") == HEAD + user("Hi")


def test_first_question_gets_the_mark() -> None:
    assert build_prompt(PLAIN, "Hi", [ImageItem(3)]) == HEAD + user(f"{ctx(3)}\nHi")
    prompt = build_prompt(PLAIN, "And?", [ImageItem(2)], history=[("Hi", "Yes")])
    assert prompt == HEAD + user(f"{ctx(2)}\nHi") + "Yes<|im_end|>\n" + user("And?")


def test_marks_are_filled_in_order_over_turns() -> None:
    items = [ImageItem(1), ImageItem(2), ImageItem(3)]
    history = [("A <image> B <image>", "answer with <image> in it")]
    prompt = build_prompt(PLAIN, "<image>C", items, history=history)
    first = user(f"A {ctx(1)} B {ctx(2)}") + "answer with <image> in it<|im_end|>\n"
    assert prompt == HEAD + first + user(f"{ctx(3)}C")


def test_video_forms() -> None:
    lines = f"Frame-1: {ctx(1)}\nFrame-2: {ctx(2)}"
    video = VideoItem((1, 2))
    assert build_prompt(PLAIN, "Hi", [video]) == HEAD + user(f"{lines}\nHi")
    assert build_prompt(PLAIN, "<video>\nHi", [video]) == HEAD + user(f"{lines}\nHi")
    written = "Frame-1: <image>\nFrame-2: <image>\nHi"
    assert build_prompt(PLAIN, written, [video]) == HEAD + user(f"{lines}\nHi")
    mixed = build_prompt(PLAIN, "<image> then <video>", [ImageItem(4), video])
    assert mixed == HEAD + user(f"{ctx(4)} then {lines}")


@pytest.mark.parametrize(
    ("question", "items", "text"),
    [
        ("no mark", [ImageItem(1), ImageItem(1)], "0 <image> marks for 2 images"),
        ("<image>", [ImageItem(1), ImageItem(1)], "1 <image> marks for 2 images"),
        ("<image> <image>", [ImageItem(1)], "2 <image> marks for 1 images"),
        ("<image>", [], "1 <image> marks for 0 images"),
        ("<video>", [], "1 <video> marks for 0 videos"),
        ("<image>", [VideoItem((1, 1))], "1 <image> marks for 2 images"),
        ("no mark", [ImageItem(1), VideoItem((1,))], "0 <image> marks for 1 images"),
        ("<video> <image>", [ImageItem(1), VideoItem((1,))], "mark 0 is <video>, but items\\[0\\] is ImageItem"),
        ("q", [ImageItem(0)], "at least one context token"),
        ("q", [VideoItem(())], "at least one context token"),
        ("q", ["picture.png"], "items\\[0\\] is str"),
    ],
)
@pytest.mark.parametrize("config", [PLAIN, HF], ids=["row", "jinja"])
def test_wrong_counts(config: ChatConfig, question: str, items: list, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        build_prompt(config, question, items)


@pytest.mark.parametrize("token", ["<IMG_CONTEXT>", "<img>", "</img>"])
@pytest.mark.parametrize("config", [PLAIN, HF], ids=["row", "jinja"])
def test_image_tokens_cannot_be_smuggled(config: ChatConfig, token: str) -> None:
    bad = f"x {token} y"
    calls = {
        "question": lambda: build_prompt(config, bad, [ImageItem(1)]),
        "history\\[0\\] question": lambda: build_prompt(config, "q", history=[(bad, "a")]),
        "history\\[0\\] answer": lambda: build_prompt(config, "q", history=[("q", bad)]),
        "system": lambda: build_prompt(config, "q", system=bad),
    }
    for name, call in calls.items():
        with pytest.raises(UnsupportedError, match=f"{name} contains '{token}'"):
            call()


@pytest.mark.parametrize("question", ["", " \n\t", "\u3000"])
def test_empty_question(question: str) -> None:
    with pytest.raises(UnsupportedError, match="neither text nor an image"):
        build_prompt(PLAIN, question)
    with pytest.raises(UnsupportedError, match="neither text nor an image"):  # the image belongs to the first turn
        build_prompt(PLAIN, question, [ImageItem(1)], history=[("Hi", "Yes")])
    assert build_prompt(PLAIN, question, [ImageItem(1)]) == HEAD + user(f"{ctx(1)}\n{question}")


@pytest.mark.parametrize(
    ("question", "history", "text"),
    [
        (None, None, "question is NoneType"),
        (b"q", None, "question is bytes"),
        ("q", ["ab"], "not a .question, answer. pair"),
        ("q", [("a", None)], "answer is NoneType"),
        ("q", [("a", "b", "c")], "not a .question, answer. pair"),
    ],
)
def test_wrong_types(question: object, history: object, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        build_prompt(PLAIN, question, history=history)


def test_hf_items_and_lines() -> None:
    assert build_prompt(HF, "Hi", [ImageItem(2)]) == user(f"{ctx(2)}\nHi")
    assert build_prompt(HF, "A <image>\nB", [ImageItem(2)]) == user(f"A {ctx(2)}\nB")
    video = f"Frame1: {ctx(1)}\nFrame2: {ctx(1)}"
    assert build_prompt(HF, "Hi", [VideoItem((1, 1))]) == user(f"{video}\nHi")
    literal = build_prompt(HF, "q", history=[("a", "see <image>")])
    assert literal == user("a") + "see <image><|im_end|>\n" + user("q")


def test_hf_marks_in_answers_are_text() -> None:
    """Also where the template writes the very mark that an answer or the system message holds."""
    older = ChatConfig(template=None, chat_template=CHATML.replace("<IMG_CONTEXT>", "<image>"))
    history = [("<image>\nHi", "an <image>, a <video>\ue000"), ("<video>", "<image>")]
    for config in (HF, older):
        prompt = build_prompt(config, "q", [ImageItem(2), VideoItem((1,))], history=history, system="no <image>")
        assert prompt == (
            "<|im_start|>system\nno <image><|im_end|>\n"
            + user(f"{ctx(2)}\nHi") + "an <image>, a <video>\ue000<|im_end|>\n"
            + user(f"Frame1: {ctx(1)}\n") + "<image><|im_end|>\n" + user("q")
        )  # fmt: skip
    with pytest.raises(UnsupportedError, match="every private-use character"):
        build_prompt(HF, "".join(map(chr, range(0xE000, 0xF900))))


def test_jinja_for_strings_gets_expanded_text() -> None:
    source = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    config = ChatConfig(template=None, chat_template=source)
    assert build_prompt(config, "Hi", [ImageItem(2)]) == f"[{ctx(2)}\nHi]"


SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]


def write_tokenizer(path: Path, specials: list[str] = SPECIALS, **config: object) -> Path:
    """A byte-level tokenizer without merges, in the form of a Qwen2 repository."""
    path.mkdir(exist_ok=True)
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    (path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (path / "merges.txt").write_text("#version: 0.2\n")
    added = {str(256 + i): {"content": s, "special": True} for i, s in enumerate(specials)}
    head = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": added}
    (path / "tokenizer_config.json").write_text(json.dumps({**head, **config}))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("prompt")))


def test_prompt_ids(tokenizer: Tokenizer) -> None:
    ids = prompt_ids(tokenizer, PLAIN, "Hi", [ImageItem(5)])
    assert ids.count(tokenizer.token_id("<IMG_CONTEXT>")) == 5
    assert tokenizer.decode(ids, skip_special=False) == build_prompt(PLAIN, "Hi", [ImageItem(5)])
    where = [i for i, t in enumerate(ids) if t == tokenizer.token_id("<IMG_CONTEXT>")]
    assert where == list(range(where[0], where[0] + 5))


def test_prompt_ids_without_image_tokens(tmp_path: Path) -> None:
    bare = load_tokenizer(write_tokenizer(tmp_path / "bare", SPECIALS[:3]))
    assert prompt_ids(bare, PLAIN, "Hi")
    with pytest.raises(UnsupportedError, match="no token '<IMG_CONTEXT>'"):
        prompt_ids(bare, PLAIN, "Hi", [ImageItem(1)])


def test_counts_are_checked_on_ids(tmp_path: Path) -> None:
    """A tokenizer that turns some other text into the context token is caught although no text check sees it."""
    path = write_tokenizer(tmp_path / "alias")
    config = json.loads((path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["261"].update(special=False, normalized=True, content="<e\u0301>")
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    chat = ChatConfig(template="internvl2_5", system_message="S", image_token="<e\u0301>")
    alias = load_tokenizer(path)
    assert prompt_ids(alias, chat, "Hi", [ImageItem(2)])
    with pytest.raises(UnsupportedError, match=r"holds 3 .* tokens for 2 visual tokens"):
        prompt_ids(alias, chat, "Hi <\u00e9>", [ImageItem(2)])


def test_bos_is_not_doubled(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "bos", bos_token="<|endoftext|>", add_bos_token=True)
    bos = load_tokenizer(path)
    assert prompt_ids(bos, PLAIN, "Hi").count(bos.bos_id) == 1
    jinja = ChatConfig(template=None, chat_template="{{ bos_token }}{{ messages[0]['content'] }}")
    assert prompt_ids(bos, jinja, "Hi") == [bos.bos_id, *bos.encode("Hi", add_special=False)]


@pytest.fixture(scope="module")
def processor() -> Any:
    """InternVLProcessor over the same vocabulary. Its video processor needs torchvision and is left out."""
    from transformers import GotOcr2ImageProcessorPil, InternVLProcessor, PreTrainedTokenizerFast

    engine = Engine(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(SPECIALS)
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    theirs = PreTrainedTokenizerFast(tokenizer_object=engine, extra_special_tokens={**names, "video_token": "<video>"})
    images = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, min_patches=1, max_patches=4)

    class WithoutVideo(InternVLProcessor):
        def check_argument_for_proper_class(self, argument_name: str, argument: object) -> None:
            """Its look-up of classes needs torchvision too."""

    return WithoutVideo(image_processor=images, tokenizer=theirs, image_seq_length=2, chat_template=CHATML)


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def test_hf_like_transformers(processor: Any, tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": [text("Be brief.")]},
        {"role": "user", "content": [{"type": "image"}, text("What is "), {"type": "image"}, text("this?")]},
        {"role": "assistant", "content": [text("Nothing.")]},
        {"role": "user", "content": [text("Sure?")]},
    ]
    wide, small = Image.new("RGB", (84, 28)), Image.new("RGB", (28, 28))
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    expected = list(processor(text=[rendered], images=[wide, small])["input_ids"][0])
    tokens = expected.count(tokenizer.token_id("<IMG_CONTEXT>"))
    items = [ImageItem(tokens - 2), ImageItem(2)]  # the second image is one tile of 2 tokens
    history = [("<image>\nWhat is <image>\nthis?", "Nothing.")]
    assert tokens > 4
    assert prompt_ids(tokenizer, HF, "Sure?", items, history=history, system="Be brief.") == expected


def test_hf_video_like_transformers(processor: Any) -> None:
    messages = [{"role": "user", "content": [{"type": "video"}, text("And this?")]}]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    frames = processor.replace_video_token({"pixel_values_videos": np.zeros((1, 3, 3, 28, 28))}, 0)
    assert build_prompt(HF, "And this?", [VideoItem((2, 2, 2))]) == rendered.replace("<video>", frames)
