"""mma.sync by the fragment tables of the ISA, every type by value: whole numbers, rounding, special values, overflow.

Which forms there are, and the moves of matrices: test_ops_matrix.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

RANDOM = np.random.default_rng(8)
LANES = range(32)
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8, "e4m3": 8, "e5m2": 8, "f64": 64}
INTEGERS, FP8 = ("s8", "u8"), ("e4m3", "e5m2")
SHAPES = [(16, 8, 4), (16, 8, 8), (16, 8, 16), (16, 8, 32), (8, 8, 16), (8, 8, 4)]
Form = tuple[int, int, int, str, str, str, str, str]  # m, n, k, .satfinite, types of D, A, B, C


def all_forms() -> Iterator[Form]:
    """Every shape with every types that fit into its registers, whether there is such an instruction or not."""
    for shape, (a, b), d, c in itertools.product(
        SHAPES, itertools.product(BITS, BITS), ("f16", "f32", "s32", "f64"), ("f16", "f32", "s32", "f64")
    ):
        if BITS[a] == BITS[b] and shape[0] * shape[2] * BITS[a] >= 1024 and shape[1] * shape[2] * BITS[b] >= 1024:
            for saturate in ("", ".satfinite"):
                yield (*shape, saturate, d, a, b, c)


def since(form: Form) -> int | None:
    """The least part that has a form, by the ISA's tables of mma; None: there is none. (f64 of 16 rows is not modelled.)"""
    m, _, k, saturate, d, a, b, c = form
    if a in INTEGERS and b in INTEGERS:
        return 80 if d == c == "s32" and ((m == 16 and k in (16, 32)) or (m == 8 and k == 16)) else None
    if saturate or c != d:
        return None
    if a in FP8 and b in FP8:
        return 89 if m == 16 and k in (16, 32) and d in ("f16", "f32") else None
    if a != b:
        return None
    if a == "f64":
        return 80 if m == 8 and k == 4 and d == "f64" else None
    if a == "tf32":
        return 80 if m == 16 and k in (4, 8) and d == "f32" else None
    return 80 if m == 16 and k in (8, 16) and (d == "f32" or (d == "f16" and a == "f16")) else None


def opcode(form: Form) -> str:
    m, n, k, saturate, d, a, b, c = form
    return f"mma.sync.aligned.m{m}n{n}k{k}.row.col{saturate}.{d}.{a}.{b}.{c}"


FORMS = {opcode(form): form for form in all_forms() if since(form)}
FLOATS = {name: form for name, form in FORMS.items() if form[5] not in (*INTEGERS, "f64")}
TYPES: dict[str, Any] = {
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float32, "f32": np.float32, "s32": np.int32, "s8": np.int8,
    "u8": np.uint8, "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip


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


def product(micro: Any, form: Form, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """One mma on the least part that has it: fragments by their places, and the result put together again."""
    m, n, k, *_ = form
    per = 4 // a.itemsize
    fragments = [
        registers_of(
            a, m * k // 32, lambda i, lane: (lane // 4, lane % 4 * per + i) if m == 8 else place_a(i, lane, per)
        ),
        registers_of(b, n * k // 32, lambda i, lane: place_b(i, lane, per)),
        registers_of(c, m * n // 32, place_c),
    ]
    letters = iter("abcdefghijklmnop")
    groups = ["{" + ", ".join("$" + next(letters) for _ in part) + "}" for part in fragments]
    outputs = len(fragments[2])
    text = f"{opcode(form)} {{{', '.join(f'${i}' for i in range(outputs))}}}, {', '.join(groups)};"
    with micro.part(since(form) or 0) as header:
        found = micro.words(text, [w for f in fragments for w in f], outputs=outputs, header=header)
    values = np.ascontiguousarray(found.T).view(c.dtype).reshape(32, m * n // 32)
    d = np.zeros((m, n), c.dtype)
    for lane, i in itertools.product(LANES, range(m * n // 32)):
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


def matrices(form: Form, draw: Any) -> list[np.ndarray]:
    """A, B and C of the form's types with numbers by draw(shape); the lower 13 bits of tf32 are zero."""
    m, n, k, _, d, a, b, _ = form
    found = [draw(shape).astype(TYPES[kind]) for shape, kind in (((m, k), a), ((k, n), b), ((m, n), d))]
    return [(x.view(np.uint32) & 0xFFFFE000).view(np.float32) if a == "tf32" else x for x in found[:2]] + found[2:]


@pytest.mark.parametrize("name", FLOATS)
def test_whole_numbers_are_exact(micro: Any, name: str, accumulation: str) -> None:
    a, b, c = matrices(FLOATS[name], lambda shape: RANDOM.integers(-8, 9, shape))
    exact = a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)
    assert (product(micro, FLOATS[name], a, b, c) == exact).all()


@pytest.mark.parametrize("name", FLOATS)
def test_random_numbers(micro: Any, name: str, accumulation: str) -> None:
    """Products are exact; their sum is rounded once, or, truncating, is off by some of the largest term."""
    form = FLOATS[name]
    a, b, c = matrices(form, lambda shape: RANDOM.standard_normal(shape) * 2.0 ** RANDOM.integers(-3, 4, shape))
    found = product(micro, form, a, b, c)
    wide = [x.astype(np.float64) for x in (a, b, c)]
    exact = wide[0] @ wide[1] + wide[2]
    if accumulation == "exact":
        assert (found == exact.astype(c.dtype)).all()
    terms = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2])
    ulp = 2.0**-11 if form[4] == "f16" else 2.0**-24
    assert (np.abs(found - exact) <= 1.01 * (np.abs(exact) * ulp + terms * 2.0**-23 * form[2]) + 1e-30).all()


def test_mma_truncates_on_demand(micro: Any) -> None:
    """1 + 8 terms of 2^-26: rounding once keeps their sum, cutting each off below 2^-24 of the largest loses them."""
    a, b, c = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16), np.ones((16, 8), np.float32)
    a[:, :8], b[:8] = 2.0**-12, 2.0**-14
    form = FLOATS["mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"]
    for truncating, expected in (("0", 1 + 2.0**-23), ("1", 1)):
        with micro.option("truncating_mma", truncating, "0"):
            assert (product(micro, form, a, b, c) == expected).all()


def test_lower_bits_of_tf32_are_ignored(micro: Any) -> None:
    form = FLOATS["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"]
    a, b = RANDOM.standard_normal((16, 8)).astype(np.float32), RANDOM.standard_normal((8, 8)).astype(np.float32)
    zero = np.zeros((16, 8), np.float32)
    cut = [(x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b)]
    assert (product(micro, form, a, b, zero) == product(micro, form, *cut, zero)).all()


@pytest.mark.parametrize("name", FLOATS)
def test_special_values(micro: Any, name: str, accumulation: str) -> None:
    """e4m3 has no infinity: there it is what is not a number."""
    form = FLOATS[name]
    _, n, k, *_ = form
    a, b, c = matrices(form, np.ones)
    c[:] = 0
    a[0, 0], a[1, 1], a[2, 0] = np.nan, np.inf, -np.inf
    a[3, 0], a[3, 1] = np.inf, -np.inf
    b[2, 5], c[5, 5], c[6, 6] = 0, np.nan, -np.inf
    a[7, 2] = np.inf  # meets a zero in column 5
    found = product(micro, form, a, b, c).astype(np.float64)
    infinite = np.isnan if form[5] == "e4m3" else np.isposinf
    assert np.isnan(found[0]).all()
    assert infinite(found[1]).all()
    assert infinite(-found[2]).all()
    assert np.isnan(found[3]).all()
    assert np.isnan(found[5, 5])
    assert found[6, 6] == -np.inf
    assert np.isnan(found[7, 5])
    assert infinite(np.delete(found[7], 5)).all()
    assert (found[4] == k - (np.arange(n) == 5)).all()
    assert (found[8:] == found[4]).all()


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_subnormal_operands_count(micro: Any, kind: str) -> None:
    form = FLOATS[f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32"]
    a, b, c = matrices(form, np.zeros)
    smallest = 2.0**-24 if kind == "f16" else 2.0**-133
    a[:, 3], b[3] = smallest, 1.0
    assert (product(micro, form, a, b, c).astype(np.float64) == smallest).all()


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form[5] in INTEGERS])
def test_integers(micro: Any, name: str) -> None:
    """Sums wrap around, or with .satfinite stay at the ends of s32; operands of every value."""
    form = FORMS[name]
    m, n, k, saturate, _, ka, kb, _ = form
    a = RANDOM.integers(np.iinfo(TYPES[ka]).min, np.iinfo(TYPES[ka]).max + 1, (m, k)).astype(TYPES[ka])
    b = RANDOM.integers(np.iinfo(TYPES[kb]).min, np.iinfo(TYPES[kb]).max + 1, (k, n)).astype(TYPES[kb])
    ends = np.array([-(2**31), -(2**31) + 9, 2**31 - 1, 2**31 - 500, 0, -1], np.int64)
    c = RANDOM.choice(ends, (m, n)).astype(np.int32)
    exact = a.astype(np.int64) @ b.astype(np.int64) + c
    assert (exact > 2**31).any() or (exact < -(2**31)).any()
    expected = np.clip(exact, -(2**31), 2**31 - 1) if saturate else exact.astype(np.int32)
    assert (product(micro, form, a, b, c) == expected).all()


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
