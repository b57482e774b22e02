"""Bits that must not move: repeats, thread counts, instruction sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..ops._backend import cpu
from .compare import same_bits


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Runs the body on one instruction set of ``available_isas()`` and restores the former one."""
    module = cpu()
    before = module.current_isa()
    module.set_isa(name)
    try:
        yield
    finally:
        module.set_isa(before)


def check_invariant(run: Callable[[int], Any], what: str = "result", *, fused: bool = False) -> Any:
    """``run(threads)`` must give one result whatever the threads (1, 2, 5), the instruction set, and when run again.

    fused: sums are of fused multiply-adds, which the baseline of x86-64 lacks: it has one result of its own.
    """
    expected = run(1)
    for isa in cpu().available_isas():
        with instruction_set(isa):
            if fused and isa == "base":
                for threads in (2, 5, 1):
                    same_bits(run(threads), run(1), f"{what} on {isa} with {threads} threads")
                continue
            for threads in (1, 2, 5, 1):
                same_bits(run(threads), expected, f"{what} on {isa} with {threads} threads")
    return expected


__all__ = ["check_invariant", "instruction_set"]
