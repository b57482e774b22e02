"""The one table of accepted errors.

An op passes when, relative to the largest value of its row, its worst error is at most ``factor`` times that of the same
PyTorch computation in the same dtype, plus ``floor``; and likewise for the relative L2 error of the whole result. Both
errors are taken against the reference in float64. Floors are in units of the dtype's ``eps`` (one unit in the last place at
1.0), so 0.5 is a correctly rounded result.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    factor: float = 2.0
    floor: float = 0.5  # of the worst error, in eps
    l2_floor: float = 0.25  # of the relative L2 error, in eps
    exact: bool = False  # copies: every bit


EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10, "float64": 2.0**-52}

_FLOAT32 = Tolerance(floor=2.0, l2_floor=1.0)  # sums in another order than PyTorch's, which may be lucky
_HALF = Tolerance()

TOLERANCES: dict[str, dict[str, Tolerance]] = {
    "*": {"float32": _FLOAT32, "bfloat16": _HALF, "float16": _HALF, "float64": _FLOAT32},
    "embed_tokens": dict.fromkeys(EPS, Tolerance(exact=True)),
    # Scores of 16-bit heads are rounded before the softmax in the plain form and not in the fused one.
    "attention": {"float32": Tolerance(floor=4.0, l2_floor=2.0)},
    "cached_attention": {"float32": Tolerance(floor=4.0, l2_floor=2.0)},
    # Its reference is float64 whatever the dtype, so there is no error of PyTorch's to be twice of.
    "row_statistics": {"float32": Tolerance(floor=4.0, l2_floor=2.0)},
}


def tolerance(op: str, dtype: str) -> Tolerance:
    """The row for an op and a dtype name; ops without their own row share "*"."""
    default = TOLERANCES["*"]
    if dtype not in default:
        raise KeyError(f"tolerances: no row for dtype {dtype!r}; known: {', '.join(default)}")
    return TOLERANCES.get(op, default).get(dtype, default[dtype])


__all__ = ["EPS", "TOLERANCES", "Tolerance", "tolerance"]
