"""Bank conflicts and sectors of known patterns."""

from __future__ import annotations

import numpy as np
import pytest
from door import Door


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 1), (2, 2), (32, 32), (33, 1), (4, 4), (0, 1)])
def test_bank_conflicts(engine, stride, wavefronts):
    text = f""".visible .entry k() {{ .reg .b32 %r<4>; .shared .align 16 .b8 m[4608]; mov.u32 %r1, %tid.x;
mov.u32 %r2, m; mad.lo.u32 %r2, %r1, {4 * stride}, %r2; st.shared.u32 [%r2], 1; ret; }}"""
    result = Door(engine, text).launch("k", [])
    assert result.counters["shared_wavefronts"] == wavefronts
    assert result.counters["shared_wavefronts_min"] == 1


@pytest.mark.parametrize(
    ("size", "stride", "sectors", "least"),
    [
        ("u32", 4, 4, 4),
        ("u32", 32, 32, 4),
        ("v4.u32", 16, 16, 16),
        ("u16", 2, 2, 2),
        ("u32", 0, 1, 1),
        ("u8", 64, 32, 1),
    ],
)
def test_sectors(engine, size, stride, sectors, least):
    regs = "{%r4, %r5, %r6, %r7}" if size.startswith("v4") else "%r4"
    text = f""".visible .entry k(.param .u64 in) {{ .reg .b32 %r<8>; .reg .b64 %rd<4>; ld.param.u64 %rd1, [in];
mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, {stride}; add.s64 %rd2, %rd2, %rd1; ld.global.{size} {regs}, [%rd2];
ret; }}"""
    door = Door(engine, text)
    result = door.launch("k", [door.put(np.zeros(4096, np.uint8))])
    assert result.clean
    assert (result.counters["global_load_sectors"], result.counters["global_load_sectors_min"]) == (
        sectors,
        least,
    )


def test_a_request_that_reaches_two_allocations_counts_in_both(engine):
    """Even lanes write one array, odd lanes another: every byte is distinct, and read back it is again."""
    text = """.visible .entry k(.param .u64 a, .param .u64 b) { .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .pred %p<2>;
ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0;
selp.b64 %rd3, %rd1, %rd2, %p1; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd3, %rd3, %rd4; st.global.u32 [%rd3], %r1;
ld.global.u32 %r3, [%rd3]; ret; }"""
    door = Door(engine, text)
    arrays = [door.put(np.zeros(128, np.uint8)) for _ in range(2)]
    result = door.launch("k", arrays)
    assert result.clean
    assert result.counters["unique_bytes_written"] == result.counters["unique_bytes_read"] == 32 * 4
