"""What counts of the virtual GPU would take on a stated part: a model from published figures, never a measurement.

A launch's work goes to units of a multiprocessor that run beside each other: tensor cores, shared memory, L2, fp32 and special
functions, instruction issue. The busiest multiprocessor has ceil(blocks / multiprocessors) of the blocks, and of their work the
longest unit counts. What nothing overlaps is added: the first copies' latency, and the arithmetic after a block's last product
(for each block where only one is resident, else once). Memory takes its distinct bytes at full speed; launches of a graph stand
a fixed gap apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SPECIAL = ("ex2", "rcp", "rsqrt", "sqrt", "lg2", "sin", "cos", "tanh")


@dataclass(frozen=True)
class Part:
    """Published figures; per multiprocessor and clock where nothing else is said."""

    name: str
    multiprocessors: int
    clock: float  # MHz, boost
    tensor: int  # multiply-adds of bf16 with fp32 sums
    fp32: int  # lanes
    special: int  # lanes
    shared: int  # bytes
    l2: float  # bytes a clock of the whole part
    memory: float  # GB/s
    latency: int = 800  # clocks of a first copy from memory
    gap: float = 1.0  # us between launches of a graph

    @property
    def peak(self) -> float:
        """FLOP/us of the tensor cores."""
        return 2 * self.tensor * self.multiprocessors * self.clock


A100 = Part("A100 SXM 80 GB", 108, 1410, 1024, 64, 16, 128, 5120, 2039)


def floor_us(part: Part, flops: float, moved: float) -> float:
    """At the published peaks: the longer of products and bytes."""
    return max(flops / part.peak, moved / part.memory / 1e3)


def units(part: Part, counters: dict[str, Any]) -> dict[str, float]:
    """Clocks of one multiprocessor for all of a launch's work, by unit."""
    special = sum(n for name, n in counters["by_opcode"].items() if name.split(".")[0] in SPECIAL)
    sectors = counters["global_load_sectors"] + counters["global_store_sectors"]
    return {
        "tensor": counters["mma_flops"] / 2 / part.tensor,
        "shared": counters["shared_wavefronts"] * 128 / part.shared,
        "L2": sectors * 32 / (part.l2 / part.multiprocessors),
        "fp32": counters["by_class"].get("float", 0) * 32 / part.fp32,
        "special": special * 32 / part.special,
        "issue": counters["warp_instructions"] / 4,
    }


def modelled(part: Part, launch: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of one launch, the unit that decides, and the floor of its blocks' products in whole waves."""
    counters, blocks = launch["counters"], math.prod(launch["grid"])
    share = {name: clocks / blocks for name, clocks in units(part, counters).items()}
    busiest = math.ceil(blocks / part.multiprocessors)
    unit = max(share, key=lambda name: share[name])
    alone = share["fp32"] + share["special"] + part.latency if share["tensor"] else part.latency
    clocks = busiest * share[unit] + alone * (busiest if launch["blocks_per_sm"] == 1 else 1)
    unique = counters["unique_bytes_read"] + counters["unique_bytes_written"]
    memory = unique / part.memory / 1e3
    us = clocks / part.clock
    return {
        "us": max(us, memory),
        "bound": unit if us >= memory else "memory",
        "waves us": busiest * share["tensor"] / part.clock,
        "shares": {name: round(busiest * clocks / part.clock, 2) for name, clocks in share.items()},
    }
