"""Arithmetic as the PTX ISA defines it, by whole numbers and fractions: nothing here rounds on its own."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Format:
    """A binary floating format: significand bits (with the hidden one), smallest normal exponent, largest value."""

    name: str
    precision: int
    smallest: int
    largest: Fraction
    bits: int

    def round(
        self, value: Fraction | float, mode: str = "rn", *, ftz: bool = False, negative_zero: bool = False
    ) -> float:
        """The nearest representable number in the mode's direction; overflow as IEEE 754 says; ftz flushes the result."""
        if isinstance(value, float):
            if math.isnan(value) or math.isinf(value):
                return value
            negative_zero |= math.copysign(1, value) < 0
            value = Fraction(value)
        if value == 0:
            return -0.0 if negative_zero else 0.0
        sign, size = (-1, -value) if value < 0 else (1, value)
        exponent = max(floor_log2(size), self.smallest)
        step = Fraction(2) ** (exponent - self.precision + 1)
        below, rest = divmod(size, step)
        away = {"rz": False, "rm": sign < 0, "rp": sign > 0, "rna": rest * 2 >= step}.get(mode)
        if away is None:
            away = rest * 2 > step or (rest * 2 == step and below % 2 == 1)
        result = (below + (1 if away and rest else 0)) * step
        if result > self.largest:
            over = mode in ("rn", "rna") or ((mode == "rm") == (sign < 0) and mode != "rz")
            return sign * (INF if over else float(self.largest))
        if ftz and result < Fraction(2) ** self.smallest:
            result = Fraction(0)
        return math.copysign(float(result), sign)


def floor_log2(value: Fraction) -> int:
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def _largest(precision: int, exponent: int) -> Fraction:
    return (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** exponent


F64 = Format("f64", 53, -1022, _largest(53, 1023), 64)
F32 = Format("f32", 24, -126, _largest(24, 127), 32)
F16 = Format("f16", 11, -14, _largest(11, 15), 16)
BF16 = Format("bf16", 8, -126, _largest(8, 127), 16)
FORMATS = {f.name: f for f in (F64, F32, F16, BF16)}


def to_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers that the format holds exactly, as the array that a kernel reads."""
    values = np.asarray(values, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if name == "f64":
            return values
        if name == "f32":
            return values.astype(np.float32)
        if name == "f16":
            return values.astype(np.float16).view(np.uint16)
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bits(bits: np.ndarray, name: str) -> np.ndarray:
    if name in ("f32", "f64"):
        return np.asarray(bits, np.float64)
    if name == "f16":
        return np.asarray(bits.view(np.float16), np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def same(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Equal numbers with equal signs of zero, or both not a number."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return ((found == expected) & (np.signbit(found) == np.signbit(expected))) | (np.isnan(found) & np.isnan(expected))


def numbers(name: str, seed: int = 1, count: int = 40) -> list[float]:
    """Edges of a format and random members of it."""
    f = FORMATS[name]
    tiny, normal = Fraction(2) ** (f.smallest - f.precision + 1), Fraction(2) ** f.smallest
    edges = [0.0, -0.0, INF, -INF, NAN, float(f.largest), -float(f.largest), float(tiny), float(-tiny), float(normal)]
    edges += [float(normal - tiny), 1.0, -1.0, 1.5, float(1 + Fraction(2) ** (1 - f.precision)), -2.5, 3.0, 0.5]
    rng = random.Random(seed)
    for _ in range(count):
        mantissa = rng.getrandbits(f.precision) | 1 << (f.precision - 1)
        spread = rng.choice([3, 20, -f.smallest - 2])
        value = f.round(Fraction(mantissa) * Fraction(2) ** (rng.randint(-spread, spread) - f.precision))
        edges.append(rng.choice([-1, 1]) * value)
    return edges


def integers(width: int, seed: int = 1, count: int = 24) -> list[int]:
    """Edges of a width and random patterns, as unsigned numbers."""
    top = 1 << width
    edges = [
        0,
        1,
        2,
        3,
        5,
        7,
        width - 1,
        width,
        width + 1,
        255,
        0x80,
        top // 2 - 1,
        top // 2,
        top // 2 + 1,
        top - 1,
        top - 2,
    ]
    rng = random.Random(seed)
    edges += [rng.getrandbits(rng.randint(1, width)) for _ in range(count)]
    return [e % top for e in edges]


def signed(value: int, width: int) -> int:
    value %= 1 << width
    return value - (1 << width) if value >> (width - 1) else value


def combinations(*lists: list, limit: int = 2048, seed: int = 5) -> list[tuple]:
    """All combinations, or a random part of them with every value of every list in it."""
    total = math.prod(len(x) for x in lists)
    if total <= limit:
        return list(itertools.product(*lists))
    rng = random.Random(seed)
    chosen = [
        tuple(x[i % len(x)] if j == k else rng.choice(x) for k, x in enumerate(lists))
        for j, l in enumerate(lists)
        for i in range(len(l))
    ]
    return chosen + [tuple(rng.choice(x) for x in lists) for _ in range(limit - len(chosen))]
