"""A process that tries inputs of one surface and tells the driver: started by run.py, never by hand.

Its memory is limited, the seed at hand stands in a shared file so that a crash can be told apart and skipped, and what it finds goes
to standard output, a line of JSON each.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import resource
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parents[1] / "python")]
PLACE = struct.Struct(
    "<qqqqq"
)  # the seed at hand plus 1 (0: none any more), inputs accepted, refused and found wrong, bytes resident
KEPT = 20  # finds of one cause that are told


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    tell = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    faulthandler.enable()
    import torch

    from fuzz import engine

    torch.set_num_threads(1)
    engine.quiet(job["surface"])
    with contextlib.suppress(Exception):  # so that corpora are made before memory is limited
        engine.make(engine.surface(job["surface"]), 0)
    limit(job["memory"])
    with open(job["place"], "r+b") as file:
        place = mmap.mmap(file.fileno(), PLACE.size)
    counts = {"accepted": 0, "refused": 0, "find": 0}
    known: Counter[tuple[str, ...]] = Counter()
    begin = time.monotonic()
    for seed in range(job["seed"], job["seed"] + job["count"]):
        place[:] = PLACE.pack(seed + 1, counts["accepted"], counts["refused"], counts["find"], rss())
        found = engine.attempt(job["surface"], seed, job["limit"])
        if isinstance(found, str):
            counts[found] += 1
        else:
            counts["find"] += 1
            known[found.key] += 1
            if known[found.key] <= KEPT:
                print(json.dumps(asdict(found)), file=tell, flush=True)
        if time.monotonic() - begin > job["seconds"]:
            break
    place[:] = PLACE.pack(0, counts["accepted"], counts["refused"], counts["find"], rss())


def rss() -> int:
    """Most memory that was resident, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def limit(more: int) -> None:
    """Address space: what there is now, and ``more`` bytes."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
