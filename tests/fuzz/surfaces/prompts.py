"""Questions, histories, marks, system messages and items: the prompt that a plain reading of the rules gives, with as many context
tokens as the items have, or an UnsupportedError."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import internvl_kernels as ivk
from fuzz.small import write
from fuzz.values import TEXTS, Rng, anything, text
from internvl_kernels.config import ChatConfig
from internvl_kernels.io.answer import Answers
from internvl_kernels.io.prompt import ImageItem, Item, VideoItem, build_prompt, prompt_ids
from internvl_kernels.io.template import TEMPLATES, row_of
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer
from internvl_kernels.testing.checkpoints import byte_tokenizer_files
from internvl_kernels.testing.tokenizers import FAMILIES, tokenizer_files

ERRORS = (ivk.UnsupportedError,)
WEIGHT = 10
GUIDED = True
# Of the kind that transformers' layout ships, and a plain one.
ITEMS_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}{% elif c['type'] == 'video' %}{{ '<video>\\n' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"


@dataclass(frozen=True)
class Case:
    config: ChatConfig
    family: str
    question: Any
    items: list[Any]
    history: Any
    system: Any
    plain: bool  # arguments of the right kinds
    answer: list[int]


@functools.cache
def tokenizer(family: str) -> Tokenizer:
    files: dict[str, Any] = dict(byte_tokenizer_files() if family == "bytes" else tokenizer_files(family))
    return load_tokenizer(
        write({name: data.encode() if isinstance(data, str) else data for name, data in files.items()}, "of a prompt")
    )


def _said(rng: Rng) -> str:
    words = [text(rng) for _ in range(rng.choice((0, 1, 1, 2)))]
    words += [
        rng.choice(("<image>", "<video>", "<image>\n", "Frame1: <image>", "<imag", "e>", "\n<image><image>"))
        for _ in range(rng.choice((0, 0, 1, 1, 2)))
    ]
    if rng.random() < 0.05:
        words.append(rng.choice(TEXTS))
    rng.shuffle(words)
    return "".join(words)


def _unmarked(rng: Rng) -> str:
    return text(rng).replace("<image>", "").replace("<video>", "")


def case(rng: Rng) -> Case:
    name = rng.choice((*TEMPLATES, None, None, "no such"))
    config = replace(ChatConfig(), template=name, system_message=rng.choice((None, None, "", "Be brief.", "<image>é")))
    if name is None or rng.random() < 0.1:
        config = replace(config, chat_template=rng.choice((ITEMS_TEMPLATE, PLAIN_TEMPLATE)))
    if name == "no such" and config.chat_template is None:
        config = replace(config, template="internvl2_5")
    items: list[Any] = []
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))):
        counts = [rng.choice((1, 2, 4)) for _ in range(rng.choice((1, 2, 3)))]
        items.append(ImageItem(counts[0]) if rng.random() < 0.7 else VideoItem(tuple(counts)))
    history: Any = [(_said(rng), text(rng)) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    question: Any = _said(rng)
    if rng.random() < 0.6:  # a mark for each
        marks = ["<image>" if isinstance(item, ImageItem) else "<video>" for item in items]
        questions = [
            "".join(part for part in (_unmarked(rng), *[mark + _unmarked(rng) for mark in marks])),
            *(_unmarked(rng) for _ in history),
        ]
        question, history = questions[0] + "a", [(asked, answer) for asked, (_, answer) in zip(questions[1:], history)]
    system: Any = rng.choice((None, None, "", text(rng)))
    plain = rng.random() < 0.85
    if not plain:
        kind = rng.randrange(5)
        question = anything(rng) if kind == 0 else question
        system = anything(rng) if kind == 1 else system
        history = (
            anything(rng)
            if kind == 2
            else [rng.choice((anything(rng), ("a", anything(rng)), ["a", "b"], "ab"))]
            if kind == 3
            else history
        )
        items = [rng.choice((ImageItem(0), VideoItem(()), VideoItem((0,)), "x", None, 3))] if kind == 4 else items
    family = rng.choice(("bytes", "bytes", *FAMILIES))
    ids = [rng.choice((rng.randrange(400), -1, 2**31)) for _ in range(rng.randrange(12))]
    return Case(config, family, question, items, history, system, plain, ids)


def check(given: Case) -> None:
    told: dict[str, Any] = {"history": given.history, "system": given.system}
    prompt = build_prompt(given.config, given.question, given.items, **told)
    assert given.plain or (isinstance(given.question, str) and isinstance(given.system, (str, type(None))))
    prompt.encode("utf-8")
    counts = [i.tokens if isinstance(i, ImageItem) else sum(i.frames) for i in given.items]
    assert prompt.count("<IMG_CONTEXT>") == sum(counts)
    if given.plain and row_of(given.config) is not None:
        expected = _by_the_rules(given)
        assert prompt == expected, f"{prompt!r}; by the rules {expected!r}"
    made = tokenizer(given.family)
    ids = prompt_ids(made, given.config, given.question, given.items, **told)
    assert all(type(i) is int and 0 <= i < made.vocab_size for i in ids)
    assert ids.count(made.token_id("<IMG_CONTEXT>") or 0) == sum(counts)
    answers = Answers(given.config, made)
    stream = answers.stream()
    said = "".join([stream.push(i) for i in given.answer]) + stream.flush()
    said.encode("utf-8")


def _by_the_rules(given: Case) -> str:
    """A row's prompt, spelled out."""
    row = TEMPLATES[given.config.template or ""]
    questions, items = [q for q, _ in given.history] + [given.question], list(given.items)
    if len(items) == 1 and not any("<image>" in q or "<video>" in q for q in questions):
        questions[0] = ("<image>\n" if isinstance(items[0], ImageItem) else "<video>\n") + questions[0]
    if any("<image>" in q for q in questions) and not any("<video>" in q for q in questions):
        items = [part for item in items for part in _frames(item)]
    system = given.system if given.system is not None else given.config.system_message
    out = row.system + (row.system_message if system is None else system) + row.separator
    answers = [answer for _, answer in given.history]
    for number, question in enumerate(questions):
        done = ""
        while (at := _first(question)) is not None:
            mark = question[at : at + 7]
            done, question = done + question[:at] + _spelled(items.pop(0)), question[at + len(mark) :]
        out += row.user + (row.lead + done + question + row.separator if done + question else "")
        answer = answers[number] if number < len(answers) else None
        closing = row.separator if row.answer_separator is None else row.answer_separator
        channel = row.channel if answer and not answer.startswith("<|channel|>") else ""
        out += row.assistant + (row.lead + channel + answer + closing if answer else "")
    return out


def _first(question: str) -> int | None:
    found = [at for mark in ("<image>", "<video>") if (at := question.find(mark)) >= 0]
    return min(found, default=None)


def _frames(item: Item) -> list[Item]:
    return [item] if isinstance(item, ImageItem) else [ImageItem(n) for n in item.frames]


def _spelled(item: Item) -> str:
    def whole(n: int) -> str:
        return "<img>" + "<IMG_CONTEXT>" * n + "</img>"

    if isinstance(item, ImageItem):
        return whole(item.tokens)
    return "\n".join(f"Frame-{k}: {whole(n)}" for k, n in enumerate(item.frames, 1))


def show(given: Case) -> str:
    return f"{given}"
