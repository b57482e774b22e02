"""Matrices: ldmatrix, stmatrix, movmatrix, mma, by the ISA's fragment tables."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from door import words


def fragment_rows(matrix):
    """8x8 of 16-bit elements as the word of each lane."""
    return np.ascontiguousarray(matrix, np.uint16).reshape(32, 2).copy().view(np.uint32).ravel()


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
def test_ldmatrix(engine, count, trans):
    matrices = np.random.default_rng(1).integers(0, 2**16, (count, 8, 8)).astype(np.uint16)
    data = np.resize(matrices.reshape(-1).view(np.uint32), 128)
    rows = [np.ascontiguousarray(data.reshape(4, 32)[i]) for i in range(4)]
    regs = ", ".join(f"%d{i}" for i in range(count))
    fill = " ".join(f"st.shared.u32 [%s+{128 * i}], %{'abcd'[i]};" for i in range(4))
    code = (
        f"mov.u32 %s, m; mad.lo.u32 %s, %t, 4, %s; {fill} bar.warp.sync -1; mov.u32 %s, m; "
        "mad.lo.u32 %s, %t, 16, %s; "
        f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{regs}}}, [%s];"
    )
    got = words(engine, code, rows, outputs=count, registers=".reg .b32 %s; .shared .align 16 .b8 m[512];")
    for i in range(count):
        assert (got[i] == fragment_rows(matrices[i].T if trans else matrices[i])).all()


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_stmatrix_and_movmatrix(engine, trans):
    matrix = np.arange(64, dtype=np.uint16).reshape(8, 8) * 321
    code = (
        "mov.u32 %s, m; and.b32 %u, %t, 7; mad.lo.u32 %u, %u, 16, %s; "
        f"stmatrix.sync.aligned.m8n8.x1{trans}.shared.b16 [%u], {{%a}}; bar.warp.sync -1; "
        "mad.lo.u32 %s, %t, 4, %s; ld.shared.u32 %d0, [%s]; "
        "movmatrix.sync.aligned.m8n8.trans.b16 %d1, %a;"
    )
    got = words(
        engine,
        code,
        [fragment_rows(matrix)],
        outputs=2,
        registers=".reg .b32 %s, %u; .shared .align 16 .b8 m[128];",
        target="sm_90",
    )
    assert (got[0] == fragment_rows(matrix.T if trans else matrix)).all()
    assert (got[1] == fragment_rows(matrix.T)).all()


MMA = {  # name: (k, type of A and B, numpy type, result type)
    "m16n8k16.row.col.f32.bf16.bf16.f32": (16, ml_dtypes.bfloat16, np.float32),
    "m16n8k8.row.col.f32.bf16.bf16.f32": (8, ml_dtypes.bfloat16, np.float32),
    "m16n8k16.row.col.f32.f16.f16.f32": (16, np.float16, np.float32),
    "m16n8k8.row.col.f32.f16.f16.f32": (8, np.float16, np.float32),
    "m16n8k16.row.col.f16.f16.f16.f16": (16, np.float16, np.float16),
    "m16n8k4.row.col.f32.tf32.tf32.f32": (4, np.float32, np.float32),
    "m16n8k8.row.col.f32.tf32.tf32.f32": (8, np.float32, np.float32),
    "m16n8k16.row.col.s32.s8.s8.s32": (16, np.int8, np.int32),
    "m16n8k32.row.col.s32.s8.u8.s32": (32, np.int8, np.int32),
    "m16n8k32.row.col.satfinite.s32.u8.s8.s32": (32, np.int8, np.int32),
    "m16n8k32.row.col.f32.e4m3.e4m3.f32": (32, ml_dtypes.float8_e4m3fn, np.float32),
    "m16n8k32.row.col.f32.e5m2.e4m3.f32": (32, ml_dtypes.float8_e5m2, np.float32),
}


def spread_a(a):
    """Registers of A (16 x k) by the ISA's table: each word holds neighbours of k, then row + 8, then the next quarter of k."""
    per = 4 // a.dtype.itemsize
    k, out = a.shape[1], []
    for q in range(16 * k // (32 * per)):
        out.append([a[lane // 4 + 8 * (q & 1), (lane % 4) * per + 4 * per * (q >> 1) :][:per] for lane in range(32)])
    return [np.ascontiguousarray(r).view(np.uint32).ravel() for r in out]


def spread_b(b):
    per = 4 // b.dtype.itemsize
    k, out = b.shape[0], []
    for q in range(8 * k // (32 * per)):
        out.append([b[(lane % 4) * per + 4 * per * q :, lane // 4][:per] for lane in range(32)])
    return [np.ascontiguousarray(r).view(np.uint32).ravel() for r in out]


@pytest.mark.parametrize("name", MMA)
@pytest.mark.parametrize("options", ["", "truncating_mma=1"])
def test_mma(engine, name, options):
    k, dtype, result = MMA[name]
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((16, k)), rng.standard_normal((k, 8))
    if dtype == np.int8:
        a, b = rng.integers(-128, 128, (16, k)), rng.integers(-128, 128, (k, 8))
    types = name.split(".")[-4:]
    kinds = {"u8": np.uint8, "s8": np.int8, "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
    a, b = a.astype(kinds.get(types[1], dtype)), b.astype(kinds.get(types[2], dtype))
    if types[1] == "tf32":
        a, b = ((v.view(np.uint32) & 0xFFFFE000).view(np.float32) for v in (a, b))
    c = (
        rng.standard_normal((16, 8)).astype(result)
        if result != np.int32
        else rng.integers(-1000, 1000, (16, 8)).astype(result)
    )
    fa, fb = spread_a(a), spread_b(b)
    half = result == np.float16
    if half:
        fc = [np.ascontiguousarray(c[8 * v : 8 * v + 8].reshape(32, 2)).view(np.uint32).ravel() for v in range(2)]
    else:
        fc = [
            np.ascontiguousarray(c[8 * (v >> 1) : 8 * (v >> 1) + 8].reshape(32, 2)[:, v & 1]).view(np.uint32)
            for v in range(4)
        ]
    letters = iter("abcdefghijklmnop")
    group = lambda n: "{" + ", ".join("%" + next(letters) for _ in range(n)) + "}"  # noqa: E731
    ga, gb, gc = group(len(fa)), group(len(fb)), group(len(fc))
    gd = "{" + ", ".join(f"%d{i}" for i in range(len(fc))) + "}"
    text = f"mma.sync.aligned.{name} {gd}, {ga}, {gb}, {gc};"
    got = words(engine, text, [*fa, *fb, *fc], outputs=len(fc), options=options, target="sm_89")
    if half:
        d = np.concatenate([np.ascontiguousarray(got[v]).view(np.float16).reshape(8, 8) for v in range(2)])
    else:
        d = np.concatenate([np.stack([got[2 * v], got[2 * v + 1]], 1).reshape(8, 8) for v in range(2)]).view(result)
    exact = a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)
    if options and result == np.float32:
        scale = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) + np.abs(c)
        assert (np.abs(d - exact) <= 8 * 2.0**-23 * scale).all()
    elif not options:
        assert (d == exact.astype(result)).all()


def test_mma_truncates_on_demand(engine):
    # 1 + k * 2^-24: rounding once keeps the sum of small terms, cutting each off below 2^-24 of the largest loses them.
    a, b = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16)
    a[:, :8], b[:8] = 2.0**-12, 2.0**-14  # products of 2^-26
    c = np.ones((16, 8), np.float32)
    fc = [np.ones(32, np.float32)] * 4
    names = "{%a, %b, %c, %d}, {%e, %f}, {%g, %h, %i, %j}"
    out = {}
    for options in ("", "truncating_mma=1"):
        got = words(
            engine,
            f"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{%d0, %d1, %d2, %d3}}, {names};",
            [*spread_a(a), *spread_b(b), *fc],
            outputs=4,
            options=options,
        )
        out[options] = got.view(np.float32)
    assert (out[""] == np.float32(c[0, 0] + 2.0**-23)).all()
    assert (out["truncating_mma=1"] == 1).all()
