"""The released models: dimensions that add up to the published sums, and configs that every reader accepts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from internvl_kernels import UnsupportedError, registry
from internvl_kernels.io.config import read_config
from internvl_kernels.io.config_json import config_files

PUBLISHED = [r for r in registry.RELEASES if r.published and registry.parameters(r) is not None]
RUNNING = [r for r in registry.RELEASES if r.blocker is None]


@pytest.mark.parametrize("release", PUBLISHED, ids=lambda r: r.name)
def test_parameters_are_the_published_sum(release: registry.Release) -> None:
    assert release.published is not None
    parameters = registry.parameters(release)
    assert parameters is not None
    digits = Decimal(release.published)
    half_a_digit = Decimal(1).scaleb(int(digits.as_tuple().exponent)) / 2
    assert abs(Decimal(parameters) / 10**9 - digits) <= half_a_digit


def test_every_published_sum_is_computed() -> None:
    assert [r.name for r in registry.RELEASES if r.published and r not in PUBLISHED] == []
    assert len(PUBLISHED) == 35


@pytest.mark.parametrize(
    ("tower", "billions"),
    [("InternViT-6B-224px", 5.903), ("InternViT-6B-448px-V1-5", 5.536), ("InternViT-300M-448px", 0.30401)],
)
def test_towers_are_the_published_size(tower: str, billions: float) -> None:
    assert registry.stored_tower_parameters(tower) / 1e9 == pytest.approx(billions, abs=5e-4 if billions > 1 else 5e-6)


@pytest.mark.parametrize("release", RUNNING, ids=lambda r: r.name)
def test_config_survives_being_written_and_read(release: registry.Release, tmp_path: Path) -> None:
    config = registry.config_of(release.name)
    for name, content in config_files(config, "original", dtype="bfloat16").items():
        (tmp_path / name).write_bytes(content)
    read = read_config(tmp_path)
    assert read.language == config.language
    assert read.projector == config.projector
    assert read.tiling == config.tiling
    assert read.chat.template == release.template
    assert (read.vision.hidden_size, read.vision.num_layers) == (config.vision.hidden_size, config.vision.num_layers)
    assert read.tokens_per_tile == config.tokens_per_tile == 256


@pytest.mark.parametrize(
    "name", ["InternVL3.5-8B", "OpenGVLab/InternVL3_5-8B", "internvl3_5-8b-hf", "InternVL3_5-8B-Instruct", "InternVL3_5-8B-MPO"]
)  # fmt: skip
def test_names_are_found_as_people_write_them(name: str) -> None:
    assert registry.find(name).name == "InternVL3.5-8B"


def test_names_are_unique_and_their_parts_known() -> None:
    assert len({registry._key(r.name) for r in registry.RELEASES}) == len(registry.RELEASES)
    for release in registry.RELEASES:
        assert release.tower in registry.TOWERS
        assert release.language in registry.LANGUAGES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("InternVL-14B-224px", "not a pixel-shuffle chat model"),
        ("InternVL-Chat-V1-1", "vocabulary size not published"),
        ("InternVL9-1B", "no released model; allowed: "),
    ],
)
def test_what_cannot_run_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(UnsupportedError, match=f"name: '{name}'.*{text}"):
        registry.config_of(name)


def test_supported_architectures_are_those_of_the_reader() -> None:
    from internvl_kernels.io.language_config import ARCHITECTURES

    assert set(registry.SUPPORTED) == set(ARCHITECTURES.values())
