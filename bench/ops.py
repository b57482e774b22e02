"""Every op against its PyTorch composition on this machine, with the machine's facts in a file to keep.

python bench/ops.py [--op NAME] [--dtype float32,bfloat16] [--threads 1,2] [--rounds 15] [--json FILE]

The same measurements as ``internvl-kernels bench``.
"""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from internvl_kernels.testing import bench
from internvl_kernels.testing.cases import CASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", choices=sorted({c.op for c in CASES}), help="only this op; repeatable")
    parser.add_argument("--dtype", default="float32,bfloat16", help="comma-separated")
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the rows and the machine's facts there ('-': to stdout)")
    arguments = parser.parse_args()
    cases = [case for case in CASES if not arguments.op or case.op in arguments.op]
    threads = [int(t) for t in arguments.threads.split(",")]
    rows, machine = bench.run(cases, arguments.dtype.split(","), threads, arguments.rounds)
    text = json.dumps({"machine": machine, "rows": rows}, indent=1)
    if arguments.json == "-":
        print(text)
        return
    Console(width=170).print(bench.table(rows, machine))
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
