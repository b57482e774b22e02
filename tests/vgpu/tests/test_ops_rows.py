"""Every opcode that the engine claims has a row in the tests before this file, and a place in the README's table."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from door import Door

HERE = Path(__file__).parent


@pytest.fixture
def claimed(engine: ctypes.CDLL) -> set[str]:
    door = Door(engine, ".visible .entry k() { ret; }")
    return set(engine.vgpu_door_opcodes(door.handle).decode().split())


def test_every_opcode_has_a_row(request: pytest.FixtureRequest, micro: Any, claimed: set[str]) -> None:
    files = {item.path.name for item in request.session.items}
    missing = {path.name for path in HERE.glob("test_ops_*.py")} - files
    if missing:
        pytest.skip(f"needs all rows in one run; {', '.join(sorted(missing))} not chosen")
    assert claimed
    left = sorted(claimed - micro.seen)
    assert not left, f"no row for {left}"


def opcodes_of(text: str) -> set[str]:
    """Instructions with their types and modifiers, but for what changes no result: hints for caches and .uni."""
    found = set()
    for statement in re.split(r"[;{}]", re.sub(r"//[^\n]*", "", text)):
        words = re.sub(r"^\s*(?:[\w$]+:(?!:)\s*)*(?:@!?%?[\w$]+\s+)?", "", statement).split(None, 1)
        if words and re.fullmatch(r"[a-z][a-z0-9_]*(?:(?:\.|::)\w+)*", words[0]):
            found.add(re.sub(r"\.(?:L1|L2)::\w+|\.uni\b|\.wb\b", "", words[0]))
    return found


def test_every_instruction_of_the_product_has_a_row(request: pytest.FixtureRequest, micro: Any, ptx_tool: Any) -> None:
    """Each instruction that the shipped kernels contain, with its types and modifiers, stands in a row just so."""
    files = {item.path.name for item in request.session.items}
    if {path.name for path in HERE.glob("test_ops_*.py")} - files:
        pytest.skip("needs all rows in one run")
    spec = importlib.util.find_spec("internvl_kernels")
    library = Path(spec.origin).parent / "libivk_cuda.so" if spec and spec.origin else None
    if library is None or not library.exists():
        pytest.skip("the package has no CUDA part: build it with IVK_CUDA=1")
    used: set[str] = set()
    for number, image in enumerate(ptx_tool.show(library)["images"]):
        if image["kind"] == "ptx":
            used |= opcodes_of(ptx_tool.run("--unpack", str(number), library).stdout.rstrip(b"\0").decode())
    assert len(used) > 50
    assert used - set().union(*map(opcodes_of, micro.modules)) == set()


FEW = 200  # kernels of one file; ptxas does not survive several modules with functions in one


def test_ptxas_takes_every_row(request: pytest.FixtureRequest, micro: Any, toolkit: Any, tmp_path: Path) -> None:
    """What ran is PTX as NVIDIA's assembler reads it, for the part that its header names: so it can run on that part."""
    if not micro.modules:
        pytest.skip("no rows in this run")
    files: dict[str, list[tuple[str, str]]] = {}
    for number, text in enumerate(micro.modules):
        header, rest = re.match(r"(.*?\.address_size 64\n)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        files.setdefault(header, []).append((own_names(rest, number), text))
    for header, parts in files.items():
        target = re.search(r"\.target (\w+)", header)[1]  # type: ignore[index]
        alone = [text for text, _ in parts if re.search(r"\.func|\.const", text)]  # constants share 64 KiB
        plain = [text for text, _ in parts if not re.search(r"\.func|\.const", text)]
        together = ["\n".join(plain[begin : begin + FEW]) for begin in range(0, len(plain), FEW)]
        for number, text in enumerate([*alone, *together]):
            path = tmp_path / f"{target}_{number}.ptx"
            path.write_text(header + text)
            toolkit.run("ptxas", "-O0", "-arch", target, path, "-o", path.with_suffix(".cubin"))


def own_names(text: str, number: int) -> str:
    """The module with names of its own, so that many fit into one file."""
    outside = text.partition(".entry")[0]
    names = set(re.findall(r"\.entry (\w+)", text)) | set(re.findall(r"\.func\s+(?:\([^)]*\)\s*)?(\w+)", outside))
    names |= set(re.findall(r"\.(?:global|const|shared)\b[^;=(){}]*?\s(\w+)(?:\[\w*\])*\s*[;=]", outside))
    for name in names:
        text = re.sub(rf"(?<![\w.%$]){name}(?!\w)", f"{name}_{number}", text)
    return text


def test_the_readme_names_every_opcode(claimed: set[str]) -> None:
    named = set(re.findall(r"[a-z]\w*", (HERE.parent / "README.md").read_text()))
    left = sorted(claimed - named)
    assert not left, f"the README does not name {left}"
