"""Exceptions of the public surface.

Bad input raises one of the three ``ValueError`` kinds; a backend that cannot run raises ``BackendError``.
"""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint directory is missing, truncated, unknown or inconsistent; the text names the file or tensor."""


class ImageError(ValueError):
    """An image or tile cannot be used; the text names the argument and what is allowed."""


class UnsupportedError(ValueError):
    """A well-formed request that no kernel accepts; the text holds the whole problem."""


class BackendError(RuntimeError):
    """A backend was asked for that is not built, not found, or failed while running."""
