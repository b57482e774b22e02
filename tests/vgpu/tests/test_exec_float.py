"""f32, f64, f16 and bf16 rows and conversions: exact rows against fractions rounded here, approximations against their errors."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from door import Door, lane_kernel

F32 = np.array(
    [
        0,
        -0.0,
        1,
        -1,
        1.5,
        0.1,
        -0.3,
        3e38,
        -3e38,
        1e-38,
        1e-40,
        -1e-45,
        2.0**-126,
        65504,
        65520,
        448,
        464,
        0.5,
        2.5,
        -2.5,
        3.5,
        1e9,
        -1e9,
        2.0**31,
        2.0**24 + 2,
        np.inf,
        -np.inf,
        np.nan,
        5e-8,
        3.0517578e-05,
        1e-5,
        7,
    ],
    np.float32,
)
FORMATS = {
    "f32": (24, -149, 127),
    "f64": (53, -1074, 1023),
    "f16": (11, -24, 15),
    "bf16": (8, -133, 127),
    "tf32": (11, -136, 127),
    "e5m2": (3, -16, 15),
}


def round_exact(x: Fraction, fmt: str, mode: str = "rn") -> float:
    """x in the format, as a float (f64 holds them all); overflow by the rules of the mode."""
    if x == 0:
        return 0.0
    bits, least, top = FORMATS[fmt]
    exponent = math.floor(math.log2(abs(x))) if abs(x) < Fraction(2) ** 1000 else 1000
    while Fraction(2) ** (exponent + 1) <= abs(x):
        exponent += 1
    while Fraction(2) ** exponent > abs(x):
        exponent -= 1
    ulp = Fraction(2) ** max(exponent - bits + 1, least)
    scaled = x / ulp
    low = math.floor(scaled)
    rest = scaled - low
    if mode in ("rn", "rna"):
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (low % 2 == 1 if mode == "rn" else low >= 0))
    else:
        up = {"rz": x < 0 and rest > 0, "rm": False, "rp": rest > 0}[mode]
    value = (low + up) * ulp
    largest = (2 - Fraction(2) ** (1 - bits)) * Fraction(2) ** top
    if abs(value) > largest:
        toward = mode in ("rn", "rna") or (mode == "rp") == (value > 0) and mode != "rz"
        return math.copysign(math.inf if toward else float(largest), value)
    return float(value)


def lanes(engine, code, inputs, *, width="b32", registers="", dtype=np.float32, out=None, options=""):
    out = out or dtype
    count = max(len(a) for a in inputs)
    door = Door(engine, lane_kernel(code, width=width, inputs=len(inputs), registers=registers))
    pointers = [door.put(np.resize(np.asarray(a), count)) for a in inputs]
    pout = door.allocate(count * np.dtype(out).itemsize)
    result = door.launch("k", [*pointers, pout], block=count, options=options)
    assert result.clean, result.reports
    return door.get(pout, count, out)


def pairs(values):
    a, b = np.meshgrid(values, values)
    return a.ravel()[:1024].copy(), b.ravel()[:1024].copy()


def same(got, want, what):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    bad = ~((got == want) & (np.signbit(got) == np.signbit(want)) | np.isnan(got) & np.isnan(want))
    assert not bad.any(), (what, np.flatnonzero(bad)[:5], got[bad][:5], want[bad][:5])


def finite(values):
    return values[np.isfinite(values)]


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma", "div", "sqrt", "rcp"])
@pytest.mark.parametrize("fmt", ["f32", "f64"])
def test_rounding_modes(engine, op, mode, fmt):
    values = finite(F32).astype(np.float32 if fmt == "f32" else np.float64)
    values = values[values != 0]
    rng = np.random.default_rng(3)
    values = np.concatenate([values, rng.standard_normal(32 - len(values) % 32).astype(values.dtype)])[:32]
    a, b = pairs(values)
    c = np.roll(a, 7)
    width = "b32" if fmt == "f32" else "b64"
    if op == "sqrt":
        a = np.abs(a)
    inputs = {"fma": [a, b, c], "sqrt": [a], "rcp": [a]}.get(op, [a, b])
    got = lanes(
        engine,
        f"{op}.{mode}.{fmt} %d, {', '.join('%' + n for n in 'abc'[: len(inputs)])};",
        inputs,
        width=width,
        dtype=values.dtype,
    )
    for i in range(0, len(a), 3):
        x, y, z = Fraction(float(a[i])), Fraction(float(b[i])), Fraction(float(c[i]))
        if op == "sqrt":  # exact to 200 bits is enough for any rounding of a non-square
            scale = 4**600
            root = Fraction(math.isqrt(int(x * scale)), 2**600)
            exact = root if root * root == x else root + Fraction(1, 2**700)
        else:
            exact = {"add": x + y, "sub": x - y, "mul": x * y, "fma": x * y + z, "div": x / y, "rcp": 1 / x}[op]
        if exact == 0:
            continue
        want = round_exact(exact, fmt, mode)
        assert float(got[i]) == want, (op, mode, fmt, float(x), float(y), float(z), float(got[i]), want)


def test_ftz_and_sat(engine):
    a, b = pairs(F32)
    tiny = lambda v: np.where(np.abs(v) < 2.0**-126, np.copysign(np.float32(0), v), v)  # noqa: E731
    with np.errstate(all="ignore"):
        same(lanes(engine, "add.ftz.f32 %d, %a, %b;", [a, b]), tiny(tiny(a) + tiny(b)), "add.ftz")
        same(lanes(engine, "mul.ftz.f32 %d, %a, %b;", [a, b]), tiny(tiny(a) * tiny(b)), "mul.ftz")
        total = a + b
    want = np.where(np.isnan(total), 0, np.clip(np.nan_to_num(total, nan=0), 0, 1))
    got = lanes(engine, "add.sat.f32 %d, %a, %b;", [a, b])
    assert (got == want).all()


@pytest.mark.parametrize(("op", "nan"), [("min", ""), ("max", ""), ("min", ".NaN"), ("max", ".NaN")])
@pytest.mark.parametrize("fmt", ["f32", "f16", "bf16"])
def test_min_max(engine, op, nan, fmt):
    dtype = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[fmt]
    with np.errstate(over="ignore"):
        a, b = pairs(F32.astype(dtype))
    x, y = a.astype(np.float64), b.astype(np.float64)
    # -0 is less than +0
    key = lambda v: np.where(v == 0, np.where(np.signbit(v), -1e-300, 1e-300), v)  # noqa: E731
    pick = (key(x) < key(y)) if op == "min" else (key(x) > key(y))
    want = np.where(np.isnan(x), y, np.where(np.isnan(y), x, np.where(pick, x, y)))
    if nan:
        want = np.where(np.isnan(x) | np.isnan(y), np.nan, want)
    same(
        lanes(engine, f"{op}{nan}.{fmt} %d, %a, %b;", [a, b], dtype=dtype, width="b32" if fmt == "f32" else "b16"),
        want,
        (op, nan, fmt),
    )


@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
@pytest.mark.parametrize("fmt", ["f16", "bf16", "f16x2", "bf16x2"])
def test_half_arithmetic(engine, op, fmt):
    dtype = np.float16 if fmt.startswith("f") else ml_dtypes.bfloat16
    rng = np.random.default_rng(5)
    edge = np.array([0, 1, -1, 0.1, 3, 65504, 6e-5, 6e-8, 1024, 1025, 2049, 0.33, -7.5, 1e-3, 240, 255.5], np.float32)
    wild = (rng.standard_normal(2048 - 16) * 2.0 ** rng.integers(-14, 14, 2048 - 16)).astype(np.float32)
    values = np.concatenate([edge, wild]).astype(dtype)
    a, b, c = values, np.roll(values, 1), np.roll(values, 5)
    packed = fmt.endswith("x2")
    inputs = [v.view(np.uint16) for v in ((a, b, c) if op == "fma" else (a, b))]
    if packed:
        inputs = [v.view(np.uint32) for v in inputs]
    else:
        inputs = [v[:1024] for v in inputs]
    code = f"{op}.rn.{fmt} %d, {', '.join('%' + n for n in 'abc'[: len(inputs)])};"
    out = np.uint32 if packed else np.uint16
    got = lanes(engine, code, inputs, width="b32" if packed else "b16", out=out).view(dtype)
    for i in range(0, len(got)):
        x, y, z = (Fraction(float(v[i])) for v in (a, b, c))
        exact = {"add": x + y, "sub": x - y, "mul": x * y, "fma": x * y + z}[op]
        assert float(got[i]) == round_exact(exact, fmt[:4] if fmt.startswith("bf") else "f16"), (
            fmt,
            op,
            float(x),
            float(y),
            float(z),
            got[i],
        )


APPROX = {  # largest relative (r) or absolute (a) error the ISA documents, with the range it holds in
    "ex2.approx.f32": (lambda x: 2.0**x, (-120, 120), ("r", 2.0**-22)),
    "lg2.approx.f32": (np.log2, (0.001, 1e6), ("a", 2.0**-21.5)),
    "rcp.approx.f32": (lambda x: 1 / x, (-1e6, 1e6), ("r", 2.0**-23)),
    "rsqrt.approx.f32": (lambda x: 1 / np.sqrt(x), (1e-6, 1e6), ("r", 2.0**-22.9)),
    "sqrt.approx.f32": (np.sqrt, (1e-6, 1e6), ("r", 2.0**-23)),
    "sin.approx.f32": (np.sin, (-np.pi, np.pi), ("a", 2.0**-20.5)),
    "cos.approx.f32": (np.cos, (-np.pi, np.pi), ("a", 2.0**-20.5)),
    "tanh.approx.f32": (np.tanh, (-10, 10), ("r", 2.0**-11)),
}


@pytest.mark.parametrize("name", APPROX)
@pytest.mark.parametrize("ftz", ["", ".ftz"])
def test_approximations(engine, name, ftz):
    function, (low, high), (kind, error) = APPROX[name]
    if ftz and name.startswith("tanh"):
        pytest.skip("tanh has no .ftz")
    name = name.replace(".approx", ".approx" + ftz)
    x = np.linspace(low, high, 1024).astype(np.float32)
    got = lanes(engine, f"{name} %d, %a;", [x]).astype(np.float64)
    want = function(x.astype(np.float64))
    off = np.abs(got - want) / (np.abs(want) if kind == "r" else 1)
    assert np.nanmax(off) <= error, (name, np.nanmax(off))
    specials = {
        "ex2": [(-np.inf, 0), (np.inf, np.inf), (0, 1), (-150.5, 0 if ftz else None)],
        "lg2": [(0, -np.inf), (np.inf, np.inf), (1, 0)],
        "rcp": [(0, np.inf), (-np.inf, -0.0)],
        "rsqrt": [(0, np.inf), (np.inf, 0)],
        "sqrt": [(-0.0, -0.0)],
    }
    for value, result in specials.get(name[: name.index(".")], []):
        if result is not None:
            same(lanes(engine, f"{name} %d, %a;", [np.full(32, value, np.float32)])[:1], [result], (name, value))


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(
    "pair", ["f16.f32", "f32.f64", "f16.f64", "bf16.f32", "f32.s32", "f32.u64", "f16.s32", "f64.s64", "bf16.u32"]
)
def test_cvt_to_float(engine, mode, pair):
    to, source = pair.split(".")
    if to == "bf16" and source != "f32" and mode != "rn":
        pass
    rng = np.random.default_rng(2)
    numpy_of = {
        "f32": np.float32,
        "f64": np.float64,
        "s32": np.int32,
        "u32": np.uint32,
        "u64": np.uint64,
        "s64": np.int64,
    }
    if source[0] == "f":
        x = np.concatenate([finite(F32), (rng.standard_normal(996) * 2.0 ** rng.integers(-30, 20, 996))]).astype(
            numpy_of[source]
        )
    else:
        info = np.iinfo(numpy_of[source])
        x = np.concatenate(
            [
                np.array([info.min, info.max, 0, 1, 2**24 + 1, 65519, 65520], dtype=object),
                rng.integers(info.min, info.max, 1017, numpy_of[source], endpoint=True).astype(object),
            ]
        )
        x = np.array([int(v) >> int(k) for v, k in zip(x, np.resize([0, 0, 0, 9, 20, 3], len(x)))], numpy_of[source])
    wide = x.dtype.itemsize == 8
    bits = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}[to]
    move = {
        16: "cvt.u64.u16 %d, %h;" if wide else "cvt.u32.u16 %d, %h;",
        32: "cvt.u64.u32 %d, %s;" if wide else "mov.b32 %d, %s;",
        64: "mov.b64 %d, %s;",
    }[bits]
    register = {16: ".reg .b16 %h;", 32: ".reg .b32 %s;", 64: ".reg .b64 %s;"}[bits]
    name = "%h" if bits == 16 else "%s"
    got = lanes(
        engine,
        f"cvt.{mode}.{to}.{source} {name}, %a; {move}",
        [x],
        width="b64" if wide else "b32",
        registers=register,
        dtype=x.dtype,
        out=np.uint64 if wide else np.uint32,
    )
    narrow = got.astype({16: np.uint16, 32: np.uint32, 64: np.uint64}[bits]).view(
        {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}[to]
    )
    for value, result in zip(x, narrow):
        exact = Fraction(float(value)) if source[0] == "f" else Fraction(int(value))
        assert float(result) == round_exact(exact, to, mode), (pair, mode, value, result)


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize("to", ["s32", "u32", "s64", "u64", "s16", "u8"])
def test_cvt_to_integer(engine, mode, to):
    bits = int(to[1:])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if to[0] == "s" else (0, (1 << bits) - 1)
    rounding = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}[mode]
    register = ".reg .b16 %h; .reg .f32 %f; .reg .b64 %w;"
    body = {
        64: f"cvt.{mode}.{to}.f32 %d, %f;",
        32: f"cvt.{mode}.{to}.f32 %t, %f; cvt.u64.u32 %d, %t;",
        16: f"cvt.{mode}.{to}.f32 %h, %f; cvt.u64.u16 %d, %h;",
        8: f"cvt.{mode}.{to}.f32 %h, %f; cvt.u64.u16 %d, %h;",
    }[bits]
    got = lanes(
        engine,
        f"cvt.u32.u64 %t, %a; mov.b32 %f, %t; {body}",
        [F32.view(np.uint32).astype(np.uint64)],
        width="b64",
        registers=register,
        dtype=np.uint64,
    )
    for value, result in zip(F32, got):
        want = (
            0
            if math.isnan(value)
            else high
            if value == math.inf
            else low
            if value == -math.inf
            else max(low, min(high, rounding(float(value))))
        )
        assert int(result) == want & ((1 << max(bits, 8)) - 1), (mode, to, value, result, want)


@pytest.mark.parametrize("to", ["f16x2", "bf16x2", "e4m3x2", "e5m2x2"])
@pytest.mark.parametrize("relu", ["", ".relu"])
def test_cvt_pairs(engine, to, relu):
    dtype = {
        "f16x2": np.float16,
        "bf16x2": ml_dtypes.bfloat16,
        "e4m3x2": ml_dtypes.float8_e4m3fn,
        "e5m2x2": ml_dtypes.float8_e5m2,
    }[to]
    rng = np.random.default_rng(4)
    x = np.concatenate([F32, (rng.standard_normal(992) * 2.0 ** rng.integers(-12, 10, 992)).astype(np.float32)])
    hi, lo = x, np.roll(x, 3)
    eight = to.startswith("e")
    code = (
        f"cvt.rn.satfinite{relu}.{to}.f32 %h, %a, %b; cvt.u32.u16 %d, %h;"
        if eight
        else f"cvt.rn{relu}.{to}.f32 %d, %a, %b;"
    )
    got = lanes(engine, code, [hi, lo], registers=".reg .b16 %h;", out=np.uint32)
    half = np.uint8 if eight else np.uint16
    shift = 8 if eight else 16
    for name, source, bits in (("hi", hi, got >> shift), ("lo", lo, got & ((1 << shift) - 1))):
        source = np.where(source > 0, source, np.where(np.isnan(source), source, np.float32(0))) if relu else source
        with np.errstate(over="ignore"):
            limit = float(ml_dtypes.finfo(dtype).max)
            want = (np.clip(source, -limit, limit) if eight else source).astype(dtype)
        same(bits.astype(half).view(dtype).astype(np.float64), want.astype(np.float64), (to, relu, name))


def test_tf32(engine):
    got = lanes(engine, "cvt.rna.tf32.f32 %d, %a;", [F32])
    for value, result in zip(finite(F32), got[np.isfinite(F32)]):
        assert float(result) == round_exact(Fraction(float(value)), "tf32", "rna")


@pytest.mark.parametrize("to", ["e4m3x2", "e5m2x2"])
def test_fp8_to_half(engine, to):
    dtype = {"e4m3x2": ml_dtypes.float8_e4m3fn, "e5m2x2": ml_dtypes.float8_e5m2}[to]
    codes = np.arange(256, dtype=np.uint32) | np.arange(256, dtype=np.uint32)[::-1] << 8
    got = lanes(
        engine, f"cvt.u16.u32 %h, %a; cvt.rn.f16x2.{to} %d, %h;", [codes], registers=".reg .b16 %h;", out=np.uint32
    )
    want = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    same((got & 0xFFFF).astype(np.uint16).view(np.float16), want, "low")
    same((got >> 16).astype(np.uint16).view(np.float16), want[::-1], "high")


@pytest.mark.parametrize(
    "cmp", ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]
)
@pytest.mark.parametrize("fmt", ["f32", "f16", "bf16"])
def test_float_comparisons(engine, cmp, fmt):
    dtype = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[fmt]
    with np.errstate(over="ignore"):
        a, b = pairs(F32.astype(dtype))
    x, y = a.astype(np.float64), b.astype(np.float64)
    unordered = np.isnan(x) | np.isnan(y)
    base = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}
    want = (
        ~unordered
        if cmp == "num"
        else unordered
        if cmp == "nan"
        else base[cmp[:2]] | unordered
        if cmp.endswith("u")
        else base[cmp] & ~unordered
    )
    width = "b32" if fmt == "f32" else "b16"
    unit = {"b32": np.uint32, "b16": np.uint16}[width]
    got = lanes(
        engine,
        f"setp.{cmp}.{fmt} %q, %a, %b; selp.{width} %d, 1, 0, %q;",
        [a, b],
        width=width,
        registers=".reg .pred %q;",
        out=unit,
    )
    assert (got == want).all()
