"""The file of packed weights: the same bits, nothing read twice, never stale, refused when it isn't what its name says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import internvl_kernels as ivk
from internvl_kernels import CheckpointError, UnsupportedError
from internvl_kernels.demo import checkpoint_path
from internvl_kernels.io import packed_file
from internvl_kernels.io.config import read_config
from internvl_kernels.io.save import save_checkpoint
from internvl_kernels.ops import PackedWeight
from internvl_kernels.testing.checkpoints import byte_tokenizer_files, random_weights, tiny_config
from internvl_kernels.testing.compare import same_bits

QUIET: dict[str, Any] = {"progress": False, "backend": "cpu", "threads": 1}
KINDS = {  # language model, tower, tied embeddings
    "dense": ("qwen2", "layer_norm", False),
    "tied": ("qwen3", "layer_norm", True),
    "experts": ("qwen3_moe", "rms_norm", False),
}


def write(path: Path, kind: str = "experts") -> Path:
    """In two or more shards, with sizes that leave gaps of less than 64 bytes."""
    text, vision, tied = KINDS[kind]
    config = tiny_config(text, vision, tied=tied, text_overrides={"vocab_size": 272})
    files = byte_tokenizer_files()
    save_checkpoint(random_weights(config), config, path, max_shard_bytes=400_000, extra_files=files)
    return path


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("packed") / "model", request.param)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return write(tmp_path / "model")


def held(model: ivk.VisionModel) -> dict[str, Any]:
    found = dict(model._tower._stem)
    if isinstance(model, ivk.Model):
        found |= {f"projector.{name}": w for name, w in model._projector._weights.items()}
        found |= {f"language.{name}": w for name, w in model._language._weights.items()}
    return found


def same_weights(model: ivk.VisionModel, other: ivk.VisionModel) -> None:
    ours, theirs = held(model), held(other)
    assert list(ours) == list(theirs)
    for name, weight in ours.items():
        assert type(weight) is type(theirs[name])
        assert weight.shape == theirs[name].shape
        if isinstance(weight, PackedWeight):
            assert repr(weight) == repr(theirs[name])
        same_bits(weight.data, theirs[name].data, name)


def same_results(model: ivk.Model, other: ivk.Model) -> None:
    size, generator = model.config.vision.image_size, torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(8, 200, (2, 2 * model.config.tokens_per_tile + 9), generator=generator)
    ids[0, 3 : 3 + 2 * model.config.tokens_per_tile] = model.image_token_id
    same_bits(model.vision(tiles), other.vision(tiles))
    same_bits(model.encode_tiles(tiles), other.encode_tiles(tiles))
    same_bits(model.logits(ids, tiles), other.logits(ids, tiles))
    same_bits(model.generate(ids, tiles, max_new_tokens=5), other.generate(ids, tiles, max_new_tokens=5))


def only_mapped(weights: dict[str, Any], file: Path) -> None:
    """All of them lie in one shared mapping of ``file`` that the system lets nobody write, at multiples of 64 bytes."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    ranges = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    assert {line[1] for line in lines} == {"r--s"}
    for name, weight in weights.items():
        begin = weight.data.data_ptr()
        assert begin % 64 == 0, name
        assert any(low <= begin and begin + weight.data.nbytes <= high for low, high in ranges), name


@pytest.mark.parametrize("stored", [None, "bfloat16"])
def test_the_bits_of_a_load_without_it(folder: Path, stored: str | None, tmp_path: Path) -> None:
    plain = ivk.load(folder, weights=stored, **QUIET)
    for _ in range(2):  # the load that writes the file, and one that finds it
        model = ivk.load(folder, weights=stored, packed_cache=tmp_path / "new" / "cache", **QUIET)
        (file,) = (tmp_path / "new" / "cache").iterdir()
        only_mapped(held(model), file)
        same_weights(model, plain)
        same_results(model, plain)
        if KINDS["tied"][0] == model.config.language.architecture:
            assert model._language._head is model._language._embed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_of_computation(folder: Path, dtype: str, tmp_path: Path) -> None:
    plain = ivk.load(folder, dtype=dtype, **QUIET)
    for _ in range(2):
        model = ivk.load(folder, dtype=dtype, packed_cache=tmp_path, **QUIET)
        same_weights(model, plain)
        same_results(model, plain)


def test_the_demo_answers_the_same(tmp_path: Path) -> None:
    plain = ivk.load(checkpoint_path(), **QUIET)
    for _ in range(2):
        model = ivk.load(checkpoint_path(), packed_cache=str(tmp_path), **QUIET)
        same_weights(model, plain)
        request = {"question": "Read it.", "max_new_tokens": 8, "stop_token_ids": []}
        assert model.chat(**request) == plain.chat(**request)


def test_the_tower_alone_has_a_file_of_its_own(folder: Path, tmp_path: Path) -> None:
    ivk.load(folder, packed_cache=tmp_path, **QUIET)
    (whole,) = tmp_path.iterdir()
    plain = ivk.load_vision(folder, **QUIET)
    for _ in range(2):
        tower = ivk.load_vision(folder, packed_cache=tmp_path, **QUIET)
        (file,) = set(tmp_path.iterdir()) - {whole}
        only_mapped(held(tower), file)
        same_weights(tower, plain)
    with safe_open(file, "pt") as opened:
        assert {name.split(".")[0] for name in opened.keys()} == {"vision"}  # noqa: SIM118
        assert opened.metadata()["parts"] == "vision"


def test_plain_safetensors(folder: Path, tmp_path: Path) -> None:
    """Another reader finds what we hold, under its names."""
    model = ivk.load(folder, weights="bfloat16", packed_cache=tmp_path, **QUIET)
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as opened:
        facts, names = opened.metadata(), set(opened.keys())
        fillers = {name for name in names if name.endswith(".padding")}
        assert bool(fillers) == model.config.language.qk_norm  # 24 values in 96 bytes
        assert {re.sub("^vision.", "", name) for name in names - fillers} == set(held(model))
        assert (facts["dtype"], facts["weights"], facts["parts"]) == (
            "float32",
            "bfloat16",
            "vision,projector,language",
        )
        assert facts["layout"] == packed_file.packed_layout()
        for name, weight in held(model).items():
            prefix = "" if name.startswith(("projector.", "language.")) else "vision."
            same_bits(opened.get_tensor(prefix + name), weight.data, name)


def test_a_second_load_reads_no_weights_of_the_checkpoint(copy: Path, tmp_path: Path) -> None:
    plain = ivk.load(copy, **QUIET)
    ivk.load(copy, packed_cache=tmp_path / "cache", **QUIET)
    for shard in copy.glob("*.safetensors"):  # other weights behind the same header, unseen by size and time
        found = shard.stat()
        with shard.open("r+b") as stream:
            begin = 8 + int.from_bytes(stream.read(8), "little")
            stream.seek(begin)
            stream.write(b"\x55" * (found.st_size - begin))
        os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns))
    same_results(ivk.load(copy, packed_cache=tmp_path / "cache", **QUIET), plain)


def touch(copy: Path) -> None:
    shard = min(copy.glob("*.safetensors"))
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1))


def resize(copy: Path) -> None:
    """A shard whose header is padded: other bytes, the same tensors and time."""
    shard = min(copy.glob("*.safetensors"))
    found, data = shard.stat(), shard.read_bytes()
    size = int.from_bytes(data[:8], "little")
    shard.write_bytes((size + 8).to_bytes(8, "little") + data[8 : 8 + size] + b" " * 8 + data[8 + size :])
    os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns))


def move(copy: Path) -> None:
    shutil.copytree(copy, copy.with_name("moved"), copy_function=shutil.copy2)
    shutil.rmtree(copy)
    copy.symlink_to(copy.with_name("moved"))


def reword(copy: Path) -> None:
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")


@pytest.mark.parametrize("change", [touch, resize, move, reword])
def test_a_changed_checkpoint_is_packed_anew(copy: Path, tmp_path: Path, change: Any) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        ivk.load_vision(copy, packed_cache=cache, **QUIET)
        assert len(list(cache.iterdir())) == 1
    change(copy)
    ivk.load_vision(copy, packed_cache=cache, **QUIET)
    assert len(list(cache.iterdir())) == 2


def test_other_weights_are_never_taken_for_these(copy: Path, tmp_path: Path) -> None:
    """Same names, sizes and times in another folder, as an archive that sets all times gives them."""
    config, other = tiny_config("qwen3_moe", "rms_norm", text_overrides={"vocab_size": 272}), tmp_path / "b" / "model"
    save_checkpoint(random_weights(config, seed=1), config, other, max_shard_bytes=400_000)
    for file in [*copy.iterdir(), *other.iterdir()]:
        os.utime(file, ns=(0, 0))
    ivk.load_vision(copy, packed_cache=tmp_path / "cache", **QUIET)
    same_weights(ivk.load_vision(other, packed_cache=tmp_path / "cache", **QUIET), ivk.load_vision(other, **QUIET))


def test_dtypes_and_layouts_have_their_own_files(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    for number, options in enumerate(({}, {"weights": "bfloat16"}, {"weights": "float16"}, {"dtype": "float16"}), 1):
        ivk.load_vision(copy, packed_cache=cache, **options, **QUIET)
        assert len(list(cache.iterdir())) == number
    monkeypatch.setattr(packed_file, "packed_layout", lambda: "panels of 8")
    ivk.load_vision(copy, packed_cache=cache, **QUIET)
    monkeypatch.setattr(packed_file, "FORMAT", "next")
    ivk.load_vision(copy, packed_cache=cache, **QUIET)
    assert len(list(cache.iterdir())) == 6


def test_the_users_cache_folder(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ivk.load_vision(copy, packed_cache=True, **QUIET)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    ivk.load_vision(copy, packed_cache=True, **QUIET)
    for root in ("cache", ".cache"):
        (file,) = (tmp_path / root / "internvl-kernels").iterdir()
        assert file.name.startswith("model-")


def test_the_plan_says_so(copy: Path, tmp_path: Path) -> None:
    plain, mapped = ivk.load(copy, **QUIET).plan([2]), ivk.load(copy, packed_cache=tmp_path / "c", **QUIET).plan([2])
    assert (plain.weights_mapped, mapped.weights_mapped) == (False, True)
    assert plain.bytes == mapped.bytes
    assert mapped.to_dict()["weights_mapped"] is True
    assert "weights, mapped and shared" in str(mapped)
    assert "mapped" not in str(plain)


def test_another_way_to_keep_a_parameter_has_another_file(copy: Path, tmp_path: Path) -> None:
    config, cache = read_config(copy), tmp_path / "cache"
    for storage in (
        None,
        lambda name, shape: PackedWeight(shape, torch.float32) if name.endswith("qkv.weight") else None,
    ):
        packed_file.packed_weights(cache, copy, config, "float32", parts=["vision"], progress=False, storage=storage)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("value", [5, "", "a\0b", b"bytes", 1.5])
def test_refused_folders(copy: Path, value: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"packed_cache: .*allowed: a folder, True"):
        ivk.load(copy, packed_cache=value, **QUIET)


def test_refused_backends(copy: Path, tmp_path: Path) -> None:
    for entry in (ivk.load, ivk.load_vision):
        with pytest.raises(UnsupportedError, match=r"packed_cache: .* with backend 'reference'; allowed: None, or"):
            entry(copy, packed_cache=tmp_path / "cache", **{**QUIET, "backend": "reference"})
        entry(copy, packed_cache=False, **{**QUIET, "backend": "reference"})
    assert not (tmp_path / "cache").exists()


def test_a_mapped_weight_is_not_packed_into(copy: Path, tmp_path: Path) -> None:
    weight = held(ivk.load_vision(copy, packed_cache=tmp_path / "c", **QUIET))["layers.0.qkv.weight"]
    with pytest.raises(UnsupportedError, match="lies in memory that is only read"):
        weight.write(torch.zeros(weight.shape))


def test_a_broken_checkpoint_is_refused_as_ever(copy: Path, tmp_path: Path) -> None:
    shard = max(copy.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="truncated"):
        ivk.load(copy, packed_cache=tmp_path / "cache", **QUIET)
