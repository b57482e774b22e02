"""Planted bugs: a small kernel with one mistake, its correct twin, and what the virtual GPU has to say of each.

A case's code stands inside the entry `k(in, out, n)`. HERE marks the instructions of the bug that a report may name: they
get a source line of their own.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from door import Door

HEADER = '.version 9.0\n.target sm_80\n.address_size 64\n.file 1 "planted.cu"\n'
SOURCE, LINE = "planted.cu", 77
REGISTERS = (
    ".reg .pred %p, %q; .reg .b16 %h; .reg .b32 %r<24>; .reg .b64 %rd<10>; .reg .f32 %f<12>; .reg .b32 %a<4>, %b<2>;"
)
WORDS = 256  # of `in` (0, 1, 2 …) and of `out` (zeros)
SCHEDULES = {
    "lazy": "",
    "eager": "async=eager",
    "random": "seed=1 async=random split=1",
    "starved": "seed=7 async=random split=1 starve=0",
}
# Two workers at once: two accesses at the same moment may both miss the other, so only the twins run so.
WORKERS = {"workers": "seed=2 threads=2"}
# Short forms in the code of cases: this thread's words of in and out, its word of shared memory, the word of the lane or
# thread `x` away.
SHORT = {
    "$IN": "%rd4",
    "$OUT": "%rd5",
    "$S": "%r3",
    "PEER": "mov.u32 %r5, s; xor.b32 %r4, %r1, 32; mad.lo.u32 %r5, %r4, 4, %r5;",
    "LANE": "mov.u32 %r5, s; xor.b32 %r4, %r1, 1; mad.lo.u32 %r5, %r4, 4, %r5;",
    "COPY": "cp.async.ca.shared.global [%r3], [%rd4], 4;",
    "KEEP": "st.global.u32 [%rd5], %r6;",
}


@dataclass(frozen=True)
class Case:
    code: str
    bug: str
    twin: str
    shared: int = 0
    smem: int = 0
    block: int = 64
    grid: int = 1
    options: str = ""
    extra: str = ""
    bytes: int = 4 * WORDS  # of `in`
    source: str = "data"  # of the bug's `in`: data, undefined, freed, host
    thread: int | None = None  # that the report names, where there is only one it can be
    hardware: int = 0  # error code of the runtime, 0: 719


def entry(body: str, *, shared: int = 0, extra: str = "") -> str:
    """%rd1, %rd2, %r0: in, out, n. %r1 thread, %r2 block, %rd4, %rd5, %r3: see SHORT."""
    memory = f".shared .align 16 .b8 s[{shared}];" if shared else ""
    base = "mov.u32 %r3, s; mad.lo.u32 %r3, %r1, 4, %r3;" if shared else ""
    for short, text in SHORT.items():
        body = body.replace(short, text)
    body = body.replace(";", ";\n").replace("HERE", f"\n.loc 1 {LINE} 0\n")
    lines = []
    for line in map(str.strip, body.splitlines()):
        lines.append(line)
        if len(lines) > 1 and lines[-2].startswith(f".loc 1 {LINE}"):
            lines.append(".loc 1 1 0")
    return f"""{HEADER}{extra}
.visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n) {{
{REGISTERS} {memory}
ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u32 %r0, [n];
mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd3, %r1, 4; {base}
add.s64 %rd4, %rd1, %rd3; add.s64 %rd5, %rd2, %rd3;
{chr(10).join(lines)}
DONE: ret; }}"""


def bug(case: Case) -> str:
    return entry(case.bug, shared=case.shared, extra=case.extra)


def twin(case: Case) -> str:
    return entry(case.twin, shared=case.shared, extra=case.extra)


def marked(ptx: str) -> set[int]:
    """PTX lines that HERE stands before."""
    lines = ptx.splitlines()
    return {n + 2 for n, line in enumerate(lines) if line.startswith(f".loc 1 {LINE}")}


HOST = (ctypes.c_uint32 * WORDS)()


def values(case: Case) -> np.ndarray:
    return np.arange(-(-case.bytes // 4), dtype=np.uint32).view(np.uint8)[: case.bytes]


def place(door: Door, case: Case, source: str) -> int:
    """The address of `in`."""
    if source == "host":
        return ctypes.addressof(HOST)
    if source == "undefined":
        return door.allocate(case.bytes)
    pointer = door.put(values(case))
    if source == "freed":
        door.release(pointer)
    return pointer


def check_place(case: Case, ptx: str, report: dict[str, Any]) -> None:
    """Kernel, block, thread, PTX line and source line of a finding."""
    assert report["kernel"] == "k"
    assert report["ptx_line"] in marked(ptx), (report, ptx.splitlines()[report["ptx_line"] - 1])
    assert report["opcode"] == ptx.splitlines()[report["ptx_line"] - 1].split(": ")[-1].lstrip("@!%pq ").split()[
        0
    ].rstrip(";")
    assert (report["source_file"], report["source_line"]) == (SOURCE, LINE)
    assert report["block"][0] < case.grid
    assert report["block"][1:] == report["thread"][1:] == [0, 0]
    assert report["thread"][0] < case.block
    assert case.thread is None or report["thread"][0] == case.thread, report
