"""chat_template, the Jinja text that a checkpoint brings: it renders within limits of time and memory, or is refused. Written by a
small grammar of what such templates use, of what they should not, and of damage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import internvl_kernels as ivk
from fuzz.heavy import HEAVY
from fuzz.surfaces.prompts import ITEMS_TEMPLATE, PLAIN_TEMPLATE
from fuzz.values import Rng, damaged, text
from internvl_kernels.config import ChatConfig
from internvl_kernels.io.prompt import ImageItem, VideoItem, build_prompt

ERRORS = (ivk.UnsupportedError, ivk.CheckpointError)
WEIGHT = 6
GUIDED = True
_NAMES = (
    "messages",
    "m",
    "c",
    "loop",
    "loop.index",
    "loop.last",
    "add_generation_prompt",
    "bos_token",
    "x",
    "ns.n",
    "tools",
    "loop.length",
)
_LITERALS = (
    "'a'",
    "''",
    "1",
    "0",
    "-1",
    "2.5",
    "[]",
    "[1, 2]",
    "{'a': 1}",
    "true",
    "none",
    "'<IMG_CONTEXT>'",
    "'é'",
    "10 ** 9",
    "'x' * 9",
)
_FILTERS = (
    "trim", "length", "list", "tojson", "upper", "join(', ')", "replace('a', 'b')", "default('x')", "first", "last", "string", "int",
    "selectattr('role')", "map(attribute='content')", "sort", "unique", "reverse", "batch(2)", "items", "capitalize", "safe", "escape",
    "center(100)", "indent(4)", "wordwrap(3)", "format(3)", "urlize", "xmlattr", "pprint", "random", "sum", "abs", "round",
)  # fmt: skip
_TESTS = (
    "defined",
    "none",
    "string",
    "mapping",
    "iterable",
    "number",
    "sequence",
    "odd",
    "callable",
    "even",
    "in [1]",
    "nothing",
)


_OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "or")
_MEMBERS = ("role", "content", "items()", "split()", "strip()", "startswith(1)", "__class__", "format(1)", "get(1)")


@dataclass(frozen=True)
class Case:
    source: str
    question: str
    items: tuple[Any, ...]
    history: list[tuple[str, str]]
    system: str | None


def case(rng: Rng) -> Case:
    kind = rng.randrange(10)
    if kind < 5:
        source = "".join(_node(rng, 3) for _ in range(rng.choice((1, 2, 4))))
    elif kind < 7:
        source = "".join(rng.choice((rng.choice(HEAVY), _node(rng, 1))) for _ in range(rng.choice((1, 1, 2))))
    else:
        source = damaged(rng, rng.choice((ITEMS_TEMPLATE, PLAIN_TEMPLATE)).encode()).decode("utf-8", "replace")
    if rng.random() < 0.2:
        source = rng.choice((PLAIN_TEMPLATE, ITEMS_TEMPLATE)) + source
    if rng.random() < 0.02:
        source = rng.choice(
            (
                "{{ " + "(" * 3000,
                "{{ " + "[" * 900 + "]" * 900 + " }}",
                "{% if x %}" * 500,
                "{{ x" + "|upper" * 5000 + " }}",
                "{{ -" * 9 + "\0",
            )
        )
    items = tuple(rng.choice((ImageItem(2), VideoItem((1, 2)))) for _ in range(rng.choice((0, 0, 1, 1))))
    history = [(text(rng), text(rng))] * rng.choice((0, 0, 1, 20))
    return Case(source, text(rng) + "a", items, history, rng.choice((None, "", text(rng))))


def _expression(rng: Rng, depth: int) -> str:
    kind = rng.randrange(9 if depth else 2)
    if kind < 2:
        return rng.choice((rng.choice(_NAMES), rng.choice(_LITERALS)))
    inner = _expression(rng, depth - 1)
    if kind < 4:
        return f"{inner} | {rng.choice(_FILTERS)}"
    if kind == 4:
        return f"{inner} {rng.choice(_OPERATORS)} {_expression(rng, depth - 1)}"
    if kind == 5:
        return f"{inner}[{_expression(rng, depth - 1)}]"
    if kind == 6:
        return f"({inner}).{rng.choice(_MEMBERS)}"
    if kind == 7:
        return f"{inner} is {rng.choice(_TESTS)}"
    return f"({inner} if {_expression(rng, depth - 1)} else {_expression(rng, depth - 1)})"


def _node(rng: Rng, depth: int) -> str:
    kind = rng.randrange(8 if depth else 3)
    if kind == 0:
        return text(rng)
    if kind < 3:
        return "{{ " + _expression(rng, 2) + " }}"
    inner = "".join(_node(rng, depth - 1) for _ in range(rng.choice((1, 2))))
    if kind < 5:
        over = rng.choice(("messages", "m.content", "range(3)", "m['content']", _expression(rng, 1)))
        return "{%" + rng.choice(("", "-")) + f" for {rng.choice('mc')} in {over} " + "%}" + inner + "{% endfor %}"
    if kind == 5:
        return (
            "{% if "
            + _expression(rng, 2)
            + " %}"
            + inner
            + rng.choice(("", "{% else %}x", "{% break %}"))
            + "{% endif %}"
        )
    if kind == 6:
        return "{% set " + rng.choice(("x", "ns.n", "messages", "m")) + " = " + _expression(rng, 2) + " %}" + inner
    return "{% set ns = namespace(n=" + _expression(rng, 1) + ") %}" + inner


def check(given: Case) -> None:
    config = ChatConfig(template=None, chat_template=given.source)
    prompt = build_prompt(config, given.question, given.items, history=given.history, system=given.system)
    assert isinstance(prompt, str)
    assert len(prompt) < 1 << 24


def show(given: Case) -> str:
    return repr(given)
