"""The file of packed weights under failures, kills and several processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import internvl_kernels as ivk
from internvl_kernels import CheckpointError
from internvl_kernels.io import packed_file
from internvl_kernels.testing.checkpoints import write_tiny

QUIET: dict[str, Any] = {"progress": False, "backend": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("packed") / "model", "qwen3_moe")


def load(folder: Path, cache: Path) -> ivk.Model:
    return ivk.load(folder, packed_cache=cache, **QUIET)


def answer(model: ivk.Model) -> list[float]:
    return model.logits([[5, 6, 7, 8]]).flatten().tolist()


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[float]:
    return answer(ivk.load(folder, **QUIET))


# Files that are not what their name says


def cut(file: Path) -> str:
    file.write_bytes(file.read_bytes()[:-64])
    return "bytes, not"


def lengthen(file: Path) -> str:
    file.write_bytes(file.read_bytes() + b"\0")
    return "bytes, not"


def empty(file: Path) -> str:
    file.write_bytes(b"")
    return "0 bytes, not"


def rename(file: Path) -> str:
    file.write_bytes(file.read_bytes().replace(b"vision.cls", b"vision.clz", 1))
    return "another header"


def replace(file: Path) -> str:
    file.write_bytes(os.urandom(file.stat().st_size))
    return "another header"


def nest(file: Path) -> str:
    file.unlink()
    file.mkdir()
    return "not a file"


def pipe(file: Path) -> str:
    file.unlink()
    os.mkfifo(file)  # opening it would wait for a writer
    return "not a file"


@pytest.mark.parametrize("spoil", [cut, lengthen, empty, rename, replace, nest, pipe])
def test_a_file_of_the_right_name_only_is_refused_and_left_alone(
    folder: Path, expected: list[float], tmp_path: Path, spoil: Any
) -> None:
    load(folder, tmp_path)
    (file,) = tmp_path.iterdir()
    why = spoil(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(CheckpointError, match=rf"packed_cache: {file} is cut, corrupt .*{why}.*; delete it"):
        load(folder, tmp_path)
    assert (file.read_bytes() if file.is_file() else None) == before
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert answer(load(folder, tmp_path)) == expected


# Loads that fail leave nothing


def unsupported(*_: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "not here")


@pytest.mark.parametrize("reserves", [True, False])
def test_no_room(
    folder: Path, expected: list[float], tmp_path: Path, reserves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own refusal, through a limit on the size of files; where it can't reserve room, at a write."""
    read: list[Any] = []
    whole = packed_file.load_weights
    monkeypatch.setattr(packed_file, "load_weights", lambda *a, **k: read.append(a) or whole(*a, **k))

    if not reserves:
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
        monkeypatch.setattr(os, "ftruncate", lambda *_: None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"packed_cache: .*File too large; allowed: .* room for \d+ bytes"):
            load(folder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bool(read) != reserves, "a full disk shows before the work, where the system can tell"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert answer(load(folder, tmp_path)) == expected


def test_a_file_system_that_cannot_reserve(
    folder: Path, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert answer(load(folder, tmp_path)) == expected == answer(load(folder, tmp_path))


def test_a_disk_that_fails_at_the_end(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(CheckpointError, match="Input/output error"):
        load(folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    whole = packed_file._Writer.take

    def take(self: Any, name: str, place: Any) -> None:
        whole(self, name, place)
        taken.append(name)
        if len(taken) == 9:
            (partial,) = tmp_path.iterdir()
            assert partial.name.startswith(".")
            raise KeyboardInterrupt

    monkeypatch.setattr(packed_file._Writer, "take", take)
    with pytest.raises(KeyboardInterrupt):
        load(folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_changes_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    whole = packed_file.load_weights

    def changing(*arguments: Any, **options: Any) -> Any:
        result = whole(*arguments, **options)
        os.utime(copy / "model.safetensors", ns=(0, 0))
        return result

    monkeypatch.setattr(packed_file, "load_weights", changing)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load(copy, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("place", ["/proc", "/proc/none/below", "file/below"])
def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"packed_cache: .*; allowed: a folder that can be written"):
        load(folder, tmp_path / place)


def test_a_file_that_is_there_needs_no_writing(
    folder: Path, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder, tmp_path)
    tmp_path.chmod(0o555)
    monkeypatch.setattr(packed_file, "_alone", None)  # root may write anywhere; the second load must not even try
    try:
        assert answer(load(folder, tmp_path)) == expected
    finally:
        tmp_path.chmod(0o755)


# Several processes

RACER = """
import fcntl, json, os, sys, time
from pathlib import Path
import internvl_kernels as ivk
from internvl_kernels.io import packed_file
folder, cache, locks = sys.argv[1:]
whole, packed = packed_file.load_weights, []
def slow(*arguments, **options):  # so that all of them are at it
    packed.append(whole(*arguments, **options))
    time.sleep(0.5)
packed_file.load_weights = slow
if locks == "none":
    def flock(*_): raise OSError(95, "no locks here")
    fcntl.flock = flock
Path(cache, f"ready-{os.getpid()}").touch()
while not Path(cache, "go").exists():
    time.sleep(0.001)
model = ivk.load(folder, packed_cache=Path(cache, "files"), progress=False, backend="cpu", threads=1)
lines = [l.split() for l in Path("/proc/self/maps").read_text().splitlines() if "/files/" in l]
answer, inodes = model.logits([[5, 6, 7, 8]]).flatten().tolist(), sorted({l[4] for l in lines})
print(json.dumps({"answer": answer, "inodes": inodes, "packed": len(packed)}))
"""


@pytest.mark.parametrize("locks", ["flock", "none"])
def test_three_processes_at_once(folder: Path, expected: list[float], tmp_path: Path, locks: str) -> None:
    command = [sys.executable, "-c", RACER, str(folder), str(tmp_path), locks]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    found = []
    for racer in racers:
        out, err = racer.communicate(timeout=120)
        assert racer.returncode == 0, err
        found.append(json.loads(out))
    (file,) = (tmp_path / "files").iterdir()
    assert all(one["answer"] == expected and len(one["inodes"]) == 1 for one in found)
    assert sum(one["packed"] for one in found) == (1 if locks == "flock" else 3)
    if locks == "flock":
        assert {one["inodes"][0] for one in found} == {str(file.stat().st_ino)}, "they share one file"


def test_a_killed_process_leaves_nothing_under_the_name(folder: Path, expected: list[float], tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom internvl_kernels.io import packed_file\nimport internvl_kernels as ivk\n"
        f"packed_file._Writer.finish = lambda self: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "ivk.load(sys.argv[1], packed_cache=sys.argv[2], progress=False, backend='cpu', threads=1)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(tmp_path)], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert answer(load(folder, tmp_path)) == expected
    (file,) = tmp_path.iterdir()  # what was left is taken over
    assert file.name == left.name[1:].removesuffix(".partial")


def test_the_lock_ends_with_the_load(folder: Path, tmp_path: Path) -> None:
    model = load(folder, tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    assert model.plan([1]).weights_mapped
