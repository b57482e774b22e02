"""cp.async: sizes, short and ignored sources, hints, groups, and when its bytes are there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_ops_memory import DATA, PLACE, POLICY, SHARED, WHERE, drain, fill
from vgpu_lanes import lanes
from vgpu_micro import CudaError

WAITS = ["cp.async.wait_all;", "cp.async.commit_group; cp.async.wait_group 0;"]
HINTS = ["", ".L2::64B", ".L2::128B", ".L2::256B", ".L2::cache_hint.L2::256B"]
PLACES = [*(f"shared.global{hint}" for hint in HINTS), "shared::cta.global", "shared::cta.global.L2::128B"]
COPIES = [(f"cp.async.{k}.{place}", n) for k, n in (("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)) for place in PLACES]


@pytest.mark.parametrize(("name", "size"), COPIES)
def test_cp_async(micro: Any, name: str, size: int) -> None:
    """Whole copies, source sizes 0 to the copy's (the rest is zeros), and copies that ignore their source."""
    end = ", %y;" if "cache_hint" in name else ";"
    sizes = (np.arange(32) % (size + 1)).astype(np.uint32)
    own = DATA.reshape(32, PLACE)[:, :size]
    taken = np.where(np.arange(size) < sizes[:, None], own, 0)
    ignored = np.where(sizes[:, None] % 2 == 1, 0, own)
    first = f"{POLICY} {WHERE['shared']} {fill('shared')} and.b32 %v, %a, 1; setp.ne.u32 %q, %v, 0;"
    for operand, expected in (("", own), (", %a", taken), (f", {size}", own), (", 0", own * 0), (", %q", ignored)):
        issue = f"{name} [%z], [%w], {size}{operand}{end}"
        for wait in WAITS:
            (got,) = lanes(micro, f"{first} {issue} {wait} {drain('shared')}", [sizes], [], [DATA], registers=SHARED)
            got = got.reshape(32, PLACE)
            assert (got[:, :size] == expected).all(), (issue, wait)
            assert (got[:, size:] == DATA.reshape(32, PLACE)[:, size:]).all()


@pytest.mark.parametrize("wait", WAITS, ids=["all", "group"])
def test_others_see_a_copy_behind_a_barrier(micro: Any, wait: str) -> None:
    """Each of 64 threads reads what the one from the other end has copied."""
    text = f"""mul.lo.u32 %u, %t, 16; cvt.u64.u32 %o, %u; add.u64 %w, %m0, %o; mov.u32 %s, m; add.u32 %v, %s, %u;
        cp.async.cg.shared.global [%v], [%w], 16; {wait} bar.sync 0;
        sub.u32 %u, 1008, %u; add.u32 %v, %s, %u; ld.shared.v4.u32 {{%d0, %d1, %d2, %d3}}, [%v];"""
    data = np.random.default_rng(3).integers(0, 2**32, 256, np.uint32)
    registers = ".reg .b32 %s; .shared .align 16 .b8 m[1024];"
    *got, _ = lanes(micro, text, [], ["u32"] * 4, [data], registers=registers, block=64)
    assert (np.stack(got, axis=1) == data.reshape(64, 4)[::-1]).all()


@pytest.mark.parametrize("pending", [0, 1, 2, 3])
def test_cp_async_groups(micro: Any, pending: int) -> None:
    """Four groups of one copy, one of them empty: all but the newest `pending` have arrived after the wait."""
    copies = [
        f"cp.async.ca.shared.global [%z+{4 * k}], [%w+{4 * (3 - k)}], 4; cp.async.commit_group;" for k in (0, 1, 3)
    ]
    arrived = [1, 1, 0, 1][: 4 - pending]  # of the groups in order of issue; the third is empty
    issue = " ".join([*copies[:2], "cp.async.commit_group;", copies[2]])
    reads = " ".join(f"ld.shared.u32 %d{k}, [%z+{4 * k}];" if x else "" for k, x in enumerate(arrived))
    zeros = " ".join(f"mov.u32 %d{k}, 0;" for k in range(4))
    text = f"{WHERE['shared']} {zeros} {issue} cp.async.wait_group {pending}; {reads} cp.async.wait_all;"
    *got, _ = lanes(micro, text, [], ["u32"] * 4, [DATA], registers=SHARED)
    own = DATA.view(np.uint32).reshape(32, 4)
    for k in range(4):
        assert (got[k] == (own[:, 3 - k] if k < len(arrived) and arrived[k] else 0)).all()


ILLEGAL = [
    "cp.async.cg.shared.global [%z], [%w], 8",
    "cp.async.ca.shared.global [%z], [%w], 12",
    "cp.async.ca.global.shared [%w], [%z], 4",
]


@pytest.mark.parametrize("text", ILLEGAL)
def test_what_the_isa_has_not(micro: Any, text: str) -> None:
    with pytest.raises(CudaError):
        lanes(micro, f"{WHERE['shared']} {text};", [], [], [DATA], registers=SHARED)
