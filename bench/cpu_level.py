"""Holds everything to a lower instruction set than the machine's: what one without AVX-512 would show, as far as it goes."""

from __future__ import annotations

import os
from collections.abc import Sequence

# What the libraries read when they start, by the instruction set of ours.
SWITCHES = {
    "v3": {
        "IVK_ISA": "v3",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}
BYTES = {"v3": 32}  # of the widest vector
HELD = ("transformers", "compile")
LEFT_OUT = "left out (--peers, or --isa, for which it has no switch)"


def hold(level: str) -> None:
    """For this process, before it loads a library, and its children."""
    os.environ.update(SWITCHES[level])


def held(level: str | None, peers: Sequence[str]) -> list[str]:
    return [peer for peer in peers if level is None or peer in HELD]
