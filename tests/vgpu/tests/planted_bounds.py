"""Accesses outside memory, one byte off on either side, and misaligned ones, in every space and by every instruction."""

from __future__ import annotations

from planted import Case

ILLEGAL, MISALIGNED = 700, 716


def outside(bug: str, twin: str, **settings: object) -> Case:
    return Case("oob", bug, twin, **{"hardware": ILLEGAL, **settings})


def crooked(bug: str, twin: str, **settings: object) -> Case:
    return Case("misaligned", bug, twin, hardware=MISALIGNED, **settings)


DYNAMIC = ".extern .shared .align 16 .b8 d[];"
GLOBAL = ".global .align 4 .b8 g[13];"
CONSTANT = ".const .align 4 .b8 c[13];"
LOCAL = ".local .align 8 .b8 l[19]; mov.u64 %rd6, l; "
PARAM = "mov.b64 %rd6, n; "
HIGH = "setp.ne.u32 %p, %r1, 37; @%p bra DONE; "
ON_CHIP = {"hardware": 719}
ROW = (
    "mov.u32 %r5, s; and.b32 %r4, %r1, 15; mad.lo.u32 %r5, %r4, 16, %r5; st.shared.v4.u32 [%r5], {%r1, %r1, %r1, %r1}; "
)
MATRIX = f"{ROW} bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r6, %r7}}, [%r5];"
WARP = {"shared": 256, "block": 32, **ON_CHIP}

CASES = {
    "global: byte past the end": outside("HERE ld.global.u8 %h, [%rd1+1024];", "ld.global.u8 %h, [%rd1+1023];"),
    "global: byte before the start": outside("HERE ld.global.u8 %h, [%rd1+-1];", "ld.global.u8 %h, [%rd1];"),
    "global: byte past an odd size": outside(
        "HERE ld.global.u8 %h, [%rd1+1021];", "ld.global.u8 %h, [%rd1+1020];", bytes=1021
    ),
    "global: store past the end": outside(
        f"{HIGH} HERE st.global.u8 [%rd2+1024], %r1;", f"{HIGH} st.global.u8 [%rd2+1023], %r1;", thread=37
    ),
    "global: store before the start": outside(
        f"{HIGH} HERE st.global.u8 [%rd2+-1], %r1;", f"{HIGH} st.global.u8 [%rd2], %r1;", thread=37
    ),
    "global: one thread of many": outside(
        "setp.gt.u32 %p, %r1, 40; @%p bra DONE; HERE ld.global.u32 %r6, [$IN+864];",
        "setp.gt.u32 %p, %r1, 39; @%p bra DONE; ld.global.u32 %r6, [$IN+864];",
        thread=40,
    ),
    "global: vector across the end": outside(
        "HERE ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+1008];",
        "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+992];",
        bytes=1016,
    ),
    "global: far away": outside("HERE st.global.u32 [$OUT+40000], %r1;", "st.global.u32 [$OUT], %r1;"),
    "global: null": outside("mov.u64 %rd6, 0; HERE ld.global.u32 %r6, [%rd6];", "ld.global.u32 %r6, [%rd1];"),
    "global: generic address": outside("HERE ld.u32 %r6, [%rd1+1024];", "ld.u32 %r6, [%rd1+1020];"),
    "global: red": outside("HERE red.global.add.u32 [%rd2+1024], 1;", "red.global.add.u32 [%rd2+1020], 1;"),
    "global: atom": outside("HERE atom.global.cas.b32 %r6, [%rd2+-4], 0, 1;", "atom.global.cas.b32 %r6, [%rd2], 0, 1;"),
    "global: source of cp.async": outside(
        f"{HIGH} HERE cp.async.cg.shared.global [s], [%rd1+1008], 16; cp.async.wait_all;",
        f"{HIGH} cp.async.cg.shared.global [s], [%rd1+992], 16; cp.async.wait_all;",
        shared=64,
        bytes=1016,
        thread=37,
    ),
    "global: cp.async reads its source size": outside(
        f"{HIGH} HERE cp.async.cg.shared.global [s], [%rd1+1008], 16, 9; cp.async.wait_all;",
        f"{HIGH} cp.async.cg.shared.global [s], [%rd1+1008], 16, 8; cp.async.wait_all;",
        shared=64,
        bytes=1016,
        thread=37,
    ),
    "module variable: byte past the end": outside(
        "HERE ld.global.u8 %h, [g+13];", "ld.global.u8 %h, [g+12];", extra=GLOBAL
    ),
    "const: byte past the end": outside("HERE ld.const.u8 %h, [c+13];", "ld.const.u8 %h, [c+12];", extra=CONSTANT),
    "const: byte before the start": outside(
        "mov.u64 %rd6, c; HERE ld.const.u8 %h, [%rd6+-1];",
        "mov.u64 %rd6, c; ld.const.u8 %h, [%rd6];",
        extra=CONSTANT,
    ),
    "const: store": outside(
        "mov.u64 %rd6, c; cvta.const.u64 %rd6, %rd6; HERE st.u8 [%rd6], 1;",
        "mov.u64 %rd6, c; cvta.const.u64 %rd6, %rd6; ld.u8 %h, [%rd6];",
        extra=CONSTANT,
    ),
    "shared: byte past static memory": outside(
        f"{HIGH} HERE st.shared.u8 [s+61], %r1;", f"{HIGH} st.shared.u8 [s+60], %r1;", shared=61, thread=37, **ON_CHIP
    ),
    "shared: byte before": outside(
        "mov.u32 %r4, s; HERE ld.shared.u8 %h, [%r4+-1];",
        "mov.u32 %r4, s; ld.shared.u8 %h, [%r4];",
        shared=61,
        **ON_CHIP,
    ),
    "shared: byte past dynamic memory": outside(
        f"mov.u32 %r4, d; {HIGH} HERE st.shared.u8 [%r4+250], %r1;",
        f"mov.u32 %r4, d; {HIGH} st.shared.u8 [%r4+249], %r1;",
        smem=250,
        extra=DYNAMIC,
        **ON_CHIP,
    ),
    "shared: byte before dynamic memory": outside(
        "mov.u32 %r4, d; HERE ld.shared.u8 %h, [%r4+-1];",
        "mov.u32 %r4, d; ld.shared.u8 %h, [%r4];",
        smem=250,
        extra=DYNAMIC,
        **ON_CHIP,
    ),
    "shared: no dynamic memory": outside(
        f"mov.u32 %r4, d; {HIGH} HERE st.shared.u8 [%r4], %r1;",
        f"mov.u32 %r4, d; {HIGH} st.shared.u8 [%r4+-1], %r1;",
        shared=64,
        extra=DYNAMIC,
        **ON_CHIP,
    ),
    "shared: null": outside("mov.u32 %r4, 0; HERE ld.shared.u32 %r4, [%r4];", "ld.global.u32 %r4, [%rd1];", **ON_CHIP),
    "shared: vector across the end": outside(
        f"{HIGH} HERE st.shared.v2.u32 [s+56], {{%r1, %r1}};",
        f"{HIGH} st.shared.v2.u32 [s+48], {{%r1, %r1}};",
        shared=60,
        **ON_CHIP,
    ),
    "shared: generic address": outside(
        f"mov.u64 %rd6, s; cvta.shared.u64 %rd6, %rd6; {HIGH} HERE st.u8 [%rd6+61], %r1;",
        f"mov.u64 %rd6, s; cvta.shared.u64 %rd6, %rd6; {HIGH} st.u8 [%rd6+60], %r1;",
        shared=61,
    ),
    "shared: red": outside(
        "HERE red.shared.add.u32 [s+256], 1;",
        "st.shared.u32 [$S], 0; bar.sync 0; red.shared.add.u32 [s+60], 1;",
        shared=256,
        **ON_CHIP,
    ),
    "shared: destination of cp.async": outside(
        f"{HIGH} HERE cp.async.ca.shared.global [s+64], [%rd1], 4; cp.async.wait_all;",
        f"{HIGH} cp.async.ca.shared.global [s+60], [%rd1], 4; cp.async.wait_all;",
        shared=64,
        **ON_CHIP,
    ),
    "shared: a row of ldmatrix": outside(
        MATRIX.replace("ldmatrix", "add.u32 %r5, %r5, 16; HERE ldmatrix"), MATRIX, thread=15, **WARP
    ),
    "local: byte past the end": outside(
        f"{LOCAL} HERE st.local.u8 [%rd6+19], %r1;", f"{LOCAL} st.local.u8 [%rd6+18], %r1;", **ON_CHIP
    ),
    "local: byte before the start": outside(
        f"{LOCAL} HERE st.local.u8 [%rd6+-1], %r1;", f"{LOCAL} st.local.u8 [%rd6], %r1;", **ON_CHIP
    ),
    "local: generic address": outside(
        f"{LOCAL} cvta.local.u64 %rd6, %rd6; HERE st.u8 [%rd6+19], %r1;",
        f"{LOCAL} cvta.local.u64 %rd6, %rd6; st.u8 [%rd6+18], %r1;",
    ),
    "param: byte past the end": outside(
        f"{PARAM} HERE ld.param.u8 %h, [%rd6+4];", f"{PARAM} ld.param.u8 %h, [%rd6+3];", **ON_CHIP
    ),
    "param: byte before the start": outside(
        "mov.b64 %rd6, in; HERE ld.param.u8 %h, [%rd6+-1];", "mov.b64 %rd6, in; ld.param.u8 %h, [%rd6];", **ON_CHIP
    ),
    "param: by name": outside("HERE ld.param.u8 %h, [n+4];", "ld.param.u8 %h, [n+3];", **ON_CHIP),
    "misaligned: global": crooked("HERE ld.global.u32 %r6, [%rd1+2];", "ld.global.u32 %r6, [%rd1+4];"),
    "misaligned: global vector": crooked(
        "HERE ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+8];", "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+16];"
    ),
    "misaligned: global atomic": crooked("HERE red.global.add.u64 [%rd2+4], 1;", "red.global.add.u64 [%rd2+8], 1;"),
    "misaligned: one thread": crooked(
        "setp.eq.u32 %p, %r1, 41; selp.u64 %rd6, 2, 0, %p; add.s64 %rd4, %rd4, %rd6; HERE ld.global.u32 %r6, [%rd4];",
        "ld.global.u32 %r6, [%rd4];",
        thread=41,
    ),
    "misaligned: source of cp.async": crooked(
        "HERE cp.async.ca.shared.global [$S], [$IN+2], 4; cp.async.wait_all;",
        "cp.async.ca.shared.global [$S], [$IN], 4; cp.async.wait_all;",
        shared=256,
    ),
    "misaligned: destination of cp.async": crooked(
        f"{HIGH} HERE cp.async.cg.shared.global [s+8], [%rd1], 16; cp.async.wait_all;",
        f"{HIGH} cp.async.cg.shared.global [s+16], [%rd1], 16; cp.async.wait_all;",
        shared=256,
    ),
    "misaligned: const": crooked(
        "mov.u64 %rd6, c; HERE ld.const.u32 %r6, [%rd6+2];",
        "mov.u64 %rd6, c; ld.const.u32 %r6, [%rd6+4];",
        extra=CONSTANT,
    ),
    "misaligned: shared": crooked("HERE st.shared.u32 [$S+2], %r1;", "st.shared.u32 [$S], %r1;", shared=512),
    "misaligned: shared vector": crooked(
        f"{HIGH} HERE st.shared.v2.u32 [s+4], {{%r1, %r1}};", f"{HIGH} st.shared.v2.u32 [s+8], {{%r1, %r1}};", shared=64
    ),
    "misaligned: a row of ldmatrix": crooked(
        MATRIX.replace("ldmatrix", "add.u32 %r5, %r5, 8; HERE ldmatrix"), MATRIX, shared=512, block=32, thread=0
    ),
    "misaligned: local": crooked(f"{LOCAL} HERE st.local.u16 [%rd6+1], %h;", f"{LOCAL} st.local.u16 [%rd6+2], %h;"),
    "misaligned: param": crooked(f"{PARAM} HERE ld.param.u32 %r6, [%rd6+2];", f"{PARAM} ld.param.u32 %r6, [%rd6];"),
    "misaligned: param by name": crooked("HERE ld.param.u16 %h, [n+1];", "ld.param.u16 %h, [n+2];"),
    "use after free": Case(
        "use-after-free",
        "HERE ld.global.u32 %r6, [$IN];",
        "ld.global.u32 %r6, [$IN];",
        source="freed",
        hardware=ILLEGAL,
    ),
    "host pointer": Case(
        "host-pointer", "HERE ld.global.u32 %r6, [$IN];", "ld.global.u32 %r6, [$IN];", source="host", hardware=ILLEGAL
    ),
    "host pointer written": Case(
        "host-pointer", "HERE st.global.u32 [$IN], %r1;", "st.global.u32 [$IN], %r1;", source="host", hardware=ILLEGAL
    ),
}
