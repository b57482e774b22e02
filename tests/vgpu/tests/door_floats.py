"""What the floating rows share: inputs, rounding of exact fractions, kernels of one instruction."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
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
        toward = mode in ("rn", "rna") or ((mode == "rp") == (value > 0) and mode != "rz")
        return math.copysign(math.inf if toward else float(largest), value)
    return float(value)


def lanes(engine, code, inputs, *, width="b32", registers="", dtype=np.float32, out=None, options=""):
    out = out or dtype
    count = max(len(a) for a in inputs)
    door = Door(engine, lane_kernel(code, width=width, inputs=len(inputs), registers=registers), "h100")
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
