"""From the token ids of an answer to its text: where it ends, and which part of it is meant for the reader.

- A stop that is one token of the tokenizer ends an answer by its id. One that is not (older exports) ends it by its
  text: the answer is cut there, and a stream holds back what may become the stop until it is known not to.
- GPT-OSS writes an answer as messages in channels, ``<|channel|>analysis<|message|>...<|end|><|start|>assistant`` and
  then ``<|channel|>final<|message|>...``. Only final messages are the answer, so one that ends before them is empty;
  ``Model.generate`` gives everything. Text before any channel counts as final.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..config import ChatConfig
from .template import row_of
from .tokenizer import Tokenizer

START, CHANNEL, MESSAGE, END = _MARKS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
_RETURN = "<|return|>"
_NAME = 64  # characters of a message's head that are kept; channel names are short


class Answers:
    """How the answers of one checkpoint end, and whether they have channels.

    stop_ids    token ids that end an answer: those of the checkpoint's configs and the template's stops
    stop_texts  stops of the template that are no token of this tokenizer
    """

    def __init__(self, config: ChatConfig, tokenizer: Tokenizer) -> None:
        row = row_of(config)
        self._tokenizer = tokenizer
        if row is not None:
            self.channels, stops = bool(row.channel), row.stops
        else:  # a Jinja template names no stop: the tokenizer's end of sequence is the end of a turn in chat models
            self.channels = all(tokenizer.token_id(mark) is not None for mark in (CHANNEL, MESSAGE))
            stops = tuple(filter(None, (tokenizer.eos_token, _RETURN if self.channels else None)))
        ids = {stop: tokenizer.token_id(stop) for stop in stops}
        self.stop_texts = tuple(stop for stop, index in ids.items() if index is None)
        found = {*config.eos_token_ids, *(index for index in ids.values() if index is not None)}
        if self.channels:  # the end of a message, after which the next one follows
            found.discard(tokenizer.token_id(END))
        self.stop_ids = frozenset(found)

    def stream(self, stop_ids: Collection[int] | None = None) -> AnswerStream:
        """A reader of one answer. stop_ids: these end it, and no text does; None: the checkpoint's own."""
        if stop_ids is None:
            return AnswerStream(self._tokenizer, self.stop_ids, self.stop_texts, channels=self.channels)
        return AnswerStream(self._tokenizer, stop_ids, channels=self.channels)


class AnswerStream:
    """Ids one by one in, complete text out. ``done``: a stop has come, and no id after it counts."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_ids: Collection[int],
        stop_texts: Collection[str] = (),
        *,
        channels: bool = False,
    ) -> None:
        self.done = self._cut = False  # _cut: by a stop text, so that what is still held back is none of the answer
        self._stop_ids, self._stop_texts = stop_ids, stop_texts
        self._decoder = tokenizer.stream()
        self._channels = Channels() if channels else None
        ids = {mark: tokenizer.token_id(mark) for mark in _MARKS} if channels else {}
        self._mark_ids = {index: mark for mark, index in ids.items() if index is not None}
        # A mark that is a token cannot be written by others: text that looks like it is text.
        self._finder = Finder([*stop_texts, *(mark for mark, index in ids.items() if index is None)])

    def push(self, token_id: int) -> str:
        self.done |= token_id in self._stop_ids
        if self.done:
            return ""
        mark = self._mark_ids.get(token_id)
        if mark is None:
            return self._read(self._decoder.push(token_id))
        text = self._read(self._decoder.flush()) + self._show(self._finder.flush())
        if self._channels is not None:
            self._channels.mark(mark)
        return text

    def flush(self) -> str:
        """What is left at the end. With channels, the beginning of a mark that never came whole is none of it."""
        text = self._read(self._decoder.flush())
        rest = self._finder.flush()
        return text if self._channels is not None and len(rest) > 1 else text + self._show(rest)

    def _read(self, text: str) -> str:
        shown = ""
        for before, mark in self._finder.push(text) if text and not self._cut else ():
            shown += self._show(before)
            if mark in self._stop_texts:
                self.done = self._cut = True
                self._finder.flush()
                break
            if mark is not None and self._channels is not None:
                self._channels.mark(mark)
        return shown

    def _show(self, text: str) -> str:
        return text if self._channels is None else self._channels.text(text)


class Channels:
    """Which text between marks belongs to final messages."""

    def __init__(self) -> None:
        self._shown = True
        self._head: str | None = None  # of a message, while it is read
        self._named = False

    def mark(self, mark: str) -> None:
        if mark == MESSAGE:
            if self._head is not None:
                self._shown = not self._named or self._head.split()[:1] == ["final"]
            self._head = None
        elif mark == END:
            self._shown, self._head = False, None
        else:  # the role follows <|start|>, the channel's name <|channel|>
            self._named, self._head = mark == CHANNEL, ""

    def text(self, text: str) -> str:
        """The part of ``text`` that is shown: all or nothing."""
        if self._head is None:
            return text if self._shown else ""
        self._head = (self._head + text)[:_NAME]
        return ""


class Finder:
    """Finds strings in a text that comes in pieces."""

    def __init__(self, marks: Collection[str]) -> None:
        ordered = sorted(marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._beginnings = {mark[:size] for mark in ordered for size in range(1, len(mark))}
        self._held = ""

    def push(self, text: str) -> list[tuple[str, str | None]]:
        """Stretches of text, each with the mark behind it; None behind the last. Its end is held back where a mark
        may begin there.
        """
        if self._pattern is None:
            return [(text, None)]
        text, at, found = self._held + text, 0, []
        for match in self._pattern.finditer(text):
            found.append((text[at : match.start()], match.group()))
            at = match.end()
        sizes = (len(beginning) for beginning in self._beginnings if text.endswith(beginning, at))
        end = len(text) - max(sizes, default=0)
        self._held = text[end:]
        return [*found, (text[at:end], None)]

    def flush(self) -> str:
        """What is held back."""
        held, self._held = self._held, ""
        return held
