"""Forms that compilers seldom write: lop3 with a predicate, mad24.hi.sat, rcp.ftz.f64, prefetch.L2::evict_last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vgpu_lanes import lanes

RANDOM = np.random.default_rng(12)


@pytest.mark.parametrize("negated", ["", "!"])
@pytest.mark.parametrize("join", ["or", "and"])
def test_lop3_joined_with_a_predicate(micro: Any, join: str, negated: str) -> None:
    """The predicate says whether the result is no zero, joined with the last operand."""
    a = RANDOM.integers(0, 2**32, 32).astype(np.uint32)
    b = np.where(np.arange(32) % 2, a, ~a)  # a and b is zero in every second lane
    text = f"""setp.lt.u32 %r, %t, 16; lop3.{join}.b32 %d0|%q, %a, %b, %a, 0xC0, {negated}%r; selp.u32 %d1, 1, 0, %q;
    lop3.{join}.b32 _|%q, %a, %b, %a, 0xC0, {negated}%r; selp.u32 %d2, 1, 0, %q;"""
    value, found, again = lanes(micro, text, [a, b], ["u32", "u32", "u32"])
    assert (value == (a & b)).all()
    first = (np.arange(32) < 16) ^ bool(negated)
    expected = ((a & b) != 0) | first if join == "or" else ((a & b) != 0) & first
    assert (found == expected).all()
    assert (again == expected).all()


def test_mad24_hi_sat(micro: Any) -> None:
    """Bits 16 to 47 of the product of two signed numbers of 24 bits, plus c, within s32."""
    a, b = (RANDOM.integers(-(2**31), 2**31, 128) for _ in range(2))
    c = RANDOM.choice(np.array([-(2**31), 2**31 - 1, 0, -1, 2**31 - 2**29]), 128)
    words = [x.astype(np.int32).view(np.uint32) for x in (a, b, c)]
    found = micro.each("mad24.hi.sat.s32 $d, $a, $b, $c;", "s32", ["s32", "s32", "s32"], words)
    low = [(x + 2**23) % 2**24 - 2**23 for x in (a, b)]
    exact = (low[0] * low[1] >> 16) + c
    assert (np.abs(exact) > 2**31).any()
    assert (found.view(np.int32) == np.clip(exact, -(2**31), 2**31 - 1)).all()


@pytest.mark.parametrize("rounding", ["rn", "rz", "rm", "rp"])
def test_rcp_of_f64_has_no_use_for_ftz(micro: Any, rounding: str) -> None:
    """ptxas makes the same code with and without: subnormals stay."""
    values = np.array([3.0, -7.0, 2.0**1023, -(2.0**1023.5), 5e-324, 2.0**-1023, np.inf, 0.0]).view(np.uint64)
    plain, other = (micro.each(f"rcp.{rounding}{f}.f64 $d, $a;", "f64", ["f64"], [values]) for f in ("", ".ftz"))
    assert (plain.view(np.uint64) == other.view(np.uint64)).all()
    assert plain.view(np.float64)[2] == 2.0**-1023


def test_prefetch_with_a_priority_of_generic_memory(micro: Any) -> None:
    data = RANDOM.integers(0, 2**32, 32).astype(np.uint32)
    text = "prefetch.L2::evict_last [%m0]; prefetch.L2::evict_normal [%m0]; ld.u32 %d0, [%m0];"
    found, _ = lanes(micro, text, [], ["u32"], [data])
    assert (found == data[0]).all()
