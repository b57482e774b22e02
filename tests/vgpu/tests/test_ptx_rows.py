"""Register compaction against liveness by brute force: every point of every path, written again in Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BYTES = {"pred": 0, "b128": 16} | {f"{k}{n}": n // 8 for k in "busf" for n in (8, 16, 32, 64)}
NO_RESULT = ("st", "red", "bra", "brx", "ret", "exit", "bar", "cp", "membar", "fence", "trap", "nanosleep", "prefetch")


def registers_in(operand: Any) -> list[int]:
    found = [operand[key] for key in ("reg", "reg2") if key in operand]
    return found + [r for element in operand.get("elements", ()) for r in registers_in(element)]


def labels_in(operand: Any) -> list[int]:
    return [o["label"] for o in (operand, *operand.get("elements", ())) if "label" in o]


def accesses(instruction: Any) -> tuple[set[int], set[int]]:
    """Registers read and written."""
    operands = instruction["operands"]
    name = instruction["opcode"].split(".")[0]
    has_result = name not in NO_RESULT or instruction["opcode"].startswith("bar.red")
    written = operands[:1] if has_result else []
    reads = {r for o in operands[len(written) :] for r in registers_in(o)}
    return reads | {instruction["guard"]} if "guard" in instruction else reads, {
        r for o in written for r in registers_in(o)
    }


def live_sets(code: list[Any]) -> tuple[list[set[int]], list[set[int]]]:
    """Live before and after each instruction, to a fixed point."""
    following = []
    for i, instruction in enumerate(code):
        leaves = instruction["opcode"].split(".")[0] in ("ret", "exit", "bra", "brx") and "guard" not in instruction
        following.append(
            [label for o in instruction["operands"] for label in labels_in(o)] + ([] if leaves else [i + 1])
        )
    before: list[set[int]] = [set() for _ in code]
    after: list[set[int]] = [set() for _ in code]
    changed = True
    while changed:
        changed = False
        for i in range(len(code) - 1, -1, -1):
            reads, writes = accesses(code[i])
            out = set().union(*(before[j] for j in following[i]))
            into = reads | (out if "guard" in code[i] else out - writes)
            changed |= into != before[i] or out != after[i]
            before[i], after[i] = into, out
    return before, after


def check(function: Any) -> None:
    types, rows, code = function["register_types"], function["row_of"], function["code"]
    before, after = live_sets(code)
    pressure = predicates = 0

    def rows_of(registers: set[int]) -> list[tuple[str, int]]:
        found = []
        for r in registers:
            kind = "pred" if types[r] == "pred" else "64" if BYTES[types[r]] >= 8 else "32"
            found += [(kind, rows[r])] + ([(kind, rows[r] + 1)] if types[r] == "b128" else [])
        return found

    for i, instruction in enumerate(code):
        reads, writes = accesses(instruction)
        alive = after[i] | writes
        for group in (before[i], alive) if instruction["opcode"].startswith("mma") else (before[i] | alive,):
            taken = rows_of(group)
            assert len(taken) == len(set(taken)), (i, instruction["opcode"])
        for group in (before[i], alive):
            pressure = max(pressure, sum(max(1, BYTES[types[r]] // 4) for r in group if types[r] != "pred"))
            predicates = max(predicates, sum(types[r] == "pred" for r in group))
        limits = {"32": function["rows32"], "64": function["rows64"], "pred": function["rows_pred"]}
        assert all(0 <= row < limits[kind] for kind, row in rows_of(reads | writes))
    assert (function["pressure"], function["pressure_pred"]) == (pressure, predicates)


def random_body(rng: random.Random) -> str:
    """Jumps anywhere, guards, pairs, vectors: a control flow no compiler would write."""
    lines = []
    count = rng.randrange(5, 60)
    for i in range(count):
        guard = rng.choice(["", "", "", f"@%p{rng.randrange(4)} ", f"@!%p{rng.randrange(4)} "])
        r = [f"%r{rng.randrange(10)}" for _ in range(4)]
        rd, p = f"%rd{rng.randrange(5)}", f"%p{rng.randrange(4)}"
        quad = f"%q{rng.randrange(2)}"
        body = rng.choice(
            [
                f"add.u32 {r[0]}, {r[1]}, {r[2]}",
                f"setp.lt.u32 {p}|%p{rng.randrange(4)}, {r[0]}, {r[1]}",
                f"ld.global.v2.u32 {{{r[0]}, {r[1]}}}, [{rd}+8]",
                f"st.global.u32 [{rd}], {r[0]}",
                f"mov.b64 {rd}, {{{r[0]}, {r[1]}}}",
                f"mov.b128 {quad}, {{{rd}, %rd0}}",
                f"st.global.b128 [{rd}], {quad}",
                f"shfl.sync.idx.b32 {r[0]}|{p}, {r[1]}, {r[2]}, 31, -1",
                f"bra L{rng.randrange(count)}",
                "ret" if i % 3 == 0 else f"mov.u32 {r[0]}, 7",
            ]
        )
        lines.append(f"L{i}: {guard}{body};")
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(60))
def test_random_control_flow(ptx_tool: Any, seed: int) -> None:
    registers = ".reg .pred %p<4>; .reg .b32 %r<10>; .reg .b64 %rd<5>; .reg .b128 %q<2>;"
    text = f".version 9.0\n.target sm_80\n.entry k() {{ {registers}\n{random_body(random.Random(seed))}\n}}"
    (function,) = ptx_tool.show(ptx_tool.write(text), "--code")["module"]["functions"]
    check(function)


def test_features(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    path = compiled("features.cu", "-ptx", "-arch=compute_80", "-lineinfo")
    for function in ptx_tool.show(path, "--code")["module"]["functions"]:
        if function["defined"] and not any(c["opcode"].startswith("call") for c in function["code"]):
            check(function)


def test_gemm_needs_no_more_rows_than_ptxas_registers(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    path = compiled("gemm_sm80.cu", "-fatbin", "-arch=sm_80", "--compress-mode=speed", suffix=".fatbin")
    images = ptx_tool.show(path, "--code")["images"]
    (facts,) = next(i for i in images if i["kind"] == "cubin")["facts"].values()
    (function,) = next(i for i in images if i["kind"] == "ptx")["module"]["functions"]
    check(function)
    used = function["rows32"] + 2 * function["rows64"]
    assert function["pressure"] <= used <= 1.15 * facts["registers"]
    assert 0.85 * facts["registers"] <= function["pressure"] <= 1.15 * facts["registers"]
