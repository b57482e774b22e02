"""What the virtual GPU runs is the source of what a GPU runs: the PTX in the shipped library, assembled again with the
options that the machine code beside it records, gives that machine code."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import internvl_kernels

# Sections that may differ. nvcc strips blank lines and indentation from the PTX when it puts it into a fat binary; these
# two hold the text as it was before, and its line numbers. The DWARF line table has the time and size of every header, which
# pip deletes after the build. Code, constants, symbols and everything else must be equal.
MAY_DIFFER = (".nv_debug_ptx_txt", ".nv_debug_line_sass", ".debug_line", ".rel.debug_line")


def sections(cubin: bytes) -> dict[str, bytes]:
    """Content of every section of a 64-bit ELF file."""
    start, size, count, names = (*struct.unpack_from("<Q", cubin, 0x28), *struct.unpack_from("<HHH", cubin, 0x3A))
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + i * size) for i in range(count)]
    table = headers[names]

    def content(header: tuple[int, ...]) -> bytes:
        return b"" if header[1] == 8 else cubin[header[4] : header[4] + header[5]]  # 8: no bytes in the file

    strings = content(table)
    return {strings[h[0] : strings.index(b"\0", h[0])].decode(): content(h) for h in headers}


def differing(ours: bytes, shipped: bytes) -> list[str]:
    """Names of sections that differ and may not."""
    a, b = sections(ours), sections(shipped)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name) and name not in MAY_DIFFER)


def command_of(cubin: bytes) -> list[str]:
    """The options that ptxas recorded: the last string of its note."""
    return sections(cubin)[".note.nv.tkinfo"].rstrip(b"\0").rpartition(b"\0")[2].decode().split()


class Library:
    def __init__(self, path: Path, toolkit: Any, ptx_tool: Any) -> None:
        self.path, self.toolkit, self.tool = path, toolkit, ptx_tool
        images = ptx_tool.show(path)["images"]
        where = {(image["kind"], image["identifier"], image["arch"]): i for i, image in enumerate(images)}
        assert len(where) == len(images)
        # Source file, its PTX, its machine code: by number in the library.
        self.pairs = [
            (name, index, where["cubin", name, arch]) for (kind, name, arch), index in where.items() if kind == "ptx"
        ]
        assert 2 * len(self.pairs) == len(images), "every image is one of a pair"

    def unpack(self, index: int) -> bytes:
        done = self.tool.run("--unpack", str(index), self.path)
        assert done.returncode == 0, done.stderr
        return bytes(done.stdout)

    def assemble(self, ptx: bytes, options: list[str]) -> bytes:
        source, target = self.tool.write(ptx, "again.ptx"), self.tool.folder / "again.cubin"
        self.toolkit.run("ptxas", *options, source, "-o", target)
        return target.read_bytes()


@pytest.fixture
def library(toolkit: Any, ptx_tool: Any) -> Library:
    path = Path(internvl_kernels.__file__).with_name("libivk_cuda.so")
    if not path.exists():
        pytest.skip("the package has no CUDA part: build it with IVK_CUDA=1")
    return Library(path, toolkit, ptx_tool)


def test_the_shipped_ptx_assembles_to_the_shipped_code(library: Library) -> None:
    names = [name for name, _, _ in library.pairs]
    assert any("norm_sm80" in name for name in names), names
    assert any("pixel_shuffle_sm80" in name for name in names), names
    assert sum(b".entry" in library.unpack(ptx) for _, ptx, _ in library.pairs) > 5
    for name, ptx, cubin in library.pairs:
        shipped = library.unpack(cubin)
        options = command_of(shipped)
        assert options[options.index("-arch") + 1] == "sm_80"
        again = library.assemble(library.unpack(ptx), options)
        held = b".entry" in library.unpack(ptx)  # some files only choose among the kernels of others
        assert any(section.startswith(".text.") for section in sections(again)) == held, name
        assert differing(again, shipped) == [], name


def test_one_changed_instruction_is_seen(library: Library) -> None:
    name, ptx, cubin = next(pair for pair in library.pairs if "norm_sm80" in pair[0])
    text, shipped = library.unpack(ptx), library.unpack(cubin)
    at = text.rindex(b"add.rn.f32")
    changed = text[:at] + b"sub" + text[at + 3 :]
    found = differing(library.assemble(changed, command_of(shipped)), shipped)
    assert [section.partition("._Z")[0] for section in found] == [".text"], (name, found)
