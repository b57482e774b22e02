"""With every check off the engine runs loops and paths of its own (definedness, shadows, counters): the rows must not tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_ops_atomic as atomic
import test_ops_barrier as barrier
import test_ops_collective as collective
import test_ops_compare as compare
import test_ops_control as control
import test_ops_convert as convert
import test_ops_copy as copy
import test_ops_float as float_
import test_ops_half as half
import test_ops_integer as integer
import test_ops_matrix as matrix
import test_ops_memory as memory
import test_ops_mma as mma
import test_ops_order as order
from vgpu_micro import HEADER, CudaError, Micro

CHECKS = ("races", "bounds", "definedness", "strict_warp", "counters")


@pytest.fixture
def unchecked(micro: Micro) -> Iterator[Micro]:
    with contextlib.ExitStack() as stack:
        for check in CHECKS:
            stack.enter_context(micro.option(check, "0", "1"))
        yield micro


@pytest.mark.parametrize("off", [False, True])
def test_they_are_off(request: pytest.FixtureRequest, micro: Micro, virtual_only: None, off: bool) -> None:
    """A branch on a register that was never written fails the launch, or with the check off does not."""
    if off:
        request.getfixturevalue("unchecked")
    with contextlib.nullcontext() if off else pytest.raises(CudaError, match="never written"):
        micro.words(
            "setp.eq.u32 %q, %x, 0; @%q bra OUT; OUT: mov.u32 $0, 1;", [], registers=".reg .pred %q; .reg .b32 %x;"
        )


@pytest.mark.parametrize("row", integer.ROWS, ids=[r[0].split(" $d")[0] for r in integer.ROWS])
def test_integers(unchecked: Micro, row: Any) -> None:
    integer.test_integer(unchecked, *row)


@pytest.mark.parametrize("row", [r for r in float_.ROWS if r[1:3] == ("rn", "")], ids="-".join)
def test_floats(unchecked: Micro, row: Any) -> None:
    float_.test_arithmetic(unchecked, *row)


@pytest.mark.parametrize("row", [r for r in half.ARITHMETIC if r[2:] == (".rn", "")], ids="-".join)
def test_halves(unchecked: Micro, row: Any) -> None:
    half.test_arithmetic(unchecked, *row)


@pytest.mark.parametrize("kind", memory.TYPES)
@pytest.mark.parametrize("space", memory.WHERE)
def test_memory(unchecked: Micro, kind: str, space: str) -> None:
    for generic in (False, True):
        memory.test_ld(unchecked, kind, space, generic)
        if space != "const":
            memory.test_st(unchecked, kind, space, generic)


@pytest.mark.parametrize("space", atomic.SPACES)
@pytest.mark.parametrize("row", atomic.ROWS)
def test_atomics(unchecked: Micro, row: str, space: str) -> None:
    atomic.test_atom(unchecked, row, space, HEADER)


@pytest.mark.parametrize("copied", copy.COPIES)
def test_copies(unchecked: Micro, copied: Any) -> None:
    copy.test_cp_async(unchecked, *copied)


@pytest.mark.parametrize("name", mma.FORMS)
def test_products(unchecked: Micro, name: str) -> None:
    if name in mma.FLOATS:
        mma.test_whole_numbers_are_exact(unchecked, name, "exact")
    elif "f64" not in name:
        mma.test_integers(unchecked, name)
    else:
        mma.test_double_precision(unchecked)


OTHERS: dict[str, Callable[[Micro], None]] = {
    "barriers": lambda m: barrier.test_barrier_red(m, "barrier.red", ""),
    "named barriers": lambda m: barrier.test_barrier_arrive(m, "bar.arrive"),
    "barriers of divergent warps": barrier.test_barrier_sync_of_divergent_lanes,
    "votes": lambda m: collective.test_vote(m, "ballot", ""),
    "exchanges": lambda m: collective.test_shfl_partial_masks(m, "bfly"),
    "sums": lambda m: collective.test_redux(m, "add.s32"),
    "comparisons": lambda m: compare.test_setp(m, "f32", ""),
    "conversions": lambda m: convert.test_cvt(m, "s16", "f32"),
    "calls": control.test_call_by_value,
    "nested calls": control.test_divergent_and_nested_calls,
    "loops": control.test_divergent_loops,
    "tables": lambda m: control.test_brx(m, "brx.idx"),
    "groups of copies": lambda m: copy.test_cp_async_groups(m, 1),
    "ldmatrix": lambda m: matrix.test_ldmatrix(m, 4, ".trans", ".shared", "x{count}{trans}.m8n8"),
    "stmatrix": lambda m: matrix.test_stmatrix(m, 4, "", ".shared"),
    "movmatrix": matrix.test_movmatrix,
    "blocks": order.test_blocks_count_together,
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(unchecked: Micro, name: str) -> None:
    OTHERS[name](unchecked)


@pytest.mark.parametrize("text", control.GUARDED)
def test_guards(unchecked: Micro, text: str) -> None:
    control.test_guards(unchecked, text, "@%q")
