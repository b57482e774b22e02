"""The house in order: complete families, file budgets, formatting, types, and true documents."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAMILIES = sorted(p.name for p in (ROOT / "csrc" / "kernels").iterdir() if p.is_dir())
BUDGETS = (
    ("csrc/kernels/*/[!l]*.h", 120),  # contracts; lanes.h is a kernel's inner part
    ("csrc/kernels/*/lanes.h", 250),
    ("csrc/kernels/*/*_cpu.cpp", 250),
    ("csrc/kernels/*/*.cpp", 250),
    ("csrc/kernels/*/*.cuh", 500),
    ("csrc/kernels/*/*.cu", 250),
    ("csrc/device/*", 250),
    ("csrc/binding/**/bind_*.cpp", 60),
    ("csrc/binding/*/*", 250),
    ("csrc/core/**/*", 250),
    ("build_tools/*", 250),
    ("python/internvl_kernels/ops/*.py", 200),
    ("python/internvl_kernels/**/*.py", 400),
    ("tests/**/*.py", 300),
    ("bench/*.py", 300),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_all_its_parts(family: str) -> None:
    parts = [
        f"csrc/kernels/{family}/{family}.h",
        f"csrc/kernels/{family}/{family}.cpp",
        f"csrc/kernels/{family}/{family}_cpu.cpp",
        f"csrc/binding/bind_{family}.cpp",
        f"python/internvl_kernels/ops/{family}.py",
        f"tests/kernels/test_{family}.py",
    ]
    missing = [part for part in parts if not (ROOT / part).exists()]
    assert not missing
    assert "_reference(" in (ROOT / parts[4]).read_text(), "the reference stands in the op's file"


@pytest.mark.parametrize("launcher", sorted(p.name for p in (ROOT / "csrc" / "kernels").glob("*/*_sm80.cu")))
def test_cuda_kernel_has_all_its_parts(launcher: str) -> None:
    stem = launcher.removesuffix(".cu")
    family = stem.rpartition("_")[0]
    folder = ROOT / "csrc" / "kernels" / family
    parts = [folder / f"{stem}.cuh", folder / f"{family}_problem.cpp", folder / f"{family}_cuda.cpp"]
    parts += [ROOT / "csrc/binding/cuda" / f"bind_{family}.cpp", ROOT / "tests/kernels" / f"test_{family}_cuda.py"]
    assert not [str(part) for part in parts if not part.exists()]
    contract = (folder / f"{family}.h").read_text()
    for name in (f"supports_{stem}(", f"void {stem}(", f"void {family}_cuda(", f"{family}_bytes("):
        assert name in contract, f"{family}.h declares no {name}"
    assert f"supports_{stem}(" in (folder / f"{family}_cuda.cpp").read_text()


@pytest.mark.parametrize(("pattern", "limit"), BUDGETS, ids=[b[0] for b in BUDGETS])
def test_files_stay_small(pattern: str, limit: int) -> None:
    lengths = {
        p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in ROOT.glob(pattern) if p.is_file()
    }
    assert lengths, f"nothing matches {pattern}"
    assert not {name: n for name, n in lengths.items() if n > limit}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_python_is_linted_and_formatted() -> None:
    for command in (("ruff", "check", "."), ("ruff", "format", "--check", ".")):
        result = run(*command)
        assert result.returncode == 0, result.stdout + result.stderr


def test_cpp_is_formatted() -> None:
    program = Path(sys.executable).parent / "clang-format"
    files = [str(p) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh")]
    result = subprocess.run([program, "--dry-run", "--Werror", *files], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_types() -> None:
    result = run("mypy")
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, internvl_kernels, internvl_kernels.ops, internvl_kernels.reference, internvl_kernels.cli;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_documents_name_things_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / target).exists(), f"README links {target}"
    for path in re.findall(r"`((?:csrc|python|tests|bench|build_tools)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"README names {path}"
