"""ldmatrix, stmatrix and movmatrix by the tables of the ISA; and which forms of them and of mma there are, as ptxas has them.

mma by value: test_ops_mma.py.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door import Door
from test_ops_mma import BITS, Form, all_forms, opcode, since
from vgpu_micro import PARTS, header

RANDOM = np.random.default_rng(3)
LANES = range(32)


@pytest.mark.parametrize("spelled", ["m8n8.x{count}{trans}", "x{count}{trans}.m8n8"])
@pytest.mark.parametrize("space", ["", ".shared", ".shared::cta"])
@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(micro: Any, count: int, trans: str, space: str, spelled: str) -> None:
    """Row r of matrix j lies where lane 8 j + r says: here in reverse order, 16 bytes apart by 48. CuTe writes m8n8 behind."""
    shape = spelled.format(count=count, trans=trans)
    rows = RANDOM.integers(0, 2**16, (32, 8)).astype(np.uint16)
    matrices = rows[: 8 * count].reshape(count, 8, 8)
    names = ", ".join(f"${i}" for i in range(count))
    code = f"""mov.u32 %s, m; sub.u32 %n, 31, %t; mad.lo.u32 %s, %n, 48, %s; st.shared.v4.u32 [%s], {{$a, $b, $c, $d}};
    cvt.u64.u32 %x, %s; {"" if space else "cvta.shared.u64 %x, %x;"} bar.warp.sync 0xffffffff;
    ldmatrix.sync.aligned.{shape}{space}.b16 {{{names}}}, [%x];"""
    words = [np.ascontiguousarray(rows.view(np.uint32)[:, i]) for i in range(4)]
    registers = ".reg .b32 %s, %n; .reg .b64 %x; .shared .align 16 .b8 m[1536];"
    found = micro.words(code, words, outputs=count, registers=registers)
    for j in range(count):
        for lane in LANES:
            pair = [(lane // 4, 2 * (lane % 4) + h) for h in (0, 1)]
            low, high = (int(matrices[j][(c, r) if trans else (r, c)]) for r, c in pair)
            assert found[j, lane] == low | high << 16, (j, lane)


def test_ldmatrix_takes_addresses_of_the_first_lanes_only(micro: Any) -> None:
    """x1 reads rows at the addresses of lanes 0 to 7; those of the others may be anything."""
    data = RANDOM.integers(0, 2**32, 32, dtype=np.uint32)
    code = """mov.u32 %s, m; mad.lo.u32 %n, %t, 4, %s; st.shared.u32 [%n], $a; bar.warp.sync 0xffffffff;
    mad.lo.u32 %n, %t, 16, %s; setp.gt.u32 %q, %t, 7; selp.u32 %n, 0xfffff0, %n, %q;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {$0}, [%n];"""
    found = micro.words(code, [data], registers=".reg .b32 %s, %n; .reg .pred %q; .shared .align 16 .b8 m[128];")
    assert (found[0] == data).all()


def test_movmatrix(micro: Any) -> None:
    matrix = RANDOM.integers(0, 2**16, (8, 8)).astype(np.uint16)
    words = np.array(
        [int(matrix[i // 4, 2 * (i % 4)]) | int(matrix[i // 4, 2 * (i % 4) + 1]) << 16 for i in LANES], np.uint32
    )
    found = micro.words("movmatrix.sync.aligned.m8n8.trans.b16 $0, $a;", [words])
    for i in LANES:
        assert found[0, i] == int(matrix[2 * (i % 4), i // 4]) | int(matrix[2 * (i % 4) + 1, i // 4]) << 16


@pytest.mark.parametrize("space", ["", ".shared", ".shared::cta"])
@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_stmatrix(micro: Any, count: int, trans: str, space: str) -> None:
    """Row r of matrix j goes where lane 8 j + r says, here in reverse order; other lanes' addresses do not count."""
    matrices = RANDOM.integers(0, 2**16, (count, 8, 8)).astype(np.uint16)
    words = [np.ascontiguousarray(m).reshape(32, 2).view(np.uint32)[:, 0] for m in matrices]
    address = np.where(np.arange(32) < 8 * count, 16 * (8 * count - 1 - np.arange(32)), 0xFFF000).astype(np.uint32)
    names = ", ".join("$" + "bcde"[i] for i in range(count))
    generic = "" if space else "cvta.shared.u64 %x, %x;"
    reads = " ".join(f"ld.shared.u32 ${i}, [%s+{128 * i}];" for i in range(count))
    code = f"""mov.u32 %s, m; add.u32 %n, %s, $a; cvt.u64.u32 %x, %n; {generic}
    stmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 [%x], {{{names}}}; bar.warp.sync 0xffffffff;
    mad.lo.u32 %s, %t, 4, %s; {reads}"""
    registers = ".reg .b32 %s, %n; .reg .b64 %x; .shared .align 16 .b8 m[512];"
    with micro.part(90) as text:
        found = micro.words(code, [address, *words], outputs=count, registers=registers, header=text)
    stored = found.reshape(-1).view(np.uint16).reshape(8 * count, 8)[::-1].reshape(count, 8, 8)
    assert (stored == (matrices.transpose(0, 2, 1) if trans else matrices)).all()


def instruction(form: Form) -> str:
    m, n, k, _, d, a, b, c = form
    groups = []
    for kind, elements in ((d, m * n // 32), (a, m * k // 32), (b, n * k // 32), (c, m * n // 32)):
        count = elements if kind == "f64" else elements * BITS.get(kind, 32) // 32
        register = {"f64": "d", "f32": "f"}.get(kind, "r")
        groups.append("{" + ", ".join(f"%{register}{i}" for i in range(count)) + "}")
    return f"{opcode(form)} {', '.join(groups)};"


REGISTERS = ".reg .b32 %r<20>; .reg .f32 %f<20>; .reg .f64 %d<20>; .reg .b64 %rd<2>;"


def refused(engine: ctypes.CDLL, part: int, texts: list[str]) -> list[str]:
    """Those of the instructions that the engine does not know, each in a kernel of its own that never gets to it."""
    kernels = [f".visible .entry k{i}() {{ {REGISTERS} bra E; {t} E: ret; }}" for i, t in enumerate(texts)]
    door = Door(engine, header(part) + "\n".join(kernels), PARTS[part])
    left = []
    for i, text in enumerate(texts):
        result = door.launch(f"k{i}", [])
        if not result.clean:
            (report,) = result.reports
            assert (report["code"], report["opcode"], report["ptx_line"]) == ("unsupported", text.split()[0], 4 + i)
            left.append(text)
    return left


OTHERS = {  # instruction: the least part
    **{f"ldmatrix.sync.aligned.m8n8.x{n}{t}{s}.b16 {{{', '.join(f'%r{i}' for i in range(n))}}}, [%rd0];": 80
       for n in (1, 2, 4) for t in ("", ".trans") for s in ("", ".shared", ".shared::cta")},
    **{f"stmatrix.sync.aligned.m8n8.x{n}{t}{s}.b16 [%rd0], {{{', '.join(f'%r{i}' for i in range(n))}}};": 90
       for n in (1, 2, 4) for t in ("", ".trans") for s in ("", ".shared", ".shared::cta")},
    "movmatrix.sync.aligned.m8n8.trans.b16 %r0, %r1;": 80,
    "movmatrix.sync.aligned.m8n8.b16 %r0, %r1;": None,
    "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r0, %r1, %r2}, [%r3];": None,
    "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r0}, [%r3];": None,
    "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r0}, [%rd0];": None,
    "ldmatrix.sync.aligned.m8n8.x1.shared.b32 {%r0}, [%r3];": None,
    "ldmatrix.aligned.m8n8.x1.shared.b16 {%r0}, [%r3];": None,
    "mma.sync.aligned.m8n8k32.row.col.s32.s4.s4.s32 {%r0, %r1}, {%r2}, {%r3}, {%r0, %r1};": None,
    "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, "
    "{%r0, %r1, %r2, %r3};": None,
    "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, {%r4, %r5}, "
    "{%f0, %f1, %f2, %f3};": None,
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1}, {%r4, %r5}, {%f0, %f1, %f2, %f3};":
        None,
}  # fmt: skip
# ptxas takes more than the ISA's tables have (tf32 of k = 16), and than is modelled.
MORE = re.compile(r"\.s4\.s4\.|\.b1\.b1\.|m16n8k\d+\.row\.col\.f64|m16n8k16\.row\.col\.f32\.tf32")


def cases(part: int) -> tuple[list[str], list[str]]:
    """Instructions that the part has, and those that it has not."""
    least = {instruction(form): since(form) for form in all_forms()} | OTHERS
    has = [text for text, number in least.items() if number is not None and number <= part]
    return has, [text for text in least if text not in has]


@pytest.mark.parametrize("part", PARTS)
def test_the_forms_that_there_are(engine: ctypes.CDLL, part: int) -> None:
    has, has_not = cases(part)
    assert len(has) > 40
    assert refused(engine, part, has) == []
    assert refused(engine, part, has_not) == has_not


@pytest.mark.parametrize("part", PARTS)
def test_the_table_of_forms_is_what_ptxas_takes(toolkit: Any, part: int, tmp_path: Path) -> None:
    """The expectation above against NVIDIA's own assembler, which names every line that it refuses."""
    has, has_not = cases(part)
    has_not = [text for text in has_not if not MORE.search(text)]
    source = tmp_path / "forms.ptx"
    begin = f"{header(part)}.visible .entry k() {{ {REGISTERS}\n"
    source.write_text(begin + "\n".join([*has, *has_not]) + "\nret; }")
    with pytest.raises(AssertionError) as error:
        toolkit.run("ptxas", "-arch", f"sm_{part}", source, "-o", tmp_path / "forms.cubin")
    lines = {int(number) - 5 for number in re.findall(r"line (\d+); error", str(error.value))}
    assert lines == set(range(len(has), len(has) + len(has_not)))
