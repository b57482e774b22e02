"""Values that break programs, and ways to damage bytes, JSON and text. All of it from a ``random.Random``."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

Rng = random.Random

INTEGERS = (
    0, 1, -1, 2, 3, 4, 7, 8, 12, 14, 15, 16, 17, 28, 31, 32, 33, 56, 63, 64, 65, 100, 127, 128, 255, 256, 448, 1000, 1024, 4096,
    65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, -2, -(2**31),
    -(2**63), 10**30, 10**400,
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 0.1, 0.999999, 1e-300, 1e-45, 1e-38, 1e-8, 1e-6, 1e3, 1e30, 1e38, 3.5e38, 1e300, -1e300,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "a", "A", "0", "1", "-1", "1.5", "null", "true", "None", "nan", "\0", "a\0b", "\ud800", "x\udfffy", "é", "e\u0301",
    "日本語", "𝕏🤖", "\u202e", "\ufeff", "\x1b[31m", "\r\n", "../x", "/etc/passwd", "~nobody-here/x", "a" * 300, "ab" * 3000,
    "%s%n%d", "{0.__class__}", "{{ x }}", "<image>", "<video>", "<IMG_CONTEXT>", "<img>", "</img>", "<|im_end|>", "<s>", "\u2581",
    "cpu", "cuda", "reference", "float32", "bfloat16", "auto", "2GB", "1e3", "0B", "99999999999999999999GB", "¼", "١٢", "１",
)  # fmt: skip


class Bytes:
    """A path whose text is bytes."""

    def __fspath__(self) -> bytes:
        return b"x"


class Text(str):
    __slots__ = ()


class Integer(int):
    pass


_OBJECTS: tuple[Callable[[Rng], Any], ...] = (
    lambda rng: None,
    lambda rng: True,
    lambda rng: False,
    lambda rng: rng.choice(INTEGERS),
    lambda rng: rng.choice(FLOATS),
    lambda rng: rng.choice(TEXTS),
    lambda rng: rng.choice(TEXTS).encode("utf-8", "surrogatepass"),
    lambda rng: complex(1, rng.choice((0, 1))),
    lambda rng: Fraction(1, 3),
    lambda rng: Decimal("0.5"),
    lambda rng: Path(rng.choice(("x", "/", "a" * 300))),
    lambda rng: Bytes(),
    lambda rng: Text(rng.choice(TEXTS)),
    lambda rng: Integer(rng.choice((0, 1, 3))),
    lambda rng: object(),
    lambda rng: ...,
    lambda rng: int,
    lambda rng: len,
    lambda rng: {},
    lambda rng: {"a": 1},
    lambda rng: set(),
    lambda rng: range(rng.choice((0, 3))),
    lambda rng: iter([1, 2]),
    lambda rng: bytearray(b"ab"),
    lambda rng: memoryview(b"abcd"),
    lambda rng: np.int64(rng.choice((-1, 0, 1, 3))),
    lambda rng: np.float32(rng.choice((0.0, 0.5, float("nan")))),
    lambda rng: np.bool_(True),
    lambda rng: np.str_("a"),
    lambda rng: np.zeros(
        rng.choice(((), (0,), (1,), (2, 2), (1, 3, 4, 4))), rng.choice(("u1", "f4", "i8", "O", "U1", "?", "c8"))
    ),
    lambda rng: torch.zeros(
        rng.choice(((), (0,), (1,), (2, 2), (1, 3, 4, 4))), dtype=rng.choice((torch.float32, torch.int64))
    ),
    lambda rng: torch.zeros(2, device="meta"),
    lambda rng: torch.float32,
    lambda rng: torch.device("cpu"),
)


def anything(rng: Rng, depth: int = 2) -> Any:
    """Any object, plain or strange; now and then a container of such."""
    if depth and rng.random() < 0.2:
        items = [anything(rng, depth - 1) for _ in range(rng.randrange(4))]
        return rng.choice((items, tuple(items)))
    return rng.choice(_OBJECTS)(rng)


# -- bytes and text ---------------------------------------------------------------------------------------------------------


def damaged(rng: Rng, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A few bytes or stretches changed, moved, repeated, cut or taken from another file."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, size = rng.randrange(len(found) + 1), rng.choice((1, 1, 2, 4, 8, 40, 400))
        kind = rng.randrange(8)
        if kind <= 1 and at < len(found):
            found[at] = found[at] ^ 1 << rng.randrange(8) if kind else rng.randrange(256)
        elif kind == 2:
            number = rng.choice((0, 1, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
            width = rng.choice((2, 4, 8))
            found[at : at + width] = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del found[at : at + size]
        elif kind == 4:
            found[at:at] = found[at : at + size] * rng.choice((1, 1, 20))
        elif kind == 5:
            found[at:at] = rng.randbytes(size)
        elif kind == 6 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            found[at:] = other[start:]
        elif kind == 7:
            del found[at:]
    return bytes(found)


def text(rng: Rng) -> str:
    """Some words, marks and strange characters."""
    parts = []
    for _ in range(rng.choice((0, 1, 1, 2, 4, 9))):
        kind = rng.randrange(5)
        if kind == 0:
            parts.append(rng.choice(TEXTS))
        elif kind == 1:
            parts.append(chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000)))))
        else:
            parts.append("".join(rng.choice("abc xyz\n.,12") for _ in range(rng.randrange(9))))
    return "".join(parts)


# -- JSON -------------------------------------------------------------------------------------------------------------------


def json_value(rng: Rng, depth: int = 2) -> Any:
    kind = rng.randrange(10 if depth else 6)
    if kind < 2:
        return rng.choice(INTEGERS)
    if kind == 2:
        return rng.choice(FLOATS)
    if kind == 3:
        return rng.choice(TEXTS)
    if kind < 6:
        return rng.choice((None, True, False, [], {}, "", 0, 1))
    if kind < 8:
        return [json_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(TEXTS): json_value(rng, depth - 1) for _ in range(rng.randrange(4))}


def changed(rng: Rng, value: Any, words: Sequence[Any] = ()) -> Any:
    """A copy of a JSON value with some of its places replaced, removed, doubled or near what they were. words: values of the field."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        value = _changed(rng, value, words)
    return value


def _changed(rng: Rng, value: Any, words: Sequence[Any]) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(10)
        rest = {k: v for k, v in value.items() if k != key}
        if kind == 0:
            return rest
        if kind == 1:
            return {**rest, rng.choice((key.upper(), key + " ", "x", rng.choice(list(value)))): value[key]}
        if kind == 2:
            return {**value, rng.choice([w for w in words if isinstance(w, str)] or ["x"]): json_value(rng)}
        return {k: _changed(rng, v, words) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at, kind = rng.randrange(len(value)), rng.randrange(6)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value[:at] + value[at : at + 1] * rng.choice((2, 3, 50)) + value[at + 1 :]
        return [_changed(rng, v, words) if i == at else v for i, v in enumerate(value)]
    if type(value) in (int, float) and rng.random() < 0.2:
        return rng.choice((0, 1, 1.0, 2, 0.5, 1e-9, 1e-300, 1e9, 1e12, 1 << 10, 1 << 17, 1 << 20, 1 << 30))
    if type(value) is int and rng.random() < 0.6:
        near = (
            value + 1,
            value - 1,
            2 * value,
            value // 2,
            -value,
            value + 2**32,
            value + 0.0 if abs(value) < 2**60 else 1,
            str(value),
        )
        return rng.choice((*near, value * 10**9))
    if type(value) is float and 1e-9 < abs(value) < 1e9 and rng.random() < 0.5:
        return rng.choice((-value, value * 2, value / 2, 1 / value, str(value), int(value)))
    if type(value) is bool and rng.random() < 0.6:
        return not value
    if words and rng.random() < 0.3:
        return rng.choice(words)
    return json_value(rng)


def json_bytes(rng: Rng, value: Any) -> bytes:
    """The value as a file, mostly as any writer would, sometimes as none should."""
    plain = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 2)))
    kind = rng.randrange(30)
    data = plain.encode("utf-8", "surrogatepass")
    if kind == 0 and data.startswith(b"{"):
        return data[:1] + rng.choice((b'"x": 1, "x": 2,', b'"model_type": 1,', b'"a": NaN,', b'"a": 1e999,')) + data[1:]
    if kind == 1:
        return damaged(rng, data)
    if kind == 2:
        return rng.choice(
            (
                b"\xef\xbb\xbf" + data,
                plain.encode("utf-16", "surrogatepass"),
                data + b"\0",
                data + data,
                b"",
                b"[]",
                b"null",
            )
        )
    if kind == 3:
        deep = rng.choice((100, 3000, 100_000))
        return b'{"a":' * deep + data + b"}" * deep
    if kind == 4:
        return data.replace(b"1", b"1" * rng.choice((30, 5000)), 1)
    return data
