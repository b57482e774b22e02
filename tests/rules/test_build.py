"""The build's own parts: when CUDA is built, what the wheel then says, and the gate on spills."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "build_tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, gate = load("ivk_cuda"), load("ptxas_gate")


@pytest.mark.parametrize(
    ("asked", "variable", "driver", "expected"),
    [
        ("on", None, False, True),
        ("off", "1", True, False),
        (None, "1", False, True),
        (None, "0", True, False),
        (None, "", True, True),
        (None, None, True, True),
        (None, None, False, False),
    ],
)
def test_key_then_variable_then_driver(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, variable: str | None, driver: bool, expected: bool
) -> None:
    monkeypatch.setattr(build, "driver_is_here", lambda: driver)
    monkeypatch.delenv("IVK_CUDA", raising=False)
    if variable is not None:
        monkeypatch.setenv("IVK_CUDA", variable)
    assert build.wanted(asked) is expected


def test_other_words_are_refused() -> None:
    with pytest.raises(SystemExit, match="cuda='perhaps'"):
        build.wanted("perhaps")


def test_driver_by_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'none'}:{tmp_path}")
    assert build.driver_is_here()


def test_wheel_with_cuda_requires_the_runtime(tmp_path: Path) -> None:
    wheel, folder = tmp_path / "a-1-py3-none-any.whl", "a-1.dist-info"
    text = "Metadata-Version: 2.1\nName: a\nRequires-Dist: torch\n\nRequires-Dist: is only prose here\n"
    with zipfile.ZipFile(wheel, "w") as new:
        new.writestr("a/lib.so", b"\x00\x01")
        new.writestr(f"{folder}/METADATA", text)
        new.writestr(f"{folder}/RECORD", f"a/lib.so,sha256=x,2\n{folder}/METADATA,sha256=old,9\n{folder}/RECORD,,\n")
    build.require_runtime_in_wheel(wheel)
    with zipfile.ZipFile(wheel) as made:
        metadata, record = made.read(f"{folder}/METADATA"), made.read(f"{folder}/RECORD").decode().splitlines()
        assert made.read("a/lib.so") == b"\x00\x01"
    head, _, body = metadata.decode().partition("\n\n")
    assert head.splitlines()[-2:] == ["Requires-Dist: torch", f"Requires-Dist: {build.RUNTIME_REQUIRES[0]}"]
    assert body == "Requires-Dist: is only prose here\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).rstrip(b"=").decode()
    assert record[1] == f"{folder}/METADATA,sha256={digest},{len(metadata)}"
    assert (record[0], record[2]) == ("a/lib.so,sha256=x,2", f"{folder}/RECORD,,")
    assert build.require_runtime(metadata.decode()) == metadata.decode()  # once is enough


CLEAN = """ptxas info    : Compiling entry function '_Z4goodv' for 'sm_80'
ptxas info    : Function properties for _Z4goodv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 256 bytes smem, 472 bytes cmem[0]
"""
FAULTS = {
    "8 bytes of spill stores": CLEAN.replace("0 bytes spill stores", "8 bytes spill stores"),
    "8 bytes of spill loads": CLEAN.replace("0 bytes spill loads", "8 bytes spill loads"),
    "16 bytes of stack frame": CLEAN.replace("    0 bytes stack frame", "    16 bytes stack frame"),
    "24 bytes of local memory": CLEAN.replace("256 bytes smem", "256 bytes smem, 24 bytes lmem"),
    "32 bytes of stack": CLEAN.replace("1 barriers,", "1 barriers, 32 bytes cumulative stack size,"),
    "C7510": CLEAN
    + "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n",
}


def test_clean_kernels_pass() -> None:
    kernels, problems = gate.read(CLEAN)
    assert problems == []
    assert kernels == [{"kernel": "_Z4goodv", "target": "sm_80", "registers": 40, "shared": 256, "barriers": 1}]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_fails_the_compilation(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiler = tmp_path / "nvcc.py"
    compiler.write_text(f"import sys; sys.stderr.write({FAULTS[fault]!r})")
    assert gate.main([sys.executable, str(compiler), "-o", str(tmp_path / "a.o")]) == 1
    assert fault in capsys.readouterr().err
    report = json.loads((tmp_path / "a.o.ptxas.json").read_text())
    assert report["kernels"][0]["kernel"] == "_Z4goodv"


def test_a_failed_compilation_stays_failed_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiler = tmp_path / "nvcc.py"
    compiler.write_text("import sys; sys.stderr.write('a.cu(3): error: no'); sys.exit(2)")
    assert gate.main([sys.executable, str(compiler)]) == 2
    assert "a.cu(3): error: no" in capsys.readouterr().err
