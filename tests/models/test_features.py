"""Features without a language model: layers, pools, dense maps, any input size, and towers that stand alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import internvl_kernels as ivk
from internvl_kernels.costs import tower_workspace, vision_parameters
from internvl_kernels.io.save import save_checkpoint
from internvl_kernels.models import interpolate_positions, position_tables
from internvl_kernels.testing.checkpoints import VISION_STYLES, random_weights, tiny_config, write_transformers
from internvl_kernels.testing.compare import same_bits

RELATIVE_L2 = 2e-4
BACKENDS = ("reference", "cpu")
SIZES = [(56, 56), (28, 84), (70, 42), (14, 14), (112, 56)]


def pixels(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def relative_l2(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module", params=VISION_STYLES)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tower") / request.param
    theirs = write_transformers(folder, "qwen3", request.param, seed=2)
    return folder, theirs.model.vision_tower


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_is_transformers(tower: Any, height: int, width: int, backend: str) -> None:
    folder, theirs = tower
    tiles = pixels(2, height, width)
    with torch.no_grad():
        expected = theirs(tiles, output_hidden_states=True).hidden_states
    model = ivk.load_vision(folder, backend=backend, progress=False)
    for ours, other in zip(model.vision(tiles, layers=range(len(expected))), expected):
        assert relative_l2(ours, other) < RELATIVE_L2
    alone = model.vision(tiles[1:])
    if backend == "cpu":
        same_bits(alone, model.vision(tiles)[1:], "a tile by itself")


def bicubic(table: np.ndarray, target: int) -> np.ndarray:
    """One dimension of torch's bicubic (a = -0.75), written out: half-pixel centres, edges repeated, no antialias."""

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0

    count = len(table)
    rows = []
    for i in range(target):
        at = (i + 0.5) * count / target - 0.5
        first = int(np.floor(at))
        rows.append(sum(weight(at - j) * table[min(max(j, 0), count - 1)] for j in range(first - 1, first + 3)))
    return np.stack(rows)


@pytest.mark.parametrize("target", [(4, 4), (2, 6), (5, 3), (1, 1), (8, 4), (9, 13)])
def test_positions_by_hand(target: tuple[int, int]) -> None:
    table = torch.randn(17, 6, generator=torch.Generator().manual_seed(1))
    found = interpolate_positions(table, (4, 4), target)
    grid = table[1:].double().numpy().reshape(4, 4, 6)
    wanted = bicubic(bicubic(grid, target[0]).transpose(1, 0, 2), target[1]).transpose(1, 0, 2).reshape(-1, 6)
    assert torch.equal(found[0], table[0])
    np.testing.assert_allclose(found[1:].numpy(), wanted, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dense_maps_and_single_layers(tower: Any, backend: str) -> None:
    model = ivk.load_vision(tower[0], backend=backend, progress=False)
    tiles = pixels(3, 28, 84)
    states = model.vision(tiles, layers=[0, 1, -1])
    maps = model.vision(tiles, layers=[0, 1, -1], dense=True)
    for state, dense in zip(states, maps):
        assert dense.shape == (3, 2, 6, 64)
        same_bits(dense, state[:, 1:].reshape(3, 2, 6, 64))
        same_bits(dense[1, 1, 4], state[1, 1 + 6 + 4], "row 1, column 4")
    same_bits(model.vision(tiles, dense=True), maps[-1])
    same_bits(model.vision(tiles, layers=1), states[1])
    same_bits(model.vision(tiles, layers=np.int64(-1), dense=True), maps[-1])
    same_bits(model.vision(tiles, layers=0, pool="cls"), states[0][:, 0])
    same_bits(model.vision(tiles, layers=[1], pool="mean")[0], states[1][:, 1:].mean(1))


@pytest.mark.parametrize("how", [{}, {"pool": "cls"}, {"pool": "mean"}, {"dense": True}], ids=str)
def test_bits_depend_on_the_tile_alone(tower: Any, how: dict[str, Any]) -> None:
    """Not on those beside it, how many go in a pass, or how many threads there are; at a size of interpolated positions."""
    tiles = pixels(7, 42, 70)
    one, two = (ivk.load_vision(tower[0], backend="cpu", threads=n, progress=False) for n in (1, 2))
    whole = one.vision(tiles, layers=[0, -1], **how)
    need = tower_workspace(one.config.vision, 2, 4, "cpu", 42, 70, kept_rows=16)
    small = ivk.load_vision(tower[0], backend="cpu", max_workspace=need, threads=2, progress=False)
    assert small._tower.micro_batch(42, 70, 16) == 2
    for model in (two, small):
        for ours, expected in zip(model.vision(tiles, layers=[0, -1], **how), whole):
            assert ours.is_contiguous()
            same_bits(ours, expected)
    for first, last in ((0, 1), (3, 5)):
        for ours, expected in zip(one.vision(tiles[first:last], layers=[0, -1], **how), whole):
            same_bits(ours, expected[first:last], f"tiles {first} to {last}")


def test_tables_are_made_once_for_a_size(tower: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []

    def counted(table: torch.Tensor, grid: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
        made.append(target)
        return interpolate_positions(table, grid, target)

    monkeypatch.setattr(position_tables, "interpolate_positions", counted)
    model = ivk.load_vision(tower[0], progress=False)
    first = model.vision(pixels(1, 28, 84))
    for _ in range(2):
        same_bits(model.vision(pixels(1, 28, 84)), first)
        model.vision(pixels(1, 56, 56))  # the tower's own size has no other table
        model.vision(pixels(1, 84, 28))
    assert made == [(2, 6), (6, 2)]
    for rows in range(1, 12):  # tables of 12 to 132 patches: those of before are given up
        model.vision(pixels(1, 14 * rows, 14 * 12))
    kept = list(model._tower._tables._made)
    assert kept == [(11, 12)], "larger than all that is kept otherwise, 8 times 17 rows, together with any other"
    model.vision(pixels(1, 28, 84))
    assert made[-1] == (2, 6)


def test_a_table_that_learns_is_made_anew() -> None:
    own = torch.randn(17, 8, requires_grad=True)
    tables = position_tables.PositionTables(own, (4, 4))
    with torch.no_grad():
        before = tables((2, 6))
        own += 1
        assert relative_l2(tables((2, 6)), before + 1) < 1e-6
    tables((2, 6)).sum().backward()
    assert own.grad is not None


def test_other_libraries_take_the_results(tower: Any) -> None:
    model = ivk.load_vision(tower[0], progress=False)
    dense = model.vision(pixels(1, 56, 56), dense=True)
    taken = np.from_dlpack(dense)
    assert taken.shape == (1, 4, 4, 64)
    assert np.array_equal(taken, dense.numpy())
    same_bits(torch.from_dlpack(dense), dense)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dense": 1}, "dense: 1"),
        ({"dense": True, "pool": "cls"}, "True without pool"),
        ({"pool": "max"}, "pool: 'max'"),
        ({"layers": 4}, r"layers: .*-4 to 3"),
        ({"layers": True}, "layers: True"),
        ({"layers": []}, "layers"),
    ],
)
def test_refused(tower: Any, arguments: dict[str, Any], words: str) -> None:
    model = ivk.load_vision(tower[0], progress=False)
    with pytest.raises(ivk.UnsupportedError, match=words):
        model.vision(pixels(1, 56, 56), **arguments)
    for size in ((57, 56), (56, 13), (0, 56)):
        with pytest.raises(ivk.ImageError, match="positive multiples of the patch size 14"):
            model.vision(pixels(1, *size))


# ---- towers that stand alone, and beside language models that nobody here knows ------------------------------------------


def stand_alone(folder: Path, style: str) -> tuple[Path, Path]:
    """A whole model in the family's layout, and its tower as InternViT's repositories hold it."""
    config = tiny_config("qwen3", style)
    save_checkpoint(random_weights(config, seed=5), config, folder / "whole")
    stored = load_file(folder / "whole/model.safetensors")
    (folder / "alone").mkdir()
    own = {n.removeprefix("vision_model."): t for n, t in stored.items() if n.startswith("vision_model.")}
    save_file(own, folder / "alone/model.safetensors", metadata={"format": "pt"})
    described = json.loads((folder / "whole/config.json").read_text())["vision_config"]
    (folder / "alone/config.json").write_text(json.dumps(described | {"torch_dtype": "float32"}))
    return folder / "whole", folder / "alone"


@pytest.mark.parametrize("style", VISION_STYLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_internvit_repositories(tmp_path: Path, style: str, backend: str) -> None:
    whole, alone = stand_alone(tmp_path, style)
    tiles = pixels(2, 56, 56)
    expected = ivk.load_vision(whole, backend=backend, progress=False)
    found = ivk.load_vision(alone, backend=backend, progress=False)
    same_bits(found.vision(tiles, layers=[0, 1, 2, 3]), expected.vision(tiles, layers=[0, 1, 2, 3]))
    assert found.config.tiling.size == 56
    assert (found.config.layout, found.config.dtype) == ("original", "float32")
    with pytest.raises(ivk.CheckpointError, match=r"unknown architecture.*InternVisionModel"):
        ivk.load(alone, progress=False)


@pytest.mark.parametrize("style", VISION_STYLES)
def test_transformers_own_tower(tower: Any, tmp_path: Path, style: str) -> None:
    _, theirs = tower
    theirs.save_pretrained(tmp_path)
    tiles = pixels(2, 56, 56)
    with torch.no_grad():
        expected = theirs(tiles).last_hidden_state
    assert relative_l2(ivk.load_vision(tmp_path, progress=False).vision(tiles), expected) < RELATIVE_L2


def test_a_tower_beside_an_unknown_language_model(tmp_path: Path) -> None:
    whole, _ = stand_alone(tmp_path, "layer_norm")
    tiles = pixels(1, 56, 56)
    expected = ivk.load_vision(whole, progress=False).vision(tiles)
    described = json.loads((whole / "config.json").read_text())
    described["llm_config"] = {"architectures": ["MambaForCausalLM"], "state_size": 16}
    (whole / "config.json").write_text(json.dumps(described))
    stored = load_file(whole / "model.safetensors")
    kept = {n: t for n, t in stored.items() if not n.startswith("language_model.")} | {
        "language_model.x": torch.ones(3)
    }
    save_file(kept, whole / "model.safetensors")
    same_bits(ivk.load_vision(whole, progress=False).vision(tiles), expected)
    with pytest.raises(ivk.CheckpointError, match="unknown language model"):
        ivk.load(whole, progress=False)
    del kept["vision_model.encoder.layers.1.attn.proj.bias"]
    save_file(kept | {"vision_model.extra": torch.ones(2)}, whole / "model.safetensors")
    with pytest.raises(ivk.CheckpointError, match=r"missing tensor .*layers\.1\.attn\.proj\.bias"):
        ivk.load_vision(whole, progress=False)
    save_file(stored | {"vision_model.extra": torch.ones(2)}, whole / "model.safetensors")
    with pytest.raises(ivk.CheckpointError, match=r"unknown tensor.*vision_model\.extra"):
        ivk.load_vision(whole, progress=False)


def test_a_stand_alone_tower_of_48_layers_runs_them_all(tmp_path: Path) -> None:
    """A whole model of that depth without the key stops at layer 45; the tower's own repository has no such key."""
    config = tiny_config("qwen3", "rms_norm", vision_overrides={"num_layers": 48, "hidden_size": 16, "num_heads": 2})
    save_checkpoint(random_weights(config), config, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    stored = load_file(tmp_path / "model.safetensors")
    own = {n.removeprefix("vision_model."): t for n, t in stored.items() if n.startswith("vision_model.")}
    save_file(own, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(described["vision_config"]))
    assert ivk.load_vision(tmp_path, progress=False).config.vision.num_layers == 48


def test_a_packed_file_of_a_stand_alone_tower(tmp_path: Path) -> None:
    _, alone = stand_alone(tmp_path, "rms_norm")
    tiles = pixels(1, 56, 56)
    expected = ivk.load_vision(alone, progress=False).vision(tiles)
    for _ in range(2):
        found = ivk.load_vision(alone, packed_cache=tmp_path / "cache", progress=False).vision(tiles)
        same_bits(found, expected)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_plan_of_the_tower(tower: Any, layers: int) -> None:
    model = ivk.load_vision(tower[0], progress=False)
    plan = model.plan_tower(5, height=28, width=84, layers=layers)
    c = model.config.vision
    rows = 1 + 2 * 6
    assert plan.bytes["features"] == 5 * layers * rows * c.hidden_size * 4
    assert plan.bytes["tiles"] == 5 * 28 * 84 * 3
    assert plan.bytes["weights"] == 4 * (vision_parameters(c))
    assert plan.peak_bytes == sum(plan.bytes.values()) == plan.to_dict()["peak_bytes"]
    assert "5 tiles of 28 x 84" in str(plan)
    small = ivk.load_vision(tower[0], max_workspace="200KB", backend="cpu", progress=False).plan_tower(40)
    assert small.micro_batch < 40
    assert small.bytes["tower workspace"] <= 200_000
    for arguments, words in (({"tiles": 0}, "tiles=0"), ({"height": 57}, "height: 57"), ({"layers": 9}, "layers=9")):
        with pytest.raises(ValueError, match=words):
            model.plan_tower(**arguments)
