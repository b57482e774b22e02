"""Atomics and reductions: every type and operation that the ISA lists for sm_80, in each space, against one-by-one application."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

RANDOM = np.random.default_rng(11)
THREADS = 96
Function = Callable[[Any, Any], Any]

INTEGER: dict[str, Function] = {
    "add": lambda m, x: m + x,
    "min": min,
    "max": max,
    "and": lambda m, x: m & x,
    "or": lambda m, x: m | x,
    "xor": lambda m, x: m ^ x,
}
ROWS = [f"{op}.{t}" for op in ("add",) for t in ("u32", "s32", "u64")]
ROWS += [f"{op}.{t}" for op in ("min", "max") for t in ("u32", "s32", "u64", "s64")]
ROWS += [f"{op}.{t}" for op in ("and", "or", "xor") for t in ("b32", "b64")]
SPACES = ["global", "shared", "generic"]
HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"


def place(space: str, width: int, start: int) -> str:
    """%s: the address of one cell of ``width`` bits holding ``start``; thread 0 writes it first where it is shared."""
    if space == "global":
        return "mov.u64 %s, cell;"
    init = f"mov.u32 %v, mine; @%first st.shared.b{width} [%v], {start}; bar.sync 0;"
    if space == "shared":
        return init + "cvt.u64.u32 %s, %v;"
    return init + "cvt.u64.u32 %s, %v; cvta.shared.u64 %s, %s;"


def run(
    micro: Any, text: str, width: int, values: np.ndarray, start: int, space: str, header: str = HEADER
) -> tuple[np.ndarray, int]:
    """Old values by thread, and what the cell holds at the end. ``text`` has $OP for the space and $S, $X for operands."""
    address = "[%v]" if space == "shared" else "[%s]"
    text = text.replace("$SPACE", "" if space == "generic" else f".{space}").replace("$S", address)
    cell = start.to_bytes(width // 8, "little")
    ptx = f"""{header}.global .align 8 .b8 cell[8] = {{{", ".join(map(str, cell))}}};
    .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) {{
    .reg .b64 %p, %o, %s, %x64, %d64; .reg .b32 %t, %v, %x32, %d32; .reg .b16 %x16, %d16; .reg .pred %first;
    .shared .align 8 .b8 mine[8];
    mov.u32 %t, %tid.x; setp.eq.u32 %first, %t, 0; mul.wide.u32 %o, %t, {width // 8};
    ld.param.u64 %p, [a]; add.u64 %p, %p, %o; ld.global.b{width} %x{width}, [%p];
    mov.b{width} %d{width}, 0;
    {place(space, width, start)}
    {text.replace("$X", f"%x{width}").replace("$D", f"%d{width}")}
    ld.param.u64 %p, [b]; add.u64 %p, %p, %o; st.global.b{width} [%p], %d{width};
    bar.sync 0; @!%first bra OUT; ld{"" if space == "generic" else f".{space}"}.b{width} %x{width}, {address};
    ld.param.u64 %p, [c]; st.global.b{width} [%p], %x{width}; OUT: ret; }}"""
    kind = np.dtype(f"u{width // 8}")
    arrays = [np.ascontiguousarray(values).view(kind), np.zeros(len(values), kind), np.zeros(1, kind)]
    _, old, last = micro.launch(ptx, arrays, block=len(values))
    return old, int(last[0])


def in_some_order(olds: list[Any], values: list[Any], start: Any, last: Any, function: Function) -> bool:
    """Whether one-by-one application in some order reads ``olds`` and ends at ``last``: follow the old values."""
    waiting: dict[Any, list[Any]] = {}
    for old, value in zip(olds, values):
        waiting.setdefault(old, []).append(value)
    state, same = start, 0
    for _ in range(len(values)):
        left = waiting.get(state, [])
        if not left:
            return False
        # Those that leave the state as it is come first; of the others any may: the state's values must be used up.
        still = [v for v in left if function(state, v) == state]
        value = still[0] if still else left[0]
        left.remove(value)
        state, same = function(state, value), same + bool(still)
    return bool(state == last)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("row", ROWS)
def test_integers(micro: Any, row: str, space: str) -> None:
    op, kind = row.split(".")
    width = int(kind[1:])
    signed = kind[0] == "s"
    values = RANDOM.integers(-(2 ** (width - 1)), 2 ** (width - 1), THREADS, dtype=f"i{width // 8}")
    unsigned = values.view(f"u{width // 8}")
    start = 2 ** (width - 1) - 5

    def wrap(x: int) -> int:
        x %= 2**width
        return x - 2**width if signed and x >> (width - 1) else x

    def function(m: int, x: int) -> int:
        return wrap(INTEGER[op](m, x))

    old, last = run(micro, f"atom$SPACE.{row} $D, $S, $X;", width, values, start, space)
    given = [wrap(int(v)) for v in unsigned]
    assert in_some_order([wrap(int(v)) for v in old], given, start, wrap(last), function)
    expected = start
    for v in given:
        expected = function(expected, v)
    assert wrap(last) == expected
    _, last = run(micro, f"red$SPACE.{row} $S, $X;", width, values, start, space)
    assert wrap(last) == expected


@pytest.mark.parametrize("space", SPACES)
def test_inc_and_dec_wrap(micro: Any, space: str) -> None:
    limit = np.full(THREADS, 9, np.uint32)
    old, last = run(micro, "atom$SPACE.inc.u32 $D, $S, $X;", 32, limit, 7, space)
    assert sorted(old) == sorted((7 + i) % 10 for i in range(THREADS))
    assert last == (7 + THREADS) % 10
    old, last = run(
        micro, "atom$SPACE.dec.u32 $D, $S, $X;", 32, limit, 12, space
    )  # above the limit: wraps to it at once
    assert sorted(old) == sorted([12, *((9 - i) % 10 for i in range(THREADS - 1))])
    assert last == (9 - (THREADS - 1)) % 10


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("width", [32, 64])
def test_exchange(micro: Any, width: int, space: str) -> None:
    values = RANDOM.permutation(np.arange(1, THREADS + 1)).astype(f"u{width // 8}")
    old, last = run(micro, f"atom$SPACE.exch.b{width} $D, $S, $X;", width, values, 0, space)
    assert sorted([*map(int, old), last]) == list(range(THREADS + 1))  # each value is read once or left at the end


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("width", [16, 32, 64])
def test_compare_and_swap(micro: Any, width: int, space: str) -> None:
    """Only the first to see 5 may write; everybody else reads what it wrote."""
    values = np.arange(100, 100 + THREADS).astype(f"u{width // 8}")
    old, last = run(micro, f"atom$SPACE.cas.b{width} $D, $S, 5, $X;", width, values, 5, space)
    assert 100 <= last < 100 + THREADS
    assert sorted(map(int, old)) == sorted([5, *[last] * (THREADS - 1)])
    old, last = run(micro, f"atom$SPACE.cas.b{width} $D, $S, 6, $X;", width, values, 5, space)
    assert (last, set(map(int, old))) == (5, {5})


FLOATS = {"f32": np.float32, "f64": np.float64}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", FLOATS)
def test_float_addition(micro: Any, kind: str, space: str) -> None:
    """Whole numbers: any order gives the same sum, and the old values are partial sums of one order."""
    dtype = FLOATS[kind]
    values = RANDOM.integers(1, 1000, THREADS).astype(dtype)
    width = 8 * values.itemsize
    old, last = run(micro, f"atom$SPACE.add.{kind} $D, $S, $X;", width, values, 0, space)
    partial = np.sort(old.view(dtype))
    total = np.array([last], dtype=f"u{width // 8}").view(dtype)[0]
    assert total == values.sum()
    assert sorted(np.diff([*partial, total])) == sorted(values)
    _, last = run(micro, f"red$SPACE.add.{kind} $S, $X;", width, values, 0, space)
    assert np.array([last], dtype=f"u{width // 8}").view(dtype)[0] == total


@pytest.mark.parametrize(("kind", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
@pytest.mark.parametrize("space", SPACES)
def test_half_addition(micro: Any, kind: str, dtype: Any, space: str) -> None:
    values = RANDOM.integers(0, 2, THREADS).astype(dtype)
    pairs = np.stack([values, RANDOM.integers(0, 2, THREADS).astype(dtype)], 1)
    words = np.ascontiguousarray(pairs).view(np.uint32).ravel()
    header = HEADER.replace("sm_80", "sm_90") if kind == "bf16" else HEADER
    with micro.part("h100", 90) if kind == "bf16" else contextlib.nullcontext():
        text = f"atom$SPACE.add.noftz.{kind} $D, $S, $X;"
        old, last = run(micro, text, 16, values.view(np.uint16), 0, space, header)
        assert np.array([last], np.uint16).view(dtype)[0] == values.astype(int).sum()
        assert old.view(dtype).astype(int).max() <= values.astype(int).sum()
        for text in (f"atom$SPACE.add.noftz.{kind}x2 $D, $S, $X;", f"red$SPACE.add.noftz.{kind}x2 $S, $X;"):
            _, last = run(micro, text, 32, words, 0, space, header)
            assert np.array([last], np.uint32).view(dtype).astype(int).tolist() == pairs.astype(int).sum(0).tolist()


@pytest.mark.parametrize("scope", ["cta", "gpu", "sys"])
@pytest.mark.parametrize("order", ["relaxed", "acquire", "release", "acq_rel"])
def test_orders_and_scopes(micro: Any, order: str, scope: str) -> None:
    values = np.ones(THREADS, np.uint32)
    old, last = run(micro, f"atom.{order}.{scope}$SPACE.add.u32 $D, $S, $X;", 32, values, 3, "global")
    assert (sorted(old), last) == (list(range(3, 3 + THREADS)), 3 + THREADS)
    if order in ("relaxed", "release"):
        _, last = run(micro, f"red.{order}.{scope}$SPACE.add.u32 $S, $X;", 32, values, 3, "global")
        assert last == 3 + THREADS


def test_blocks_count_together(micro: Any) -> None:
    """The last block to arrive, by an acq_rel counter and fences, sees what all others wrote."""
    ptx = f"""{HEADER}.global .align 4 .u32 arrived = 0;
    .visible .entry k(.param .u64 work, .param .u64 out) {{ .reg .b64 %w, %o; .reg .b32 %b, %n, %s, %x; .reg .pred %p;
    mov.u32 %n, %tid.x; setp.ne.u32 %p, %n, 0; @%p bra OUT;
    ld.param.u64 %w, [work]; mov.u32 %b, %ctaid.x; mul.wide.u32 %o, %b, 4; add.u64 %o, %o, %w;
    mul.lo.u32 %x, %b, %b; st.global.u32 [%o], %x; membar.gl; fence.acq_rel.gpu;
    atom.acq_rel.gpu.global.add.u32 %n, [arrived], 1; setp.ne.u32 %p, %n, 15; @%p bra OUT;
    fence.sc.gpu; mov.u32 %s, 0; mov.u32 %b, 0;
    LOOP: ld.global.u32 %x, [%w]; add.u32 %s, %s, %x; add.u64 %w, %w, 4; add.u32 %b, %b, 1;
    setp.lt.u32 %p, %b, 16; @%p bra LOOP; ld.param.u64 %o, [out]; st.global.u32 [%o], %s; OUT: ret; }}"""
    _, out = micro.launch(ptx, [np.zeros(16, np.uint32), np.zeros(1, np.uint32)], grid=16)
    assert out[0] == sum(i * i for i in range(16))
