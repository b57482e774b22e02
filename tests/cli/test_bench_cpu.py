"""bench/cpu.py: every case runs in its quick mode, results agree, the report is whole. No time is asserted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from internvl_kernels.ops._backend import cpu

ROOT = Path(__file__).parents[2]
CASES = ["tower-1", "tower-4", "tower-13", "layer6b-1", "prefill", "decode", "experts-1", "experts-4", "tiling"]
PRECISIONS = ["ours, float32", "ours, bfloat16 weights", "ours, float16 weights"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of everything but torch.compile and one exporter, which take long where they are installed."""
    out = tmp_path_factory.mktemp("bench")
    options = ["--quick", "--rounds", "1", "--threads", "1", "--peers", "transformers,openvino", "--out", str(out)]
    command = [sys.executable, "bench/cpu.py", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    (out / "stdout").write_text(run.stdout)
    return out


def only(folder: Path, kind: str) -> str:
    (file,) = folder.glob(f"*-cpu.{kind}")
    return file.read_text()


def test_every_case_has_ours_beside_its_peers(folder: Path) -> None:
    report = json.loads(only(folder, "json"))
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for row in report["rows"]:
        cases.setdefault(row["case"], {})[row["contender"]] = row
    assert list(cases) == CASES
    for key, rows in cases.items():
        ours = ["ours"] if key == "tiling" else PRECISIONS[:1] if key == "tower-13" else PRECISIONS
        peers = [name for name in rows if not rows[name]["ours"]]
        assert [name for name in rows if rows[name]["ours"]] == ours
        assert peers
        for name, row in rows.items():
            assert row["ms"] > 0
            assert row["rate"] > 0
            assert row["relative_l2"] < (1e-2 if key == "tiling" else 2e-4), (key, name)
            assert (row["share"] is None) == (key == "tiling")
            assert list(row["ratios"]) == (peers if row["ours"] else [])
            assert row["command"].startswith("python bench/cpu.py --quick --case ")
    assert [row["tiles"] for row in report["memory"]] == [1, 4]
    assert all(row["ours"] > 0 < row["transformers sdpa"] for row in report["memory"])
    assert report["targets"] == []  # small shapes reach nothing
    machine = report["machine"]
    assert machine["fma_gflop_per_s"] > 1
    assert machine["read_gb_per_s"] > 0.1
    assert machine["versions"]["torch"] != "absent"


def test_absent_peers_are_listed_with_the_reason(folder: Path) -> None:
    report = json.loads(only(folder, "json"))
    absent = {(entry["case"], entry["contender"]): entry["reason"] for entry in report["absent"]}
    ran = {(row["case"], row["contender"]) for row in report["rows"]}
    for case in ("tower-1", "tower-4", "layer6b-1", "prefill", "decode"):
        assert absent[case, "torch.compile"] == absent[case, "ONNX Runtime"] == "left out (--peers)"
        assert ((case, "OpenVINO") in ran) != ((case, "OpenVINO") in absent)
    assert all(absent.values())
    for text in ((folder / "stdout").read_text(), only(folder, "md")):
        assert "torch.compile (tower-1" in text


def test_the_report_is_whole(folder: Path) -> None:
    rows = json.loads(only(folder, "json"))["rows"]
    text, picture = only(folder, "md"), ElementTree.fromstring(only(folder, "svg"))
    drawn = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    for row in rows:
        assert f"## {row['title']}\n\n`" in text
        assert row["title"] in drawn
        assert row["contender"] in drawn
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}rect"))) == len(rows) + 1
    assert f"({next(folder.glob('*.svg')).name})" in text


# ---- results are compared before anything is timed -------------------------------------------------------------------


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("cpu")


def case(bench: ModuleType, **results: float) -> Any:
    """Contenders that return three equal numbers; a name starting with "ours" is ours."""
    settings = bench.Settings(1, False, ["float32"], bench.PEERS, [1], Path(), lambda text: None)
    made = bench.Case("key", "title", "GFLOP/s", lambda itemsize: 1.0, None, settings)
    for name, value in results.items():
        call = lambda value=value: np.full(3, value, np.float32)  # noqa: E731
        made.peer("transformers", name, lambda call=call: call)
        made.contenders[name].ours = name.startswith("ours")
    return made


def test_a_peer_with_another_result_is_not_timed(bench: ModuleType) -> None:
    found = case(bench, base=1.0, close=1.0001, off=1.001, lost=float("nan"), ours=1.0)
    errors = bench.check(found)
    assert list(found.contenders) == ["base", "close", "ours"]
    assert found.absent["off"].startswith("another result: off by 0.001")
    assert found.absent["lost"].startswith("another result")
    assert errors["close"][0] == pytest.approx(1e-4, rel=1e-2)


def test_another_result_of_ours_ends_the_run(bench: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"ours is off by 0\.001"):
        bench.check(case(bench, base=1.0, ours=1.001))


def test_what_is_not_offered_or_fails_is_absent(bench: ModuleType) -> None:
    from internvl_kernels import UnsupportedError

    def refuse(dtype: str, stored: str) -> Any:
        raise UnsupportedError("weights: no")

    found = case(bench)
    found.ours(refuse)
    found.peer("openvino", "OpenVINO", lambda: 1 / 0)
    found.peer("elsewhere", "other", lambda: print)
    reasons = ("not there: weights: no", "ZeroDivisionError: division by zero", "left out (--peers)")
    assert found.absent == dict(zip(("ours, float32", "OpenVINO", "other"), reasons))
    assert not found.contenders


def test_targets_are_met_or_not(bench: ModuleType) -> None:
    import cpu_targets

    def row(key: str, name: str, share: float | None, **ratios: float) -> dict[str, Any]:
        return {"case": key, "title": key, "contender": name, "ours": True, "share": share, "ratios": ratios}

    rows = [
        row("tower-1", "ours, float32", 0.81, transformers=2.0, OpenVINO=1.2),
        row("decode", "ours, float32", 0.8, transformers=2.5, OpenVINO=1.0),
        row("decode", "ours, bfloat16 weights", None, transformers=3.9, OpenVINO=1.9),
        row("experts-16", "ours, float32", 0.7, transformers=2.0),
        row("experts-320", "ours, float32", 0.7, transformers=3.1),
        row("tiling", "ours", None, transformers=9.0),
    ]
    goals = cpu_targets.targets(rows, [{"tiles": 1, "ours": 3, "transformers sdpa": 5}])
    assert [(goal["wanted"], goal["reached"], goal["met"]) for goal in goals] == [
        (1.15, 1.2, True), (0.82, 0.81, False), (0.8, 0.8, True), (2.4, 2.5, True), (4.0, 3.9, False), (0.8, 0.7, False),
        (3.0, 3.1, True), (0.5, 0.6, False),
    ]  # fmt: skip


def test_a_group_that_fails_is_named_and_ends_the_run_badly(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import cpu_apart

    part = {"rows": [1], "absent": [], "memory": [], "loops": {"fma": [1.0], "read": [2.0]}, "width": 64}

    def child(command: list[str]) -> subprocess.CompletedProcess:
        group, file = command[-3], Path(command[-1])
        if group != "tower":
            file.write_text(json.dumps(part))
        return subprocess.CompletedProcess(command, 3 if group == "tower" else 0)

    monkeypatch.setattr(cpu_apart.subprocess, "run", child)
    found = cpu_apart.apart(["tower", "experts"])
    assert found["failed"] == ["tower"]
    assert found["rows"] == [1]
    assert found["absent"] == [{"case": "tower", "contender": "all", "reason": "its process ended with 3"}]
    monkeypatch.setattr(bench, "apart", lambda groups: {**found, "rows": []})
    monkeypatch.setattr(sys, "argv", ["cpu.py"])
    with pytest.raises(SystemExit, match="failed: tower"):
        bench.main()


@pytest.mark.skipif("v3" not in cpu().available_isas(), reason="the processor has no AVX2")
def test_held_to_a_lower_instruction_set(tmp_path: Path) -> None:
    options = ["--quick", "--rounds", "1", "--threads", "1", "--case", "tower", "--tiles", "1", "--isa", "v3"]
    run = subprocess.run(
        [sys.executable, "bench/cpu.py", *options, "--peers", "transformers,openvino", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(next(tmp_path.glob("*-cpu-v3.json")).read_text())
    machine = report["machine"]
    assert (machine["isa"], machine["held_to"]) == ("v3", "v3")
    assert machine["fma_vector_bytes"] <= 32
    assert all("--isa v3" in row["command"] for row in report["rows"])
    assert {row["contender"] for row in report["rows"]} == {"transformers eager", "transformers sdpa", *PRECISIONS}
    assert [row["contender"] for row in report["absent"] if "no switch" in row["reason"]]
