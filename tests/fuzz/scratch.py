"""Folders for files that an input needs: in memory where there is such a place, emptied before each input."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_roots: dict[int, Path] = {}  # of each process


def root() -> Path:
    """This process's own folder; IVK_FUZZ_SCRATCH is where the driver wants it, and removes it."""
    process = os.getpid()
    if process not in _roots:
        memory = Path("/dev/shm")
        place = os.environ.get("IVK_FUZZ_SCRATCH") or (memory if os.access(memory, os.W_OK) else None)
        _roots[process] = Path(tempfile.mkdtemp(prefix="ivk-fuzz-", dir=place))
        atexit.register(shutil.rmtree, _roots[process], ignore_errors=True)
    return _roots[process]


def fresh_folder(name: str = "input") -> Path:
    """An empty folder."""
    folder = root() / name
    if folder.is_dir() and not folder.is_symlink():
        clear(folder)
    else:
        folder.mkdir()
    return folder


def clear(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o755)
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
