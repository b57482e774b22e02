"""From a question with images to the exact prompt: marks become image tokens, turns become the template's text.

Rules, the same for every template:

- ``<image>`` or ``<video>`` in a question takes the next item, over all questions of the conversation in order; it
  must be of that kind. Answers and the system message are never searched for marks.
- A conversation without any mark and with one image or video gets ``<image>\\n`` or ``<video>\\n`` in front of its
  first question. Several need marks, because nobody can guess their places.
- A video becomes ``Frame-1: <image>\\nFrame-2: <image>...``, one tile per frame (with a ``-hf`` template
  ``Frame1: <image>``, as InternVLProcessor writes it). Where a question has only ``<image>`` marks, each frame takes
  one: the form in which the family's README spells videos out, and the way to write any other
  (``Frame1: <image>`` in MPO's data and MVBench, ``Frame1:<image>`` in V2PE's).
- Each ``<image>`` becomes the start token, as many context tokens as the image has, and the end token.
- Text may not contain those three tokens itself: that could change the number of context tokens unseen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..config import ChatConfig
from ..errors import UnsupportedError, shown
from .template import Content, item_mark, render, row_of, takes_items
from .tokenizer import Tokenizer

IMAGE_MARK, VIDEO_MARK = "<image>", "<video>"
_MARKS = re.compile(f"({re.escape(IMAGE_MARK)}|{re.escape(VIDEO_MARK)})")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a UTF-16 pair: no tokenizer has a place for it


@dataclass(frozen=True)
class ImageItem:
    """An image that fills ``tokens`` context tokens (tiles x tokens per tile)."""

    tokens: int


@dataclass(frozen=True)
class VideoItem:
    """A video; ``frames`` holds the context tokens of each frame."""

    frames: tuple[int, ...]


Item = ImageItem | VideoItem
History = Sequence[tuple[str, str]]


def _check_text(config: ChatConfig, name: str, text: object) -> str:
    if not isinstance(text, str):
        raise UnsupportedError(f"{name} is {type(text).__name__}, not str")
    for token in (config.image_token, config.image_start, config.image_end):
        if token in text:
            raise UnsupportedError(
                f"{name} contains {token!r}, which only an image may bring; mark images by {IMAGE_MARK!r}"
            )
    if surrogate := _SURROGATE.search(text):
        raise UnsupportedError(f"{name} has a lone surrogate, {surrogate.group()!a}, at position {surrogate.start()}")
    return text


def _check_items(items: Sequence[Item]) -> None:
    for index, item in enumerate(items):
        if not isinstance(item, ImageItem | VideoItem):
            raise UnsupportedError(f"items[{index}] is {type(item).__name__}, not ImageItem or VideoItem")
        counts = (item.tokens,) if isinstance(item, ImageItem) else item.frames
        if not counts or min(counts) < 1:
            raise UnsupportedError(f"items[{index}] = {item}: every image and frame needs at least one context token")


def _placed(questions: list[str], items: Sequence[Item]) -> tuple[list[str], list[Item]]:
    """Questions and items with one mark per item, in the same order. Raises when counts or kinds differ."""
    marks = [mark for question in questions for mark in _MARKS.findall(question)]
    if not marks and len(items) == 1:
        mark = IMAGE_MARK if isinstance(items[0], ImageItem) else VIDEO_MARK
        return [f"{mark}\n{questions[0]}", *questions[1:]], list(items)
    if marks and VIDEO_MARK not in marks:
        items = [part for item in items for part in _frames(item)]
    for mark, kind, word in ((IMAGE_MARK, ImageItem, "image"), (VIDEO_MARK, VideoItem, "video")):
        given, expected = marks.count(mark), sum(isinstance(item, kind) for item in items)
        if given != expected:
            raise UnsupportedError(f"the conversation has {given} {mark} marks for {expected} {word}s; each takes one")
    for index, (mark, item) in enumerate(zip(marks, items)):
        if (mark == IMAGE_MARK) != isinstance(item, ImageItem):
            raise UnsupportedError(
                f"mark {index} is {mark}, but items[{index}] is {type(item).__name__}: orders differ"
            )
    return questions, list(items)


def _frames(item: Item) -> list[Item]:
    return [item] if isinstance(item, ImageItem) else [ImageItem(tokens) for tokens in item.frames]


def _image_text(config: ChatConfig, tokens: int) -> str:
    return config.image_start + config.image_token * tokens + config.image_end


def _item_text(config: ChatConfig, item: Item, frame: str) -> str:
    if isinstance(item, ImageItem):
        return _image_text(config, item.tokens)
    return "\n".join(f"{frame}{k}: {_image_text(config, n)}" for k, n in enumerate(item.frames, 1))


def _content(question: str) -> list[dict[str, str]]:
    """The question as items. An item's line break belongs to the template, so the one behind a mark is dropped."""
    parts: list[dict[str, str]] = []
    after_mark = False
    for part in _MARKS.split(question):
        if part in (IMAGE_MARK, VIDEO_MARK):
            parts.append({"type": "image" if part == IMAGE_MARK else "video"})
            after_mark = True
            continue
        part = part[1:] if after_mark and part.startswith("\n") else part
        if part:
            parts.append({"type": "text", "text": part})
    return parts


def build_prompt(
    config: ChatConfig,
    question: str,
    items: Sequence[Item] = (),
    *,
    history: History | None = None,
    system: str | None = None,
    special_tokens: dict[str, str] | None = None,
) -> str:
    """The prompt text that the family's ``chat`` (or, with a ``-hf`` template, its processor) would tokenise.

    question  the user's text with a mark per item, or none for a single item (rules above)
    items     images and videos of the whole conversation, in the order of their marks
    history   (question, answer) pairs, oldest first
    system    system message; None takes the config's, else the template's default; "" is an empty one

    An empty or blank question is refused unless it is given an image: ``chat("", image)`` asks about the picture alone.
    Raises UnsupportedError naming both counts when marks and items differ in number.
    """
    try:
        given = list(() if history is None else history)
    except TypeError:
        raise UnsupportedError(f"history is {shown(history)}, not a list of (question, answer) pairs") from None
    turns = [_pair(index, pair) for index, pair in enumerate(given)]
    for index, (asked, answer) in enumerate(turns):
        _check_text(config, f"history[{index}] question", asked)
        _check_text(config, f"history[{index}] answer", answer)
    _check_text(config, "question", question)
    if system is not None:
        _check_text(config, "system", system)
    _check_items(items)
    questions, placed = _placed([*(asked for asked, _ in turns), question], items)
    if not questions[-1].strip():
        raise UnsupportedError(f"question is {shown(question)}: neither text nor an image")
    answers = [answer for _, answer in turns]
    if row_of(config) is None and takes_items(config.chat_template or ""):
        return _hf_prompt(config, questions, answers, placed, system, special_tokens)
    texts = iter([_item_text(config, item, "Frame-") for item in placed])
    questions = [_MARKS.sub(lambda _: next(texts), question) for question in questions]
    return render(config, list(zip(questions, answers)), questions[-1], system, special_tokens=special_tokens)


def _pair(index: int, pair: object) -> tuple[str, str]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UnsupportedError(f"history[{index}] is {shown(pair)}, not a (question, answer) pair")
    return pair[0], pair[1]


def _hf_prompt(
    config: ChatConfig,
    questions: list[str],
    answers: list[str],
    items: list[Item],
    system: str | None,
    special_tokens: dict[str, str] | None,
) -> str:
    """The template writes its own mark for every item; the marks are then filled in order."""
    source = config.chat_template or ""
    kinds = {"image" if isinstance(item, ImageItem) else "video" for item in items}
    known = (config.image_token, IMAGE_MARK, VIDEO_MARK)
    marks = {item_mark(source, kind, known) for kind in kinds}
    system = config.system_message if system is None else system
    # The same strings in answers and system message are text: a character that occurs nowhere keeps them apart.
    everything = "".join([source, system or "", *questions, *answers])
    guard = next((char for char in map(chr, range(0xE000, 0xF900)) if char not in everything), None)
    if guard is None:
        raise UnsupportedError("the conversation holds every private-use character, U+E000 to U+F8FF; one must be free")
    pattern = re.compile("(" + "|".join(re.escape(mark) for mark in sorted(marks)) + ")" if marks else "(?!)")
    hidden = [pattern.sub(lambda found: guard.join(found.group()), text) for text in (system or "", *answers)]
    contents: list[Content] = [_content(question) for question in questions]
    system = None if system is None else hidden[0]
    text = render(config, list(zip(contents, hidden[1:])), contents[-1], system, special_tokens=special_tokens)
    if not marks:
        return text
    parts = pattern.split(text)
    if len(parts) // 2 != len(items):
        raise UnsupportedError(
            f"the rendered prompt has {len(parts) // 2} marks {sorted(marks)} for {len(items)} items"
        )
    for place, item in enumerate(items):
        parts[2 * place + 1] = _item_text(config, item, "Frame")
    return "".join(parts).replace(guard, "")


def prompt_ids(
    tokenizer: Tokenizer,
    config: ChatConfig,
    question: str,
    items: Sequence[Item] = (),
    *,
    history: History | None = None,
    system: str | None = None,
) -> list[int]:
    """Token ids of ``build_prompt``, with the tokenizer's own BOS unless the template has written it.

    Raises UnsupportedError when the tokenizer does not know the image tokens, or when the ids hold another number of
    context tokens than the items have.
    """
    named = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    special_tokens = {name: token for name, token in named.items() if token is not None}
    text = build_prompt(config, question, items, history=history, system=system, special_tokens=special_tokens)
    written = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token or "")
    ids = tokenizer.encode(text, add_special=not written)
    context = tokenizer.token_id(config.image_token)
    if items and context is None:
        raise UnsupportedError(f"the tokenizer has no token {config.image_token!r}; this checkpoint takes no images")
    expected = sum(part.tokens for item in items for part in _frames(item) if isinstance(part, ImageItem))
    found = ids.count(context) if context is not None else 0
    if found != expected:
        raise UnsupportedError(f"the prompt holds {found} {config.image_token} tokens for {expected} visual tokens")
    return ids
