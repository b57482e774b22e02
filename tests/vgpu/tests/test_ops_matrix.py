"""ldmatrix, movmatrix and mma.sync by the fragment tables of the ISA, element by element: register, half and lane of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

RANDOM = np.random.default_rng(3)
LANES = range(32)
BF16 = ml_dtypes.bfloat16


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(micro: Any, count: int, trans: str) -> None:
    """Row r of matrix j lies where lane 8 j + r says: here in reverse order, 16 bytes apart by 48."""
    rows = RANDOM.integers(0, 2**16, (32, 8)).astype(np.uint16)
    matrices = rows[: 8 * count].reshape(count, 8, 8)
    names = ", ".join(f"${i}" for i in range(count))
    code = f"""mov.u32 %s, m; sub.u32 %n, 31, %t; mad.lo.u32 %s, %n, 48, %s; st.shared.v4.u32 [%s], {{$a, $b, $c, $d}};
    bar.warp.sync 0xffffffff; ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{names}}}, [%s];"""
    words = [np.ascontiguousarray(rows.view(np.uint32)[:, i]) for i in range(4)]
    registers = ".reg .b32 %s, %n; .shared .align 16 .b8 m[1536];"
    found = micro.words(code, words, outputs=count, registers=registers)
    for j in range(count):
        for lane in LANES:
            pair = [(lane // 4, 2 * (lane % 4) + h) for h in (0, 1)]
            low, high = (int(matrices[j][(c, r) if trans else (r, c)]) for r, c in pair)
            assert found[j, lane] == low | high << 16, (j, lane)


def test_ldmatrix_takes_addresses_of_the_first_lanes_only(micro: Any) -> None:
    """x1 reads rows at the addresses of lanes 0 to 7; those of the others may be anything."""
    data = RANDOM.integers(0, 2**32, 32, dtype=np.uint32)
    code = """mov.u32 %s, m; mad.lo.u32 %n, %t, 4, %s; st.shared.u32 [%n], $a; bar.warp.sync 0xffffffff;
    mad.lo.u32 %n, %t, 16, %s; setp.gt.u32 %q, %t, 7; selp.u32 %n, 0xfffff0, %n, %q;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {$0}, [%n];"""
    found = micro.words(code, [data], registers=".reg .b32 %s, %n; .reg .pred %q; .shared .align 16 .b8 m[128];")
    assert (found[0] == data).all()


def test_movmatrix(micro: Any) -> None:
    matrix = RANDOM.integers(0, 2**16, (8, 8)).astype(np.uint16)
    words = np.array(
        [int(matrix[i // 4, 2 * (i % 4)]) | int(matrix[i // 4, 2 * (i % 4) + 1]) << 16 for i in LANES], np.uint32
    )
    found = micro.words("movmatrix.sync.aligned.m8n8.trans.b16 $0, $a;", [words])
    for i in LANES:
        assert found[0, i] == int(matrix[2 * (i % 4), i // 4]) | int(matrix[2 * (i % 4) + 1, i // 4]) << 16


@dataclass(frozen=True)
class Shape:
    """An mma: kinds by PTX name, and where elements lie: element i of a lane -> (row, column)."""

    k: int
    a: str
    b: str
    d: str

    @property
    def name(self) -> str:
        return f"m16n8k{self.k}.row.col{'.satfinite' if self.a in ('s8', 'u8') else ''}.{self.d}.{self.a}.{self.b}.{self.d}"


SIZES = {"f16": 2, "bf16": 2, "tf32": 4, "s8": 1, "u8": 1, "f32": 4, "s32": 4}
TYPES: dict[str, Any] = {
    "f16": np.float16, "bf16": BF16, "tf32": np.float32, "s8": np.int8, "u8": np.uint8, "f32": np.float32, "s32": np.int32,
}  # fmt: skip
SHAPES = [
    *(Shape(k, t, t, "f32") for t in ("f16", "bf16") for k in (8, 16)),
    *(Shape(k, "f16", "f16", "f16") for k in (8, 16)),
    *(Shape(k, "tf32", "tf32", "f32") for k in (4, 8)),
    *(Shape(k, a, b, "s32") for k in (16, 32) for a in ("s8", "u8") for b in ("s8", "u8")),
]


def place_a(i: int, lane: int, per: int) -> tuple[int, int]:
    """Row and column of A's element i: registers hold ``per`` neighbours of k; register 1 is eight rows down, 2 and 3 further in k."""
    register, within = divmod(i, per)
    return lane // 4 + 8 * (register % 2), (lane % 4) * per + within + 4 * per * (register // 2)


def place_b(i: int, lane: int, per: int) -> tuple[int, int]:
    register, within = divmod(i, per)
    return (lane % 4) * per + within + 4 * per * register, lane // 4


def place_c(i: int, lane: int) -> tuple[int, int]:
    return lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2


def registers_of(matrix: np.ndarray, elements: int, place: Any) -> list[np.ndarray]:
    values = np.array([[matrix[place(i, lane)] for i in range(elements)] for lane in LANES])
    return list(np.ascontiguousarray(values.view(np.uint32).T))


def multiply(micro: Any, shape: Shape, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    per_a, per_b = 4 // SIZES[shape.a], 4 // SIZES[shape.b]
    fa = registers_of(a, 16 * shape.k // 32, lambda i, lane: place_a(i, lane, per_a))
    fb = registers_of(b, 8 * shape.k // 32, lambda i, lane: place_b(i, lane, per_b))
    fc = registers_of(c, 4, place_c)
    letters = iter("abcdefghijklmnop")
    groups = ["{" + ", ".join("$" + next(letters) for _ in part) + "}" for part in (fa, fb, fc)]
    out = "{" + ", ".join(f"${i}" for i in range(len(fc))) + "}"
    text = f"mma.sync.aligned.{shape.name} {out}, {', '.join(groups)};"
    found = micro.words(text, [*fa, *fb, *fc], outputs=len(fc))
    values = np.ascontiguousarray(found.T).view(TYPES[shape.d]).reshape(32, 4)
    d = np.zeros((16, 8), values.dtype)
    for lane in LANES:
        for i in range(4):
            d[place_c(i, lane)] = values[lane, i]
    return d


@pytest.fixture(params=["exact", "truncating"])
def accumulation(request: pytest.FixtureRequest, micro: Any) -> Any:
    """How sums are rounded: what a GPU does is nearer to truncating, which allows for more."""
    if request.param == "exact" or micro.virtual:
        with micro.option("truncating_mma", "1" if request.param == "truncating" else "0", "0"):
            yield request.param
    else:
        yield request.param


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_whole_numbers_are_exact(micro: Any, shape: Shape, accumulation: str) -> None:
    high = {"s8": 128, "u8": 256, "f16": 3 if shape.d == "f16" else 16}.get(shape.a, 16)
    low = 0 if shape.a == "u8" else -high
    a = RANDOM.integers(low, high, (16, shape.k)).astype(TYPES[shape.a])
    b = RANDOM.integers(0 if shape.b == "u8" else -16, 16, (shape.k, 8)).astype(TYPES[shape.b])
    c = RANDOM.integers(-100, 100, (16, 8)).astype(TYPES[shape.d])
    found = multiply(micro, shape, a, b, c)
    expected = a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)
    assert (found.astype(np.float64) == expected).all()


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.d != "s32"], ids=lambda s: s.name)
def test_random_numbers(micro: Any, shape: Shape, accumulation: str) -> None:
    """Products are exact; their sum is rounded to the result's format, within an ulp or, truncating, some of the largest term."""
    scale = 2.0 ** RANDOM.integers(-3, 4, (16, shape.k))
    a = (RANDOM.standard_normal((16, shape.k)) * scale).astype(TYPES[shape.a])
    b = RANDOM.standard_normal((shape.k, 8)).astype(TYPES[shape.b])
    c = RANDOM.standard_normal((16, 8)).astype(TYPES[shape.d])
    if shape.a == "tf32":  # the lower 13 bits of an operand do not count
        a, b = ((x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b))
    found = multiply(micro, shape, a, b, c).astype(np.float64)
    wide = [x.astype(np.float64) for x in (a, b, c)]
    expected = wide[0] @ wide[1] + wide[2]
    terms = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2])
    ulp = 2.0**-11 if shape.d == "f16" else 2.0**-24
    bound = np.abs(expected) * ulp if accumulation == "exact" else np.abs(expected) * ulp + terms * 2.0**-23 * shape.k
    assert (np.abs(found - expected) <= bound * 1.01 + 1e-30).all()


def test_lower_bits_of_tf32_are_ignored(micro: Any) -> None:
    shape = Shape(8, "tf32", "tf32", "f32")
    a, b = RANDOM.standard_normal((16, 8)).astype(np.float32), RANDOM.standard_normal((8, 8)).astype(np.float32)
    zero = np.zeros((16, 8), np.float32)
    cut = [(x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b)]
    assert (multiply(micro, shape, a, b, zero) == multiply(micro, shape, *cut, zero)).all()


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.d != "s32"], ids=lambda s: s.name)
def test_special_values(micro: Any, shape: Shape, accumulation: str) -> None:
    a, b = np.ones((16, shape.k), TYPES[shape.a]), np.ones((shape.k, 8), TYPES[shape.b])
    c = np.zeros((16, 8), TYPES[shape.d])
    a[0, 0], a[1, 1], a[2, 0] = np.nan, np.inf, -np.inf
    a[3, 0], a[3, 1] = np.inf, -np.inf
    b[2, 5], c[5, 5], c[6, 6] = 0, np.nan, -np.inf
    a[7, 2] = np.inf  # meets a zero in column 5
    found = multiply(micro, shape, a, b, c).astype(np.float64)
    assert np.isnan(found[0]).all()
    assert (found[1] == np.inf).all()
    assert (found[2] == -np.inf).all()
    assert np.isnan(found[3]).all()
    assert np.isnan(found[5, 5])
    assert found[6, 6] == -np.inf
    assert np.isnan(found[7, 5])
    assert (np.delete(found[7], 5) == np.inf).all()
    rest = np.isfinite(found)
    assert (found[4] == shape.k - (np.arange(8) == 5)).all()
    assert rest[8:].all()


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_subnormal_operands_count(micro: Any, kind: str) -> None:
    shape = Shape(16, kind, kind, "f32")
    a, b = np.zeros((16, 16), TYPES[kind]), np.zeros((16, 8), TYPES[kind])
    smallest = 2.0**-24 if kind == "f16" else 2.0**-133
    a[:, 3], b[3] = smallest, 1.0
    found = multiply(micro, shape, a, b, np.zeros((16, 8), np.float32))
    assert (found.astype(np.float64) == smallest).all()


@pytest.mark.parametrize("saturate", [True, False])
def test_integer_overflow(micro: Any, saturate: bool) -> None:
    shape = Shape(32, "s8", "s8", "s32")
    a, b = np.full((16, 32), 127, np.int8), np.full((32, 8), 127, np.int8)
    a[8:] = -128
    c = np.full((16, 8), 2**31 - 10, np.int32)
    c[8:] = -(2**31) + 10
    if saturate:
        found = multiply(micro, shape, a, b, c)
        assert (found[:8] == 2**31 - 1).all()
        assert (found[8:] == -(2**31)).all()
        return

    class Wrapping(Shape):
        @property
        def name(self) -> str:
            return super().name.replace(".satfinite", "")

    found = multiply(micro, Wrapping(32, "s8", "s8", "s32"), a, b, c)
    expected = (a.astype(np.int64) @ b.astype(np.int64) + c).astype(np.int32)  # wraps
    assert (found == expected).all()


def test_double_precision(micro: Any) -> None:
    """m8n8k4: one element of A and B a lane, two neighbours of C."""
    a, b, c = RANDOM.standard_normal((8, 4)), RANDOM.standard_normal((4, 8)), RANDOM.standard_normal((8, 8))
    code = """mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%x, %y}, {$A}, {$B}, {$C, $D};
    mov.b64 {$0, $1}, %x; mov.b64 {$2, $3}, %y;"""
    pairs = c.reshape(32, 2)
    inputs = [a.reshape(32), b.T.reshape(32), pairs[:, 0], pairs[:, 1]]
    words = micro.words(code, [np.ascontiguousarray(v) for v in inputs], outputs=4, registers=".reg .f64 %x, %y;")
    found = np.stack([np.ascontiguousarray(words[2 * i : 2 * i + 2].T).view(np.float64)[:, 0] for i in (0, 1)], 1)
    np.testing.assert_allclose(found.reshape(8, 8), a @ b + c, rtol=0, atol=1e-14)
