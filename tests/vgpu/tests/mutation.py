"""Kernels that lack one synchronisation, or have a wrong one: what is found of it, in which schedules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import vgpu

SYNC = re.compile(r"bar(rier)?\.|cp\.async\.(commit|wait)|shfl\.|membar|fence\.|atom\.|redux\.|vote\.")
MODES = (vgpu.LAZY, vgpu.EAGER, vgpu.FULL[5], vgpu.STARVED)
FOUND, SAME = "found", "same"

# A GEMM of one tile, C[16, 16] = A[16, 16 T] B[16, 16 T]^T in bf16: warp 0 copies A, warp 1 copies B, two stages.
# After it the sum of each quad's two columns of C.
TILE = """
.visible .entry tile(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 sums, .param .u32 tiles) {
.shared .align 128 .b8 s[2048];
.reg .pred %p, %w; .reg .b32 %r<24>; .reg .b64 %rd<8>; .reg .f32 %f<8>; .reg .b32 %a<4>, %b<2>;
ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u32 %r1, [tiles];
mov.u32 %r2, %tid.x; shr.u32 %r3, %r2, 5; and.b32 %r4, %r2, 31;
// source: row lane / 2 of this warp's operand, half lane % 2 of its 32 bytes; destination in stage 0
setp.eq.u32 %w, %r3, 0; selp.u64 %rd1, %rd1, %rd2, %w;
shr.u32 %r5, %r4, 1; and.b32 %r6, %r4, 1; shl.b32 %r6, %r6, 4; shl.b32 %r7, %r1, 5; mad.lo.u32 %r7, %r5, %r7, %r6;
cvt.u64.u32 %rd4, %r7; add.s64 %rd1, %rd1, %rd4;
mov.u32 %r8, s; shl.b32 %r9, %r5, 5; add.u32 %r9, %r9, %r6; mad.lo.u32 %r9, %r3, 512, %r9; add.u32 %r9, %r9, %r8;
// fragments: A's row lane % 16, half lane / 16; B's row 8 warp + lane % 8, half lane / 8 % 2
and.b32 %r10, %r4, 15; shr.u32 %r11, %r4, 4; shl.b32 %r10, %r10, 5; mad.lo.u32 %r10, %r11, 16, %r10; add.u32 %r10, %r10, %r8;
and.b32 %r11, %r4, 7; mad.lo.u32 %r11, %r3, 8, %r11; shl.b32 %r11, %r11, 5; shr.u32 %r12, %r4, 3; and.b32 %r12, %r12, 1;
mad.lo.u32 %r11, %r12, 16, %r11; add.u32 %r11, %r11, %r8; add.u32 %r11, %r11, 512;
mov.f32 %f0, 0f00000000; mov.f32 %f1, 0f00000000; mov.f32 %f2, 0f00000000; mov.f32 %f3, 0f00000000;
cp.async.cg.shared.global [%r9], [%rd1], 16;
cp.async.commit_group;
mov.u32 %r13, 0;
LOOP:
add.u32 %r14, %r13, 1; setp.ge.u32 %p, %r14, %r1;
@%p bra FULL;
and.b32 %r15, %r14, 1; mad.lo.u32 %r15, %r15, 1024, %r9; mul.wide.u32 %rd5, %r14, 32; add.s64 %rd5, %rd5, %rd1;
cp.async.cg.shared.global [%r15], [%rd5], 16;
FULL:
cp.async.commit_group;
cp.async.wait_group 1;
bar.sync 0;
and.b32 %r15, %r13, 1; mad.lo.u32 %r16, %r15, 1024, %r10; mad.lo.u32 %r17, %r15, 1024, %r11;
ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%a0, %a1, %a2, %a3}, [%r16];
ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%b0, %b1}, [%r17];
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%a0, %a1, %a2, %a3}, {%b0, %b1}, {%f0, %f1, %f2, %f3};
bar.sync 0;
mov.u32 %r13, %r14; setp.lt.u32 %p, %r13, %r1;
@%p bra LOOP;
cp.async.wait_all;
shr.u32 %r18, %r4, 2; and.b32 %r19, %r4, 3; shl.b32 %r18, %r18, 4; mad.lo.u32 %r18, %r19, 2, %r18; mad.lo.u32 %r18, %r3, 8, %r18;
mul.wide.u32 %rd6, %r18, 4; add.s64 %rd6, %rd6, %rd3;
st.global.v2.f32 [%rd6], {%f0, %f1}; st.global.v2.f32 [%rd6+512], {%f2, %f3};
add.f32 %f4, %f0, %f1; mov.b32 %r20, %f4;
shfl.sync.bfly.b32 %r21, %r20, 1, 31, 0xffffffff;
mov.b32 %f5, %r21; add.f32 %f4, %f4, %f5;
ld.param.u64 %rd7, [sums]; mul.wide.u32 %rd6, %r2, 4; add.s64 %rd7, %rd7, %rd6; st.global.f32 [%rd7], %f4;
ret; }
"""


def changes_of(opcode: str) -> tuple[str, ...]:
    """What is tried of a synchronisation, in the words of Options::mutate."""
    if opcode.startswith("shfl"):
        return ("mask",)
    if opcode.startswith("bar.red"):
        return ()  # its result is needed
    return ("delete", "+1", "-1") if "wait_group" in opcode else ("delete",)


@dataclass(frozen=True)
class Verdict:
    """By mode: codes of the reports, and whether the results differ from the intact kernel's."""

    codes: dict[str, frozenset[str]]
    wrong: dict[str, bool]

    @property
    def name(self) -> str:
        return FOUND if any(self.codes.values()) or any(self.wrong.values()) else SAME

    @property
    def reported_everywhere(self) -> bool:
        return all(self.codes.values())

    @property
    def text(self) -> str:
        seen = {
            ", ".join(sorted(codes)) or ("wrong result" if self.wrong[mode] else "-")
            for mode, codes in self.codes.items()
        }
        return " / ".join(sorted(seen))


def judge(
    run: Callable[[vgpu.Mode], tuple[set[str], bytes]], expected: bytes, modes: Iterable[vgpu.Mode] = MODES
) -> Verdict:
    """run(mode) gives the codes of the reports and the bytes of the results."""
    codes, wrong = {}, {}
    for mode in modes:
        found, result = run(mode)
        codes[str(mode)] = frozenset(found)
        wrong[str(mode)] = not found and result != expected
    return Verdict(codes, wrong)
