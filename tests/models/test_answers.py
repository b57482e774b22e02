"""Answers of whole models: stops by id and by text, GPT-OSS's channels, templates that stand in for each other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import internvl_kernels as ivk
from internvl_kernels.config import ChatConfig
from internvl_kernels.io.save import save_checkpoint
from internvl_kernels.io.tokenizer import Tokenizer, load_tokenizer
from internvl_kernels.testing.checkpoints import byte_tokenizer_files, random_weights, tiny_config
from internvl_kernels.testing.tokenizers import tokenizer_files

Files = dict[str, Any]


def saying(folder: Path, chat: ChatConfig, files: Files, tokens: list[str], layout: str = "original") -> ivk.Model:
    """A model that follows each of ``tokens`` by the next one: its layers add nothing, its head knows the successor."""
    (folder / "tokenizer").mkdir(parents=True)
    for name, content in files.items():
        (folder / "tokenizer" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    tokenizer = load_tokenizer(folder / "tokenizer")
    assert len(set(tokens)) == len(tokens)
    sizes = {"vocab_size": tokenizer.vocab_size, "max_positions": 1024}
    config = replace(tiny_config("qwen3", layout=layout, text_overrides=sizes), chat=chat)
    weights = random_weights(config, seed=3)
    for name, weight in weights.items():
        if name.startswith("language.layers.") and name.endswith((".o.weight", ".down.weight")):
            weight.zero_()
    weights["language.norm.weight"].fill_(1.0)
    embeddings, head = weights["language.embed.weight"], weights["language.head.weight"].zero_()
    for token, following in itertools.pairwise(tokens):
        vector = embeddings[index(tokenizer, token)]
        head[index(tokenizer, following)] = vector / vector.norm()
    save_checkpoint(weights, config, folder / "model", layout=layout, extra_files=files)
    return ivk.load(folder / "model", backend="cpu", progress=False)


def index(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_id(token)
    assert found is not None, token
    return found


GPT_OSS = ChatConfig(template="internvl3_5_gpt_oss", eos_token_ids=(310, 314))  # <|return|>, and wrongly <|end|>


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> ivk.Model:
    folder = tmp_path_factory.mktemp("gpt_oss")
    tokens = ["assistant", "<|channel|>", "final", "<|message|>", "H", "i", "<|return|>", "!"]
    return saying(folder, GPT_OSS, tokenizer_files("gpt_oss"), tokens)


def test_gpt_oss_says_its_final_message(gpt_oss: ivk.Model) -> None:
    assert gpt_oss.stop_token_ids == {310}
    assert gpt_oss.chat("Say it.") == "Hi"
    assert gpt_oss.times["tokens"] == 6  # the stop is the sixth
    assert list(gpt_oss.stream("Say it.")) == ["H", "i"]
    for size, shown in ((1, ""), (2, ""), (3, ""), (4, "H"), (5, "Hi")):
        assert gpt_oss.chat("Say it.", max_new_tokens=size) == shown
    requests = [{"question": "Say it.", "max_new_tokens": n} for n in (9, 2, 4)]
    assert gpt_oss.batch_chat(requests) == ["Hi", "", "H"]
    assert gpt_oss.chat("Again.", history=[("Say it.", "Hi")]) == "Hi"
    ids = gpt_oss.prompt_ids("Say it.")
    written = gpt_oss.generate([ids], max_new_tokens=9)[0, len(ids) :].tolist()
    assert gpt_oss.tokenizer.decode(written, skip_special=False) == "<|channel|>final<|message|>Hi<|return|>"


def test_gpt_oss_does_not_stop_behind_its_analysis(tmp_path: Path) -> None:
    """Config files may list the end of a message among the ends of a text; the answer comes after it."""
    tokens = ["assistant", "<|channel|>", "analysis", "<|message|>", "x", "<|end|>", "<|start|>", "user"]
    model = saying(tmp_path, GPT_OSS, tokenizer_files("gpt_oss"), tokens)
    assert model.chat("Think.", max_new_tokens=9) == ""
    assert model.times["tokens"] == 9


class Scripted:
    """Says what it is told to, as ``Decoder`` does: a step for all that go on, until their stop or ``finish``."""

    def __init__(self, scripts: list[list[int]], stops: frozenset[int]) -> None:
        self.scripts, self.stops = scripts, stops
        self.tokens: list[list[int]] = [[] for _ in scripts]
        self.finished: set[int] = set()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        while True:
            produced = []
            for row, script in enumerate(self.scripts):
                said = self.tokens[row]
                if row in self.finished or len(said) == len(script) or (said and said[-1] in self.stops):
                    continue
                said.append(script[len(said)])
                produced.append((row, said[-1]))
            if not produced:
                return
            yield produced

    def finish(self, row: int) -> None:
        self.finished.add(row)


def script(model: ivk.Model, monkeypatch: pytest.MonkeyPatch, *written: str) -> list[Scripted]:
    scripts = [model.tokenizer.encode(text, add_special=False) for text in written]
    made: list[Scripted] = []

    def decoder(requests: list[Any]) -> Scripted:
        made.append(Scripted(scripts[: len(requests)], model.stop_token_ids))
        return made[-1]

    monkeypatch.setattr(model, "_decoder", decoder)
    return made


def test_channels_in_chat_stream_and_batch(gpt_oss: ivk.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    thinking = "<|channel|>analysis<|message|>The user wants 2+2.<|end|><|start|>assistant<|channel|>final<|message|>4 你好<|return|>"
    script(
        gpt_oss, monkeypatch, thinking, "<|channel|>final<|message|>four<|return|>", "<|channel|>analysis<|message|>hm"
    )
    assert gpt_oss.chat("2+2?") == "4 你好"
    assert list(gpt_oss.stream("2+2?")) == ["4", " ", "你", "好"]
    assert gpt_oss.batch_chat([{"question": "2+2?"}] * 3) == ["4 你好", "four", ""]


def test_a_stop_that_is_no_token_ends_an_answer(tmp_path: Path) -> None:
    """</s> written in four tokens: the answer is cut there and its sequence takes no more steps."""
    chat = ChatConfig(template="vicuna_v1", system_message="S")
    model = saying(tmp_path, chat, byte_tokenizer_files(), [":", "O", "k", *"</s>", "?", "!", "+"])
    assert model.stop_token_ids == frozenset()
    assert model.chat("q", max_new_tokens=50) == "Ok"
    assert model.times["tokens"] == 6
    assert list(model.stream("q", max_new_tokens=50)) == ["O", "k"]  # no part of the stop
    assert model.chat("q", max_new_tokens=4) == "Ok</"  # it never came: this is text
    requests: list[dict[str, Any]] = [
        {"question": "q", "max_new_tokens": 9, "stop_token_ids": stops} for stops in (None, [], None)
    ]
    assert model.batch_chat(requests) == ["Ok", "Ok</s>?!+", "Ok"]


def test_a_stop_in_the_middle_of_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatConfig(template="Hermes-2", system_message="S")
    model = saying(tmp_path, chat, tokenizer_files("llama"), ["▁image", "t"])
    made = script(model, monkeypatch, "the image<|im_end|>the image", "a <|im_start|> b", "x<|endoftext|>y")
    assert model.chat("q") == "the image"
    assert made[0].finished == {0}
    assert len(made[0].tokens[0]) < len(made[0].scripts[0])
    assert model.batch_chat([{"question": "q"}] * 3) == ["the image", "a <|im_start|> b", "x"]
    assert made[1].finished == {0, 2}


JINJA = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize("name", [None, "my-chat", "internvl2_5"])
@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json", "nowhere"])
def test_which_template_speaks(tmp_path: Path, layout: str, name: str | None, where: str) -> None:
    files: Files = dict(byte_tokenizer_files())
    settings = json.loads(files["tokenizer_config.json"])
    if where == "tokenizer_config.json":
        settings["chat_template"] = JINJA
    elif where != "nowhere":
        files[where] = JINJA if where.endswith("jinja") else json.dumps({"chat_template": JINJA})
    files["tokenizer_config.json"] = json.dumps(settings)
    chat = ChatConfig(template=name if layout == "original" else None, system_message="S", image_token_id=261)
    known = layout == "original" and name == "internvl2_5"
    if where == "nowhere" and not known:
        words = "template is 'my-chat'" if layout == "original" and name else "names no template"
        with pytest.raises(ivk.CheckpointError, match=f"{words}, and there is no chat_template.* internvl2_5"):
            saying(tmp_path, chat, files, ["Ċ", "O", "k", "<|im_end|>", "?"], layout)
        return
    model = saying(tmp_path, chat, files, ["Ċ", "O", "k", "<|im_end|>", "?"], layout)
    assert model.tokenizer.decode(model.prompt_ids("q"), skip_special=False) == PROMPT
    assert model.chat("q", max_new_tokens=9) == "Ok"  # the tokenizer's end of sequence ends an answer, named or not
    assert model.stop_token_ids == {258}
