"""Fat binaries: every compression that nvcc has, the choice of an image, damage, and what a cubin says of its kernels."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PTX = b".version 9.0\n.target sm_80\n.address_size 64\n.entry k() { ret; }\n"
LZ4, ZSTD, SPECIFIC = 0x2000, 0x8000, 0x100000
MODES = {"none": "none", "speed": "lz4", "size": "zstd", "balance": "zstd", "default": "zstd"}
PAIR = ("-gencode", "arch=compute_80,code=[sm_80,compute_80]")


def image(
    payload: bytes, *, kind: int = 1, arch: int = 80, flags: int = 0, size: int = 0, compressed: int = -1
) -> bytes:
    """One entry as nvcc writes it."""
    stored = payload + b"\0" * (-len(payload) % 8)
    compressed = (len(payload) if flags & (LZ4 | ZSTD) else 0) if compressed < 0 else compressed
    head = struct.pack(
        "<HHIQIIIIIIQQQ", kind, 0x0101, 64, len(stored), compressed, 0, 0x90000, arch, 0, 0, 0x11 | flags, 0, size
    )
    assert len(head) == 64
    return head + stored


def region(*images: bytes) -> bytes:
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, sum(map(len, images))) + b"".join(images)


def literals(text: bytes) -> bytes:
    """An LZ4 block without matches."""
    extra, length = b"", len(text)
    if length >= 15:
        extra = b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])
    return bytes([min(length, 15) << 4]) + extra + text


@pytest.mark.parametrize("mode", MODES)
def test_compression(compiled: Callable[..., Path], ptx_tool: Any, mode: str) -> None:
    plain = compiled("features.cu", "-ptx", "-arch=compute_80").read_text()
    path = compiled("features.cu", "-shared", "-Xcompiler", "-fPIC", *PAIR, f"--compress-mode={mode}", suffix=".so")
    images = ptx_tool.show(path)["images"]
    assert [(i["kind"], i["arch"]) for i in images] == [("cubin", 80), ("ptx", 80)]
    assert images[1]["compression"] == MODES[mode]
    text = ptx_tool.run("--unpack", "1", path).stdout.decode()

    def bare(ptx: str) -> str:  # nvcc strips comments and white space; internal names carry a hash of the file
        return re.sub(r"\s+|_INTERNAL_[0-9a-f]+", "", re.sub(r"//.*", "", ptx))

    assert bare(text) == bare(plain)
    names = [f["name"] for f in images[1]["module"]["functions"] if f["entry"]]
    assert set(names) == set(images[0]["facts"]) == {"_Z8features3BigPfi", "_Z6localsPfi"}


def test_compressed_machine_code(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    flags = (*PAIR, "--compress-mode=speed", "-Xfatbin", "-compress-all")
    images = ptx_tool.show(compiled("features.cu", "-fatbin", *flags, suffix=".fatbin"))["images"]
    assert [i["compression"] for i in images] == ["lz4", "lz4"]
    assert images[0]["facts"]


def test_lines_and_options_are_kept(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    path = compiled("features.cu", "-fatbin", *PAIR, "-lineinfo", "--compress-mode=speed", suffix=".fatbin")
    ptx = ptx_tool.show(path)["images"][1]
    assert ptx["identifier"].endswith("features.cu")
    assert "--generate-line-info" in ptx["options"]
    assert any(name.endswith("features.cu") for name in ptx["module"]["files"])


CHOICES = [  # images as (kind, arch, 'a'), device, chosen PTX, chosen cubin
    ([(1, 80, 0)], 80, 0, -1),
    ([(1, 80, 0), (1, 90, 0), (1, 75, 0)], 86, 0, -1),
    ([(1, 75, 0), (1, 80, 0)], 89, 1, -1),
    ([(1, 80, 0), (1, 90, 1)], 90, 1, -1),
    ([(1, 90, 1), (1, 80, 0)], 100, 1, -1),
    ([(2, 80, 0), (2, 86, 0), (2, 89, 0), (1, 80, 0)], 86, 3, 1),
    ([(2, 90, 1), (2, 90, 0), (1, 90, 0), (1, 90, 1)], 90, 3, 0),
]


@pytest.mark.parametrize(("images", "device", "ptx", "cubin"), CHOICES)
def test_choice_of_image(ptx_tool: Any, images: list[Any], device: int, ptx: int, cubin: int) -> None:
    elf = b"\x7fELF\x02\x01" + b"\0" * 58  # a header that names no sections
    entries = [image(elf if k == 2 else PTX, kind=k, arch=a, flags=SPECIFIC * s) for k, a, s in images]
    shown = ptx_tool.show(ptx_tool.write(region(*entries), "x.fatbin"), "--arch", str(device))
    assert (shown["ptx_choice"], shown["cubin_choice"]) == (ptx, cubin)


def test_no_ptx_for_the_part(ptx_tool: Any, compiled: Callable[..., Path]) -> None:
    path = ptx_tool.write(region(image(PTX, arch=90), image(PTX, arch=80, flags=SPECIFIC)), "x.fatbin")
    message = ptx_tool.refuse(path, "--arch", "86")
    assert message.endswith("no PTX for compute capability 8.6 among PTX compute_90, PTX compute_80a\n")
    real = compiled("features.cu", "-fatbin", "-gencode", "arch=compute_80,code=sm_80", suffix=".fatbin")
    assert ptx_tool.refuse(real, "--arch", "80").endswith("no PTX for compute capability 8.0 among cubin sm_80\n")


def test_several_regions_and_none(ptx_tool: Any) -> None:
    several = region(image(PTX)) + region() + b"\0" * 8 + region(image(PTX, arch=90))
    assert [i["arch"] for i in ptx_tool.show(ptx_tool.write(several, "x.fatbin"))["images"]] == [80, 90]
    assert ptx_tool.show(Path("/bin/true"))["images"] == []


def test_lz4_blocks(ptx_tool: Any) -> None:
    comment = b"//" + b"ab" * 4000 + b"\n"
    tail = comment[-1:] + PTX
    # "//ab", then a match that runs over what it writes: offset 2, 7998 bytes.
    match = 7998 - 4 - 15
    block = bytes([4 << 4 | 15]) + b"//ab" + struct.pack("<H", 2) + b"\xff" * (match // 255) + bytes([match % 255])
    packed = image(block + literals(tail), flags=LZ4, size=len(comment + PTX))
    path = ptx_tool.write(region(packed), "x.fatbin")
    assert ptx_tool.run("--unpack", "0", path).stdout == comment + PTX


DAMAGED = {
    "literals out of bounds": (literals(PTX)[:-5], len(PTX)),
    "LZ4 block: wrong size": (literals(PTX), len(PTX) + 1),
    "LZ4 block: literals": (literals(PTX), len(PTX) - 1),
    "LZ4 block: match": (b"\x10a\x05\x00" + literals(PTX), len(PTX)),
    "LZ4 block: match out": (b"\x10a\x00\x00" + literals(PTX), len(PTX)),
    "LZ4 block: cut off": (b"\xf0\xff\xff", 600),
    "LZ4 block: impossible size": (literals(PTX), 1 << 27),
    "image of 1099511627776 bytes": (literals(PTX), 1 << 40),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damaged_lz4(ptx_tool: Any, message: str) -> None:
    block, size = DAMAGED[message]
    assert message in ptx_tool.refuse(ptx_tool.write(region(image(block, flags=LZ4, size=size)), "x.fatbin"))


HEADERS = {
    "entry 0: header cut off": region(image(PTX)[:40]),
    "entry 0: header length 8": region(image(PTX)[:4] + struct.pack("<I", 8) + image(PTX)[8:]),
    "entry 0: header length 4096": region(image(PTX)[:4] + struct.pack("<I", 4096) + image(PTX)[8:]),
    "entry 0: payload of": region(image(PTX)[:8] + struct.pack("<Q", 1 << 63) + image(PTX)[16:]),
    "entry 0: compressed size": region(image(PTX, flags=LZ4, size=9, compressed=1 << 20)),
    "region of 128 bytes where 100 are left": region(image(PTX))[:116],
    "region header cut off": region(image(PTX))[:12],
    "region version 7": b"\x50\xed\x55\xba\x07\0" + region(image(PTX))[6:],
    "no region magic": region(image(PTX)) + b"garbage!" * 3,
    "zstd frame: damaged": region(image(b"\x28\xb5\x2f\xfd" + b"\xff" * 30, flags=ZSTD, size=100)),
    "ELF file: ": region(image(b"not an ELF file at all", kind=2)),
}


@pytest.mark.parametrize("message", HEADERS)
def test_damaged_headers(ptx_tool: Any, message: str) -> None:
    assert message in ptx_tool.refuse(ptx_tool.write(HEADERS[message], "x.fatbin"))


def test_truncation_and_damage_never_crash(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    whole = compiled("features.cu", "-fatbin", *PAIR, "--compress-mode=speed", suffix=".fatbin").read_bytes()
    rng = random.Random(3)
    cases = [whole[:n] for n in rng.sample(range(len(whole)), 60)]
    for _ in range(120):
        changed = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            at = rng.choice((rng.randrange(len(whole)), rng.randrange(120), len(whole) - 1 - rng.randrange(6000)))
            changed[at] = rng.randrange(256)
        cases.append(bytes(changed))
    for content in cases:
        done = ptx_tool.run(ptx_tool.write(content, "x.fatbin"))
        assert done.returncode in (0, 1), done.stderr
        assert done.stdout or done.stderr
    for n in (16, 17, 100, len(whole) // 2, len(whole) - 1):
        assert "left" in ptx_tool.refuse(ptx_tool.write(whole[:n], "x.fatbin"))


def test_facts_agree_with_ptxas(compiled: Callable[..., Path], ptx_tool: Any, toolkit: Any, tmp_path: Path) -> None:
    source = compiled("features.cu", "-ptx", "-arch=compute_80")
    for extra in ((), ("-maxrregcount=16",)):
        cubin = tmp_path / "features.cubin"
        log = toolkit.run("ptxas", "-v", "-arch=sm_80", *extra, source, "-o", cubin)
        facts = ptx_tool.show(cubin)["facts"]
        for name, found in facts.items():
            text = log.split(f"Compiling entry function '{name}'")[1].split("Compile time")[0]
            used = text.split(f"Function properties for {name}")[1]
            assert found["frame_bytes"] == int(re.search(r"(\d+) bytes stack frame", used)[1])
            assert found["registers"] == int(re.search(r"Used (\d+) registers", text)[1])
            assert found["barriers"] == int((re.search(r"used (\d+) barriers", text) or [0, 0])[1])
            assert found["static_shared"] == int((re.search(r"(\d+) bytes smem", text) or [0, 0])[1])
        assert {n: f["max_threads"] for n, f in facts.items()} == {"_Z8features3BigPfi": 128, "_Z6localsPfi": 0}
        assert {n: f["param_bytes"] for n, f in facts.items()} == {"_Z8features3BigPfi": 108, "_Z6localsPfi": 12}


@pytest.mark.parametrize("source", ["features.cu", "gemm_sm80.cu"])
def test_provenance(compiled: Callable[..., Path], ptx_tool: Any, toolkit: Any, tmp_path: Path, source: str) -> None:
    """The embedded PTX, assembled again, is the embedded machine code: what is interpreted is what ships."""
    flags = ("-arch=sm_80", "--compress-mode=speed") if source.startswith("gemm") else (*PAIR, "--compress-mode=speed")
    path = compiled(source, "-fatbin", *flags, suffix=".fatbin")
    kinds = [i["kind"] for i in ptx_tool.show(path)["images"]]
    text, machine = (ptx_tool.run("--unpack", str(kinds.index(k)), path).stdout for k in ("ptx", "cubin"))
    again = tmp_path / "again.cubin"
    toolkit.run("ptxas", "-arch=sm_80", "-m64", ptx_tool.write(text), "-o", again)
    assert again.read_bytes() == machine
    changed = (
        text.replace(b"add.f32", b"sub.f32", 1) if source == "features.cu" else text.replace(b"add.s32", b"sub.s32", 1)
    )
    assert changed != text
    toolkit.run("ptxas", "-arch=sm_80", "-m64", ptx_tool.write(changed), "-o", again)
    assert again.read_bytes() != machine
