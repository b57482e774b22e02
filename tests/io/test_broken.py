"""Every way a checkpoint can be broken ends in a ``CheckpointError`` that names the tensor or the file."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from internvl_kernels import CheckpointError, ImageError, UnsupportedError
from internvl_kernels.io.checkpoint import load_weights, read_config, save_checkpoint
from internvl_kernels.io.shards import Entry, read_header, write_shard
from internvl_kernels.testing.checkpoints import random_weights, tiny_config

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBED = "language_model.model.embed_tokens.weight"


def load(path: Path, dtype: str = "float32", **options) -> dict[str, torch.Tensor]:
    return load_weights(path, read_config(path), dtype, progress=False, **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """One small checkpoint in the family's layout, in two or more shards; tests copy it."""
    path = tmp_path_factory.mktemp("written") / "model"
    config = tiny_config("qwen3_moe", "rms_norm")
    save_checkpoint(random_weights(config), config, path, max_shard_bytes=400_000)
    return path


@pytest.fixture
def copy(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def rewrite(path: Path, change) -> None:
    """Change the dictionary of tensors of the checkpoint in ``path``, which becomes a single file."""
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= load_file(file)
        file.unlink()
    (path / INDEX).unlink(missing_ok=True)
    change(tensors)
    save_file(tensors, path / SINGLE)


# Broken checkpoints: every error names the tensor or the file


def refused(path: Path, *words: str, **options) -> None:
    with pytest.raises(CheckpointError) as error:
        load(path, **options)
    for word in words:
        assert word in str(error.value)


BROKEN = {
    "missing": (lambda t: t.pop(EMBED), ["missing", EMBED]),
    "missing expert": (
        lambda t: t.pop("language_model.model.layers.1.mlp.experts.2.up_proj.weight"),
        ["missing", "experts.2.up_proj"],
    ),
    "missing head": (lambda t: t.pop("language_model.lm_head.weight"), ["missing", "lm_head.weight"]),
    "extra": (lambda t: t.update({"mlp1.7.weight": torch.ones(2)}), ["unknown tensor", "mlp1.7.weight"]),
    "extra expert": (
        lambda t: t.update({"language_model.model.layers.0.mlp.experts.4.up_proj.weight": torch.ones(40, 48)}),
        ["unknown tensor", "experts.4.up_proj"],
    ),
    "extra layer": (
        lambda t: t.update({"language_model.model.layers.2.input_layernorm.weight": torch.ones(48)}),
        ["unknown tensor", "layers.2.input_layernorm"],
    ),
    "adapter": (
        lambda t: t.update({"vision_model.encoder.layers.0.attn.qkv.lora_A.weight": torch.ones(2, 64)}),
        ["unknown tensor", "lora_A"],
    ),
    "shape": (lambda t: t.update({EMBED: t[EMBED][:-1].clone()}), [EMBED, "[127, 48]", "[128, 48]"]),
    "transposed": (
        lambda t: t.update({"mlp1.1.weight": t["mlp1.1.weight"].T.contiguous()}),
        ["mlp1.1.weight", "[256, 48]", "[48, 256]"],
    ),
    "integers": (lambda t: t.update({EMBED: t[EMBED].to(torch.int8)}), [EMBED, "I8", "allowed"]),
    "float8": (lambda t: t.update({EMBED: t[EMBED].to(torch.float8_e4m3fn)}), [EMBED, "F8_E4M3", "allowed"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_wrong_tensors(copy, kind):
    change, words = BROKEN[kind]
    rewrite(copy, change)
    refused(copy, *words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_check_finite(copy, value):
    def poison(tensors):
        tensors["vision_model.encoder.layers.1.mlp.fc1.weight"][5, 3] = value

    rewrite(copy, poison)
    load(copy)  # only on request
    refused(copy, "vision_model.encoder.layers.1.mlp.fc1.weight", f"element {5 * 64 + 3}", check_finite=True)


def test_check_finite_sees_what_the_conversion_makes(copy):
    rewrite(copy, lambda tensors: tensors["mlp1.0.weight"].mul_(1e6))
    assert load(copy, check_finite=True)
    with pytest.raises(CheckpointError, match=r"mlp1\.0\.weight.*float16"):
        load(copy, "float16", check_finite=True)


def test_missing_shard(copy):
    second = sorted(copy.glob("*.safetensors"))[1]
    second.unlink()
    refused(copy, second.name, "missing")


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 0.5, -1])
def test_truncated_shard(copy, keep):
    file = sorted(copy.glob("*.safetensors"))[1]
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(copy, file.name, "truncated")


def test_truncation_names_the_first_tensor_cut_off(tmp_path):
    write_shard(tmp_path / "a.safetensors", [Entry.of("first", torch.ones(10)), Entry.of("second", torch.ones(10))])
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-4])
    with pytest.raises(CheckpointError, match="second is the first tensor cut off"):
        read_header(tmp_path / "a.safetensors")


def test_duplicate_across_shards(copy):
    first, second = sorted(copy.glob("*.safetensors"))[:2]
    tensors = load_file(first)
    name = next(iter(tensors))
    save_file(load_file(second) | {name: tensors[name]}, second)
    refused(copy, name, "stored twice", first.name, second.name)


def test_index_and_shards_must_agree(copy):
    index = json.loads((copy / INDEX).read_text())
    del index["weight_map"][EMBED]
    (copy / INDEX).write_text(json.dumps(index))
    refused(copy, EMBED, INDEX)
    wrong = next(file.name for file in copy.glob("*.safetensors") if EMBED not in read_header(file))
    index["weight_map"] |= {EMBED: wrong}
    (copy / INDEX).write_text(json.dumps(index))
    refused(copy, EMBED, wrong)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "model.bin", 7, None])
def test_index_cannot_leave_the_directory(copy, file):
    (copy / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    refused(copy, INDEX, repr(file))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"weight_map": []}', '{"weight_map": {}}', '{"a": 1, "a": 2}', "\udcff"]
)
def test_bad_index(copy, text):
    (copy / INDEX).write_text(text, errors="surrogateescape")
    refused(copy, INDEX)


def test_pickles_are_never_opened(tmp_path, written):
    (tmp_path / "config.json").write_bytes((written / "config.json").read_bytes())
    refused(tmp_path, "holds no weights")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(tmp_path, "pytorch_model.bin", "pickle", "safetensors")
    (tmp_path / "part-1.safetensors").write_bytes(b"")
    refused(tmp_path, "part-1.safetensors", INDEX)


@pytest.mark.parametrize("dtype", ["int8", "float64", "half", None, torch.int32])
def test_unknown_dtype(written, dtype):
    with pytest.raises(CheckpointError, match=r"dtype.*allowed: float32, bfloat16, float16"):
        load_weights(written, read_config(written), dtype)


@pytest.mark.parametrize(
    "change", [{"num_layers": 3}, {"vocab_size": 129}, {"tied_embeddings": True}, {"qk_norm": False}]
)
def test_config_of_another_model(written, change):
    config = read_config(written)
    with pytest.raises(CheckpointError):
        load_weights(written, replace(config, language=replace(config.language, **change)), "float32", progress=False)


# Headers: whatever the bytes are, an error or the tensors, never anything else

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HEADERS = {
    "not an object": ("[]", "object"),
    "entry": ({"a": 3}, "a"),
    "dtype": ({"a": ENTRY | {"dtype": "F31"}}, "F31"),
    "dtype type": ({"a": ENTRY | {"dtype": ["F32"]}}, "F32"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 16]}}, "shape"),
    "negative": ({"a": ENTRY | {"shape": [-2, -2]}}, "shape"),
    "float size": ({"a": ENTRY | {"shape": [2.0, 2]}}, "shape"),
    "true size": ({"a": ENTRY | {"shape": [True, 4]}}, "shape"),
    "huge": ({"a": ENTRY | {"shape": [1 << 40, 1 << 40]}}, "data_offsets"),
    "overflow": ({"a": ENTRY | {"shape": [1 << 62, 4]}}, "shape"),
    "span": ({"a": ENTRY | {"data_offsets": [0, 12]}}, "data_offsets"),
    "backwards": ({"a": ENTRY | {"data_offsets": [16, 0]}}, "data_offsets"),
    "one offset": ({"a": ENTRY | {"data_offsets": [16]}}, "data_offsets"),
    "overlap": ({"a": ENTRY, "b": ENTRY}, "begins at"),
    "hole": ({"a": ENTRY | {"data_offsets": [4, 20]}}, "begins at"),
    "tail": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "8 bytes follow"),
    "twice": ('{"a": 1, "a": 2}', "twice"),
    "deep": ("[" * 100_000, "JSON"),
    "NaN": ('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}', "NaN"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_corrupt_header(tmp_path, kind):
    header, word = HEADERS[kind]
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(CheckpointError, match=r"x\.safetensors") as error:
        read_header(file)
    assert word in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_any_changed_byte_is_read_or_refused(tmp_path, position, value, cut):
    """Bytes are changed and the file shortened; what passes must be what the safetensors library reads, too."""
    file = tmp_path / "x.safetensors"
    write_shard(file, [Entry.of("a", torch.arange(6.0)), Entry.of("b.weight", torch.ones(2, 3).bfloat16())])
    data = bytearray(file.read_bytes())
    data[position % len(data)] = value
    file.write_bytes(data[: len(data) - cut])
    try:
        ours = {name: (t.dtype, list(t.shape)) for name, t in read_header(file).items()}
    except CheckpointError as error:
        if "x.safetensors" not in str(error):
            raise
        return
    with safe_open(file, "pt") as theirs:
        slices = {name: theirs.get_slice(name) for name in ours}
        assert set(theirs.keys()) == set(ours)
    assert ours == {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}


@pytest.mark.parametrize("metadata", ["1", "[]", '{"format": 1}', '{"a": {"b": "c"}}'])
def test_metadata_that_the_format_does_not_allow(tmp_path, metadata):
    header = f'{{"__metadata__": {metadata}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"__metadata__ is .*; allowed: an object of strings"):
        read_header(tmp_path / "model.safetensors")


def test_the_text_of_an_error_stays_readable():
    """Values in it may be of any length; the beginning names the argument, the end what is allowed."""
    for kind in (CheckpointError, ImageError, UnsupportedError):
        text = str(kind("name: " + "x" * 100_000 + "; allowed: less"))
        assert len(text) <= 2000
        assert text.startswith("name: xxx")
        assert text.endswith("; allowed: less")
        assert str(kind("short")) == "short"
