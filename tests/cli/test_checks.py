"""demo, bench and verify: what they report, and what turns verify red."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from internvl_kernels import demo, ops
from internvl_kernels.cli import app
from internvl_kernels.cli.demo import held_out_strip
from internvl_kernels.ops._backend import CUDA_ALONE
from internvl_kernels.testing import parity
from internvl_kernels.testing.cases import CASES
from internvl_kernels.testing.checkpoints import write_tiny


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in the place of the trained one."""
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint", "qwen3_moe")
    monkeypatch.setattr("internvl_kernels.demo.checkpoint_path", lambda: path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


# ---- demo ----------------------------------------------------------------------------------------------------------------


def test_demo_reads_a_held_out_strip(tmp_path: Path) -> None:
    result = run("demo", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["correct"] is True
    assert found["answer"] == found["truth"] == held_out_strip(0)[1]
    assert (found["backend"], found["dtype"]) == ("cpu", "float32")
    assert (tmp_path / "internvl-demo.png").exists()


def test_demo_says_what_ran_where(tiny: Path, tmp_path: Path) -> None:
    result = run("demo", "--seed", 3, "--threads", 1, "--out", "grid.png")
    assert result.exit_code == 0, result.output
    image, text = held_out_strip(3)
    lines = result.stdout.splitlines()
    assert f"question  {demo.QUESTION}" in lines
    assert any(line.startswith(f"truth     {text}  ") for line in lines)
    for word in ("cpu backend", "1 thread,", "float32", "tiling", "vision", "prefill", "decode", "visual tokens"):
        assert word in result.stdout
    assert f"{image.width} x {image.height}" in result.stdout
    with Image.open(tmp_path / "grid.png") as drawn:
        assert drawn.width > 1000


def test_demo_with_a_picture_of_ones_own(tiny: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 120, 3), 200, np.uint8)).save("mine.png")
    found = json.loads(
        run("demo", "--image", "mine.png", "--json", "--backend", "reference", "--dtype", "bfloat16").stdout
    )
    assert (found["source"], found["truth"], found["correct"]) == ("mine.png", None, None)
    assert (found["backend"], found["isa"], found["dtype"]) == ("reference", None, "bfloat16")
    assert found["grid"] == [3, 1]


# ---- bench ---------------------------------------------------------------------------------------------------------------


def test_bench_prints_the_command_that_measures_a_row_again() -> None:
    result = run("bench", "--op", "swiglu", "--dtype", "float32", "--rounds", 3, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [row["shape"] for row in rows] == [case.shape for case in CASES if case.op == "swiglu"]
    assert all(row["us"] > 0 and row["torch_us"] > 0 for row in rows)
    assert rows[0]["command"] == "internvl-kernels bench --op swiglu --dtype float32 --threads 1 --rounds 3"
    again = run(*rows[0]["command"].split()[1:])
    assert again.exit_code == 0
    assert "swiglu" in again.stdout


# ---- verify --------------------------------------------------------------------------------------------------------------


def test_problems_cover_every_op_with_a_kernel() -> None:
    without = {"choose_grid", "pack_weight", "uniforms", "fold_norm", "statistics_space", *CUDA_ALONE}
    assert {p.op for p in parity.problems()} == set(ops.__all__) - without


def test_problems_are_the_same_each_time() -> None:
    for problem in parity.problems():
        first, second = (problem.make(problem.dtypes[0]) for _ in range(2))
        assert repr(first) == repr(second)


def test_verify_reports_each_op() -> None:
    result = run("verify", "--op", "embed", "--op", "moe_route", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [(f["family"], f["name"], f["ok"]) for f in report["findings"]] == [
        ("embed", "embed_tokens", True),
        ("moe", "moe_route", True),
    ]
    assert "all ok" in run("verify", "--op", "embed", "--isa", "base").stdout


def _off(result: Any) -> Any:
    return result + 0.01 * result.abs().max()


def _raise(result: Any) -> Any:
    raise RuntimeError("illegal instruction")


@pytest.mark.parametrize(("change", "text"), [(_off, "worst error"), (_raise, "RuntimeError: illegal instruction")])
def test_verify_turns_red(monkeypatch: pytest.MonkeyPatch, change: Any, text: str) -> None:
    right = ops.swiglu
    monkeypatch.setattr(ops, "swiglu", lambda *a, **k: change(right(*a, **k)))
    result = run("verify", "--op", "gemm")
    assert result.exit_code == 1
    assert text in result.stdout
    assert "FAILED: gemm" in result.stdout
    report = json.loads(run("verify", "--op", "gemm", "--json").stdout)
    assert [f["name"] for f in report["findings"] if not f["ok"]] == ["swiglu"]


def test_verify_turns_red_when_bits_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.rms_norm

    def uneven(*a: Any, threads: int = 0, **k: Any) -> Any:
        result = right(*a, threads=threads, **k)
        result.view(-1)[0] *= 1 + (threads == 2) * 2**-6
        return result

    monkeypatch.setattr(ops, "rms_norm", uneven)
    result = run("verify", "--op", "rms_norm")
    assert result.exit_code == 1
    assert "rms_norm on two threads" in result.stdout


def test_verify_compares_the_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"hidden states", "visual tokens", "logits", "answers"}
    result = run("verify", "--isa", "base", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0, report["failed_families"]
    assert {f["name"] for f in report["findings"] if f["family"] == "model"} == names
    right = ops.rms_norm

    def wrong(*a: Any, backend: str = "auto", **k: Any) -> Any:
        return right(*a, backend=backend, **k) * (1.001 if backend == "cpu" else 1)

    monkeypatch.setattr(ops, "rms_norm", wrong)
    report = json.loads(run("verify", "--isa", "base", "--json").stdout)
    assert "model" in report["failed_families"]
    assert "logits" in [f["name"] for f in report["findings"] if not f["ok"]]
