"""mov between types, in parts and of special registers; addresses from one space to another, and which space one lies in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_ops_memory import CONSTANT, DATA, LOCAL, OWN, SHARED, WHERE
from vgpu_lanes import lanes
from vgpu_micro import NUMPY

RANDOM = np.random.default_rng(1).integers(0, 2**32, (2, 128), np.uint32)


@pytest.mark.parametrize("kind", [f"{k}{n}" for k in "bus" for n in (16, 32, 64)] + ["f32", "f64", "pred"])
def test_mov(micro: Any, kind: str) -> None:
    values = RANDOM.reshape(-1).view(f"u{NUMPY[kind].itemsize}")[:128]
    if kind == "pred":
        values = values % 2
    found = micro.each(f"mov.{kind} $d, $a;", kind, [kind], [values])
    assert (found.view(values.dtype) == values).all()


def test_constants_of_floats(micro: Any) -> None:
    code = """mov.f32 $0, 0f3FC00000; mov.f32 $1, 0fFF800000; mov.f64 %x, 0d4000000000000001; mov.b64 {$2, $3}, %x;
    setp.lt.u32 %q, %t, 9; selp.f32 $4, $a, 0fBF800000, %q;"""
    x = np.arange(32, dtype=np.float32) + 0.5
    found = micro.words(code, [x.view(np.uint32)], outputs=5, registers=".reg .pred %q; .reg .f64 %x;")
    assert (found[:4] == np.array([0x3FC00000, 0xFF800000, 1, 0x40000000])[:, None]).all()
    assert found[4].view(np.float32).tolist() == np.where(np.arange(32) < 9, x, -1).tolist()


@pytest.mark.parametrize(("whole", "part"), [(16, 8), (32, 8), (32, 16), (64, 16), (64, 32)])
def test_mov_packs_and_unpacks(micro: Any, whole: int, part: int) -> None:
    count, numbers = whole // part, RANDOM.reshape(-1)[:64].view(np.uint64)
    values = numbers.view(f"u{whole // 8}")[:32].copy()
    names = [f"%x{k}" for k in range(count)]
    text = f"mov.b{whole} {{{', '.join(names)}}}, %a; mov.b{whole} %d0, {{{', '.join(reversed(names))}}};"
    (got,) = lanes(micro, text, [values], [f"b{whole}"], registers=f".reg .b{part} %x<4>;")
    parts = values.view(f"u{part // 8}").reshape(32, count)
    assert (got == parts[:, ::-1].copy().view(values.dtype).reshape(-1)).all()
    for k in range(count):  # one of them, the others into the sink
        names = ["%x0" if i == k else "_" for i in range(count)]
        text = f"mov.b{whole} {{{', '.join(names)}}}, %a; mov.b{part} %d0, %x0;"
        if part > 8:
            (got,) = lanes(micro, text, [values], [f"b{part}"], registers=f".reg .b{part} %x<1>;")
            assert (got == parts[:, k]).all()


def test_special_registers(micro: Any) -> None:
    expected = {
        "tid.x": lambda i: i % 96,
        "ntid.x": lambda i: 96,
        "ctaid.x": lambda i: i // 96,
        "nctaid.x": lambda i: 3,
    }
    expected |= {f"{x}.{y}": lambda i, x=x: int(x[0] == "n") for x in ("tid", "ntid", "ctaid", "nctaid") for y in "yz"}
    expected |= {
        "laneid": lambda i: i % 32,
        "nwarpid": None,
        "smid": None,
        "nsmid": None,
        "warpid": lambda i: i % 96 // 32,
    }
    mask = {"eq": lambda n: 1 << n, "lt": lambda n: (1 << n) - 1, "le": lambda n: (2 << n) - 1}
    mask |= {"gt": lambda n: 2**32 - (2 << n), "ge": lambda n: 2**32 - (1 << n)}
    expected |= {f"lanemask_{x}": lambda i, f=f: f(i % 32) for x, f in mask.items()}
    expected |= {"dynamic_smem_size": lambda i: 256, "total_smem_size": None}
    text = " ".join(f"mov.u32 %d{k}, %{name};" for k, name in enumerate(expected))
    got = dict(zip(expected, lanes(micro, text, [], ["u32"] * len(expected), block=96, grid=3, shared=256)))
    for name, function in expected.items():
        if function:
            assert got[name].tolist() == [function(i) for i in range(288)], name
    assert (got["smid"] < got["nsmid"]).all()
    assert (got["nwarpid"] >= 3).all()
    assert (got["total_smem_size"] >= 256).all()


@pytest.mark.parametrize("clock", ["clock", "clock64", "globaltimer"])
def test_clocks_go_on(micro: Any, clock: str) -> None:
    kind, (one, two) = ("u32", "uv") if clock == "clock" else ("u64", "wz")
    text = (
        f"mov.{kind} %{one}, %{clock}; nanosleep.u32 5000; mov.{kind} %{two}, %{clock}; sub.{kind} %d0, %{two}, %{one};"
    )
    (got,) = lanes(micro, text, [], [kind])
    assert (got.view(f"i{got.itemsize}") >= 0).all()


@pytest.mark.parametrize("space", [*WHERE, "param"])
def test_cvta_and_isspacep(micro: Any, space: str) -> None:
    spaces = [*WHERE, "param"]
    where = WHERE.get(space, f"{OWN} mov.b64 %z, p_m0;")
    tests = " ".join(f"isspacep.{s} %q, %y; selp.u32 %d{k}, 1, 0, %q;" for k, s in enumerate(spaces))
    text = f"{where} cvta.{space}.u64 %y, %z; {tests} cvta.to.{space}.u64 %y, %y; sub.u64 %d5, %y, %z;"
    registers = f".reg .b64 %y; {LOCAL} {SHARED}"
    *got, back, _ = lanes(micro, text, [], ["u32"] * 5 + ["u64"], [DATA], registers=registers, before=CONSTANT)
    assert (back == 0).all()
    for found, other in zip(got, spaces):
        if other == space or "global" not in (other, space):  # const and param may lie in the global window
            assert (found == (other == space)).all(), other


def test_constants_are_no_global_memory(micro: Any) -> None:
    """A generic address is in global memory unless it lies in another window, and constants have theirs."""
    code = """cvta.const.u64 %x, c; isspacep.const %q, %x; selp.u32 $0, 1, 0, %q; isspacep.global %q, %x; selp.u32 $1, 1, 0, %q;
    cvta.global.u64 %x, g; isspacep.const %q, %x; selp.u32 $2, 1, 0, %q; isspacep.global %q, %x; selp.u32 $3, 1, 0, %q;"""
    outside = ".const .align 4 .u32 c = 1; .global .align 4 .u32 g = 2;\n"
    found = micro.words(code, [], outputs=4, registers=".reg .b64 %x; .reg .pred %q;", outside=outside)
    assert found[:, 0].tolist() == [1, 0, 0, 1]
