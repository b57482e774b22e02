"""Reading and writing weights: round trips bit for bit, and every way a checkpoint can be broken."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from internvl_kernels import CheckpointError
from internvl_kernels.io.checkpoint import load_weights, read_config, save_checkpoint
from internvl_kernels.io.shards import read_header, read_shards
from internvl_kernels.testing.checkpoints import (
    TEXT_MODELS,
    VISION_STYLES,
    random_weights,
    rename_tensors,
    tiny_config,
    write_transformers,
)

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBED = "language_model.model.embed_tokens.weight"


def load(path: Path, dtype: str = "float32", **options) -> dict[str, torch.Tensor]:
    return load_weights(path, read_config(path), dtype, progress=False, **options)


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


# Round trips


@pytest.mark.parametrize("text", TEXT_MODELS)
@pytest.mark.parametrize("style", VISION_STYLES)
@pytest.mark.parametrize("layout", ["original", "hf"])
def test_save_and_load_give_the_same_back(tmp_path, text, style, layout):
    config = tiny_config(text, style, layout=layout)
    weights = random_weights(config, dtype="bfloat16")
    save_checkpoint(weights, config, tmp_path / "a", layout=layout)
    assert read_config(tmp_path / "a") == replace(config, dtype="bfloat16")
    assert_same(load(tmp_path / "a", "bfloat16"), weights)


@pytest.mark.parametrize("options", [{}, {"max_shard_bytes": 200_000}, {"fused_experts": True}, {"prefixes": "new"}])
@pytest.mark.parametrize("tied", [False, True])
def test_from_transformers_to_original_and_back(tmp_path, options, tied):
    write_transformers(tmp_path / "a", "qwen3_moe", "rms_norm", tied=tied, max_shard_size=300_000)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 2
    config, weights = read_config(tmp_path / "a"), load(tmp_path / "a")
    save_checkpoint(weights, config, tmp_path / "b", layout="original", **options)
    middle = read_config(tmp_path / "b")
    assert middle.layout == "original"
    assert_same(load(tmp_path / "b"), weights)
    save_checkpoint(load(tmp_path / "b"), middle, tmp_path / "c", layout="hf", **options)
    assert_same(load(tmp_path / "c"), weights)
    again = read_config(tmp_path / "c")
    assert (again.vision, again.projector, again.language) == (config.vision, config.projector, config.language)
    assert (len(list((tmp_path / "c").glob("*.safetensors"))) > 1) == ("max_shard_bytes" in options)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("final", ["float32", "bfloat16", "float16"])
def test_conversion_is_torchs(tmp_path, stored, final):
    write_transformers(tmp_path, dtype=stored)
    assert read_config(tmp_path).dtype == stored
    same = load(tmp_path, stored)
    assert_same(load(tmp_path, final), {name: t.to(getattr(torch, final)) for name, t in same.items()})
    assert_same(
        load_weights(tmp_path, read_config(tmp_path), getattr(torch, final), progress=False), load(tmp_path, final)
    )


def test_shards_are_what_safetensors_reads(tmp_path):
    written = tmp_path / "a"
    save_checkpoint(random_weights(tiny_config()), tiny_config(), written, max_shard_bytes=200_000)
    for file in written.glob("*.safetensors"):
        ours = read_header(file)
        with safe_open(file, "pt") as theirs:
            assert set(theirs.keys()) == set(ours)
            assert theirs.metadata() == {"format": "pt"}
        assert all(t.begin % 4 == 0 for t in ours.values())
    index = json.loads((written / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in read_shards(written).values())


def test_mixed_dtypes_and_unaligned_files(tmp_path):
    """A tensor may lie anywhere in the file; the format does not promise alignment."""
    config = tiny_config()
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path / "a")
    tensors = load_file(tmp_path / "a" / SINGLE)
    tensors[EMBED] = tensors[EMBED].double()
    header, data = {}, b""
    for name, tensor in sorted(tensors.items()):
        raw = tensor.numpy().tobytes()
        code = "F64" if name == EMBED else "F32"
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (2 - len(text) % 2 + 1)
    (tmp_path / "a" / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert any(t.begin % 4 for t in read_shards(tmp_path / "a").values())
    assert_same(load(tmp_path / "a"), weights)


def test_parts(tmp_path):
    config = tiny_config("qwen3_moe", "rms_norm")
    weights = random_weights(config)
    save_checkpoint(weights, config, tmp_path / "a", max_shard_bytes=200_000)
    for part in ("vision", "projector", "language"):
        expected = {name: t for name, t in weights.items() if name.startswith(part + ".")}
        assert_same(load(tmp_path / "a", parts=(part,)), expected)
    rename_tensors(tmp_path / "a", lambda name: None if name == "language_model.model.norm.weight" else name)
    assert "vision.cls" in load(tmp_path / "a", parts=("vision",))  # the tower needs no complete language model
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        load(tmp_path / "a")
    with pytest.raises(CheckpointError, match="audio"):
        load(tmp_path / "a", parts=("audio",))


def test_results_do_not_share_the_file(tmp_path):
    save_checkpoint(random_weights(tiny_config()), tiny_config(), tmp_path / "a")
    before = (tmp_path / "a" / SINGLE).read_bytes()
    weights = load(tmp_path / "a")
    for tensor in weights.values():
        tensor.add_(1)
    assert (tmp_path / "a" / SINGLE).read_bytes() == before
    (tmp_path / "a" / SINGLE).write_bytes(b"")  # nor does a later change of the file reach them
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_progress_is_shown_on_a_terminal_only(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    config = tiny_config()
    save_checkpoint(random_weights(config), config, tmp_path / "a")
    for progress, stream, shown in ((True, Terminal(), True), (False, Terminal(), False), (True, io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        load_weights(tmp_path / "a", config, "float32", progress=progress)
        assert ("Loading weights" in stream.getvalue()) is shown


def test_reading_a_config_needs_no_torch(tmp_path):
    save_checkpoint(random_weights(tiny_config()), tiny_config(), tmp_path / "a")
    code = "import sys; from internvl_kernels.io.checkpoint import read_config; c = read_config(sys.argv[1]); "
    code += "print(c.language.architecture, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["qwen2", "False"], run.stderr


# Writing


def test_nothing_half_written(tmp_path, monkeypatch):
    config = tiny_config()
    weights = random_weights(config)
    with monkeypatch.context() as broken:

        def fail(*_):
            raise OSError("disk full")

        broken.setattr("internvl_kernels.io.save.write_shard", fail)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(weights, config, tmp_path / "a")
        assert list(tmp_path.iterdir()) == []
        save_again = tmp_path / "b"
        save_again.mkdir()
        (save_again / "kept").write_text("x")
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(weights, config, save_again, overwrite=True)
        assert [f.name for f in save_again.iterdir()] == ["kept"]
    with pytest.raises(CheckpointError, match="exists"):
        save_checkpoint(weights, config, tmp_path / "b")
    save_checkpoint(weights, config, tmp_path / "b", overwrite=True)
    assert_same(load(tmp_path / "b"), weights)
    assert not (tmp_path / "b" / "kept").exists()
    assert [f.name for f in tmp_path.iterdir()] == ["b"]


def test_extra_files(tmp_path):
    config = tiny_config()
    (tmp_path / "source").write_bytes(b"\x00\x01")
    extra = {"tokenizer.json": "{}", "tokenizer.model": tmp_path / "source", "notes.txt": b"n"}
    save_checkpoint(random_weights(config), config, tmp_path / "a", extra_files=extra)
    assert (tmp_path / "a/tokenizer.model").read_bytes() == b"\x00\x01"
    assert (tmp_path / "a/tokenizer.json").read_text() == "{}"
    for name in ("../x", "a/b", "", "config.json", SINGLE, INDEX):
        with pytest.raises(CheckpointError, match="extra_files"):
            save_checkpoint(random_weights(config), config, tmp_path / "b", extra_files={name: b""})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("vision.cls"), ["vision.cls", "missing"]),
        (lambda w: w.update({"vision.extra": torch.ones(1)}), ["vision.extra"]),
        (lambda w: w.update({"vision.cls": torch.ones(65)}), ["vision.cls", "[65]", "[64]"]),
        (lambda w: w.update({"vision.cls": torch.ones(64, dtype=torch.int32)}), ["vision.cls", "int32"]),
    ],
)
def test_save_checks_the_weights(tmp_path, change, words):
    weights = random_weights(tiny_config())
    change(weights)
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(weights, tiny_config(), tmp_path / "a")
    assert all(word in str(error.value) for word in words)
    assert not list(tmp_path.iterdir())


def test_save_takes_views(tmp_path):
    config = tiny_config()
    weights = random_weights(config)
    views = {name: t.T.contiguous().T if t.dim() == 2 else t for name, t in weights.items()}
    assert not views["projector.fc1.weight"].is_contiguous()
    save_checkpoint(views, config, tmp_path / "a")
    assert_same(load(tmp_path / "a"), weights)


def test_layouts_refuse_what_they_cannot_say(tmp_path):
    config, weights = tiny_config(), random_weights(tiny_config())
    tiling = replace(config.tiling, thumbnail=False)
    for wrong, word in [
        (replace(config, projector=replace(config.projector, version="v1")), "v1"),
        (replace(config, tiling=tiling), "thumbnail"),
        (replace(config, tiling=replace(config.tiling, pad_to_square=True)), "pad_to_square"),
        (replace(config, language=replace(config.language, qk_norm=True)), "qk_norm"),
    ]:
        with pytest.raises(CheckpointError, match=word):
            save_checkpoint(weights if word != "qk_norm" else random_weights(wrong), wrong, tmp_path / "a", layout="hf")
    for argument in ("layout", "prefixes"):
        with pytest.raises(CheckpointError, match=f"{argument}: 'gguf'"):
            save_checkpoint(weights, config, tmp_path / "a", **{argument: "gguf"})


def test_renamed_prefixes_are_the_same_model(tmp_path):
    """The legacy form made by renaming, not by our writer."""
    write_transformers(tmp_path / "a", "qwen3_moe", prefixes="new", fused_experts=True)
    expected = load(tmp_path / "a")

    def legacy(name: str) -> str:
        name = name.replace("model.language_model.", "language_model.model.").replace(
            "model.vision_tower", "vision_tower"
        )
        name = name.replace("model.multi_modal_projector", "multi_modal_projector")
        return "language_model." + name if name.startswith("lm_head") else name

    rename_tensors(tmp_path / "a", legacy)
    assert EMBED in read_shards(tmp_path / "a")
    assert_same(load(tmp_path / "a"), expected)
