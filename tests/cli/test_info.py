"""info() on healthy and broken machines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import internvl_kernels as ivk
from internvl_kernels import about as module
from internvl_kernels.ops import _backend


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a driver; its folders of libraries are ``tmp_path``."""
    monkeypatch.setattr(module, "_DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(module, "_LIBRARY_FOLDERS", (str(tmp_path / "lib"),))
    monkeypatch.setattr(module.platform, "machine", lambda: "nowhere")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return tmp_path


def test_healthy_machine() -> None:
    info = ivk.info()
    assert info.auto == "cpu"
    assert info.cpu.loads
    assert info.cpu.current in info.cpu.available
    assert set(info.cpu.available) <= set(info.cpu.built)
    assert info.cpu.built[0] == "base"
    assert [b.name for b in info.backends] == ["reference", "cpu", "cuda"]
    assert next(p for p in info.packages if p.name == "torch").version == metadata.version("torch")
    assert json.loads(json.dumps(info.to_dict()))["version"] == ivk.__version__
    text = str(info)
    assert all(word in text for word in (ivk.__version__, "instruction sets", "CUDA extension", "auto takes cpu"))
    assert info.cpu.compiler is not None
    assert info.cpu.compiler in text


def backend(info: module.Info) -> module.BackendInfo:
    return next(b for b in info.backends if b.name == "cuda")


def test_without_the_cuda_part(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_load_cuda", lambda: _backend.NOT_BUILT)
    info = ivk.info()
    assert not info.cuda.built
    assert backend(info).why == "this build has no CUDA part; no NVIDIA driver is here"
    assert "IVK_CUDA=1" in (backend(info).cure or "")
    assert "not built" in str(info)


@pytest.mark.parametrize(
    ("why", "cure"),
    [
        ("the extension does not load: libcudart.so.13: cannot open shared object file", "pip install 'nvidia-cuda-runtime"),
        ("cudaGetDeviceCount: cudaErrorInsufficientDriver (35): ...", "driver of 580 or newer"),
        ("Tesla T4 has compute capability (7, 5); needed: 8.0 (Ampere) or newer", "use cpu"),
        ("no GPU was found", "use cpu"),
    ],
)  # fmt: skip
def test_cuda_part_that_does_not_run(bare: Path, monkeypatch: pytest.MonkeyPatch, why: str, cure: str) -> None:
    monkeypatch.setattr(_backend, "_load_cuda", lambda: why)
    info = ivk.info()
    assert info.cuda.built
    assert info.cuda.why == why
    assert why in backend(info).why
    assert cure in (backend(info).cure or "")
    assert not backend(info).runs
    with pytest.raises(ivk.BackendError, match=re.escape(why)):
        ivk.DeviceArray.empty((2,))
    with pytest.raises(ivk.BackendError, match=re.escape(why)):
        ivk.load("anywhere", backend="cuda")


def test_cuda_part_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        compiler, architectures = "nvcc 13.0.88", "sm80;sm90a"
        device_count = staticmethod(lambda: 1)
        device = staticmethod(lambda i: {"name": "A part", "capability": (8, 6)})

    monkeypatch.setattr(_backend, "_load_cuda", Module)
    info = ivk.info()
    assert (info.cuda.built, info.cuda.why, info.cuda.devices) == (True, None, ("A part (compute 8.6)",))
    assert info.cuda.architectures == ("sm80", "sm90a")
    assert backend(info).runs
    assert "pixel_shuffle" in backend(info).why
    assert "A part" in str(info)


@pytest.mark.parametrize(
    ("text", "tag"), [("Wheel-Version: 1.0\nBuild: 1cuda13\n", "1cuda13"), ("Wheel-Version: 1.0\n", ""), (None, None)]
)
def test_wheels_of_one_version_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, text: str | None, tag: str | None
) -> None:
    class Distribution:
        read_text = staticmethod(lambda name: text if name == "WHEEL" else None)

    monkeypatch.setattr(module.metadata, "distribution", lambda name: Distribution)
    assert module._build_tag() == tag


def test_current_instruction_set_is_the_one_in_use() -> None:
    before = _backend.cpu().current_isa()
    try:
        _backend.cpu().set_isa("base")
        assert ivk.info().cpu.current == "base"
    finally:
        _backend.cpu().set_isa(before)


def test_extension_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_load_cpu", lambda: ImportError("version `GLIBC_9.99' not found"))
    info = ivk.info()
    assert not info.cpu.loads
    assert info.cpu.built == ()
    assert info.auto == "reference"
    cpu = info.backends[1]
    assert (cpu.runs, cpu.cure) == (False, "reinstall: pip install .")
    assert "GLIBC_9.99" in cpu.why
    assert "does not load" in str(info)


def test_torch_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module._version
    monkeypatch.setattr(module, "_version", lambda name: None if name == "torch" else found(name))
    info = ivk.info()
    assert info.auto is None
    assert "torch is missing" in info.backends[0].why
    assert info.backends[0].cure == "pip install 'torch>=2.6'"
    assert info.backends[1].runs  # ops on numpy arrays
    assert "missing" in str(info)
    monkeypatch.setattr(module, "_version", lambda name: "2.4.1+cpu" if name == "torch" else found(name))
    info = ivk.info()
    assert info.auto is None
    assert "needs 2.6 or newer" in str(info)


@pytest.mark.parametrize(
    ("version", "usable"), [("2.6", True), ("2.10.0+cu130", True), ("3.0.0a1", True), ("2.5.9", False), ("unknown", True), (None, False)]
)  # fmt: skip
def test_versions_compare_as_numbers(version: str | None, usable: bool) -> None:
    assert module.PackageInfo("torch", version, "2.6").usable is usable


def test_driver_by_its_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not what an earlier test may have made: the virtual GPU.
    monkeypatch.setattr(_backend, "_load_cuda", lambda: "no GPU was found")
    assert module.find_driver() is None
    (bare / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\nGCC version: x\n"
    )
    assert module.find_driver() == "580.65.06"
    info = ivk.info()
    assert "an NVIDIA driver is here (580.65.06)" in info.backends[2].why
    assert not info.backends[2].runs


def test_driver_by_its_library(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bare / "driver"
    folder.mkdir()
    (folder / "libcuda.so.1").write_bytes(b"")  # found, not loaded: it could not be
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{bare / 'none'}:{folder}")
    assert module.find_driver() == f"unknown version, {folder / 'libcuda.so.1'}"


def test_info_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, internvl_kernels as i; str(i.info()); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_info_stays_a_function_whatever_was_imported_before() -> None:
    code = "import internvl_kernels.cli, internvl_kernels.about, internvl_kernels as i; i.info()"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
