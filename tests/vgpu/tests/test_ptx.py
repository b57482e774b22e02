"""The PTX parser: hand-written text in, operands, variables and calls out; then what nvcc writes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vgpu_micro import HEADER

REGISTERS = (
    ".reg .pred %p<8>; .reg .b16 %rs<8>; .reg .b32 %r<40>; .reg .b64 %rd<20>; .reg .f32 %f<12>; .reg .f64 %fd<4>;\n"
)


def entry(body: str, *, before: str = "", registers: str = REGISTERS) -> str:
    parameters = ".param .u64 out, .param .align 8 .b8 big[352]"
    return f"{HEADER}{before}\n.visible .entry kernel({parameters}) {{\n{registers}{body}\n}}\n"


@pytest.fixture
def kernel(ptx_tool: Any) -> Callable[..., Any]:
    """kernel(body) -> the parsed function `kernel`, with its code."""

    def parse(body: str, **options: str) -> Any:
        module = ptx_tool.show(ptx_tool.write(entry(body, **options)), "--code")["module"]
        function = next(f for f in module["functions"] if f["name"] == "kernel")
        return function | {"module": module}

    return parse


def shown(operand: Any, function: Any) -> Any:
    """An operand in short: register names instead of numbers."""
    names = function["register_names"]
    kind = operand["kind"]
    if kind == "reg":
        text = names[operand["reg"]] if "reg" in operand else "_"
        text += f"|{names[operand['reg2']]}" if "reg2" in operand else ""
        return ("!" if operand.get("negated") else "") + text
    if kind == "imm":
        if operand["float"] and operand["f64"]:
            return struct.unpack("<d", struct.pack("<Q", operand["imm"]))[0]
        if operand["float"]:
            return struct.unpack("<f", struct.pack("<I", operand["imm"]))[0]
        return operand["imm"] - (1 << 64 if operand["imm"] >> 63 else 0)
    if kind in ("address", "symbol"):
        scopes = ("variables", "params", "locals", "functions")
        base = names[operand["reg"]] if "reg" in operand else ""
        if "symbol" in operand:
            scope = scopes[operand["scope"]]
            where = function["module"] if scope in ("variables", "functions") else function
            base = where[scope][operand["symbol"]]["name"]
        text = f"{base}{operand['offset']:+d}" if operand["offset"] else base
        coordinates = [shown(e, function) for e in operand.get("elements", ())]
        return ([text, *coordinates] if coordinates else [text]) if kind == "address" else f"&{text}"
    if kind == "vector":
        return tuple(shown(e, function) for e in operand["elements"])
    return {"special": operand.get("special"), "sink": "_", "label": f"@{operand.get('label')}"}[kind]


GLOBALS = ".global .align 4 .b8 bytes[4]; .const .f32 scale = 0f40000000; .extern .shared .align 16 .b8 smem[];"
OPERANDS = [
    ("mov.u32 %r1, -1;", ["%r1", -1]),
    ("mov.u32 %r1, 0xFFFFFFFF;", ["%r1", 0xFFFFFFFF]),
    ("mov.u64 %rd1, 18446744073709551615U;", ["%rd1", -1]),
    ("mov.s64 %rd1, -9223372036854775808;", ["%rd1", -(1 << 63)]),
    ("mov.u32 %r1, 017;", ["%r1", 15]),
    ("mov.u32 %r1, 0b1011;", ["%r1", 11]),
    ("mov.u32 %r1, WARP_SZ;", ["%r1", 32]),
    ("mov.u32 %r1, (2+3*4)<<1;", ["%r1", 28]),
    ("mov.u32 %r1, -7/2;", ["%r1", -3]),
    ("mov.u32 %r1, 1 < 2 ? 5 : 6;", ["%r1", 5]),
    ("mov.f32 %f1, 0f3FC00000;", ["%f1", 1.5]),
    ("mov.f32 %f1, -0f3FC00000;", ["%f1", -1.5]),
    ("mov.f64 %fd1, 0d3FF8000000000000;", ["%fd1", 1.5]),
    ("mov.f32 %f1, 2.5e-1;", ["%f1", 0.25]),
    ("mov.pred %p1, -1;", ["%p1", -1]),
    ("mov.b64 %rd1, {%r1, %r2};", ["%rd1", ("%r1", "%r2")]),
    ("mov.b64 {%r1, _}, %rd1;", [("%r1", "_"), "%rd1"]),
    ("mov.u64 %rd1, big;", ["%rd1", "&big"]),
    ("mov.u64 %rd1, bytes+4;", ["%rd1", "&bytes+4"]),
    ("mov.u32 %r1, smem;", ["%r1", "&smem"]),
    ("mov.u32 %r1, %tid.x;", ["%r1", "%tid.x"]),
    ("mov.u64 %rd1, %clock64;", ["%rd1", "%clock64"]),
    ("ld.param.u64 %rd1, [out];", ["%rd1", ["out"]]),
    ("ld.param.u32 %r1, [big+348];", ["%r1", ["big+348"]]),
    ("ld.global.u32 %r1, [%rd1+-16];", ["%r1", ["%rd1-16"]]),
    ("ld.global.u32 %r1, [%rd1-16];", ["%r1", ["%rd1-16"]]),
    ("ld.shared.u32 %r1, [1024];", ["%r1", ["+1024"]]),
    ("ld.shared.u32 %r1, [smem+8];", ["%r1", ["smem+8"]]),
    ("ld.global.L2::128B.v2.f32 {%f1,%f2}, [%rd1];", [("%f1", "%f2"), ["%rd1"]]),
    ("st.global.v4.f32 [%rd1+16], {%f1,%f2,%f3,0f00000000};", [["%rd1+16"], ("%f1", "%f2", "%f3", 0.0)]),
    ("setp.lt.and.s32 %p1|%p2, %r1, 3, !%p3;", ["%p1|%p2", "%r1", 3, "!%p3"]),
    ("shfl.sync.bfly.b32 %r1|%p1, %r2, 1, 31, -1;", ["%r1|%p1", "%r2", 1, 31, -1]),
    ("elect.sync _|%p1, -1;", ["_|%p1", -1]),
    ("cp.async.cg.shared.global [%r1], [%rd1], 16, %r2;", [["%r1"], ["%rd1"], 16, "%r2"]),
    ("cp.async.wait_group 2;", [2]),
    (
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile [%r1], [%rd1, {%r2, %r3}], [%r4];",
        [["%r1"], ["%rd1", "%r2", "%r3"], ["%r4"]],
    ),
    ("red.global.add.f32 [%rd1], %f1;", [["%rd1"], "%f1"]),
    ("bar.sync 0;", [0]),
    ("ret;", []),
]


@pytest.mark.parametrize(("text", "expected"), OPERANDS, ids=[text for text, _ in OPERANDS])
def test_operands(kernel: Any, text: str, expected: list[Any]) -> None:
    function = kernel(text, before=GLOBALS)
    code = function["code"]
    assert code[0]["opcode"] == text.split(maxsplit=1)[0].rstrip(";")
    assert [shown(o, function) for o in code[0]["operands"]] == expected
    assert code[-1]["opcode"] == "ret", "a body ends in a return, written or not"


WRITES = {
    "mov.u32 %r1, 1;": 1,
    "setp.lt.s32 %p1|%p2, %r1, 2;": 1,
    "st.global.u32 [%rd1], %r1;": 0,
    "red.global.add.u32 [%rd1], %r1;": 0,
    "atom.global.add.u32 _, [%rd1], 1;": 1,
    "bar.sync %r1, %r2;": 0,
    "barrier.cta.sync.aligned %r1, %r2;": 0,
    "bar.red.popc.u32 %r1, 0, %p1;": 1,
    "bar.warp.sync %r1;": 0,
    "nanosleep.u32 %r1;": 0,
    "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r1], {%r2};": 0,
    "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%r1];": 1,
    "mbarrier.init.shared.b64 [%r1], 1;": 0,
    "mbarrier.arrive.shared.b64 %rd1, [%r1];": 1,
    "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1];": 1,
    "cp.async.ca.shared.global [%r1], [%rd1], 4;": 0,
    "prefetch.global.L2 [%rd1];": 0,
}


@pytest.mark.parametrize("text", WRITES)
def test_what_is_written(kernel: Any, text: str) -> None:
    assert kernel(text)["code"][0]["writes"] == WRITES[text]


def test_scopes_declare_registers_and_labels_again(kernel: Any) -> None:
    block = (
        "{ .reg .pred p; .reg .b32 t; setp.eq.u32 p, %r1, 0; @p bra DONE; mov.b32 t, %r1; DONE: add.u32 %r2, t, 1; }"
    )
    function = kernel(f"mov.u32 %r1, 5;\n{block}\n{block}\n@!%p1 bra DONE;\nmov.u32 %r3, %r1; DONE: ret;")
    code, names = function["code"], function["register_names"]
    assert names.count("p") == 2
    assert names.count("t") == 2
    branches = [(i, c["operands"][0]["label"]) for i, c in enumerate(code) if c["opcode"] == "bra"]
    assert branches == [(2, 4), (6, 8), (9, 11)]
    assert code[9]["guard_negated"]
    assert code[1]["operands"][0]["reg"] != code[5]["operands"][0]["reg"]
    inner = kernel("mov.u32 %r1, 1; { .reg .b64 %r1; mov.u64 %r1, 2; } mov.u32 %r1, 3;")
    used = [inner["register_types"][c["operands"][0]["reg"]] for c in inner["code"][:3]]
    assert used == ["b32", "b64", "b32"]


def test_variables(ptx_tool: Any) -> None:
    text = """
    .visible .global .align 8 .b8 bytes[6] = {1, 0xFF, -2, 120};
    .const .align 4 .f32 reals[3] = {0f3F800000, 2.5, -1};
    .global .f64 wide = 0d4000000000000000;
    .global .u16 grid[2][3] = {{1, 2}, {3}};
    .global .align 16 .v4 .f32 quad;
    .global .u64 addresses[2] = {bytes, generic(bytes)+4};
    .global .b8 packed[4] = {0xFF(bytes), 0xFF00(bytes+2), 7};
    .global .s32 counted[] = {1, 2, 3};
    .extern .global .u32 elsewhere;
    .extern .shared .align 128 .b8 smem[];
    .shared .align 4 .b8 tile[512];
    .global .attribute(.managed) .u32 managed;
    """
    module = ptx_tool.show(ptx_tool.write(HEADER + text))["module"]
    found = {v["name"]: v for v in module["variables"]}
    init = {name: bytes.fromhex(v["init"]) for name, v in found.items()}
    assert init["bytes"] == bytes([1, 255, 254, 120])
    assert init["reals"] == struct.pack("<3f", 1, 2.5, -1)
    assert init["wide"] == struct.pack("<d", 2)
    assert init["grid"] == struct.pack("<4H", 1, 2, 0, 3)
    sizes = {name: (v["space"], v["size"], v["align"]) for name, v in found.items()}
    assert sizes["bytes"] == ("global", 6, 8)
    assert sizes["reals"] == ("const", 12, 4)
    assert sizes["grid"] == ("global", 12, 2)
    assert sizes["quad"] == ("global", 16, 16)
    assert sizes["counted"] == ("global", 12, 4)
    assert sizes["smem"] == ("shared", 0, 128)
    assert sizes["tile"] == ("shared", 512, 4)
    assert [n for n, v in found.items() if v["unsized"]] == ["smem"]
    assert [n for n, v in found.items() if v["extern"]] == ["elsewhere", "smem"]
    assert [n for n, v in found.items() if v["managed"]] == ["managed"]
    address = {"offset": 0, "symbol": "bytes", "addend": 0, "generic": False, "size": 8, "shift": 0}
    assert found["addresses"]["relocations"] == [address, address | {"offset": 8, "addend": 4, "generic": True}]
    packed = [address | {"size": 1}, address | {"offset": 1, "addend": 2, "size": 1, "shift": 8}]
    assert found["packed"]["relocations"] == packed
    assert init["packed"] == bytes([0, 0, 7])


def test_calls(kernel: Any) -> None:
    before = """
    .extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
    .func (.param .b32 result) square(.param .b32 x) { .reg .f32 %f<3>; ld.param.f32 %f1, [x];
      mul.f32 %f2, %f1, %f1; st.param.f32 [result+0], %f2; ret; }
    """
    function = kernel(
        """
        { .param .b32 param0; st.param.f32 [param0+0], %f1; .param .b32 retval0;
          call.uni (retval0), square, (param0); ld.param.f32 %f2, [retval0+0]; }
        { .param .b32 param0; .param .b32 retval0; mov.u64 %rd1, square;
          proto: .callprototype (.param .b32 _) _ (.param .b32 _);
          call (retval0), %rd1, (param0), proto; }
        """,
        before=before,
    )
    code, functions = function["code"], function["module"]["functions"]
    direct, indirect = (c for c in code if c["opcode"].startswith("call"))
    assert functions[direct["callee"]]["name"] == "square"
    assert [shown(o, function) for o in direct["operands"]] == [("&retval0",), ("&param0",)]
    assert "callee" not in indirect
    assert indirect["prototype"] == 0
    assert [shown(o, function) for o in indirect["operands"]] == [("&retval0",), ("&param0",), "%rd1"]
    assert [shown(o, function) for o in code[3]["operands"]] == ["%rd1", "&square"]
    assert len({o["symbol"] for c in (direct, indirect) for v in c["operands"][:2] for o in v["elements"]}) == 4
    assert [(f["name"], f["defined"]) for f in functions[:2]] == [("vprintf", False), ("square", True)]
    assert [(v["name"], v["size"]) for v in functions[1]["params"] + functions[1]["returns"]] == [
        ("x", 4),
        ("result", 4),
    ]


def test_branch_tables_directives_and_source_lines(ptx_tool: Any) -> None:
    text = (
        HEADER
        + """
    .visible .entry kernel(.param .u64 .ptr .global .align 1 p)
    .maxntid 256, 2  .minnctapersm 3 .maxnreg 64 {
    .reg .b32 %r<3>;
    .loc 1 10 5
    ts: .branchtargets A, B, A;
    brx.idx.uni %r1, ts;
    A: .pragma "nounroll";
    .loc 2 20 3, function_name $L__info_string0, inlined_at 1 11 7
    mov.u32 %r1, 1; /* a comment
    of two lines */ mov.u32 %r2, 2; // and one
    B: }
    .file 1 "a.cu"
    .file 2 "b.h", 123, 456
    .section .debug_str { $L__info_string0: .b8 95,90,0 }
    """
    )
    module = ptx_tool.show(ptx_tool.write(text), "--code")["module"]
    function = module["functions"][0]
    assert function["maxntid"] == [256, 2, 1]
    assert (function["minnctapersm"], function["maxnreg"]) == (3, 64)
    assert (function["params"][0]["type"], function["params"][0]["align"]) == ("u64", 8)
    code = function["code"]
    assert [e["label"] for e in code[0]["operands"][1]["elements"]] == [1, 3, 1]
    assert [(c["line"], module["files"][c["file"]], c["source_line"]) for c in code] == [
        (10, "a.cu", 10),
        (13, "b.h", 20),
        (14, "b.h", 20),
        (15, "b.h", 20),
    ]


def test_what_nvcc_writes(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    for flags in (("-lineinfo",), ("-G",)):
        path = compiled("features.cu", "-ptx", "-arch=compute_80", *flags)
        module = ptx_tool.show(path, "--code")["module"]
        functions = {f["name"].split("P")[0]: f for f in module["functions"]}
        kernel = functions["_Z8features3Big"]
        assert (kernel["maxntid"], kernel["minnctapersm"]) == ([128, 1, 1], 2)
        assert [p["size"] for p in kernel["params"]] == [96, 8, 4]
        assert kernel["params"][0]["align"] == 16
        variables = {v["name"]: v for v in module["variables"]}
        assert bytes.fromhex(variables["text"]["init"]) == b'a"b\n'
        assert [r["symbol"] for r in variables["functions"]["relocations"]] == ["_Z6squaref", "_Z4cubef"]
        assert any(path.endswith("features.cu") for path in module["files"])
        source = (Path(__file__).parent / "cuda" / "features.cu").read_text().splitlines()
        atomics = [c for f in module["functions"] for c in f.get("code", ()) if c["opcode"].startswith("atom")]
        assert atomics
        if flags == ("-lineinfo",):
            assert "square" in source[functions["_Z6squaref"]["code"][1]["source_line"] - 1]


def test_cutlass_gemm(compiled: Callable[..., Path], ptx_tool: Any) -> None:
    path = compiled("gemm_sm80.cu", "-fatbin", "-arch=sm_80", "--compress-mode=speed", suffix=".fatbin")
    (kernel,) = (f for i in ptx_tool.show(path)["images"] if i["kind"] == "ptx" for f in i["module"]["functions"])
    text = ptx_tool.run("--unpack", "1", path).stdout.decode()
    assert kernel["opcodes"]["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] == 64
    # A count that knows no grammar: what ends in a semicolon and is no directive, less labels, braces and guards.
    body = re.sub(r"//.*|\.pragma.*?;", "", text.split("{", 1)[1])
    statements = (re.sub(r"^(\s|[{}]|\$?\w+:|@!?%?\w+)*", "", part) for part in body.split(";"))
    count = sum(bool(re.match(r"[a-z]", statement)) for statement in statements)
    assert kernel["instructions"] == sum(kernel["opcodes"].values()) == count
