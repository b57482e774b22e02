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
