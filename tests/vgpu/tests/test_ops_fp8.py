"""Conversions between fp8 and wider floats (sm_89), against ml_dtypes: every code back, every half forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from vgpu_micro import header

HEADER = header(89)
FP8: dict[str, Any] = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}


@pytest.fixture(autouse=True)
def _ada(micro: Any) -> Iterator[None]:
    with micro.part(89):
        yield


def narrowed(values: np.ndarray, kind: str, relu: bool) -> np.ndarray:
    """Codes by the ISA: round to nearest even, saturate to the largest finite value, NaN to the canonical NaN 0x7f."""
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
        if relu:
            wide = np.where(wide > 0, wide, np.where(np.isnan(wide), wide, 0.0))
        clipped = np.clip(wide, -LARGEST[kind], LARGEST[kind])
        codes = clipped.astype(FP8[kind]).view(np.uint8)
    return np.where(np.isnan(wide), 0x7F, codes).astype(np.uint8)


def run(micro: Any, code: str, words: list[np.ndarray], registers: str, outputs: int = 1) -> np.ndarray:
    parts = []
    for begin in range(0, len(words[0]), 1024):
        chunk = [np.resize(w[begin : begin + 1024], 1024) for w in words]
        parts.append(micro.words(code, chunk, outputs=outputs, block=1024, registers=registers, header=HEADER))
    return np.concatenate(parts, 1)[:, : len(words[0])]


@pytest.mark.parametrize("kind", FP8)
def test_every_code_to_half(micro: Any, kind: str) -> None:
    codes = np.arange(256, dtype=np.uint32)
    code = f"cvt.u16.u32 %h, $a; cvt.rn.f16x2.{kind}x2 $0, %h;"
    found = run(micro, code, [codes | codes[::-1] << 8], ".reg .b16 %h;")[0].view(np.float16).reshape(-1, 2)
    for half, given in ((0, codes), (1, codes[::-1])):
        expected = given.astype(np.uint8).view(FP8[kind]).astype(np.float16)
        assert np.array_equal(found[:, half], expected, equal_nan=True)
        assert (np.signbit(found[:, half]) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("kind", FP8)
def test_every_half_to_fp8(micro: Any, kind: str, relu: str) -> None:
    halves = np.arange(65536, dtype=np.uint32)
    code = f"cvt.rn.satfinite{relu}.{kind}x2.f16x2 %h, $a; cvt.u32.u16 $0, %h;"
    found = run(micro, code, [halves | halves[::-1] << 16], ".reg .b16 %h;")[0]
    for shift, given in ((0, halves), (8, halves[::-1])):
        values = given.astype(np.uint16).view(np.float16)
        assert ((found >> shift & 255) == narrowed(values, kind, bool(relu))).all()


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("kind", FP8)
def test_floats_to_fp8(micro: Any, kind: str, relu: str) -> None:
    """The first source is the upper half. Every code, its midpoints to the next and their neighbours, and random bits."""
    finite = np.unique(np.arange(256, dtype=np.uint8).view(FP8[kind]).astype(np.float32))
    finite = finite[np.isfinite(finite)]
    middle = (finite[1:] + finite[:-1]) / 2
    edges = [finite, middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))]
    bits = np.random.default_rng(1).integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([*edges, bits, np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32)])
    reverse = np.ascontiguousarray(values[::-1])
    code = f"cvt.rn.satfinite{relu}.{kind}x2.f32 %h, $a, $b; cvt.u32.u16 $0, %h;"
    found = run(micro, code, [values.view(np.uint32), reverse.view(np.uint32)], ".reg .b16 %h;")[0]
    assert ((found >> 8) == narrowed(values, kind, bool(relu))).all()
    assert ((found & 255) == narrowed(reverse, kind, bool(relu))).all()


def test_fp8_needs_its_part(micro: Any) -> None:
    """PTX for sm_89 does not run on sm_80, and the refusal says so."""
    with micro.option("device", "a100", "l4"), pytest.raises(RuntimeError, match="no PTX for a100"):
        micro.words("mov.u32 $0, $a;", [np.zeros(32, np.uint32)], header=HEADER)
