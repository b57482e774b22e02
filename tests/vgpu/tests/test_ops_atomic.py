"""atom and red: every operation and type of sm_80 in every space, bf16 from 9.0 on, old values included; what the ISA has not.

What they order: test_ops_order.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from vgpu_exact import signed
from vgpu_lanes import lanes
from vgpu_micro import HEADER, NUMPY, CudaError

Function = Callable[..., int]
THREADS, WORDS = 96, 3


REAL: dict[str, Any] = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def wrap(kind: str, function: Callable[[int, int], int]) -> Function:
    """Of two numbers as the type reads them, back to bits."""
    n = 8 * NUMPY[kind].itemsize
    read = (lambda v: signed(v, n)) if kind[0] == "s" else int
    return lambda old, x, _y: function(read(old), read(x)) % (1 << n)


def float_add(kind: str) -> Function:
    """numpy rounds once, to nearest even; a pair is two sums."""
    bits, real = NUMPY[kind], REAL[kind.removesuffix("x2")]
    unsigned = f"u{bits.itemsize}"

    def add(old: int, x: int, _y: int) -> int:
        a, b = (np.array([v], unsigned).view(real) for v in (old, x))
        return int((a + b).view(unsigned)[0])

    return add


ROWS: dict[str, Function] = {}
LATER = {f"add.noftz.{k}": float_add(k) for k in ("bf16", "bf16x2")}  # from 9.0 on
for n in (32, 64):
    for k in (f"u{n}", f"s{n}"):
        ROWS[f"min.{k}"], ROWS[f"max.{k}"] = wrap(k, min), wrap(k, max)
    b = f"b{n}"
    ROWS[f"and.{b}"] = wrap(b, lambda a, x: a & x)
    ROWS[f"or.{b}"] = wrap(b, lambda a, x: a | x)
    ROWS[f"xor.{b}"] = wrap(b, lambda a, x: a ^ x)
    ROWS[f"exch.{b}"] = lambda old, x, y: x
    ROWS[f"add.u{n}"] = wrap(f"u{n}", lambda a, x: a + x)
ROWS["add.s32"] = wrap("s32", lambda a, x: a + x)
ROWS["inc.u32"] = lambda old, x, y: 0 if old >= x else old + 1
ROWS["dec.u32"] = lambda old, x, y: x if old == 0 or old > x else old - 1
for k in ("f32", "f64", "f16", "f16x2"):
    ROWS[f"add{'.noftz' if k in ('f16', 'f16x2') else ''}.{k}"] = float_add(k)
for n in (16, 32, 64):
    ROWS[f"cas.b{n}"] = lambda old, x, y: y if old == x else old
SPACES = ["global", "shared", "generic-global", "generic-shared"]


def operands(op: str, kind: str, exact: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second operand of every thread, and what the words hold before."""
    rng = np.random.default_rng(len(op))
    dtype = np.dtype(f"u{NUMPY[kind].itemsize}")
    if "f" in kind:
        real = REAL[kind.removesuffix("x2")]
        count = (THREADS + WORDS) * (2 if kind.endswith("x2") else 1)
        # Small whole numbers add up to the same in every order; the others round at every step.
        numbers = rng.integers(-4, 5, count) if exact else rng.normal(0, 1, count) * 10.0 ** rng.integers(-2, 3, count)
        values = numbers.astype(real).view(dtype)
    elif op == "cas":  # few values, so that many comparisons succeed
        values = rng.integers(0, 3, THREADS + WORDS).astype(dtype) << (8 * dtype.itemsize - 3)
    elif op in ("inc", "dec"):
        values = np.array([5] * THREADS if exact else rng.integers(0, 9, THREADS), dtype)
        values = np.append(values, np.array([0, 3, 11], dtype))
    else:
        values = rng.integers(0, 2 ** (8 * dtype.itemsize), THREADS + WORDS, dtype)
    second = rng.integers(0, 3, THREADS).astype(dtype) << (8 * dtype.itemsize - 3)
    return values[:THREADS], second, values[THREADS:]


def run(
    micro: Any, instruction: str, space: str, arrays: tuple[np.ndarray, ...], header: str = HEADER
) -> tuple[np.ndarray, np.ndarray]:
    """The instruction in every thread, thread i on word i % WORDS; $at is its address. Old values, words after."""
    x, y, memory = arrays
    size, bits = x.itemsize, 8 * x.itemsize
    at, before, after = "[%w]", "", ""
    if "shared" in space:
        move = f"setp.lt.u32 %q, %t, {WORDS}; mul.lo.u32 %u, %t, {size}; cvt.u64.u32 %w, %u; add.u64 %w, %w, %m0;"
        move += "mov.u32 %s, m; add.u32 %u, %u, %s;"
        before = f"{move} @%q ld.global.b{bits} %y, [%w]; @%q st.shared.b{bits} [%u], %y; bar.sync 0;"
        after = f"bar.sync 0; {move} @%q ld.shared.b{bits} %y, [%u]; @%q st.global.b{bits} [%w], %y;"
        locate = "mov.u32 %s, m; add.u32 %s, %s, %c;"
        at = "[%s]"
        if space.startswith("generic"):
            locate += "cvt.u64.u32 %w, %s; cvta.shared.u64 %w, %w;"
            at = "[%w]"
    else:
        locate = "cvt.u64.u32 %w, %c; add.u64 %w, %w, %m0;"
    text = f"{before} {locate} mov.b{bits} %d0, 0; {instruction.replace('$at', at)} {after}"
    registers = f".reg .b32 %s; .reg .b{bits} %y; .shared .align 8 .b8 m[{8 * WORDS}];"
    offsets = (np.arange(THREADS) % WORDS * size).astype(np.uint32)
    old, words = lanes(
        micro, text, [x, y, offsets], [f"b{bits}"], [memory], registers=registers, block=THREADS, header=header
    )
    return old, words


def one_after_another(start: int, end: int, steps: list[tuple[int, int]]) -> bool:
    """Whether steps (old value, new value) can follow each other from start to end: an Eulerian path of that graph."""
    balance, reached = Counter({start: 1}), {start}
    balance[end] -= 1
    for old, new in steps:
        balance[old] -= 1
        balance[new] += 1
    grown = True
    while grown:
        more = {new for old, new in steps if old in reached} - reached
        reached |= more
        grown = bool(more)
    return not any(balance.values()) and all(old in reached for old, _ in steps)


@pytest.fixture
def header(micro: Any, row: str) -> Iterator[str]:
    """For the part that has the row."""
    with micro.part(90 if row in LATER else 80) as text:
        yield text


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("row", [*ROWS, *LATER])
def test_atom(micro: Any, row: str, space: str, header: str) -> None:
    op, kind, function = row.split(".")[0], row.split(".")[-1], (ROWS | LATER)[row]
    arrays = operands(op, kind, exact=False)
    suffix = "" if space.startswith("generic") else f".{space}"
    second = ", %b" if op == "cas" else ""
    old, words = run(micro, f"atom{suffix}.{row} %d0, $at, %a{second};", space, arrays, header)
    x, y, before = arrays
    for word in range(WORDS):
        mine = range(word, THREADS, WORDS)
        steps = [(int(old[i]), function(int(old[i]), int(x[i]), int(y[i]))) for i in mine]
        for shift in (0, 16) if kind.endswith("x2") else (0,):  # the halves of a pair are atomic each on its own
            mask = 0xFFFF if kind.endswith("x2") else 2**64 - 1
            start, end = (int(v[word]) >> shift & mask for v in (before, words))
            assert one_after_another(start, end, [(a >> shift & mask, b >> shift & mask) for a, b in steps])


# ptxas 13.0 does not survive an atom on bf16 without a destination.
SUMS = [(r, "red") for r in (*ROWS, *LATER) if r.split(".")[0] not in ("cas", "exch")]
SUMS += [(row, "atom") for row, _ in SUMS if row not in LATER]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("row", "form"), SUMS)
def test_red(micro: Any, row: str, space: str, form: str, header: str) -> None:
    """No old value: red, and atom with a destination of `_`. The operands give one result in every order."""
    op, kind = row.split(".")[0], row.split(".")[-1]
    arrays = operands(op, kind, exact=True)
    suffix = "" if space.startswith("generic") else f".{space}"
    _, words = run(micro, f"{form}{suffix}.{row} {'_, ' if form == 'atom' else ''}$at, %a;", space, arrays, header)
    x, _, before = arrays
    for word in range(WORDS):
        expected = int(before[word])
        for i in range(word, THREADS, WORDS):
            expected = (ROWS | LATER)[row](expected, int(x[i]), 0)
        assert int(words[word]) == expected


def test_one_after_another_tells_impossible_old_values() -> None:
    assert one_after_another(0, 3, [(1, 2), (0, 1), (2, 3)])
    assert not one_after_another(0, 3, [(0, 1), (0, 1), (2, 3)])  # two saw the same
    assert not one_after_another(0, 2, [(0, 1), (1, 2), (2, 3)])  # the last is lost
    assert not one_after_another(0, 0, [(5, 5)])  # never there


@pytest.mark.parametrize("form", ["red.", "atom."])
@pytest.mark.parametrize("space", SPACES)
def test_subnormal_sums(micro: Any, space: str, form: str) -> None:
    """f32 sums flush subnormal numbers in global memory, and nowhere else; f64 and f16 keep them everywhere."""
    tiny = {"f32": (np.uint32, 1, 0x80000001), "f64": (np.uint64, 1, 1 << 63 | 1), "f16": (np.uint16, 1, 0x8001)}
    for kind, (dtype, small, minus) in tiny.items():
        smallest = {"f32": 0x00800000, "f64": 0x0010000000000000, "f16": 0x0400}[kind]
        sign = minus - small
        # before, addend, after in full, after with inputs and results flushed
        cases = [
            (0, small, small, 0),
            (small, small, 2 * small, 0),
            (minus, sign, minus, sign),
            (sign, minus, minus, sign),
        ]
        cases += [(smallest, small, smallest + 1, smallest), (smallest + 1, smallest | sign, small, 0)]
        flush = kind == "f32" and "global" in space
        suffix = "" if space.startswith("generic") else f"{space}."
        destination = "" if form == "red." else "%d0, "
        text = f"setp.lt.u32 %q, %t, {WORDS}; @%q {form}{suffix}add{'.noftz' if kind == 'f16' else ''}.{kind} {destination}$at, %a;"
        for k in (0, WORDS):
            before, x, full, flushed = (np.array(c, dtype) for c in zip(*cases[k : k + WORDS]))
            _, words = run(micro, text, space, (np.resize(x, THREADS), np.resize(x, THREADS), before))
            assert (words == (flushed if flush else full)).all(), (kind, words)


ILLEGAL = [
    "add.b32",
    "add.s64",
    "and.u32",
    "min.b32",
    "min.f32",
    "max.f64",
    "inc.s32",
    "dec.u64",
    "exch.f32",
    "cas.u32",
]
ILLEGAL += [
    "exch.b16",
    "add.f16x2",
    "add.noftz.f32",
    "min.noftz.f16x2",
    "add.noftz.bf16x2",
    "add.noftz.bf16",
    "add.u16",
]


@pytest.mark.parametrize("row", [f"atom.global.{x}" for x in ILLEGAL] + ["red.global.exch.b32", "red.global.cas.b32"])
def test_what_the_isa_has_not(micro: Any, row: str) -> None:
    kind = row.split(".")[-1]
    x = np.zeros(THREADS, NUMPY[kind])
    second = ", %b" if "cas" in row else ""
    with pytest.raises(CudaError):
        run(micro, f"{row} {'%d0, ' if row.startswith('atom') else ''}$at, %a{second};", "global", (x, x, x[:WORDS]))
