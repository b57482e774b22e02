"""Conversions between floats, integers, pairs and fp8, against fractions rounded here and ml_dtypes."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from door_floats import F32, finite, lanes, round_exact, same


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(
    "pair", ["f16.f32", "f32.f64", "f16.f64", "bf16.f32", "f32.s32", "f32.u64", "f16.s32", "f64.s64", "bf16.u32"]
)
def test_cvt_to_float(engine, mode, pair):
    to, source = pair.split(".")
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
        x = np.concatenate([finite(F32), rng.standard_normal(1024) * 2.0 ** rng.integers(-30, 20, 1024)])[:1024].astype(
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
            (1 << 63 if bits == 64 else 0)
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
