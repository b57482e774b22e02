"""Text to SentencePiece ids and back, id for id as the sentencepiece library does it.

Not converted into a ``tokenizers`` model: that cannot express equal scores, characters that are in no piece of their
own, or symbols that are matched before the dummy prefix is decided. Words are cached, so plain text runs at
dictionary speed.
"""

from __future__ import annotations

import ctypes
import heapq
import math
import re
import struct
from collections.abc import Iterable
from functools import lru_cache

from ..errors import CheckpointError
from .sentencepiece import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, SentencePieceModel

_UNK_PENALTY = 10.0  # how far below the lowest score an unknown character stands (unigram)
_CACHED_WORD = 64  # characters; longer words are rare and would fill the cache


def _float32(value: float) -> float:
    return ctypes.c_float(value).value  # infinite where struct would raise


class Charsmap:
    """The compiled normalisation rules: a double-array trie over UTF-8 and the replacement texts."""

    def __init__(self, blob: bytes) -> None:
        (size,) = struct.unpack_from("<I", blob)  # struct.error: too short
        if not size or size % 4 or 4 + size > len(blob):
            raise ValueError(f"trie of {size} bytes in {len(blob)}")
        self._units = struct.unpack_from(f"<{size // 4}I", blob, 4)
        self._texts = blob[4 + size :]

    def longest(self, data: bytes, at: int) -> tuple[str, int] | None:
        """Replacement of the longest rule that matches at ``at`` and the bytes it takes."""
        units, found = self._units, None
        unit = units[0]
        node = (unit >> 10) << ((unit & 512) >> 6)
        for end in range(at, len(data)):
            node ^= data[end]
            unit = units[node] if node < len(units) else 0
            if unit & 0x800000FF != data[end]:
                break
            node ^= (unit >> 10) << ((unit & 512) >> 6)
            if unit & 256 and node < len(units):
                found = units[node] & 0x7FFFFFFF, end + 1 - at
        if found is None:
            return None
        start, taken = found
        return self._texts[start : self._texts.index(b"\0", start)].decode("utf-8"), taken


class SentencePieceCodec:
    """encode(text) -> ids, decode(ids) -> text, stream() for one id at a time. No BOS, no EOS, no added tokens."""

    def __init__(self, model: SentencePieceModel) -> None:
        self.model = model
        usable = (NORMAL, USER_DEFINED, UNUSED)
        self.ids = {p: i for i, (p, kind) in enumerate(zip(model.pieces, model.types)) if kind in usable}
        self._byte_ids = {int(p[3:5], 16): i for i, p in enumerate(model.pieces) if model.types[i] == BYTE}
        try:
            self._charsmap = Charsmap(model.charsmap) if model.charsmap else None
        except (ValueError, struct.error) as error:
            raise CheckpointError(f"{model.source}: broken normalisation rules: {error}") from error
        fixed = sorted((p for p, i in self.ids.items() if model.types[i] == USER_DEFINED), key=len, reverse=True)
        self._fixed = re.compile("|".join(map(re.escape, fixed))) if fixed else None
        # A word starts at every run of spaces unless some piece reaches over such a border.
        crossing = any(re.search(f"[^{SPACE}]{SPACE}", p) for p in self.ids)
        self._words = re.compile("(?s).+" if crossing else f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        self._cached = lru_cache(1 << 16)(self._merge)
        self._longest = max(map(len, self.ids), default=0)
        normal = [s for s, kind in zip(model.scores, model.types) if kind == NORMAL]
        self._unk_score = _float32(min(normal, default=0.0) - _UNK_PENALTY)

    # -- normalisation ------------------------------------------------------------------------------------------------

    def normalize(self, text: str, *, prefix: bool | None = None) -> str:
        """Rules, spaces and dummy prefix applied; a space comes out as U+2581. ``prefix`` overrides the model's."""
        if not text:
            return ""
        trim = self.model.remove_extra_whitespaces
        out: list[str] = []
        after_space = trim
        for part in self._parts(text):
            if trim:
                part = part.lstrip(" ") if after_space else part
                if not part:
                    continue
                after_space = part.endswith(" ")
            out.append(part)
        joined = (SPACE if (self.model.add_dummy_prefix if prefix is None else prefix) else "") + "".join(out)
        joined = joined.replace(" ", SPACE)
        return joined.rstrip(SPACE) if trim else joined

    def _parts(self, text: str) -> list[str]:
        """The text in pieces that whitespace trimming looks at one by one; user-defined symbols stay whole."""
        if self._charsmap is None and not self.model.remove_extra_whitespaces:
            return [text]
        parts, at = [], 0
        for found in self._fixed.finditer(text) if self._fixed else ():
            parts += self._apply_rules(text[at : found.start()])
            parts.append(found.group())
            at = found.end()
        return parts + self._apply_rules(text[at:])

    def _apply_rules(self, text: str) -> list[str]:
        if self._charsmap is None:
            return re.findall("(?s) |[^ ]+", text)
        data, at, parts = text.encode("utf-8"), 0, []
        while at < len(data):
            try:
                found = self._charsmap.longest(data, at)
                if found is None:
                    first = data[at]
                    size = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
                    found = data[at : at + size].decode("utf-8"), size  # a broken rule may end inside a character
            except ValueError as error:
                raise CheckpointError(f"{self.model.source}: broken normalisation rules: {error}") from error
            parts.append(found[0])
            at += found[1]
        return parts

    # -- encoding -----------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, prefix: bool | None = None) -> list[int]:
        text = self.normalize(text, prefix=prefix)
        if self.model.algorithm == "unigram":
            return self._spell(self._viterbi(text))
        ids: list[int | str] = []
        at = 0
        for found in self._fixed.finditer(text) if self._fixed else ():
            self._encode_words(text[at : found.start()], ids)
            ids.append(self.ids[found.group()])
            at = found.end()
        self._encode_words(text[at:], ids)
        return self._spell(ids)

    def _encode_words(self, text: str, ids: list[int | str]) -> None:
        for word in self._words.findall(text):
            ids += self._cached(word) if len(word) <= _CACHED_WORD else self._merge(word)

    def _spell(self, ids: Iterable[int | str]) -> list[int]:
        """Characters without a piece become their bytes, or one unknown id for each run."""
        out: list[int] = []
        run = False
        for item in ids:
            if not isinstance(item, str):
                out.append(item)
                run = False
            elif self.model.byte_fallback:
                out += [self._byte_ids[b] for b in item.encode("utf-8")]
            else:
                if not run:
                    out.append(self.model.unk_id)
                run = True
        return out

    def _merge(self, word: str) -> tuple[int | str, ...]:
        """BPE: joins the neighbours whose joined piece scores highest, leftmost first, until none is left."""
        ids, scores = self.ids, self.model.scores
        symbols = list(word)
        size = len(symbols)
        before, after = list(range(-1, size - 1)), list(range(1, size + 1))
        halves: dict[str, tuple[str, str]] = {}
        agenda: list[tuple[float, int, int, str]] = []

        def propose(left: int, right: int) -> None:
            if left < 0 or right >= size:
                return
            joined = symbols[left] + symbols[right]
            index = ids.get(joined)
            if index is not None:
                heapq.heappush(agenda, (-scores[index], left, right, joined))
                if self.model.types[index] == UNUSED:
                    halves[joined] = symbols[left], symbols[right]

        for left in range(size - 1):
            propose(left, left + 1)
        while agenda:
            _, left, right, joined = heapq.heappop(agenda)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != len(joined):
                continue  # one of the two has been joined elsewhere since
            symbols[left], symbols[right] = joined, ""
            after[left] = after[right]
            if after[left] < size:
                before[after[left]] = left
            propose(before[left], left)
            propose(left, after[left])
        out: list[int | str] = []
        for symbol in filter(None, symbols):
            self._emit(symbol, halves, out)
        return tuple(out)

    def _emit(self, symbol: str, halves: dict[str, tuple[str, str]], out: list[int | str]) -> None:
        """An unused piece serves only on the way to a longer one: where it is left over it falls apart again."""
        stack = [symbol]
        while stack:
            part = stack.pop()
            index = self.ids.get(part)
            if part in halves:
                stack += reversed(halves[part])
            else:  # an unused character is an unknown one
                out.append(part if index is None or self.model.types[index] == UNUSED else index)

    def _viterbi(self, text: str) -> list[int | str]:
        """Unigram: the segmentation with the highest sum of scores, summed from the left in float32."""
        ids, scores, types = self.ids, self.model.scores, self.model.types
        best = [0.0] + [-math.inf] * len(text)
        last: list[tuple[int, int | None] | None] = [None] * (len(text) + 1)
        for start in range(len(text)):
            steps: list[tuple[int, int | None, float]] = []
            for end in range(start + 1, min(start + self._longest, len(text)) + 1):
                index = ids.get(text[start:end])
                if index is not None and types[index] != UNUSED:
                    steps.append((end, index, scores[index]))
            if not steps or steps[0][0] != start + 1:
                steps.append((start + 1, None, self._unk_score))
            for end, index, score in steps:
                total = _float32(best[start] + score)
                if last[end] is None or total > best[end]:
                    best[end], last[end] = total, (start, index)
        out: list[int | str] = []
        end = len(text)
        while end:
            reached = last[end]
            assert reached is not None  # every step has one character at least
            start, index = reached
            out.append(text[start:end] if index is None else index)
            end = start
        return out[::-1]

    # -- decoding -----------------------------------------------------------------------------------------------------

    def stream(self) -> SentencePieceStream:
        return SentencePieceStream(self.model)

    def decode(self, ids: Iterable[int]) -> str:
        stream = self.stream()
        return "".join(map(stream.push, ids)) + stream.flush()


class SentencePieceStream:
    """Ids in, complete text out: bytes of an unfinished character are held back."""

    def __init__(self, model: SentencePieceModel) -> None:
        self._model = model
        self._bytes = b""
        self._at_start = model.add_dummy_prefix or model.remove_extra_whitespaces

    def push(self, index: int) -> str:
        model = self._model
        kind, piece = model.types[index], model.pieces[index]
        if kind == BYTE:
            self._at_start = False
            return self._take(bytes([int(piece[3:5], 16)]))
        return self.flush() + self._visible(kind, piece)

    def _visible(self, kind: int, piece: str) -> str:
        if kind == CONTROL:
            return ""
        if kind == UNKNOWN:
            piece = self._model.unk_surface
        elif self._at_start and piece.startswith(SPACE):
            # One space is the dummy prefix; a model that trims whitespace drops all that lead.
            self._at_start = self._model.remove_extra_whitespaces
            piece = piece[1:]
        self._at_start &= not piece
        return piece.replace(SPACE, " ")

    def _take(self, more: bytes, *, last: bool = False) -> str:
        data, out = self._bytes + more, ""
        while data:
            try:
                out, data = out + data.decode("utf-8"), b""
            except UnicodeDecodeError as error:
                out += data[: error.start].decode("utf-8")
                data = data[error.start :]
                if error.reason == "unexpected end of data" and not last:
                    break
                out, data = out + "\ufffd", data[1:]
        self._bytes = data
        return out

    def flush(self) -> str:
        return self._take(b"", last=True)
