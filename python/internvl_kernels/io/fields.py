"""Typed reading of JSON: a value of the wrong type or range raises ``CheckpointError`` naming file, key, value and
what is allowed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

_MAX_JSON_BYTES = 64 << 20


def show(value: object) -> str:
    """A value for an error text, cut where a hostile file would flood it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_object(data: bytes, source: str, *, constants: bool = True) -> dict[str, Any]:
    """One JSON object; duplicate keys, other values, bad UTF-8 and absurd nesting raise. constants: NaN and Infinity, which are
    no JSON but which configs written by Python hold, are read.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
            raise CheckpointError(f"{source}: the key {show(twice)} appears twice in one object")
        return found

    try:
        found = None if constants else _no_constant
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=found)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CheckpointError(f"{source}: not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: holds {show(value)}; allowed: a JSON object")
    refuse_surrogates(data, value, source)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def refuse_surrogates(data: bytes, value: object, source: str) -> None:
    """Raises where a string of JSON holds half of a UTF-16 pair, which is no text: it could be neither printed nor tokenised."""
    if re.search(rb"\\u[dD][89a-fA-F]", data):  # written out; in UTF-8 there is none
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError):
            raise CheckpointError(f"{source}: a string holds a lone surrogate (\\ud800 to \\udfff)") from None


def read_text(file: Path, most: int) -> str:
    """The text of a file of at most so many bytes, which must exist."""
    try:
        if file.stat().st_size > most:
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes; allowed: up to {most}")
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: not valid UTF-8") from None


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``, which must exist."""
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes; allowed: up to {_MAX_JSON_BYTES}")
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    return parse_object(data, str(file))


class Fields:
    """A JSON object whose keys are read by type. A missing key and ``null`` both give the default."""

    def __init__(self, data: dict[str, Any], source: str, path: str = "") -> None:
        self.data = data
        self.source = source
        self.path = path
        self.seen: set[str] = set()

    def get(self, key: str) -> Any:
        self.seen.add(key)
        return self.data.get(key)

    def refuse(self, key: str, allowed: str, value: object = None) -> CheckpointError:
        """The error to raise for ``key``; ``allowed`` ends the text."""
        value = self.data.get(key) if value is None else value
        return CheckpointError(f"{self.source}: {self.path}{key} is {show(value)}; allowed: {allowed}")

    def section(self, key: str) -> Fields:
        value = self.get(key)
        if not isinstance(value, dict | None):
            raise self.refuse(key, "an object")
        return Fields(value or {}, self.source, f"{self.path}{key}.")

    def integer(self, key: str, default: int, *, low: int = 1, high: int = 1 << 20) -> int:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(key, f"an integer from {low} to {high}", value)
        return value

    def number(self, key: str, default: float, *, above: float = 0.0, high: float = 1e12) -> float:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= high:  # NaN fails too
            raise self.refuse(key, f"a finite number above {above:g}, up to {high:g}", value)
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false", value)
        return value

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if not isinstance(value, str | None):
            raise self.refuse(key, "a string")
        return value

    def choice(self, key: str, default: str, allowed: Collection[str]) -> str:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, str) or value not in allowed:
            raise self.refuse(key, " or ".join(repr(a) for a in allowed), value)
        return value

    def square(self, key: str, default: int, *, high: int) -> int:
        """An integer, or a list of two equal ones (height, width)."""
        value = self.get(key)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise self.refuse(key, f"an integer from 1 to {high}, or two equal ones")
        return value

    def integers(self, key: str, *, low: int = 0, high: int = (1 << 31) - 1) -> tuple[int, ...] | None:
        """One integer or a list of them; None where the key is missing."""
        value = self.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) and low <= v <= high for v in values):
            raise self.refuse(key, f"integers from {low} to {high}")
        return tuple(values)

    def triple(self, key: str, default: tuple[float, float, float], *, above: float) -> tuple[float, float, float]:
        """Three finite numbers above ``above``, one per colour."""
        value = self.get(key)
        if value is None:
            return default
        numbers = value if isinstance(value, list) else []
        sane = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in numbers)
        if len(numbers) != 3 or not sane or not all(above < v <= 1e6 for v in numbers):
            raise self.refuse(key, f"a list of three finite numbers above {above:g}")
        return (float(numbers[0]), float(numbers[1]), float(numbers[2]))

    def rest(self) -> dict[str, Any]:
        """Keys that nobody asked for."""
        return {key: value for key, value in self.data.items() if key not in self.seen}
