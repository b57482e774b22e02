"""The command: what it prints, saves and refuses. Models are small ones with random weights; they answer nonsense."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from internvl_kernels import load
from internvl_kernels.cli import app
from internvl_kernels.io.images import tile_image
from internvl_kernels.testing.checkpoints import write_tiny

COMMANDS = ["demo", "info", "models", "chat", "encode", "tiles", "plan", "bench", "verify"]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 170, 3), dtype=np.uint8)).save(path)
    return path


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


def data(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_commands_are_exactly_these_in_this_order() -> None:
    result = run("--help")
    assert result.exit_code == 0
    listed = [
        line.split()[1] for line in result.output.splitlines() if line.startswith("│ ") and line.split()[1] in COMMANDS
    ]
    assert listed == COMMANDS
    assert [c.callback.__name__ for c in app.registered_commands if c.callback] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output
    assert result.output == run(command, "-h").output


def test_help_imports_neither_torch_nor_pillow() -> None:
    code = (
        "import sys\nfrom internvl_kernels.cli import app\n"
        "try: app(['chat', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'PIL', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


def test_info() -> None:
    assert data("info")["auto"] == "cpu"
    assert "Backends: auto takes cpu" in run("info").output


# ---- tiles and plan ----------------------------------------------------------------------------------------------------


def test_tiles(picture: Path, tmp_path: Path) -> None:
    found = data("tiles", picture, "--out", tmp_path / "grid.png")
    assert (found["width"], found["height"], found["grid"], found["tiles"]) == (170, 60, [3, 1], 4)
    assert found["tokens"] == 4 * 256
    with Image.open(tmp_path / "grid.png") as drawn:
        assert drawn.format == "PNG"
    text = run("tiles", picture, "--size", "56", "--max-tiles", "6", "--no-thumbnail").output
    assert "│  1   │  2   │  3   │" in text
    assert "3 tiles x 4 tokens = 12 visual tokens" in text
    assert (tmp_path / "noise-tiles.png").exists()  # beside the caller, not beside the picture


@pytest.mark.parametrize("options", [["--max-tiles", "1"], ["--rule", "hf"], ["--max-tiles", "40", "--min-tiles", "4"]])
def test_tiles_are_those_of_the_library(picture: Path, options: list[str]) -> None:
    keywords: dict[str, Any] = {
        name.removeprefix("--").replace("-", "_"): int(value) if value.isdigit() else value
        for name, value in zip(options[::2], options[1::2])
    }
    cut = tile_image(picture, **keywords)
    found = data("tiles", picture, *options)
    assert (tuple(found["grid"]), found["tiles"], found["thumbnail"]) == (cut.grid, len(cut), cut.thumbnail)


def test_plan_of_a_release_needs_no_weights(picture: Path) -> None:
    found = data("plan", "OpenGVLab/InternVL3_5-8B", picture, "--tiles", "13", "--tiles", "5", "--dtype", "bfloat16")
    assert [item["tiles"] for item in found["items"]] == [4, 13, 5]
    assert found["visual_tokens"] == 22 * 256
    assert found["bytes"]["weights"] == 2 * found["parameters"]
    assert round(found["parameters"] / 1e9, 3) == 8.528
    text = run("plan", "InternVL3.5-1B", "--tiles", "400").output
    assert "does not fit" in text
    assert "UNVERIFIED" in text


def test_plan_of_a_checkpoint_is_the_models_own(tiny: Path, picture: Path) -> None:
    model = load(tiny, progress=False)
    found = data("plan", tiny, picture, "--tiles", "2")
    expected = json.loads(json.dumps(model.plan([str(picture), 2]).to_dict()))
    assert {key: found[key] for key in expected} == expected


# ---- chat and encode -----------------------------------------------------------------------------------------------------


def test_chat_answers_as_the_library(tiny: Path, picture: Path) -> None:
    expected = load(tiny, progress=False).chat("What is it?", str(picture), max_new_tokens=5)
    found = data("chat", tiny, "What is it?", "--image", picture, "--max-new-tokens", 5)
    assert found["answer"] == expected
    assert found["backend"] == "cpu"
    assert found["dtype"] == "float32"
    assert 1 <= found["tokens"] <= 5
    assert {"load", "tiling", "vision", "prefill"} <= set(found["seconds"])
    assert run("chat", tiny, "Hi", "--max-new-tokens", 3, "--backend", "reference").exit_code == 0


def test_chat_samples_by_seed(tiny: Path) -> None:
    options = ["chat", tiny, "Hi", "--sample", "--temperature", 2.0, "--top-k", 50, "--max-new-tokens", 12]
    answers = {seed: data(*options, "--seed", seed)["answer"] for seed in (1, 2)}
    assert answers[1] != answers[2]
    assert data(*options, "--seed", 1)["answer"] == answers[1]


def test_conversation_keeps_its_history(tiny: Path, picture: Path) -> None:
    model = load(tiny, progress=False)
    first = model.chat("One?", [str(picture)], max_new_tokens=4)
    second = model.chat("Two?", [str(picture)], history=[("One?", first)], max_new_tokens=4)
    result = run("chat", tiny, "--image", picture, "--max-new-tokens", 4, stdin="One?\n\nTwo?\n")
    assert result.exit_code == 0
    control = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # an answer must not steer the terminal
    assert result.stdout == control.sub("\ufffd", f"{first}\n{second}\n")


def test_video_is_a_folder_of_frames(tiny: Path, picture: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        (frames / f"{number}.png").write_bytes(picture.read_bytes())
    (frames / "notes.txt").write_text("no picture")
    from internvl_kernels import Video

    expected = load(tiny, progress=False).chat("Move?", [Video(sorted(frames.glob("*.png")))], max_new_tokens=4)
    assert data("chat", tiny, "Move?", "--video", frames, "--max-new-tokens", 4)["answer"] == expected


def test_packed_cache(tiny: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = {"packed": tmp_path / "packed", "auto": tmp_path / "cache" / "internvl-kernels"}
    question = ["chat", tiny, "What is it?", "--image", picture, "--max-new-tokens", 4]
    expected = data(*question)["answer"]
    for option, folder in folders.items():
        assert [data(*question, "--packed-cache", option)["answer"] for _ in range(2)] == [expected] * 2
        (file,) = folder.iterdir()
        written = file.stat()
        assert run("encode", tiny, picture, "--out", "rows.npy", "--packed-cache", option).exit_code == 0
        assert (list(folder.iterdir()), file.stat().st_mtime_ns) == ([file], written.st_mtime_ns)
        assert data("plan", tiny, picture, "--packed-cache", option)["weights_mapped"] is True
    assert "weights, mapped and shared" in run("plan", tiny, "--packed-cache", "packed").output


def test_storage_precisions(tiny: Path, picture: Path) -> None:
    half = ["--weights", "bfloat16", "--kv-dtype", "float16"]
    expected = load(tiny, weights="bfloat16", kv_dtype="float16", progress=False).chat(
        "What is it?", [picture], max_new_tokens=4
    )
    assert data("chat", tiny, "What is it?", "--image", picture, "--max-new-tokens", 4, *half)["answer"] == expected
    assert run("encode", tiny, picture, "--out", "rows.npy", "--weights", "float16").exit_code == 0
    whole, less = data("plan", tiny, picture), data("plan", tiny, picture, *half)
    assert (less["dtype"], less["weights"], less["kv_dtype"]) == ("float32", "bfloat16", "float16")
    assert less["bytes"]["weights"] == whole["bytes"]["weights"] // 2
    assert less["bytes"]["kv cache"] == whole["bytes"]["kv cache"] // 2


@pytest.mark.parametrize("suffix", [".safetensors", ".npy"])
def test_encode(tiny: Path, picture: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"features{suffix}"
    found = data("encode", tiny, picture, picture, "--out", out, "--max-tiles", 2)
    expected = load(tiny, progress=False).encode([str(picture)] * 2, max_tiles=2)
    assert [row["tokens"] for row in found["images"]] == [len(t) for t in expected]
    if suffix == ".npy":
        rows = np.load(out)
        parts = [rows[row["first_row"] : row["first_row"] + row["tokens"]] for row in found["images"]]
    else:
        from safetensors.numpy import load_file

        tensors = load_file(out)
        parts = [tensors[row["tensor"]] for row in found["images"]]
    for part, tensor in zip(parts, expected):
        assert np.array_equal(part, tensor.numpy())
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name]  # nothing half-written stays


# ---- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["chat", "nowhere", "Hi"], "nowhere"),
        (["chat", "TINY", "Hi", "--backend", "tpu"], "backend: 'tpu'; allowed: auto"),
        (["chat", "TINY", "Hi", "--backend", "cuda"], "'cuda'"),
        (["chat", "TINY", "Hi", "--dtype", "int4"], "dtype: 'int4'"),
        (["chat", "TINY", "Hi", "--image", "missing.png"], "missing.png"),
        (["chat", "TINY", "Hi", "--max-new-tokens", "0"], "max_new_tokens: 0"),
        (["chat", "TINY", "Hi", "--threads", "0"], "threads: 0"),
        (["chat", "TINY", "Hi", "--packed-cache", "p", "--backend", "reference"], "packed_cache: 'p' with backend"),
        (["plan", "TINY", "--packed-cache", "p", "--backend", "reference"], "packed_cache: 'p' with backend"),
        (["chat", "TINY", "--json"], "give QUESTION"),
        (["chat", "TINY", "Hi", "--video", "."], "holds no pictures"),
        (["encode", "TINY", "PICTURE", "--out", "x.txt"], "ending in .safetensors or .npy"),
        (["encode", "TINY", "PICTURE", "--out", "no/such/folder/x.npy"], "no/such/folder"),
        (["tiles", "missing.png"], "missing.png"),
        (["tiles", "PICTURE", "--size", "100"], "multiples of 28"),
        (["tiles", "PICTURE", "--rule", "mine"], "rule='mine'"),
        (["tiles", "PICTURE", "--out", "grid.xyz"], "--out: grid.xyz"),
        (["plan", "nothing"], "neither a directory here nor a released model"),
        (["plan", "InternVL-14B-224px"], "not a pixel-shuffle chat model"),
        (["plan", "InternVL3.5-1B", "--max-workspace", "lots"], "max_workspace: 'lots'"),
        (
            ["plan", "InternVL3.5-1B", "--tiles", "2", "--max-workspace", "1KB"],
            "max_workspace=1000 bytes: one tile, and one row",
        ),
        (["plan", "InternVL3.5-1B", "--tiles", "0"], "at least 1"),
        (["demo", "--image", "missing.png"], "missing.png"),
        (["bench", "--op", "nothing"], "--op: 'nothing'"),
        (["verify", "--op", "nothing"], "--op: 'nothing'"),
        (["verify", "--isa", "v9"], "--isa: 'v9'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_red_line(
    arguments: list[str], text: str, tiny: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internvl_kernels.demo.checkpoint_path", lambda: tiny)
    places = {"TINY": str(tiny), "PICTURE": str(picture)}
    result = run(*(places.get(a, a) for a in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert text in lines[0]


def test_the_command_line_itself(tiny: Path) -> None:
    """A process of its own: exit code and streams as a shell sees them."""
    command = [sys.executable, "-m", "internvl_kernels.cli"]
    done = subprocess.run(
        [*command, "chat", str(tiny), "Hi", "--dtype", "x"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: dtype: 'x'")
    assert "Traceback" not in done.stderr
