"""Conversation templates: the family's own as rows of data, and the Jinja templates that checkpoints ship.

A row renders as ``system + separator``, then ``role + text + separator`` for every message that has text, then the
open assistant role. This is the order of the family's ``chat``; no Jinja is involved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..config import ChatConfig
from ..errors import CheckpointError, UnsupportedError

Content = (
    str | list[dict[str, str]]
)  # text, or the items {"type": "text", "text": ...} | {"type": "image"} | {"type": "video"}


@dataclass(frozen=True)
class Template:
    """One row. A message without text renders as its bare role, without a separator."""

    system: str  # written before the system message
    user: str
    assistant: str
    separator: str
    stop: str  # where an answer ends
    system_message: str  # default


_INTERNVL_1 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
_CHATML = {"system": "<|im_start|>system\n", "user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"}
_PHI3 = {"system": "<|system|>\n", "user": "<|user|>\n", "assistant": "<|assistant|>\n"}

TEMPLATES: Mapping[str, Template] = {
    "Hermes-2": Template(**_CHATML, separator="<|im_end|>", stop="<|im_end|>", system_message=_INTERNVL_1),
    "internlm2-chat": Template(**_CHATML, separator="<|im_end|>", stop="<|im_end|>", system_message=_INTERNVL_1),
    "phi3-chat": Template(**_PHI3, separator="<|end|>", stop="<|end|>", system_message=_INTERNVL_1),
    "internvl2_5": Template(**_CHATML, separator="<|im_end|>\n", stop="<|im_end|>", system_message=_INTERNVL_2_5),
}


def _row(config: ChatConfig) -> Template | None:
    if config.template is not None:
        row = TEMPLATES.get(config.template)
        if row is None:
            known = ", ".join(TEMPLATES)
            raise CheckpointError(f"template {config.template!r} is not known; known are {known}")
        return row
    if config.chat_template is None:
        raise CheckpointError("the checkpoint has neither a template name nor a chat_template")
    return None


def stop_string(config: ChatConfig) -> str | None:
    """The text at which an answer is cut. None with a Jinja template: there the end-of-sequence ids alone stop."""
    row = _row(config)
    return None if row is None else row.stop


def render(
    config: ChatConfig,
    history: Sequence[tuple[Content, str]],
    question: Content,
    system: str | None = None,
    *,
    special_tokens: Mapping[str, str] | None = None,
) -> str:
    """The whole prompt, ending where the assistant's answer begins.

    history         (question, answer) pairs, oldest first
    system          system message; None: ``config.system_message``, else the row's default (Jinja: none at all)
    special_tokens  ``bos_token`` and the like for Jinja templates that write them

    Content lists are for Jinja templates that take them (``takes_items``); rows take text. Raises CheckpointError for
    an unknown or broken template, UnsupportedError where the template itself refuses the conversation.
    """
    system = config.system_message if system is None else system
    row = _row(config)
    if row is None:
        return _render_jinja(config.chat_template or "", history, question, system, special_tokens or {})
    turns = [(role, text) for pair in history for role, text in zip((row.user, row.assistant), pair)]
    prompt = row.system + (row.system_message if system is None else system) + row.separator
    for role, text in [*turns, (row.user, question)]:
        if not isinstance(text, str):
            raise UnsupportedError(f"template {config.template!r} takes text, not {type(text).__name__}")
        prompt += role + text + row.separator if text else role
    return prompt + row.assistant


# -- Jinja -------------------------------------------------------------------------------------------------------------


def _refuse(message: str) -> None:
    raise UnsupportedError(f"chat_template: {message}")


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)


@lru_cache(8)
def _compiled(source: str) -> jinja2.Template:
    """Sandboxed and without a loader: a template can neither reach Python's internals nor read files."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise CheckpointError(f"chat_template: not a valid Jinja template: {error}") from error


def _render_jinja(
    source: str,
    history: Sequence[tuple[Content, str]],
    question: Content,
    system: str | None,
    special_tokens: Mapping[str, str],
) -> str:
    wrap = isinstance(question, list)  # then every message takes the same form
    messages: list[dict[str, Any]] = []
    pairs = [(role, text) for pair in history for role, text in zip(("user", "assistant"), pair)]
    start = [] if system is None else [("system", system)]
    for role, content in [*start, *pairs, ("user", question)]:
        listed = wrap and isinstance(content, str)
        messages.append({"role": role, "content": [{"type": "text", "text": content}] if listed else content})
    try:
        return _compiled(source).render(messages=messages, add_generation_prompt=True, **special_tokens)
    except (CheckpointError, UnsupportedError):
        raise
    except Exception as error:  # a template is data: whatever it trips over is the checkpoint's fault
        raise CheckpointError(f"chat_template: rendering failed: {type(error).__name__}: {error}") from error


_PROBE = "probe-text"


@lru_cache(8)
def takes_items(source: str) -> bool:
    """Whether a Jinja template renders content lists (text, image, video items) and not only strings."""
    try:
        text = _render_jinja(source, [], [{"type": "text", "text": _PROBE}], None, {})
    except (CheckpointError, UnsupportedError):
        return False
    return _PROBE in text and "'type'" not in text and '"type"' not in text


@lru_cache(32)
def item_mark(source: str, kind: str, known: tuple[str, ...]) -> str:
    """Which of the ``known`` strings a template writes for an item of ``kind`` ("image" | "video").

    Raises UnsupportedError when it writes none of them or several.
    """
    text = _render_jinja(source, [], [{"type": kind}, {"type": "text", "text": _PROBE}], None, {})
    found = [mark for mark in known if mark in text]
    if len(found) != 1 or text.count(found[0]) != 1:
        raise UnsupportedError(f"chat_template writes {found} for one {kind} item; one of {list(known)} is expected")
    return found[0]
