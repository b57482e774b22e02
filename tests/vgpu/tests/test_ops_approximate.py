"""Functions that are only near: inside the errors that the ISA documents, and exactly at zeros, infinities and what is no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from vgpu_exact import same

BOTH_SIGNS = np.concatenate([np.geomspace(1e-30, 1e30, 900), -np.geomspace(1e-30, 1e30, 900)])
# Instruction, function, inputs, bound relative to the result, bound absolute: the ISA's figures.
APPROXIMATE: list[tuple[str, Callable[[np.ndarray], np.ndarray], np.ndarray, float, float]] = [
    *((f"rcp.approx{ftz}.f32", lambda x: 1 / x, BOTH_SIGNS, 2**-23, 0) for ftz in ("", ".ftz")),
    ("sqrt.approx.f32", np.sqrt, np.geomspace(1e-30, 1e30, 900), 2**-23, 0),
    ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), np.geomspace(1e-30, 1e30, 900), 2**-22.9, 0),
    ("rsqrt.approx.ftz.f32", lambda x: 1 / np.sqrt(x), np.geomspace(1e-30, 1e30, 900), 2**-22.9, 0),
    ("sin.approx.f32", np.sin, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("cos.approx.f32", np.cos, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("lg2.approx.f32", np.log2, np.linspace(0.51, 1.99, 900), 0, 2**-22),
    ("lg2.approx.f32", np.log2, np.geomspace(2.1, 1e30, 900), 2**-22, 0),
    ("ex2.approx.f32", np.exp2, np.linspace(-120, 120, 900), 2**-22, 0),
    ("ex2.approx.ftz.f32", np.exp2, np.linspace(-120, 120, 900), 2**-22, 0),
    ("tanh.approx.f32", np.tanh, np.linspace(-10, 10, 900), 2**-11, 0),
    ("sqrt.approx.ftz.f32", np.sqrt, np.geomspace(1e-30, 1e30, 900), 2**-23, 0),
    ("sin.approx.ftz.f32", np.sin, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("cos.approx.ftz.f32", np.cos, np.linspace(-np.pi, np.pi, 900), 0, 2**-20.5),
    ("lg2.approx.ftz.f32", np.log2, np.geomspace(2.1, 1e30, 900), 2**-22, 0),
]


@pytest.mark.parametrize(("text", "function", "inputs", "relative", "absolute"), APPROXIMATE)
def test_approximations(
    micro: Any, text: str, function: Any, inputs: np.ndarray, relative: float, absolute: float
) -> None:
    x = inputs.astype(np.float32)
    found = micro.each(f"{text} $d, $a;", "f32", ["f32"], [x]).astype(np.float64)
    expected = function(x.astype(np.float64))
    assert (np.abs(found - expected) <= relative * np.abs(expected) + absolute).all()


@pytest.mark.parametrize(("text", "function"), [("rcp", lambda x: 1 / x), ("rsqrt", lambda x: 1 / np.sqrt(x))])
def test_gross_f64(micro: Any, text: str, function: Any) -> None:
    """The upper 32 bits of the operand count, the lower 32 of the result are zero; an error of 2^-20 and a bit."""
    x = np.geomspace(1e-200, 1e200, 900)
    found = micro.each(f"{text}.approx.ftz.f64 $d, $a;", "f64", ["f64"], [x])
    assert (found.view(np.uint64) & 0xFFFFFFFF == 0).all()
    assert (np.abs(found - function(x)) <= 2.0**-19 * function(x)).all()


N, I = math.nan, math.inf
SPECIAL: list[tuple[str, list[float], list[float]]] = [
    ("rcp.approx.f32", [0.0, -0.0, I, -I, N], [I, -I, 0.0, -0.0, N]),
    ("sqrt.approx.f32", [0.0, -0.0, I, -1.0, N], [0.0, -0.0, I, N, N]),
    ("rsqrt.approx.f32", [0.0, -0.0, I, -1.0, N], [I, -I, 0.0, N, N]),
    ("lg2.approx.f32", [0.0, -0.0, I, -1.0, N, 1.0], [-I, -I, I, N, N, 0.0]),
    ("ex2.approx.f32", [0.0, -0.0, I, -I, N], [1.0, 1.0, I, 0.0, N]),
    ("tanh.approx.f32", [0.0, -0.0, I, -I, N], [0.0, -0.0, 1.0, -1.0, N]),
    ("sin.approx.f32", [0.0, -0.0, I, -I, N], [0.0, -0.0, N, N, N]),
    ("cos.approx.f32", [0.0, -0.0, I, -I, N], [1.0, 1.0, N, N, N]),
    ("ex2.approx.ftz.f32", [1e-40, -130.0, -150.5], [1.0, 0.0, 0.0]),
    ("rcp.approx.ftz.f32", [1e-40, -1e-40], [I, -I]),
    ("sqrt.approx.ftz.f32", [1e-40, -1e-40, I], [0.0, -0.0, I]),
    ("rsqrt.approx.ftz.f32", [1e-40, -1e-40], [I, -I]),
    ("lg2.approx.ftz.f32", [1e-40, -1e-40], [-I, -I]),
    ("sin.approx.ftz.f32", [1e-40, -1e-40], [0.0, -0.0]),
    ("cos.approx.ftz.f32", [1e-40], [1.0]),
]
SPECIAL += [(text.replace(".f32", ".ftz.f32"), x, y) for text, x, y in SPECIAL[:8] if "tanh" not in text]


@pytest.mark.parametrize(("text", "inputs", "expected"), SPECIAL, ids=[row[0] for row in SPECIAL])
def test_special_values_of_approximations(micro: Any, text: str, inputs: list[float], expected: list[float]) -> None:
    found = micro.each(f"{text} $d, $a;", "f32", ["f32"], [np.array(inputs, np.float32)])
    assert same(found, np.array(expected)).all(), list(zip(inputs, found, expected))


@pytest.mark.parametrize(("text", "bound"), [("div.approx.f32", 2**-22), ("div.full.f32", 2**-22)])
def test_quick_division(micro: Any, text: str, bound: float) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.uniform(1, 2, 1000) * 2.0 ** rng.integers(-60, 60, 1000) for _ in range(2))
    a, b = a.astype(np.float32), b.astype(np.float32)
    found = micro.each(f"{text} $d, $a, $b;", "f32", ["f32", "f32"], [a, b]).astype(np.float64)
    expected = a.astype(np.float64) / b
    assert (np.abs(found - expected) <= bound * np.abs(expected)).all()
