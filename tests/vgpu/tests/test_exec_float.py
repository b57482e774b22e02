"""f32, f64, f16 and bf16 rows: exact ones against fractions rounded here, approximations against their documented errors."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from door_floats import F32, finite, lanes, pairs, round_exact, same


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
    "lg2.approx.f32": (np.log2, (0.6, 1.9), ("a", 2.0**-21.5)),
    "rcp.approx.f32": (lambda x: 1 / x, (-1e6, 1e6), ("r", 2.0**-23)),
    "rsqrt.approx.f32": (lambda x: 1 / np.sqrt(x), (1e-6, 1e6), ("r", 2.0**-22.9)),
    "sqrt.approx.f32": (np.sqrt, (1e-6, 1e6), ("r", 2.0**-23)),
    "sin.approx.f32": (np.sin, (-np.pi, np.pi), ("a", 2.0**-20.5)),
    "cos.approx.f32": (np.cos, (-np.pi, np.pi), ("a", 2.0**-20.5)),
    "tanh.approx.f32": (np.tanh, (-10, 10), ("r", 2.0**-11)),
}


@pytest.mark.parametrize(("name", "ftz"), [(n, f) for n in APPROX for f in ("", ".ftz") if not (f and "tanh" in n)])
def test_approximations(engine, name, ftz):
    function, (low, high), (kind, error) = APPROX[name]
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
