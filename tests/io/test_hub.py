"""From a name to a directory, without the network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from internvl_kernels import CheckpointError
from internvl_kernels.io.hub import cache, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    snapshot = tmp_path / "home/hub/models--OpenGVLab--InternVL3-1B/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    return snapshot


def test_directory_wins(home, tmp_path):
    local = tmp_path / "OpenGVLab/InternVL3-1B"
    local.mkdir(parents=True)
    assert resolve("OpenGVLab/InternVL3-1B") == Path("OpenGVLab/InternVL3-1B")
    assert resolve(str(local)) == resolve(local) == local


def test_cached_id(home):
    assert resolve("OpenGVLab/InternVL3-1B") == home
    assert resolve("OpenGVLab/InternVL3-1B", revision=COMMIT) == home
    assert resolve("OpenGVLab/InternVL3-1B", download=True) == home  # nothing to fetch
    with pytest.raises(CheckpointError, match="download=True"):
        resolve("OpenGVLab/InternVL3-1B", revision="other")


def test_half_a_snapshot_is_not_one(home):
    (home / "config.json").unlink()
    with pytest.raises(CheckpointError, match="not in the local Hugging Face cache"):
        resolve("OpenGVLab/InternVL3-1B")


def test_where_the_cache_is(home, tmp_path, monkeypatch):
    assert cache() == tmp_path / "home/hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert cache() == tmp_path / "hub"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg/huggingface/hub"


@pytest.mark.parametrize(
    "name", ["nothing", "a/b/c", "/no/such/place", "../up", "owner/..", "owner/na me", "owner/", ""]
)
def test_not_a_name(home, name):
    with pytest.raises(CheckpointError):
        resolve(name)


def test_a_file_is_not_a_checkpoint(home):
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(home / "config.json")


@pytest.mark.parametrize("revision", ["../../x", "a/b", "", "a b"])
def test_bad_revision(home, revision):
    with pytest.raises(CheckpointError, match="revision"):
        resolve("OpenGVLab/InternVL3-1B", revision=revision)


def test_a_hostile_ref_stays_in_the_cache(home):
    (home.parents[1] / "refs/main").write_text("../../../..")
    with pytest.raises(CheckpointError, match="not in the local"):
        resolve("OpenGVLab/InternVL3-1B")


def test_download_needs_the_package(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="pip install huggingface_hub"):
        resolve("OpenGVLab/Other", download=True)


def test_download_asks_only_for_data(home, tmp_path, monkeypatch):
    import types

    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path / "got")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert resolve("OpenGVLab/Other", download=True) == tmp_path / "got"
    assert (asked["name"], asked["revision"], asked["cache_dir"]) == ("OpenGVLab/Other", "main", cache())
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked["allow_patterns"])

    def offline(name, **options):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=offline))
    with pytest.raises(CheckpointError, match="no route"):
        resolve("OpenGVLab/Other", download=True)
