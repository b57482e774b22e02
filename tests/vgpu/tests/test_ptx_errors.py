"""Text that is not PTX: a message with line and text for each mistake, and no crash on anything."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from vgpu_micro import HEADER


def body(text: str) -> str:
    return f"{HEADER}.entry k(.param .u64 p) {{\n.reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<9>;\n{text}\n}}\n"


MISTAKES = {
    "": r":1: no .version and .target",
    "\0\0\0": r":1: no .version",
    "hello": r":1: expected a directive before 'hello': \"hello\"",
    HEADER.replace("64", "32"): r":3: only .address_size 64",
    ".version 9.0\n.target x86": r":2: .target must be sm_<number>",
    body("mov.u32 %r9, 1;"): r":6: undeclared register '%r9': \"mov.u32 %r9, 1;\"",
    body("mov.u32 %r1, 1"): r":7: expected ';'|:6: expected ';'",
    body("mov.u32 %r1, 99999999999999999999;"): r":6: number of more than 64 bits",
    body("mov.u32 %r1, 0x;"): r":6: number without digits",
    body("mov.u32 %r1, 12ab;"): r":6: malformed number",
    body("mov.f32 %r1, 0f3F80;"): r":6: 0f needs 8",
    body("mov.u32 %r1, 1/0;"): r":6: division by zero",
    body("mov.u32 %r1, 1<<64;"): r":6: shift by more than 63 bits",
    body("mov.u32 %r1, 1+0f00000000;"): r":6: a floating literal cannot",
    body("mov.u32 %r1, " + "(" * 1000 + ";"): r":6: expression nested more than 64 deep",
    body("mov.u32 %r1, " + "-" * 100000 + "1;"): r":6: expression nested more than 64 deep",
    body("{" * 300): r":6: blocks nested more than 256 deep",
    body("bra NOWHERE;"): r":6: unknown name 'NOWHERE'",
    body("{ INNER: ret; } bra INNER;"): r":6: unknown name 'INNER'",
    body("A: A: ret;"): r":6: label declared twice",
    body(".reg .b32 %r<3>;"): r":6: register declared twice",
    body(".reg .b32 x<9999999999>;"): r":6: a range of more than 2\^30 registers",
    body(".reg .b32 x y;"): r":6: expected ';' before 'y'",
    body(".global .u32 g;"): r":6: a body declares .reg",
    body("@%r1 ret;"): r":6: a guard must be a predicate",
    body("@ ret;"): r":6: expected a register before 'ret'",
    body("ld.global.u32 %r1, [%rd1;"): r":6: address without '\]'",
    body("ld.global.u32 %r1, [];"): r":6: expected a number",
    body("ld.global.u32 %r1, [%tid.x];"): r":6: an address needs",
    body("st.v2.u32 [%rd1], {{%r1}};"): r":6: a vector of anything",
    body("mov.u32 %r1, !3 !;"): r":6: expected ';'",
    body("call nothing, (%r1);"): r":6: call of an unknown function",
    body("call k, (%rd1);"): r":6: call of a kernel",
    body("brx.idx %r1, LIST;"): r":6: unknown target list",
    body("ts: .branchtargets A; brx.idx %r1, ts;"): r":6: unknown label 'A'",
    body("mov.u32 %r1, \x01;"): r":6: unexpected character: \"mov.u32 %r1, \?;\"",
    body('.pragma "open;'): r":6: string without end",
    body("/* open"): r":6: comment without end",
    body(".strange 3;"): r":6: unknown declaration .strange",
    body("")[:-3]: r":6: function k without end|:5: function k without end|:7: function k",
    HEADER + ".entry k() .strange {}": r":4: unknown directive '.strange'",
    HEADER + ".entry k() {} .entry k() {}": r":4: defined twice",
    HEADER + ".global .u32 a; .global .u32 a;": r":4: declared twice",
    HEADER + ".global .u32 a[4294967296][4294967296];": r":4: array of more than 2\^40",
    HEADER + ".global .b64 a[1099511627776];": r":4: array of more than 2\^40",
    HEADER + ".global .u32 a[2] = {1, 2, 3};": r":4: initialiser longer",
    HEADER + ".global .u32 a = {" + "{" * 50 + "}": r":4: initialiser nested",
    HEADER + ".global .u64 a = nothing;": r"initialiser of a names the unknown symbol nothing",
    HEADER + ".global .u32 a = a;": r":4: an address needs an element of 64 bits",
    HEADER + ".global .b8 a = 0xF0(a);": r":4: an address mask",
    HEADER + ".global .u32 a = 0f00000000;": r":4: a floating literal in an array",
    HEADER + ".global .align 3 .u32 a;": r":4: .align must be a power of two",
    HEADER + ".global .u32 a[];": r":4: array without a size",
    HEADER + ".global .pred a;": r":4: predicates live in registers",
    HEADER + ".section x {": r":4: .section without end",
    HEADER + ".entry k(.param .b8 p[40000]) {}": r":4: parameter of more than 32764 bytes",
    HEADER + ".func f(.reg .u32 x) {}": r":4: a parameter must be in .param space",
}


@pytest.mark.parametrize("text", MISTAKES, ids=[re.sub(r"\W+", "-", v)[:40] for v in MISTAKES.values()])
def test_mistakes_are_named(ptx_tool: Any, text: str) -> None:
    message = ptx_tool.refuse(ptx_tool.write(text))
    assert re.search(MISTAKES[text], message), message
    assert len(message) < 1000


SAMPLE = body(
    """{ .reg .b32 t<4>; .reg .v2 .f32 v; .param .b32 q; ts: .branchtargets A, B;
    @!%p1 brx.idx %r1, ts; A: mov.b64 {%r1, _}, %rd1; B: setp.lt.and.s32 %p1|%p2, %r1, -(3+4)*2, !%p0;
    call (q), f, (q), proto; proto: .callprototype (.param .b32 _) _ (.param .b32 _); .loc 1 2 3
    ld.global.v2.f32 v, [%rd1+-16]; st.shared.b32 [smem+4], 0f3F800000; mov.f64 %rd1, 1.5e3; }"""
)
PRELUDE = """.file 1 "x.cu" .func (.param .b32 r) f(.param .b32 a) ; .extern .shared .align 16 .b8 smem[];
.global .align 8 .b8 bytes[8] = {1, 0xFF(bytes), {2}}; .section .debug_str { x: .b8 1 }\n"""


def test_damaged_text_never_crashes(ptx_tool: Any) -> None:
    """Cut off anywhere, characters exchanged: accepted or refused, and quickly."""
    whole = SAMPLE.replace(".entry", PRELUDE + ".entry")
    ptx_tool.show(ptx_tool.write(whole.replace("{1, 0xFF(bytes), {2}}", "{1, 0xFF(bytes), 2}")))
    rng = random.Random(7)
    cases = [whole[:n] for n in range(0, len(whole), 9)]
    letters = '{}[]()<>,;:.+-*/%!|@"_0x9fFdUaA \n\t\x00\xff$'
    for _ in range(150):
        changed = list(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(3)] = rng.choices(letters, k=rng.randrange(3))
        cases.append("".join(changed))
    for text in cases:
        done = ptx_tool.run(ptx_tool.write(text.encode("latin-1")))
        assert done.returncode in (0, 1), text
        assert done.stdout or b"case.ptx:" in done.stderr


def test_large_text_is_read_in_time(ptx_tool: Any) -> None:
    """Twenty thousand instructions in one block and as many labels: no quadratic step on the way."""
    lines = [f"L{i}: add.u32 %r{i % 9}, %r{(i + 1) % 9}, {i}; @%p1 bra L{(i * 7919) % 20000};" for i in range(20000)]
    module = ptx_tool.show(ptx_tool.write(body("\n".join(lines))))["module"]
    assert module["functions"][0]["instructions"] == 40001
