"""The released models on the terminal and as data."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from internvl_kernels import registry
from internvl_kernels.cli import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def data(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_models() -> None:
    rows = {row["name"]: row for row in data("models")}
    assert set(rows) == {r.name for r in registry.RELEASES}
    assert rows["InternVL3.5-8B"]["runs"] is True
    assert "UNVERIFIED" in rows["InternVL2-1B"]["notes"]
    assert "pixel-shuffle" in rows["InternVL-14B-224px"]["why_not"]
    large = rows["InternVL3.5-30B-A3B"]
    assert large["bytes"]["bfloat16"] == 2 * large["parameters"]
    assert large["bytes"]["awq"] < 0.4 * large["bytes"]["bfloat16"]
    assert (large["tokens_per_tile"], large["context"]) == (256, 40960)
    assert 0.7e12 < large["flops_per_tile"] < 0.8e12  # two for each of 304 M parameters and 1,025 rows, and the scores
    text = run("models").output
    assert all(name in text for name in rows)
    assert all(row["runs"] for row in data("models", "--supported"))


def test_models_that_fit_a_memory() -> None:
    rows = {row["name"]: row for row in data("models", "--memory", "24GB")}
    assert rows["InternVL3-1B"]["fits"] == ["float32", "bfloat16"]
    assert rows["InternVL3-8B"]["fits"] == ["bfloat16"]
    assert rows["InternVL3-38B"]["fits"] == []
    planned = data(
        "plan", "InternVL3-8B", "--tiles", "12", "--text-tokens", "512", "--max-new-tokens", "512", "--weights", "bfloat16",
        "--kv-dtype", "bfloat16",
    )  # fmt: skip
    assert rows["InternVL3-8B"]["peak_bytes"]["bfloat16"] == planned["peak_bytes"]
    text = run("models", "--memory", "24GB").output
    assert "12 tiles" in text
    assert "fits" in text
    assert "memory: 'lots'; allowed: a positive number of bytes" in run("models", "--memory", "lots").output
    assert "--markdown: goes without" in run("models", "--markdown", "--json").output
