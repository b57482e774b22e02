"""Which forms of mma, ldmatrix, stmatrix and movmatrix there are, as ptxas and the ISA have them; and their rarer forms by value."""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from door import Door
from test_ops_matrix import place_a, place_b, place_c, registers_of

RANDOM = np.random.default_rng(8)
LANES = range(32)
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8, "e4m3": 8, "e5m2": 8, "f64": 64}
INTEGERS, FP8 = ("s8", "u8"), ("e4m3", "e5m2")
SHAPES = [(16, 8, 4), (16, 8, 8), (16, 8, 16), (16, 8, 32), (8, 8, 16), (8, 8, 4)]
Form = tuple[int, int, int, str, str, str, str, str]  # m, n, k, .satfinite, types of D, A, B, C


def all_forms() -> Iterator[Form]:
    """Every shape with every types that fit into its registers, whether there is such an instruction or not."""
    for shape, (a, b), d, c in itertools.product(
        SHAPES, itertools.product(BITS, BITS), ("f16", "f32", "s32", "f64"), ("f16", "f32", "s32", "f64")
    ):
        if BITS[a] == BITS[b] and shape[0] * shape[2] * BITS[a] >= 1024 and shape[1] * shape[2] * BITS[b] >= 1024:
            for saturate in ("", ".satfinite"):
                yield (*shape, saturate, d, a, b, c)


def since(form: Form) -> int | None:
    """The least part that has a form, by the ISA's tables of mma; None: there is none. (f64 of 16 rows is not modelled.)"""
    m, _, k, saturate, d, a, b, c = form
    if a in INTEGERS and b in INTEGERS:
        return 80 if d == c == "s32" and ((m == 16 and k in (16, 32)) or (m == 8 and k == 16)) else None
    if saturate or c != d:
        return None
    if a in FP8 and b in FP8:
        return 89 if m == 16 and k in (16, 32) and d in ("f16", "f32") else None
    if a != b:
        return None
    if a == "f64":
        return 80 if m == 8 and k == 4 and d == "f64" else None
    if a == "tf32":
        return 80 if m == 16 and k in (4, 8) and d == "f32" else None
    return 80 if m == 16 and k in (8, 16) and (d == "f32" or (d == "f16" and a == "f16")) else None


def opcode(form: Form) -> str:
    m, n, k, saturate, d, a, b, c = form
    return f"mma.sync.aligned.m{m}n{n}k{k}.row.col{saturate}.{d}.{a}.{b}.{c}"


def instruction(form: Form) -> str:
    m, n, k, _, d, a, b, c = form
    groups = []
    for kind, elements in ((d, m * n // 32), (a, m * k // 32), (b, n * k // 32), (c, m * n // 32)):
        count = elements if kind == "f64" else elements * BITS.get(kind, 32) // 32
        register = {"f64": "d", "f32": "f"}.get(kind, "r")
        groups.append("{" + ", ".join(f"%{register}{i}" for i in range(count)) + "}")
    return f"{opcode(form)} {', '.join(groups)};"


REGISTERS = ".reg .b32 %r<20>; .reg .f32 %f<20>; .reg .f64 %d<20>; .reg .b64 %rd<2>;"
PARTS = {80: "a100", 89: "l4", 90: "h100"}


def refused(engine: ctypes.CDLL, part: int, texts: list[str]) -> list[str]:
    """Those of the instructions that the engine does not know, each in a kernel of its own that never gets to it."""
    header = f".version 9.0\n.target sm_{part}\n.address_size 64\n"
    kernels = [f".visible .entry k{i}() {{ {REGISTERS} bra E; {t} E: ret; }}" for i, t in enumerate(texts)]
    door = Door(engine, header + "\n".join(kernels), PARTS[part])
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
    begin = f".version 9.0\n.target sm_{part}\n.address_size 64\n.visible .entry k() {{ {REGISTERS}\n"
    source.write_text(begin + "\n".join([*has, *has_not]) + "\nret; }")
    with pytest.raises(AssertionError) as error:
        toolkit.run("ptxas", "-arch", f"sm_{part}", source, "-o", tmp_path / "forms.cubin")
    lines = {int(number) - 5 for number in re.findall(r"line (\d+); error", str(error.value))}
    assert lines == set(range(len(has), len(has) + len(has_not)))


def header(part: int) -> str:
    return f".version 9.0\n.target sm_{part}\n.address_size 64\n"


def product(micro: Any, form: Form, a: np.ndarray, b: np.ndarray, c: np.ndarray, part: int = 80) -> np.ndarray:
    """One mma by value: fragments by the places of test_ops_matrix, and the result put together again."""
    m, n, k, *_ = form
    per = 4 // a.itemsize
    fragments = [
        registers_of(
            a, m * k // 32, lambda i, lane: (lane // 4, lane % 4 * per + i) if m == 8 else place_a(i, lane, per)
        ),
        registers_of(b, n * k // 32, lambda i, lane: place_b(i, lane, per)),
        registers_of(c, m * n // 32, place_c),
    ]
    letters = iter("abcdefghijklmnop")
    groups = ["{" + ", ".join("$" + next(letters) for _ in part_) + "}" for part_ in fragments]
    outputs = len(fragments[2])
    text = f"{opcode(form)} {{{', '.join(f'${i}' for i in range(outputs))}}}, {', '.join(groups)};"
    found = micro.words(text, [w for f in fragments for w in f], outputs=outputs, header=header(part))
    values = np.ascontiguousarray(found.T).view(c.dtype).reshape(32, m * n // 32)
    d = np.zeros((m, n), c.dtype)
    for lane, i in itertools.product(LANES, range(m * n // 32)):
        d[place_c(i, lane)] = values[lane, i]
    return d


FORMS = list(all_forms())
WHOLE: dict[str, Any] = {"s8": np.int8, "u8": np.uint8, "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
RESULTS: dict[str, Any] = {"f16": np.float16, "f32": np.float32, "s32": np.int32}


@pytest.mark.parametrize("form", [f for f in FORMS if since(f) and f[5] in INTEGERS], ids=opcode)
def test_integers(micro: Any, form: Form) -> None:
    """Sums wrap around, or with .satfinite stay at the ends of s32; operands of every value."""
    m, n, k, saturate, _, ka, kb, _ = form
    a = RANDOM.integers(np.iinfo(WHOLE[ka]).min, np.iinfo(WHOLE[ka]).max + 1, (m, k)).astype(WHOLE[ka])
    b = RANDOM.integers(np.iinfo(WHOLE[kb]).min, np.iinfo(WHOLE[kb]).max + 1, (k, n)).astype(WHOLE[kb])
    ends = np.array([-(2**31), -(2**31) + 9, 2**31 - 1, 2**31 - 500, 0, -1], np.int64)
    c = RANDOM.choice(ends, (m, n)).astype(np.int32)
    exact = a.astype(np.int64) @ b.astype(np.int64) + c
    assert (exact > 2**31).any() or (exact < -(2**31)).any()
    expected = np.clip(exact, -(2**31), 2**31 - 1) if saturate else exact.astype(np.int32)
    assert (product(micro, form, a, b, c) == expected).all()


@pytest.mark.parametrize("truncating", ["0", "1"])
@pytest.mark.parametrize("form", [f for f in FORMS if since(f) == 89], ids=opcode)
def test_fp8(micro: Any, form: Form, truncating: str) -> None:
    """Whole numbers exactly, then infinities and what is not a number (e4m3 has no infinity)."""
    m, n, k, _, kind, ka, kb, _ = form
    a, b = (RANDOM.integers(-4, 5, shape).astype(WHOLE[t]) for shape, t in (((m, k), ka), ((k, n), kb)))
    b[5] = np.maximum(b[5].astype(np.float32), 1).astype(WHOLE[kb])
    c = RANDOM.integers(-100, 101, (m, n)).astype(RESULTS[kind])
    with micro.part("l4", 89), micro.option("truncating_mma", truncating, "0"):
        exact = a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)
        assert (product(micro, form, a, b, c, 89) == exact).all()
        a[3, 2] = np.nan
        a[7, 5] = np.inf if ka == "e5m2" else np.nan
        found = product(micro, form, a, b, c, 89).astype(np.float64)
    assert np.isnan(found[3]).all()
    assert (found[7] == np.inf).all() if ka == "e5m2" else np.isnan(found[7]).all()
    rest = [row for row in range(m) if row not in (3, 7)]
    assert (found[rest] == exact[rest]).all()


@pytest.mark.parametrize("space", ["", ".shared::cta"])
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
    with micro.part("h100", 90):
        found = micro.words(code, [address, *words], outputs=count, registers=registers, header=header(90))
    stored = found.reshape(-1).view(np.uint16).reshape(8 * count, 8)[::-1].reshape(count, 8, 8)
    assert (stored == (matrices.transpose(0, 2, 1) if trans else matrices)).all()
