"""encode with options of the tower: what is written, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from internvl_kernels import load_vision
from internvl_kernels.cli import app
from internvl_kernels.testing.checkpoints import write_tiny, write_tower
from internvl_kernels.testing.compare import same_bits


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = [folder / "wide.png", folder / "tall.png"]
    for path, shape in zip(paths, ((60, 170, 3), (130, 50, 3))):
        Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def data(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("layers", ["-1,0", "1"])
def test_layers_and_maps(tiny: Path, pictures: list[Path], tmp_path: Path, layers: str) -> None:
    out, numbers = tmp_path / "maps.safetensors", [int(n) for n in layers.split(",")]
    options = ["--layers", layers, "--dense", "--max-tiles", 2]
    found = data("encode", tiny, *pictures, "--out", out, *options)
    assert found["width"] == 64
    stored, tower = load_file(out), load_vision(tiny, progress=False)
    assert set(stored) == {row["tensor"] for row in found["images"]}
    for row in found["images"]:
        tiles = tower.tile(row["image"], max_tiles=2)
        assert (row["tiles"], row["shape"]) == (len(tiles), [len(tiles), 4, 4, 64])
        same_bits(stored[row["tensor"]], tower.vision(tiles, layers=row["layer"], dense=True))
    assert [row["layer"] for row in found["images"]] == numbers * 2
    assert "first row" in run("encode", tiny, *pictures, "--out", out, *options).output


def test_pooled_rows_of_one_size(tiny: Path, pictures: list[Path], tmp_path: Path) -> None:
    """One tile for each picture, its aspect ratio given up, as Pillow resizes it."""
    out = tmp_path / "rows.npy"
    found = data("encode", tiny, *pictures, "--out", out, "--pool", "mean", "--size", "28x84")
    rows, tower = np.load(out), load_vision(tiny, progress=False)
    assert rows.shape == (2, 64)
    for row, path, taken in zip(found["images"], pictures, rows):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.resize((84, 28), Image.Resampling.BICUBIC))
        assert np.array_equal(tower.tile(path, size=(28, 84)).pixels[0], pixels)
        assert np.array_equal(tower.vision(pixels[None].copy(), pool="mean")[0].numpy(), taken)
        assert (row["tiles"], row["shape"]) == (1, [1, 64])
    square = tower.tile(pictures[0], size=56).pixels
    assert np.array_equal(square, tower.tile(pictures[0], max_tiles=1).pixels)


def test_a_tower_alone_needs_no_option(pictures: list[Path], tmp_path: Path) -> None:
    alone, out = write_tower(tmp_path / "tower"), tmp_path / "states.safetensors"
    found = data("encode", alone, pictures[0], "--out", out)
    assert found["images"] == [
        {"image": str(pictures[0]), "tensor": "image_0", "tiles": 1, "layer": -1, "shape": [1, 17, 64], "first_row": 0}
    ]
    tower = load_vision(alone, progress=False)
    same_bits(load_file(out)["image_0"], tower.vision(tower.tile(pictures[0])))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "1;2"], "--layers: '1;2'; allowed: integers with commas"),
        (["--layers", ""], "--layers: ''"),
        (["--layers", "9"], "layers: .*-4 to 3"),
        (["--layers", "1,2", "--out", "x.npy"], r"--layers: '1,2' with --out 'x\.npy'; allowed: one"),
        (["--pool", "max"], "pool: 'max'"),
        (["--pool", ""], "pool: ''"),
        (["--pool", "cls", "--dense"], "True without pool"),
        (["--size", "14x"], "--size: '14x'; allowed: a side in pixels, or HEIGHTxWIDTH"),
        (["--size", "57"], r"size: \(57, 57\); allowed: .* multiples of the patch size 14"),
        (["--size", "0"], "multiples of the patch size 14"),
        (["--size", "99400"], "height=99400; allowed"),
        (["--size", "56", "--max-tiles", "2"], "max_tiles: 2 with size"),
    ],
)
def test_refused(tiny: Path, pictures: list[Path], tmp_path: Path, options: list[str], words: str) -> None:
    out = [] if "--out" in options else ["--out", tmp_path / "x.safetensors"]
    result = run("encode", tiny, pictures[0], *out, *options)
    assert result.exit_code == 2
    assert re.search(words, " ".join(result.output.split())), result.output
    assert not list(tmp_path.iterdir())
