"""Runs nvcc and fails a compilation whose kernels spill, use local memory or a stack frame, or draw a C75xx warning.

CMake puts it before nvcc (CUDA_COMPILER_LAUNCHER). Beside the object it leaves <object>.ptxas.json: seconds, and per
kernel registers, shared memory and barriers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_BAD = {
    "stack frame": re.compile(r"([1-9]\d*) bytes stack frame"),
    "spill stores": re.compile(r"([1-9]\d*) bytes spill stores"),
    "spill loads": re.compile(r"([1-9]\d*) bytes spill loads"),
    "local memory": re.compile(r"([1-9]\d*) bytes lmem"),
    "stack": re.compile(r"([1-9]\d*) bytes cumulative stack size"),
}
_USED = {
    "registers": re.compile(r"Used (\d+) registers"),
    "shared": re.compile(r"(\d+) bytes smem"),
    "barriers": re.compile(r"used (\d+) barriers"),
}


def read(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Kernels, and everything that must not be, from the output of ``ptxas -v``."""
    kernels: list[dict[str, Any]] = []
    problems: list[str] = []
    name = "?"
    for line in text.splitlines():
        entry = _ENTRY.search(line)
        if entry is not None:
            name = entry[1]
            kernels.append({"kernel": name, "target": entry[2], "registers": 0, "shared": 0, "barriers": 0})
        if re.search(r"\bC75\d\d\b", line):
            problems.append(line.strip())
        problems += [
            f"{name}: {found[1]} bytes of {what}" for what, rule in _BAD.items() if (found := rule.search(line))
        ]
        if kernels and "Used" in line:
            kernels[-1].update({what: int(found[1]) for what, rule in _USED.items() if (found := rule.search(line))})
    return kernels, problems


def main(command: list[str]) -> int:
    begin = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    sys.stdout.write(result.stdout)
    kernels, problems = read(result.stderr)
    rest = [line for line in result.stderr.splitlines() if not re.match(r"ptxas info|\s+\d+ bytes stack frame", line)]
    sys.stderr.write("".join(line + "\n" for line in rest))
    if result.returncode != 0 or not kernels:
        return result.returncode
    if "-o" in command:
        report = Path(command[command.index("-o") + 1] + ".ptxas.json")
        report.write_text(json.dumps({"seconds": round(seconds, 1), "kernels": kernels}, indent=1))
    for problem in problems:
        print(f"error: ptxas: {problem}; kernels must not spill", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
