"""Loads, stores and asynchronous copies: every width, vector, space, qualifier; address conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
RANDOM = np.random.default_rng(5)
BYTES = RANDOM.integers(0, 256, 4096).astype(np.uint8)
TYPES = [f"{k}{w}" for w in (8, 16, 32, 64) for k in "bus"] + ["f32", "f64"]
SPACES = ["global", "shared", "local", "generic"]


def extended(raw: np.ndarray, kind: str) -> np.ndarray:
    """What a 64-bit register holds after ld of ``kind``: s sign-extends, b and u fill with zeros."""
    width = int(kind[1:])
    if kind[0] == "s":
        return raw.view(f"i{width // 8}").astype(np.int64).view(np.uint64)
    return raw.view(f"u{width // 8}").astype(np.uint64)


def through(space: str, kind: str, count: int) -> str:
    """From [%p] to 64-bit registers by way of ``space``: stored there with st, read back with ld. 32 lanes."""
    size = int(kind[1:]) // 8 * count
    vector = "" if count == 1 else f".v{count}"
    group = "%r0" if count == 1 else "{" + ", ".join(f"%r{i}" for i in range(count)) + "}"
    if space == "global":
        return f"ld.global{vector}.{kind} {group}, [%p];"
    moved = f"ld.global{vector}.{kind} {group}, [%p];"
    if space == "shared":
        here, dot = f"mov.u32 %s, m; mad.lo.u32 %s, %t, {size}, %s;", ".shared"
        return f"{moved} {here} st{dot}{vector}.{kind} [%s], {group}; ld{dot}{vector}.{kind} {group}, [%s];"
    if space == "local":
        return f"{moved} mov.u64 %q, l; st.local{vector}.{kind} [%q+32], {group}; ld.local{vector}.{kind} {group}, [%q+32];"
    here = f"mov.u64 %q, l; cvta.local.u64 %q, %q; st{vector}.{kind} [%q], {group}; ld{vector}.{kind} {group}, [%q];"
    return f"{moved} {here}"


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", TYPES)
def test_widths_and_vectors(micro: Any, kind: str, space: str) -> None:
    for count in (1, 2, 4):
        size = int(kind[1:]) // 8 * count
        if size > 16:
            continue
        register = kind if kind[0] == "f" else "b64"
        names = "".join(f".reg .{register} %r{i};" for i in range(count))
        out = []
        for i in range(count):
            if kind == "f32":
                out.append(f"mov.b32 %x32, %r{i}; cvt.u64.u32 %x64, %x32; st.global.b64 [%o+{8 * i}], %x64;")
            else:
                out.append(f"mov.b64 %x64, %r{i}; st.global.b64 [%o+{8 * i}], %x64;")
        ptx = f"""{HEADER}.visible .entry k(.param .u64 a, .param .u64 b) {{
        .reg .b64 %p, %o, %q, %x64; .reg .b32 %t, %s, %x32; {names}
        .shared .align 16 .b8 m[512]; .local .align 16 .b8 l[64];
        mov.u32 %t, %tid.x; mul.wide.u32 %p, %t, {size}; ld.param.u64 %o, [a]; add.u64 %p, %p, %o;
        mul.wide.u32 %q, %t, {8 * count}; ld.param.u64 %o, [b]; add.u64 %o, %o, %q;
        {through(space, kind, count)}
        {"".join(out)} ret; }}"""
        data = BYTES[: 32 * size]
        _, found = micro.launch(ptx, [data, np.zeros(32 * count, np.uint64)])
        assert (found == extended(data, kind)).all(), count


QUALIFIERS = [
    *(f"ld.{q}.global.u32" for q in ("weak", "relaxed.gpu", "relaxed.sys", "acquire.gpu", "acquire.cta")),
    *(f"ld.global.{q}.u32" for q in ("ca", "cg", "cs", "lu", "cv", "nc", "ca.nc", "cg.nc")),
    "ld.volatile.global.u32",
    "ld.global.L1::evict_last.u32",
    "ld.global.nc.L1::no_allocate.u32",
    "ld.global.L2::128B.u32",
    "ld.global.L1::evict_first.L2::256B.u32",
    "ldu.global.u32",
]


@pytest.mark.parametrize("text", QUALIFIERS)
def test_qualified_loads(micro: Any, text: str) -> None:
    data = RANDOM.integers(0, 2**32, 32, dtype=np.uint32)
    found = micro.words(f"{text} $0, [%p];", [data])
    assert (found[0] == data).all()


STORES = [
    *(f"st.{q}.global.u32" for q in ("weak", "volatile", "relaxed.gpu", "release.gpu", "release.sys")),
    *(f"st.global.{q}.u32" for q in ("wb", "cg", "cs", "wt")),
    "st.global.L1::no_allocate.u32",
]


@pytest.mark.parametrize("text", STORES)
def test_qualified_stores(micro: Any, text: str) -> None:
    ptx = f"""{HEADER}.visible .entry k(.param .u64 a) {{ .reg .b64 %p, %o; .reg .b32 %t;
    mov.u32 %t, %tid.x; ld.param.u64 %p, [a]; mul.wide.u32 %o, %t, 4; add.u64 %p, %p, %o; {text} [%p], %t; ret; }}"""
    (found,) = micro.launch(ptx, [np.zeros(32, np.uint32)])
    assert (found == np.arange(32)).all()


def test_parameters_constants_and_module_variables(micro: Any) -> None:
    ptx = f"""{HEADER}.const .align 8 .b8 table[16] = {{1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255, 4, 3, 2, 1}};
    .global .align 4 .u32 counter = 41; .global .align 8 .u64 pointer = counter; .global .f32 half = 0f3F000000;
    .visible .entry k(.param .u64 out) {{ .reg .b64 %p, %q; .reg .b32 %x, %y; .reg .f32 %f;
    ld.param.u64 %p, [out]; ld.const.u32 %x, [table+4]; st.global.u32 [%p], %x;
    ld.const.s32 %x, [table+8]; st.global.u32 [%p+4], %x; ld.const.v2.u16 {{%x, %y}}, [table+12]; st.global.u32 [%p+8], %y;
    ld.global.u64 %q, [pointer]; ld.u32 %x, [%q]; st.global.u32 [%p+12], %x;
    ld.global.f32 %f, [half]; mov.b32 %x, %f; st.global.u32 [%p+16], %x;
    mov.u64 %q, table; cvta.const.u64 %q, %q; ld.u32 %x, [%q+12]; st.global.u32 [%p+20], %x; ret; }}"""
    (found,) = micro.launch(ptx, [np.zeros(6, np.uint32)], block=1)
    assert found.tolist() == [2, 0xFFFFFFFF, 0x0102, 41, 0x3F000000, 0x01020304]


def test_address_windows(micro: Any) -> None:
    code = """mov.u32 %s, m; cvt.u64.u32 %x, %s; cvta.shared.u64 %y, %x; cvta.to.shared.u64 %z, %y;
    setp.eq.u64 %q, %x, %z; selp.u32 $0, 1, 0, %q;
    mov.u64 %x, l; cvta.local.u64 %w, %x; cvta.to.local.u64 %z, %w; setp.eq.u64 %q, %x, %z; selp.u32 $1, 1, 0, %q;
    isspacep.shared %q, %y; selp.u32 $2, 1, 0, %q; isspacep.local %q, %y; selp.u32 $3, 1, 0, %q;
    isspacep.local %q, %w; selp.u32 $4, 1, 0, %q; isspacep.global %q, %w; selp.u32 $5, 1, 0, %q;
    isspacep.global %q, %p; selp.u32 $6, 1, 0, %q; isspacep.shared %q, %p; selp.u32 $7, 1, 0, %q;"""
    registers = ".reg .b32 %s; .reg .b64 %x, %y, %z, %w; .reg .pred %q; .shared .b32 m; .local .b32 l;"
    found = micro.words(code, [np.zeros(32, np.uint32)], outputs=8, registers=registers)
    assert (found == np.array([1, 1, 1, 0, 1, 0, 1, 0])[:, None]).all()


def test_hints_do_nothing(micro: Any) -> None:
    code = """prefetch.global.L1 [%p]; prefetch.global.L2 [%p]; prefetchu.L1 [%p]; prefetch.global.L2::evict_last [%p];
    createpolicy.fractional.L2::evict_last.b64 %x, 0f3F800000; ld.global.L2::cache_hint.u32 $0, [%p], %x;
    ld.param.u64 %x, [p_out]; applypriority.global.L2::evict_normal [%x], 128; discard.global.L2 [%x], 128;"""
    data = np.arange(32, dtype=np.uint32)
    assert (micro.words(code, [data], registers=".reg .b64 %x;")[0] == data).all()


# --- cp.async ------------------------------------------------------------------------------------------------------------


def copy_kernel(instruction: str, size: int, after: str) -> str:
    """Each of 32 threads copies ``size`` bytes to shared memory that held 0xee, waits, reads its neighbour's bytes."""
    return f"""{HEADER}.visible .entry k(.param .u64 a, .param .u64 b) {{
    .reg .b64 %p, %o; .reg .b32 %t, %s, %n, %x, %i; .reg .pred %q; .shared .align 16 .b8 m[512];
    mov.u32 %t, %tid.x; mov.u32 %s, m; mad.lo.u32 %s, %t, {size}, %s; mov.u32 %i, 0;
    FILL: add.u32 %x, %s, %i; st.shared.b32 [%x], 0xeeeeeeee; add.u32 %i, %i, 4; setp.lt.u32 %q, %i, {size}; @%q bra FILL;
    bar.sync 0; mul.wide.u32 %o, %t, {size}; ld.param.u64 %p, [a]; add.u64 %p, %p, %o; {instruction}
    {after}
    bar.sync 0; xor.b32 %n, %t, 1; mov.u32 %s, m; mad.lo.u32 %s, %n, {size}, %s;
    ld.param.u64 %p, [b]; mul.wide.u32 %o, %n, {size}; add.u64 %p, %p, %o; mov.u32 %i, 0;
    BACK: add.u32 %x, %s, %i; ld.shared.b32 %n, [%x]; st.global.b32 [%p], %n; add.u64 %p, %p, 4; add.u32 %i, %i, 4;
    setp.lt.u32 %q, %i, {size}; @%q bra BACK; ret; }}"""


WAITS = ["cp.async.commit_group; cp.async.wait_group 0;", "cp.async.wait_all;"]
COPIES = [("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)]
HINTS = ["", ".L2::64B", ".L2::128B", ".L2::256B"]


@pytest.mark.parametrize("wait", WAITS, ids=["group", "all"])
@pytest.mark.parametrize(("kind", "size"), COPIES)
def test_asynchronous_copies(micro: Any, kind: str, size: int, wait: str) -> None:
    data = BYTES[: 32 * size]
    for hint in HINTS:
        text = f"cp.async.{kind}.shared.global{hint} [%s], [%p], {size};"
        _, found = micro.launch(copy_kernel(text, size, wait), [data, np.zeros_like(data)])
        assert (found == data).all(), hint


@pytest.mark.parametrize(("kind", "size"), COPIES)
def test_short_sources_are_filled_with_zeros(micro: Any, kind: str, size: int) -> None:
    data = BYTES[: 32 * size]
    for given in {0, 1, 3, size // 2, size - 1, size}:
        text = f"cp.async.{kind}.shared.global [%s], [%p], {size}, {given};"
        _, found = micro.launch(copy_kernel(text, size, WAITS[0]), [data, np.zeros_like(data)])
        expected = data.reshape(32, size).copy()
        expected[:, given:] = 0
        assert (found.reshape(32, size) == expected).all(), given


def test_source_size_of_each_lane(micro: Any) -> None:
    data = BYTES[:512]
    text = "rem.u32 %n, %t, 17; cp.async.cg.shared.global [%s], [%p], 16, %n;"
    _, found = micro.launch(copy_kernel(text, 16, WAITS[0]), [data, np.zeros_like(data)])
    expected = data.reshape(32, 16).copy()
    for lane in range(32):
        expected[lane, lane % 17 :] = 0
    assert (found.reshape(32, 16) == expected).all()


def test_ignored_sources(micro: Any) -> None:
    data = BYTES[:512]
    text = "and.b32 %n, %t, 2; setp.ne.u32 %q, %n, 0; cp.async.cg.shared.global [%s], [%p], 16, %q;"
    _, found = micro.launch(copy_kernel(text, 16, WAITS[0]), [data, np.zeros_like(data)])
    expected = np.where((np.arange(32) & 2 != 0)[:, None], 0, data.reshape(32, 16))
    assert (found.reshape(32, 16) == expected).all()


def test_groups_complete_in_order(micro: Any) -> None:
    """wait_group 1 leaves the newest of three groups pending: what the older two brought may be read."""
    stage = "cp.async.ca.shared.global [%s+{0}], [%p+{1}], 4; cp.async.commit_group;"
    code = f"""mov.u32 %s, m; mad.lo.u32 %s, %t, 4, %s; {stage.format(0, 0)} {stage.format(128, 128)} {stage.format(256, 256)}
    cp.async.wait_group 1; ld.shared.u32 $0, [%s]; ld.shared.u32 $1, [%s+128];
    cp.async.wait_group 0; ld.shared.u32 $2, [%s+256];"""
    data = np.arange(96, dtype=np.uint32) * 3
    registers = ".reg .b32 %s; .shared .align 16 .b8 m[384];"
    found = micro.words(code, [data], outputs=3, registers=registers)
    assert (found == data.reshape(3, 32)).all()


def test_constants_are_no_global_memory(micro: Any) -> None:
    """A generic address is in global memory unless it lies in another window, and constants have theirs."""
    code = """cvta.const.u64 %x, c; isspacep.const %q, %x; selp.u32 $0, 1, 0, %q; isspacep.global %q, %x; selp.u32 $1, 1, 0, %q;
    cvta.global.u64 %x, g; isspacep.const %q, %x; selp.u32 $2, 1, 0, %q; isspacep.global %q, %x; selp.u32 $3, 1, 0, %q;"""
    outside = ".const .align 4 .u32 c = 1; .global .align 4 .u32 g = 2;\n"
    found = micro.words(code, [], outputs=4, registers=".reg .b64 %x; .reg .pred %q;", outside=outside)
    assert found[:, 0].tolist() == [1, 0, 0, 1]


def test_moves_of_floats(micro: Any) -> None:
    code = "mov.f32 $0, $a; setp.lt.u32 %q, %t, 9; selp.f32 $1, $a, 0fBF800000, %q;"
    x = np.arange(32, dtype=np.float32) + 0.5
    found = micro.words(code, [x.view(np.uint32)], outputs=2, registers=".reg .pred %q;").view(np.float32)
    assert found.tolist() == [x.tolist(), np.where(np.arange(32) < 9, x, -1).tolist()]
