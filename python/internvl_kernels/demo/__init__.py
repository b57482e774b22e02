"""A small InternVL that reads handwritten numbers: its trained checkpoint, the strips it reads, and how it was made."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from .vocabulary import QUESTIONS

QUESTION = QUESTIONS[0]


def checkpoint_path() -> Path:
    """The directory of the trained model, inside the package."""
    return Path(str(resources.files(__package__))) / "checkpoint"


__all__ = ["QUESTION", "checkpoint_path"]
