"""From what a user names to a checkpoint directory: a path, or a hub id in the local Hugging Face cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import CheckpointError, shown

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]{0,199}")
_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]  # never code or pickles


def resolve(path: str | Path, download: bool = False, *, revision: str = "main") -> Path:
    """The directory of a checkpoint.

    ``path``: a directory, or a hub id ``owner/name`` that the local Hugging Face cache holds at ``revision`` (a
    branch, tag or commit). ``download``: fetch the id with ``huggingface_hub`` where the cache lacks it; nothing
    touches the network otherwise. Raises ``CheckpointError`` where there is no such checkpoint.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise CheckpointError(f"path: {shown(path)}; allowed: a directory, or a hub id (owner/name)")
    try:
        directory = Path(path).expanduser()
        if str(path) and directory.is_dir():
            return directory
        there = bool(str(path)) and directory.exists()
    except (OSError, RuntimeError, TypeError) as error:  # a name too long, no such user, a path of bytes
        raise CheckpointError(f"path: {shown(path)}: {error}; allowed: a directory, or a hub id (owner/name)") from None
    if there:
        raise CheckpointError(f"{path}: is a file; allowed: the directory with config.json")
    name = str(path)
    if not _ID.fullmatch(name) or ".." in name:
        raise CheckpointError(f"{path}: no such directory, and not a hub id (owner/name)")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise CheckpointError(f"revision: {shown(revision)}; allowed: a branch, tag or commit")
    found = _cached(name, revision)
    if found is not None:
        return found
    if not download:
        raise CheckpointError(
            f"{name}: no such directory, and not in the local Hugging Face cache {cache()}; download=True fetches it"
        )
    return _download(name, revision)


def cache() -> Path:
    """Where Hugging Face's tools keep repositories, by their own environment variables."""
    if hub := os.environ.get("HF_HUB_CACHE"):
        return Path(hub).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def _cached(name: str, revision: str) -> Path | None:
    """``models--owner--name/snapshots/<commit>``, where ``refs/<revision>`` holds the commit."""
    root = cache() / ("models--" + name.replace("/", "--"))
    try:
        commit = (root / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = root / "snapshots" / commit
    return snapshot if _REVISION.fullmatch(commit) and (snapshot / "config.json").is_file() else None


def _download(name: str, revision: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name}: download=True needs the package huggingface_hub; pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, cache_dir=cache()))
    except Exception as error:  # the client's, its HTTP library's and the system's errors share no base class
        raise CheckpointError(f"{name}: the download failed: {type(error).__name__}: {str(error)[:300]}") from error
