"""Exceptions of the public surface, and how a value is shown in their texts.

Bad input raises one of the three ``ValueError`` kinds; a backend that cannot run raises ``BackendError``. Their texts can always be
printed: what a hostile file or a mistaken argument brings is cut, and characters that are none are escaped.
"""

from __future__ import annotations

from typing import Any

_LONGEST = 2000  # characters of a text


class _Readable(Exception):
    def __init__(self, *parts: Any) -> None:
        super().__init__(*(_readable(part) if isinstance(part, str) else part for part in parts))


class CheckpointError(_Readable, ValueError):
    """A checkpoint directory is missing, truncated, unknown or inconsistent; the text names the file or tensor."""


class ImageError(_Readable, ValueError):
    """An image or tile cannot be used; the text names the argument and what is allowed."""


class UnsupportedError(_Readable, ValueError):
    """A well-formed request that no kernel accepts; the text holds the whole problem."""


class BackendError(_Readable, RuntimeError):
    """A backend was asked for that is not built, not found, or failed while running."""


def _readable(text: str) -> str:
    """Without lone surrogates, and no longer than a screen: the end says what is allowed."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 3 :]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: Any, most: int = 60) -> str:
    """A value for an error's text, in a line; of a tensor its dtype and shape."""
    if hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple) and value.shape:
        return f"{value.dtype} {list(value.shape)}"
    try:
        text = repr(value)
    except Exception:  # an integer of thousands of digits; somebody's own class
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= most else f"{text[: most - 3]}..."
