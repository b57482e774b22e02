"""Loads and stores: every width, vector and space, parameters, constants and variables; what qualifiers and hints must not change.

Asynchronous copies: test_ops_copy.py. Addresses: test_ops_move.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from vgpu_exact import signed
from vgpu_lanes import lanes
from vgpu_micro import HEADER, CudaError

TYPES = [f"{k}{n}" for k in "bus" for n in (8, 16, 32, 64)] + ["f32", "f64"]
PLACE = 16  # bytes of each thread
DATA = np.random.default_rng(1).integers(0, 256, 32 * PLACE, np.uint8)
CONSTANT = f".const .align 16 .b8 c[{len(DATA)}] = {{{', '.join(map(str, DATA))}}};"
LOCAL, SHARED = f".local .align 16 .b8 l[{PLACE}];", f".shared .align 16 .b8 s[{32 * PLACE}];"
# Every thread's own 16 bytes in a space: %z is their address. %w: those in global memory, which hold DATA.
OWN = f"mul.lo.u32 %u, %t, {PLACE}; cvt.u64.u32 %o, %u; add.u64 %w, %m0, %o;"
WHERE = {
    "global": f"{OWN} mov.u64 %z, %w;",
    "shared": f"{OWN} mov.u64 %z, s; add.u64 %z, %z, %o;",
    "local": f"{OWN} mov.u64 %z, l;",
    "const": f"{OWN} mov.u64 %z, c; add.u64 %z, %z, %o;",
}


def copy(to: str, source: str) -> str:
    return " ".join(f"ld.{source}.b32 %u, [{{}}+{k}]; st.{to}.b32 [{{}}+{k}], %u;" for k in range(0, PLACE, 4))


def fill(space: str) -> str:
    return copy(space, "global").format(*["%w", "%z"] * 4) if space in ("shared", "local") else ""


def drain(space: str) -> str:
    return copy("global", space).format(*["%z", "%w"] * 4) if space in ("shared", "local") else ""


def forms(kind: str) -> list[tuple[int, int]]:
    """Elements and register width: vectors of up to 16 bytes, registers as wide as the type or wider."""
    n = int(kind[1:])
    widths = [n] if kind[0] == "f" else [w for w in (16, 32, 64) if w >= n]
    return [(count, width) for count in (1, 2, 4) if count * n <= 128 for width in widths]


def element(kind: str, data: np.ndarray, k: int, width: int) -> int:
    """What a load leaves in the register: signed types carry their sign, all others zeros."""
    size = int(kind[1:]) // 8
    bits = int.from_bytes(data[k * size : (k + 1) * size].tobytes(), "little")
    return signed(bits, 8 * size) % (1 << width) if kind[0] == "s" else bits


def vector(count: int) -> tuple[str, str]:
    names = [f"%x{k}" for k in range(count)]
    return ("", names[0]) if count == 1 else (f".v{count}", f"{{{', '.join(names)}}}")


def widen(width: int) -> str:
    return "mov.b64 %d{0}, %x{0};" if width == 64 else f"cvt.u64.u{width} %d{{0}}, %x{{0}};"


@pytest.mark.parametrize("generic", [False, True], ids=["", "generic"])
@pytest.mark.parametrize("space", WHERE)
@pytest.mark.parametrize("kind", TYPES)
def test_ld(micro: Any, kind: str, space: str, generic: bool) -> None:
    for count, width in forms(kind):
        suffix, registers = vector(count)
        load = f"cvta.{space}.u64 %z, %z; ld" if generic else f"ld.{space}"
        moves = " ".join(widen(width).format(k) for k in range(count))
        text = f"{WHERE[space]} {fill(space)} {load}{suffix}.{kind} {registers}, [%z]; {moves}"
        declared = f".reg .b{width} %x<4>; {LOCAL} {SHARED}"
        *got, _ = lanes(micro, text, [], ["b64"] * count, [DATA], registers=declared, before=CONSTANT)
        for lane, k in itertools.product(range(32), range(count)):
            assert got[k][lane] == element(kind, DATA[PLACE * lane :], k, width), (text, lane)


@pytest.mark.parametrize("kind", TYPES)
def test_ld_nc(micro: Any, kind: str) -> None:
    for count, width in forms(kind):
        suffix, registers = vector(count)
        moves = " ".join(widen(width).format(k) for k in range(count))
        text = f"{WHERE['global']} {fill('global')} ld.global.nc{suffix}.{kind} {registers}, [%z]; {moves}"
        *got, _ = lanes(micro, text, [], ["b64"] * count, [DATA], registers=f".reg .b{width} %x<4>;")
        for lane, k in itertools.product(range(32), range(count)):
            assert got[k][lane] == element(kind, DATA[PLACE * lane :], k, width), (text, lane)


@pytest.mark.parametrize("generic", [False, True], ids=["", "generic"])
@pytest.mark.parametrize("space", ["global", "shared", "local"])
@pytest.mark.parametrize("kind", TYPES)
def test_st(micro: Any, kind: str, space: str, generic: bool) -> None:
    """The low bits of the registers arrive, at the last place that fits, and the bytes beside it stay."""
    size = int(kind[1:]) // 8
    for count, width in forms(kind):
        suffix, registers = vector(count)
        at = PLACE - count * size
        store = f"cvta.{space}.u64 %z, %z; st" if generic else f"st.{space}"
        cut = "mov.b64 %x{0}, %{1};" if width == 64 else f"cvt.u{width}.u64 %x{{0}}, %{{1}};"
        moves = " ".join(cut.format(k, "abce"[k]) for k in range(count))
        back = "cvta.to.local.u64 %z, %z;" if generic and space == "local" else ""
        back += "cvta.to.shared.u64 %z, %z;" if generic and space == "shared" else ""
        text = (
            f"{WHERE[space]} {fill(space)} {moves} {store}{suffix}.{kind} [%z+{at}], {registers}; {back} {drain(space)}"
        )
        values = np.random.default_rng(count).integers(0, 2**64, (4, 32), np.uint64)
        declared = f".reg .b{width} %x<4>; {LOCAL} {SHARED}"
        (got,) = lanes(micro, text, list(values), [], [DATA], registers=declared)
        expected = DATA.reshape(32, PLACE).copy()
        expected[:, at:] = (
            values[:count].view(np.uint8).reshape(count, 32, 8)[:, :, :size].swapaxes(0, 1).reshape(32, -1)
        )
        assert (got.reshape(32, PLACE) == expected).all(), text


@pytest.mark.parametrize("kind", TYPES)
def test_ld_param(micro: Any, kind: str) -> None:
    """The bytes of a kernel parameter: an address that the kernel also stores as a whole."""
    size = int(kind[1:]) // 8
    for count, width in forms(kind):
        for offset in range(0, 8 - count * size + 1, count * size):
            suffix, registers = vector(count)
            moves = " ".join(widen(width).format(k) for k in range(count))
            text = f"ld.param{suffix}.{kind} {registers}, [p_m0+{offset}]; {moves} mov.b64 %d{count}, %m0;"
            *got, whole, _ = lanes(micro, text, [], ["b64"] * (count + 1), [DATA], registers=f".reg .b{width} %x<4>;")
            data = whole[:1].view(np.uint8)[offset:]
            for k in range(count):
                assert (got[k] == element(kind, data, k, width)).all(), text


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


def test_generic_requests_that_mix_spaces(micro: Any) -> None:
    """Lanes of one load and of one store in global, shared and local memory."""
    text = f"""{OWN} mov.u64 %z, s; add.u64 %z, %z, %o; cvta.shared.u64 %z, %z; mov.u64 %y, l; cvta.local.u64 %y, %y;
        ld.global.u32 %u, [%w]; st.u32 [%z], %u; add.u32 %u, %u, 1; st.u32 [%y], %u;
        rem.u32 %v, %t, 3; setp.eq.u32 %q, %v, 1; setp.eq.u32 %r, %v, 2; selp.b64 %y, %y, %w, %q; selp.b64 %y, %z, %y, %r;
        ld.u32 %d0, [%y]; st.u32 [%y], 7; ld.u32 %d1, [%z]; ld.u32 %d2, [%w];"""
    *got, _ = lanes(micro, text, [], ["u32"] * 3, [DATA], registers=f".reg .b64 %y; {LOCAL} {SHARED}")
    own, third = DATA.view(np.uint32)[::4], np.arange(32) % 3
    assert (got[0] == own + (third == 1)).all()
    assert (got[1] == np.where(third == 2, 7, own)).all()
    assert (got[2] == np.where(third == 0, 7, own)).all()


SCOPED = [f".{order}.{scope}" for order in ("relaxed", "acquire") for scope in ("cta", "gpu", "sys")]
ALLOCATE = ["L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate"]
LOADS = [f"ld{x}.global" for x in ("", ".weak", ".volatile", *SCOPED)]
LOADS += [f"ld.global.{x}" for x in ("ca", "cg", "cs", "lu", "cv", "nc", "ca.nc", "cg.nc", "cs.nc", *ALLOCATE)]
LOADS += [f"ld.global{nc}.{x}" for nc in ("", ".nc") for x in ("L2::64B", "L2::128B", "L2::256B", "L2::cache_hint")]
LOADS += [
    "ld.global.nc.L1::no_allocate",
    "ld.global.nc.L1::no_allocate.L2::128B",
    "ld.weak.global.L1::evict_last.L2::cache_hint.L2::256B",
    "ld.global.L1::evict_first.L2::256B",
    "ldu.global",
]
STORES = ["st.global", "st.weak.global", "st.volatile.global", *(f"st.global.{x}" for x in ("wb", "cg", "cs", "wt"))]
STORES += [f"st{x.replace('acquire', 'release')}.global" for x in SCOPED]
STORES += [f"st.global.{x}" for x in (*ALLOCATE, "L2::cache_hint", "L1::no_allocate.L2::cache_hint")]
POLICY = ".reg .b64 %y; createpolicy.fractional.L2::evict_last.b64 %y, 0.5;"


@pytest.mark.parametrize("name", LOADS)
def test_qualified_loads(micro: Any, name: str) -> None:
    policy = ", %y" if "cache_hint" in name else ""
    for suffix, count in (("", 1), (".v2", 2), (".v4", 4)):
        registers = vector(count)[1].replace("%x", "%d")
        text = f"{POLICY} {OWN} {name}{suffix}.u32 {registers}, [%w]{policy};"
        *got, _ = lanes(micro, text, [], ["u32"] * count, [DATA])
        words = np.stack(got, axis=1)
        assert (words == DATA.view(np.uint32).reshape(32, 4)[:, :count]).all()


@pytest.mark.parametrize("name", STORES)
def test_qualified_stores(micro: Any, name: str) -> None:
    policy = ", %y" if "cache_hint" in name else ""
    values = np.random.default_rng(2).integers(0, 2**32, (2, 32), np.uint32)
    for suffix, registers, count in (("", "%a", 1), (".v2", "{%a, %b}", 2)):
        text = f"{POLICY} {OWN} {name}{suffix}.u32 [%w+8], {registers}{policy};"
        (got,) = lanes(micro, text, list(values), [], [DATA])
        expected = DATA.view(np.uint32).reshape(32, 4).copy()
        expected[:, 2 : 2 + count] = values[:count].T
        assert (got.view(np.uint32).reshape(32, 4) == expected).all(), text


def test_addresses_and_sinks(micro: Any) -> None:
    text = f"""{WHERE["shared"]} {fill("shared")} bar.sync 0; cvt.u32.u64 %u, %z; ld.shared.u32 %d0, [%u+4];
        add.u64 %z, %z, 12; ld.shared.u32 %d1, [%z+-4]; ld.shared.u32 %d2, [s]; ld.shared.u32 %d3, [s+20];
        ld.const.u32 %d4, [c+40]; ld.global.v4.u32 {{_, %d5, _, %d6}}, [%w];"""
    *got, _ = lanes(micro, text, [], ["u32"] * 7, [DATA], registers=SHARED, before=CONSTANT)
    words = DATA.view(np.uint32)
    own = words.reshape(32, 4)
    for found, expected in zip(got, (own[:, 1], own[:, 2], words[0], words[5], words[10], own[:, 1], own[:, 3])):
        assert (found == expected).all()


HINTS = ["prefetch.global.L1 [%w];", "prefetch.global.L2 [%w];", "prefetch.L1 [%w];", "prefetch.L2 [%w];"]
HINTS += ["prefetch.local.L1 [l];", "prefetch.local.L2 [l];", "prefetchu.L1 [%w];"]
HINTS += ["prefetch.global.L2::evict_last [%w];", "prefetch.global.L2::evict_normal [%w];"]
HINTS += ["applypriority.global.L2::evict_normal [%m0], 128;", "applypriority.L2::evict_normal [%m0], 128;"]
HINTS += ["discard.global.L2 [%m0+512], 128;", "discard.L2 [%m0+512], 128;"]
HINTS += [f"createpolicy.fractional.L2::{x}.b64 %z, 1.0;" for x in ("evict_last", "evict_normal", "evict_first")]
HINTS += ["createpolicy.fractional.L2::evict_unchanged.b64 %z;"]
HINTS += ["createpolicy.fractional.L2::evict_last.L2::evict_first.b64 %z, 0.25;"]
HINTS += ["createpolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 %z, [%m0], 128, 256;"]
HINTS += ["createpolicy.cvt.L2.b64 %z, %m0;"]


@pytest.mark.parametrize("text", HINTS)
def test_hints_change_nothing(micro: Any, text: str) -> None:
    memory = np.concatenate([DATA, np.zeros(128, np.uint8)])  # what is discarded is never read
    got = lanes(micro, f"{OWN} {text} ld.global.u32 %d0, [%w];", [], ["u32"], [memory], registers=LOCAL)
    assert (got[0] == DATA.view(np.uint32)[::4]).all()


ILLEGAL = [
    "ld.shared.nc.u32 %u, [%z]",
    "ld.acquire.global.u32 %u, [%w]",
    "ld.global.f16 %x, [%w]",
    "ld.global.v3.u32 {%u, %u, %v}, [%w]",
]
ILLEGAL += [
    "ld.global.wb.u32 %u, [%w]",
    "st.global.ca.u32 [%w], %u",
    "st.const.u32 [c], %u",
    "st.acquire.gpu.global.u32 [%w], %u",
]
ILLEGAL += [
    "ld.release.gpu.global.u32 %u, [%w]",
    "ld.global.u64 %u, [%w]",
    "ld.global.v4.u64 {%o, %o, %o, %o}, [%m0]",
    "prefetch.shared.L1 [%z]",
]
ILLEGAL += [
    "discard.global.L2 [%m0], 64",
    "prefetch.global.L3 [%w]",
    "createpolicy.fractional.L1::evict_last.b64 %z, 1.0",
    "ld.volatile.global.ca.u32 %u, [%w]",
]


@pytest.mark.parametrize("text", ILLEGAL)
def test_what_the_isa_has_not(micro: Any, text: str) -> None:
    registers = f".reg .b16 %x; {LOCAL} {SHARED}"
    with pytest.raises(CudaError):
        lanes(micro, f"{WHERE['shared']} {text};", [], [], [DATA], registers=registers, before=CONSTANT)
