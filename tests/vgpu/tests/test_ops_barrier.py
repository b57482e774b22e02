"""Barriers of a block: sync, arrive and red under every name, with numbers and counts, whole and divergent warps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vgpu_lanes import lanes


@pytest.mark.parametrize("negated", ["", "!"])
@pytest.mark.parametrize(
    "name",
    ["bar.red", "bar.cta.red", "barrier.red", "barrier.cta.red", "barrier.red.aligned", "barrier.cta.red.aligned"],
)
def test_barrier_red(micro: Any, name: str, negated: str) -> None:
    name, aligned = name.removesuffix(".aligned"), ".aligned" if name.endswith("aligned") else ""
    text = f"""setp.ne.u32 %q, %a, 0; {name}.popc{aligned}.u32 %d0, 0, {negated}%q;
        {name}.and{aligned}.pred %r, 5, {negated}%q; selp.b32 %d1, 1, 0, %r;
        {name}.or{aligned}.pred %r, 15, 128, {negated}%q; selp.b32 %d2, 1, 0, %r;"""
    rng = np.random.default_rng(7)
    ones = np.eye(128, dtype=np.uint32)[[5, 40, 77, 127]]  # a thread of each warp: whichever comes last, all count
    for given in (*ones, *(1 - ones), ones[0] * 0, ones[0] * 0 + 1, rng.integers(0, 2, 128, np.uint32)):
        popc, everyone, some = lanes(micro, text, [given], ["b32"] * 3, block=128)
        said = given != bool(negated)
        assert (popc == said.sum()).all()
        assert (everyone == said.all()).all()
        assert (some == said.any()).all()


@pytest.mark.parametrize("name", ["bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync.aligned"])
def test_barrier_ids_and_counts(micro: Any, name: str) -> None:
    """Each pair of warps meets at a barrier of its own, its number (8 to 15) in a register; then all 512 threads at each
    of 16, in an order that reaches a pair's barrier only when every pair is done with it."""
    text = f"""shr.u32 %u, %t, 6; add.u32 %u, %u, 8; shl.b32 %v, %t, 2; mov.u32 %s, m; add.u32 %v, %v, %s; st.shared.u32 [%v], %a;
        {name} %u, 64; xor.b32 %s, %t, 32; shl.b32 %s, %s, 2; mov.u32 %v, m; add.u32 %s, %s, %v; ld.shared.u32 %d0, [%s];
        {" ".join(f"{name} {k}; {name} {k}, 512;" for k in range(16))}
        xor.b32 %s, %t, 511; shl.b32 %s, %s, 2; add.u32 %s, %s, %v; ld.shared.u32 %d1, [%s];"""
    values = np.random.default_rng(8).integers(0, 2**32, 512, np.uint32)
    registers = ".reg .b32 %s; .shared .align 4 .b8 m[2048];"
    pair, mirror = lanes(micro, text, [values], ["b32", "b32"], registers=registers, block=512)
    threads = np.arange(512)
    assert (pair == values[threads ^ 32]).all()
    assert (mirror == values[511 - threads]).all()


@pytest.mark.parametrize("name", ["bar.arrive", "bar.cta.arrive", "barrier.arrive", "barrier.cta.arrive.aligned"])
def test_barrier_arrive(micro: Any, name: str) -> None:
    """Producers arrive and go on; consumers wait for them. Two barriers make the hand-over two-way."""
    text = f"""mov.u32 %s, m; and.b32 %u, %t, 31; shl.b32 %u, %u, 2; add.u32 %s, %s, %u; mov.u32 %d0, 0; mov.u32 %v, 0;
        setp.ge.u32 %q, %t, 32; @%q bra CONSUME;
        PRODUCE: bar.sync 2, 64; add.u32 %u, %v, %a; st.shared.u32 [%s], %u; {name} 1, 64;
        add.u32 %v, %v, 1; setp.lt.u32 %r, %v, 5; @%r bra PRODUCE; bra END;
        CONSUME: {name} 2, 64; bar.sync 1, 64; ld.shared.u32 %u, [%s]; mad.lo.u32 %d0, %d0, 3, %u;
        add.u32 %v, %v, 1; setp.lt.u32 %r, %v, 5; @%r bra CONSUME; END:"""
    values = np.arange(64, dtype=np.uint32) * 100
    registers = ".reg .b32 %s; .shared .align 4 .b8 m[128];"
    (got,) = lanes(micro, text, [values], ["b32"], registers=registers, block=64)
    want = values[:32] * 0
    for k in range(5):
        want = want * 3 + values[:32] + k
    assert (got[32:] == want).all()


def test_barrier_sync_of_divergent_lanes(micro: Any) -> None:
    """barrier.sync without .aligned: lanes of one warp arrive from different places."""
    text = """shl.b32 %u, %t, 2; mov.u32 %s, m; add.u32 %u, %u, %s; st.shared.u32 [%u], %a; and.b32 %v, %t, 1;
        setp.eq.u32 %q, %v, 0; @%q bra EVEN; barrier.sync 3; bra END; EVEN: barrier.sync 3; END:
        xor.b32 %u, %t, 63; shl.b32 %u, %u, 2; add.u32 %u, %u, %s; ld.shared.u32 %d0, [%u];"""
    values = np.random.default_rng(9).integers(0, 2**32, 64, np.uint32)
    registers = ".reg .b32 %s; .shared .align 4 .b8 m[256];"
    (got,) = lanes(micro, text, [values], ["b32"], registers=registers, block=64)
    assert (got == values[::-1]).all()
