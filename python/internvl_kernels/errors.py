"""Exceptions of the public surface.

Bad input raises one of the three ``ValueError`` kinds; a backend that cannot run raises ``BackendError``.
"""

from __future__ import annotations

_LONGEST = 2000  # characters of a text: values in it may be of any length


class _Refusal(ValueError):
    def __init__(self, *arguments: object) -> None:
        text = arguments[0] if arguments else None
        if isinstance(text, str) and len(text) > _LONGEST:
            cut = f"{text[: _LONGEST - 600]} ... {len(text)} characters in all ... {text[-500:]}"
            arguments = (cut, *arguments[1:])
        super().__init__(*arguments)


class CheckpointError(_Refusal):
    """A checkpoint directory is missing, truncated, unknown or inconsistent; the text names the file or tensor."""


class ImageError(_Refusal):
    """An image or tile cannot be used; the text names the argument and what is allowed."""


class UnsupportedError(_Refusal):
    """A well-formed request that no kernel accepts; the text holds the whole problem."""


class BackendError(RuntimeError):
    """A backend was asked for that is not built, not found, or failed while running."""
