"""What atomics, fences and qualified loads and stores order: every order and scope, messages from one block to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vgpu_lanes import lanes
from vgpu_micro import HEADER


@pytest.mark.parametrize("scope", ["", ".cta", ".gpu", ".sys"])
@pytest.mark.parametrize("order", ["", ".relaxed", ".acquire", ".release", ".acq_rel"])
def test_orders_and_scopes(micro: Any, order: str, scope: str) -> None:
    """Every one adds, and the old values of an atom are those of some order."""
    ones = np.ones(96, np.uint32)
    old, cell = lanes(
        micro, f"atom{order}{scope}.global.add.u32 %d0, [%m0], %a;", [ones], ["u32"], [ones[:1] * 3], block=96
    )
    assert (sorted(old), cell[0]) == (list(range(3, 99)), 99)
    if order in ("", ".relaxed", ".release"):
        (cell,) = lanes(micro, f"red{order}{scope}.global.add.u32 [%m0], %a;", [ones], [], [ones[:1] * 3], block=96)
        assert cell[0] == 99


PUBLISH = {
    "red.release.gpu.global.add.u32 [%m0], 1;",
    "atom.release.gpu.global.exch.b32 %v, [%m0], 1;",
    "atom.acq_rel.gpu.global.cas.b32 %v, [%m0], 0, 1;",
    "fence.acq_rel.gpu; red.relaxed.gpu.global.or.b32 [%m0], 1;",
    "membar.gl; st.volatile.global.u32 [%m0], 1;",
    "st.release.gpu.global.u32 [%m0], 1;",
}
CONSUME = {
    "atom.acquire.gpu.global.or.b32 %v, [%m0], 0;",
    "atom.acq_rel.sys.global.cas.b32 %v, [%m0], 5, 5;",
    "atom.relaxed.gpu.global.max.u32 %v, [%m0], 0; fence.acq_rel.gpu;",
    "ld.acquire.gpu.global.u32 %v, [%m0];",
    "ld.relaxed.sys.global.u32 %v, [%m0]; fence.sc.sys;",
}


@pytest.mark.parametrize("consume", sorted(CONSUME))
@pytest.mark.parametrize("publish", sorted(PUBLISH))
def test_message_from_one_block_to_another(micro: Any, publish: str, consume: str) -> None:
    """Every pair of release and acquire that the memory model orders: the value arrives, and no race is reported."""
    text = f"""mov.u32 %d0, 0; setp.ge.u32 %q, %i, 32; @%q bra WAIT;
        st.global.u32 [%m0+64], 1234; {publish} mov.u32 %d0, 1; bra END;
        WAIT: {consume} setp.eq.u32 %q, %v, 0; @%q bra WAIT; ld.global.u32 %d0, [%m0+64]; END:"""
    lone = f"setp.ne.u32 %q, %t, 0; mov.u32 %d0, 0; @%q bra OUT; {text} OUT:"
    got, memory = lanes(micro, lone, [], ["u32"], [np.zeros(32, np.uint32)], grid=2)
    assert got[0] == 1
    assert got[32] == 1234
    assert memory[0] == 1


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
