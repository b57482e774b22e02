"""Data flows one way: cli -> model/generate -> models -> ops -> binding -> kernels -> core. Nothing points up."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "internvl_kernels"
LEAVES = {"errors", "config", "costs", "_lazy"}

# A room may import the rooms on the right, and the leaves.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_lazy": set(),
    "config": set(),
    "costs": set(),
    "ops": {"_cpu", "_cuda"},
    "reference": {"ops"},
    "torch_ops": {"ops", "reference"},
    "models": {"ops"},
    "io": {"ops"},
    "plan": {"ops"},
    "generate": {"models", "ops"},
    "options": {"ops", "plan", "generate"},
    "encoder": {"io", "models", "ops", "options", "plan"},
    "visual_model": {"encoder", "io", "models", "options"},
    "model": {"encoder", "generate", "io", "models", "ops", "options", "plan", "visual_model"},
    "about": {"__version__", "ops"},
    "registry": set(),
    "synthetic": {"io", "registry"},
    "testing": {"io", "model", "models", "ops", "reference"},
    "demo": {"encoder", "generate", "io", "model", "models", "ops", "options"},
    "cli": {"about", "demo", "encoder", "io", "model", "ops", "options", "plan", "registry", "testing"},
    "__init__": {"about", "encoder", "io", "model", "ops", "reference", "synthetic", "torch_ops"},
}
MAY_INCLUDE = {
    "core": {"core"},
    "device": {"device"},
    "kernels": {"core", "kernels", "device"},
    "binding": {"core", "kernels", "binding"},
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of this package that ``path`` imports, at the top or inside functions."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            if node.level == depth:
                names = [node.module] if node.module else [alias.name for alias in node.names]
            elif node.level == 0 and (node.module or "").split(".")[0] == "internvl_kernels":
                rest = (node.module or "").partition(".")[2]
                names = [rest] if rest else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [
                a.name.partition(".")[2] or "__init__" for a in node.names if a.name.split(".")[0] == "internvl_kernels"
            ]
        found |= {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{path} stands in no room of the house plan"
    beyond = imports(path) - MAY_IMPORT[room] - LEAVES - {room}
    if room in ("cli", "__init__", "demo"):
        beyond.discard("__init__")
    assert not beyond, f"{room} may not import {sorted(beyond)}"


def test_only_the_backend_chooser_loads_the_extension() -> None:
    users = [
        p
        for p in PACKAGE.rglob("*.py")
        if re.search(r"internvl_kernels\._(cpu|cuda)|import _(cpu|cuda)", p.read_text())
    ]
    assert [p.relative_to(PACKAGE).as_posix() for p in users] == ["ops/_backend.py"]


def sources() -> list[Path]:
    return sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT / "csrc")))
def test_cpp_includes_point_down(path: Path) -> None:
    parts = path.relative_to(ROOT / "csrc").parts
    text = path.read_text()
    for target in re.findall(r'#include "([^"]+)"', text):
        assert (ROOT / "csrc" / target).exists(), f"{path.name} includes {target}, which is not there"
        assert target.split("/")[0] in MAY_INCLUDE[parts[0]], f"{parts[0]} may not include {target}"
        assert not target.startswith("device/") or path.suffix == ".cuh", f"{path.name}: device code is for .cuh files"
        assert not target.endswith(".cuh") or path.suffix in (".cuh", ".cu"), (
            f"{path.name} includes device code {target}"
        )
        if parts[0] == "kernels":
            needs_cuda = path.suffix == ".cu" or path.stem.endswith(("_cuda", "_launch"))
            assert needs_cuda or not target.startswith("core/cuda/"), f"{path.name}: the CPU build has no {target}"
        if parts[0] == "kernels" and target.startswith("kernels/"):
            assert target.split("/")[1] == parts[1], f"{path.name} reaches into another family: {target}"
    assert "torch/" not in re.findall(r"#include <([^>]+)>", text).__str__(), "no libtorch in the extension"
    assert ("asm(" in text or "asm volatile" in text) <= (path.name.endswith("ptx.cuh")), (
        f"{path.name}: asm belongs to device/ptx.cuh"
    )
    launches = "<<<" in re.sub(r'"[^"]*"', "", text) or "cudaLaunchKernel" in text
    assert not launches or path.name == "launch.cpp", f"{path.name}: core/cuda/launch.h launches kernels"
    if parts[0] != "binding":
        assert "pybind11" not in text, f"{path.name}: only csrc/binding knows Python"
    if not path.name.endswith("_cpu.cpp") and not path.name.startswith("simd"):
        assert "core/simd" not in text, f"{path.name}: simd headers belong to files compiled per instruction set"
