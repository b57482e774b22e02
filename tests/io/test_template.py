"""Templates against prompts written out by hand, and the Jinja path against transformers' own renderer."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_kernels import CheckpointError, UnsupportedError
from internvl_kernels.config import ChatConfig
from internvl_kernels.io.template import TEMPLATES, item_mark, render, row_of, takes_items

OLD = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
NEW = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
HISTORY = [("Hi", "Hello!"), ("And?", "More.")]
WRITTEN_OUT = {
    "Hermes-2": (
        f"<|im_start|>system\n{OLD}<|im_end|><|im_start|>user\nHi<|im_end|><|im_start|>assistant\nHello!<|im_end|>"
        "<|im_start|>user\nAnd?<|im_end|><|im_start|>assistant\nMore.<|im_end|>"
        "<|im_start|>user\nWhat?<|im_end|><|im_start|>assistant\n"
    ),
    "internvl2_5": (
        f"<|im_start|>system\n{NEW}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\nMore.<|im_end|>\n"
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "phi3-chat": (
        f"<|system|>\n{OLD}<|end|><|user|>\nHi<|end|><|assistant|>\nHello!<|end|>"
        "<|user|>\nAnd?<|end|><|assistant|>\nMore.<|end|><|user|>\nWhat?<|end|><|assistant|>\n"
    ),
}
WRITTEN_OUT["internlm2-chat"] = WRITTEN_OUT["Hermes-2"]
WRITTEN_OUT["vicuna_v1"] = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. USER: Hi ASSISTANT: Hello!</s>USER: And? ASSISTANT: More.</s>"
    "USER: What? ASSISTANT:"
)
WRITTEN_OUT["internvl_zh"] = " <human>: Hi <bot>: Hello!</s><human>: And? <bot>: More.</s><human>: What? <bot>:"
WRITTEN_OUT["internvl3_5_gpt_oss"] = (
    "<|start|>system<|message|>You are InternVL, a large language model trained by Shanghai AI Laboratory.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: 2025-08-06\n\nReasoning: low\n\n"
    "# Valid channels: final. Channel must be included for every message.<|end|>"
    "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|end|>"
    "<|start|>user<|message|>And?<|end|><|start|>assistant<|channel|>final<|message|>More.<|end|>"
    "<|start|>user<|message|>What?<|end|><|start|>assistant"
)

# ChatML as -hf repositories ship it: no default system message, a line break behind every image.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif c['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STRINGS_ONLY = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"


def mpt(system: str, roles: tuple[str, str], sep: str, turns: list[tuple[str, str]], question: str) -> str:
    """The published rule: every message with text is role + text + separator, one without is its role."""
    messages = [(roles[i % 2], text) for i, text in enumerate([t for turn in turns for t in turn] + [question])]
    return system + sep + "".join(r + t + sep if t else r for r, t in messages) + roles[1]


def test_every_row_is_written_out() -> None:
    assert set(WRITTEN_OUT) == set(TEMPLATES)


@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_whole_conversation(name: str) -> None:
    assert render(ChatConfig(template=name), HISTORY, "What?") == WRITTEN_OUT[name]


@pytest.mark.parametrize("name", ["Hermes-2", "internvl2_5"])
@pytest.mark.parametrize("turns", [[], [("a", "b")], [("", "b"), ("c", "")]], ids=["none", "one", "empty texts"])
@pytest.mark.parametrize("system", [None, "", "Be brief. {braces} {{x}}"])
def test_rule(name: str, turns: list[tuple[str, str]], system: str | None) -> None:
    default, sep = (OLD, "<|im_end|>") if name == "Hermes-2" else (NEW, "<|im_end|>\n")
    head = "<|im_start|>system\n" + (default if system is None else system)
    expected = mpt(head, ("<|im_start|>user\n", "<|im_start|>assistant\n"), sep, turns, "q")
    assert render(ChatConfig(template=name), turns, "q", system) == expected


def test_system_message_of_the_config_and_of_the_call() -> None:
    config = ChatConfig(template="internvl2_5", system_message="from config")
    assert render(config, [], "q").startswith("<|im_start|>system\nfrom config<|im_end|>\n")
    assert render(config, [], "q", "from call").startswith("<|im_start|>system\nfrom call<|im_end|>\n")


def colon(system: str, roles: tuple[str, str], turns: list[tuple[str, str]], question: str) -> str:
    """The published rule of vicuna_v1 and internvl_zh: a colon, and two separators in turn."""
    messages = [(i % 2, text) for i, text in enumerate([t for turn in turns for t in turn] + [question])]
    written = [f"{roles[i]}: {text}{(' ', '</s>')[i]}" if text else f"{roles[i]}:" for i, text in messages]
    return f"{system} {''.join(written)}{roles[1]}:"


@pytest.mark.parametrize(
    ("name", "roles", "default"),
    [
        ("vicuna_v1", ("USER", "ASSISTANT"), WRITTEN_OUT["vicuna_v1"].partition(" USER:")[0]),
        ("internvl_zh", ("<human>", "<bot>"), ""),
    ],
)
@pytest.mark.parametrize("turns", [[], [("a", "b")], [("", "b"), ("c", "")]], ids=["none", "one", "empty texts"])
@pytest.mark.parametrize("system", [None, "", "Be brief."])
def test_colon_rule(name: str, roles: Any, default: str, turns: list[tuple[str, str]], system: str | None) -> None:
    expected = colon(default if system is None else system, roles, turns, "q")
    assert render(ChatConfig(template=name), turns, "q", system) == expected


def test_gpt_oss_history_as_returned_or_as_written() -> None:
    """What chat returned gets the channel in which the model wrote it; all that the model wrote stays as it is."""
    head, tail = "<|start|>system<|message|>S<|end|><|start|>user<|message|>q<|end|><|start|>assistant", "<|end|>"
    tail += "<|start|>user<|message|>n<|end|><|start|>assistant"
    final = "<|channel|>final<|message|>a"
    whole = f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant{final}"
    for answer, written in (("a", final), (final, final), (whole, whole)):
        config = ChatConfig(template="internvl3_5_gpt_oss", system_message="S")
        assert render(config, [("q", answer)], "n") == head + written + tail
    assert render(config, [("q", "")], "n") == head + tail.removeprefix("<|end|>")


def test_stop_strings() -> None:
    assert {name: row.stops for name, row in TEMPLATES.items()} == {
        "vicuna_v1": ("</s>",),
        "internvl_zh": ("</s>",),
        "Hermes-2": ("<|im_end|>", "<|endoftext|>"),
        "internlm2-chat": ("<|im_end|>",),
        "internvl2_5": ("<|im_end|>",),
        "phi3-chat": ("<|end|>",),
        "internvl3_5_gpt_oss": ("<|return|>",),
    }


def test_unknown_and_missing_templates() -> None:
    known = "vicuna_v1, internvl_zh, Hermes-2, internlm2-chat, phi3-chat, internvl2_5, internvl3_5_gpt_oss$"
    for name in ("my-chat", ""):
        with pytest.raises(
            CheckpointError, match=f"template is '{name}', and there is no chat_template; known are {known}"
        ):
            render(ChatConfig(template=name), [], "q")
    with pytest.raises(CheckpointError, match=f"names no template, and there is no chat_template .* of {known}"):
        render(ChatConfig(template=None), [], "q")
    with pytest.raises(UnsupportedError, match="takes text, not list"):
        render(ChatConfig(template="Hermes-2"), [], [{"type": "text", "text": "q"}])


@pytest.mark.parametrize("name", [None, "my-chat"])
def test_a_chat_template_stands_in_for_no_known_name(name: str | None) -> None:
    config = ChatConfig(template=name, chat_template=STRINGS_ONLY)
    assert row_of(config) is None
    assert render(config, [], "q") == "[user]q[assistant]"


@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_a_known_name_goes_before_a_chat_template(name: str) -> None:
    """As in the family's own chat, which never reads chat_template."""
    assert render(ChatConfig(template=name, chat_template=STRINGS_ONLY), HISTORY, "What?") == WRITTEN_OUT[name]


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("source", [CHATML, STRINGS_ONLY], ids=["chatml", "strings"])
def test_jinja_like_transformers(source: str, system: str | None) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": r, "content": t} for pair in HISTORY for r, t in zip(("user", "assistant"), pair)]
    messages.append({"role": "user", "content": "What <b>now</b>?"})
    expected, _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=True)
    config = ChatConfig(template=None, chat_template=source)
    assert render(config, HISTORY, "What <b>now</b>?", system) == expected[0]


def test_jinja_items() -> None:
    assert takes_items(CHATML)
    assert not takes_items(STRINGS_ONLY)
    known = ("<IMG_CONTEXT>", "<image>", "<video>")
    assert item_mark(CHATML, "image", known) == "<IMG_CONTEXT>"
    assert item_mark(CHATML, "video", known) == "<video>"
    assert item_mark(CHATML.replace("<IMG_CONTEXT>", "<image>"), "image", known) == "<image>"
    with pytest.raises(UnsupportedError, match="for one image item"):
        item_mark(CHATML.replace("<IMG_CONTEXT>", "[pic]"), "image", known)


def test_jinja_special_tokens_and_helpers() -> None:
    config = ChatConfig(template=None, chat_template="{{ bos_token }}{{ messages[0]['content'] | tojson }}")
    assert render(config, [], "é<", special_tokens={"bos_token": "<s>"}) == '<s>"é<"'
    config = ChatConfig(template=None, chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UnsupportedError, match="roles must alternate"):
        render(config, [], "q")


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages[0].nothing.here }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].__setitem__('role', 'x') }}",
    ],
)
def test_broken_and_hostile_jinja(source: str) -> None:
    with pytest.raises(CheckpointError, match="chat_template"):
        render(ChatConfig(template=None, chat_template=source), [], "q")


def test_jinja_cannot_look_inside_python() -> None:
    source = "[{{ raise_exception.__globals__ }}{{ messages.__class__ }}{{ tojson }}]"
    assert render(ChatConfig(template=None, chat_template=source), [], "q") == "[]"
