"""Valid arguments of every op at random sizes, by makers of one op each. An op without a maker takes ``testing.parity``'s problems."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fuzz.values import Rng
from internvl_kernels import ops
from internvl_kernels.testing.parity import Problem, problems

Arguments = dict[str, Any]
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64, 65)
DTYPES = ("float32", "float32", "float32", "bfloat16", "float16", "float64")
MAKERS: dict[str, Callable[[Maker], Arguments]] = {}


class Maker:
    """Sizes and numbers of one call."""

    def __init__(self, rng: Rng, dtype: str) -> None:
        self.rng, self.dtype = rng, dtype
        self._numbers = np.random.default_rng(rng.getrandbits(64))
        # Whole numbers, whose sums are exact; or numbers of one sign, whose sums cannot cancel.
        self.kind = rng.choice(("whole", "whole", "positive"))
        self.special = rng.random() < 0.15
        self.infinities: tuple[float, ...] = (np.inf, -np.inf)

    def size(self, least: int = 1, most: int = 65) -> int:
        return self.rng.choice([s for s in SIZES if least <= s <= most])

    def rows(self) -> list[int]:
        """Leading dimensions; now and then none, or of length 0."""
        return self.rng.choice(
            ([self.size()], [self.size()], [2, 3], [1, 2, 2], [], [0], [2, 0], [self.rng.choice((1, 130))])
        )

    def maybe(self, value: Any, share: float = 0.5) -> Any:
        return value if self.rng.random() < share else None

    def data(self, *shape: int, dtype: str | None = None, signed: bool = True) -> torch.Tensor:
        """Numbers of the call's kind, with NaN and the like among them in some calls."""
        if self.kind == "whole" and signed:
            numbers = self._numbers.integers(-4, 5, shape).astype(np.float32)
        else:
            numbers = (self._numbers.random(shape) * 1.75 + 0.25).astype(np.float32)
        if self.special and numbers.size and signed:
            flat = numbers.reshape(-1)
            for value in self.rng.sample((np.nan, 0.0, -0.0, 1e-40, -1e-44, *self.infinities), 2):
                flat[self.rng.randrange(flat.size)] = value
        return torch.from_numpy(numbers).to(getattr(torch, dtype or self.dtype))

    def normal(self, *shape: int, dtype: str | None = None, scale: float = 1.0) -> torch.Tensor:
        numbers = self._numbers.standard_normal(shape).astype(np.float32) * np.float32(scale)
        return torch.from_numpy(np.asarray(numbers)).to(getattr(torch, dtype or self.dtype))

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self._numbers.integers(low, max(high, low + 1), shape), dtype=np.int64))


def arguments(rng: Rng, op: str, dtype: str) -> Arguments:
    """Of one call, by name."""
    found = MAKERS.get(op)
    if found is not None:
        return found(Maker(rng, dtype))
    known = examples().get(op)
    assert known, f"{op}: tests/fuzz/op_arguments.py and testing/parity.py have no arguments for it"
    problem = rng.choice(known)
    given, options = problem.make(dtype if dtype in problem.dtypes else problem.dtypes[0])
    names = list(inspect.signature(getattr(ops, op)).parameters)[: len(given)]
    return {**dict(zip(names, given)), **options, **problem.run}


@functools.lru_cache(maxsize=1)
def examples() -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for problem in problems():
        found.setdefault(problem.op, []).append(problem)
    return found


def maker(function: Callable[[Maker], Arguments]) -> Callable[[Maker], Arguments]:
    MAKERS[function.__name__] = function
    return function
