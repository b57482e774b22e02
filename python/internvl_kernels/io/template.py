"""Conversation templates: the family's own as rows of data, and the Jinja templates that checkpoints ship.

A row renders the system message, then every message, then the open assistant role, as the family's ``chat`` does; no
Jinja is involved. Which of the two speaks for a checkpoint:

- In the family's own layout ``template`` of config.json names the row, because the family's code never looks at a
  ``chat_template``. Where the name is missing or unknown, ``chat_template`` stands in; with neither, or an unknown
  name alone, CheckpointError says which names there are.
- In transformers' layout config.json names no row, and ``chat_template`` is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2

from ..config import ChatConfig
from ..errors import CheckpointError, UnsupportedError
from . import sandbox
from .sandbox import Sandbox

Content = (
    str | list[dict[str, str]]
)  # text, or the items {"type": "text", "text": ...} | {"type": "image"} | {"type": "video"}


@dataclass(frozen=True)
class Template:
    """One row. A message with text is ``role + lead + text + separator``; one without is its role and nothing else."""

    system: str  # written before the system message
    user: str
    assistant: str
    separator: str  # behind the system message and behind every message
    stops: tuple[str, ...]  # where an answer ends
    system_message: str  # default
    lead: str = ""
    answer_separator: str | None = None  # behind an answer of the history; None: as behind every message
    channel: str = ""  # written before an answer that names no channel; such answers are split by io.answer


_CHINESE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_GPT_OSS = (
    "You are InternVL, a large language model trained by Shanghai AI Laboratory.\nKnowledge cutoff: 2024-06\n"
    "Current date: 2025-08-06\n\nReasoning: low\n\n"
    "# Valid channels: final. Channel must be included for every message."
)


def _chatml(separator: str, system_message: str, *stops: str) -> Template:
    roles = ("<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n")
    return Template(*roles, separator, ("<|im_end|>", *stops), system_message)


# The strings of Hermes-2, internlm2-chat and phi3-chat are those of the family's repository. The releases up to
# InternVL2 carry a conversation.py of their own; whether it differs in a character is UNVERIFIED. So is that
# InternVL2-Llama3-76B names internlm2-chat: its training script does.
TEMPLATES: Mapping[str, Template] = {
    "vicuna_v1": Template(  # InternVL-Chat-V1-0
        "", "USER:", "ASSISTANT:", " ", ("</s>",), _VICUNA, lead=" ", answer_separator="</s>"
    ),
    "internvl_zh": Template(  # InternVL-Chat-V1-1: no system message, so that a prompt begins with a space
        "", "<human>:", "<bot>:", " ", ("</s>",), "", lead=" ", answer_separator="</s>"
    ),
    "Hermes-2": _chatml("<|im_end|>", _CHINESE, "<|endoftext|>"),
    "internlm2-chat": _chatml("<|im_end|>", _CHINESE),
    "phi3-chat": Template("<|system|>\n", "<|user|>\n", "<|assistant|>\n", "<|end|>", ("<|end|>",), _CHINESE),
    "internvl2_5": _chatml("<|im_end|>\n", _INTERNVL_2_5),
    "internvl3_5_gpt_oss": Template(
        "<|start|>system<|message|>", "<|start|>user<|message|>", "<|start|>assistant", "<|end|>", ("<|return|>",),
        _GPT_OSS, channel="<|channel|>final<|message|>",
    ),
}  # fmt: skip


def row_of(config: ChatConfig) -> Template | None:
    """The row that renders this checkpoint's prompts, None where its ``chat_template`` does (the module's text says
    when). Raises CheckpointError where there is neither.
    """
    row = TEMPLATES.get(config.template) if config.template is not None else None
    if row is not None or config.chat_template is not None:
        return row
    known = ", ".join(TEMPLATES)
    if config.template is not None:
        raise CheckpointError(
            f"config.json: template is {config.template!r}, and there is no chat_template; known are {known}"
        )
    raise CheckpointError(
        "config.json names no template, and there is no chat_template (chat_template.jinja, chat_template.json or in "
        f"tokenizer_config.json); one of them is needed, or a template of {known}"
    )


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

    An answer of the history is what ``chat`` returned or all that the model wrote: with channels (gpt-oss) one that
    begins with none gets the final one, in which the model wrote it.

    Content lists are for Jinja templates that take them (``takes_items``); rows take text. Raises CheckpointError for
    an unknown or broken template, UnsupportedError where the template itself refuses the conversation.
    """
    system = config.system_message if system is None else system
    row = row_of(config)
    if row is None:
        return _render_jinja(config.chat_template or "", history, question, system, special_tokens or {})
    closing = row.separator if row.answer_separator is None else row.answer_separator
    parts = [row.system, row.system_message if system is None else system, row.separator]
    turns: list[tuple[Content, str]] = [*history, (question, "")]
    for asked, answer in turns:
        if not isinstance(asked, str):
            raise UnsupportedError(f"template {config.template!r} takes text, not {type(asked).__name__}")
        parts += [row.user, row.lead, asked, row.separator] if asked else [row.user]
        channel = "" if answer.startswith("<|channel|>") else row.channel
        parts += [row.assistant, row.lead, channel, answer, closing] if answer else [row.assistant]
    return "".join(parts)


# -- Jinja -------------------------------------------------------------------------------------------------------------


def _refuse(message: str) -> None:
    raise UnsupportedError(f"chat_template: {message}")


@lru_cache(8)
def _compiled(source: str) -> jinja2.Template:
    try:
        return Sandbox(raise_exception=_refuse).from_string(source)
    except Exception as error:  # of Jinja's compiler, or of Python's where the template is too deep for it
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
        return sandbox.render(_compiled(source), messages=messages, add_generation_prompt=True, **special_tokens)
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
