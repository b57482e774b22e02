"""A piece of PTX in every thread of a launch, with inputs, results and memory that the threads share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from vgpu_micro import HEADER, NUMPY, Micro, bits_type


def lanes(
    micro: Micro,
    text: str,
    inputs: Sequence[np.ndarray],
    results: Sequence[str],
    memory: Sequence[np.ndarray] = (),
    *,
    registers: str = "",
    before: str = "",
    block: int = 32,
    grid: int = 1,
    shared: int = 0,
    header: str = HEADER,
) -> list[np.ndarray]:
    """`text` in grid * block threads. %a, %b, … hold the thread's elements of the inputs, %d0, %d1, … are stored as
    the results (types by PTX name), %m0, %m1, … are addresses of memory that all threads share. Gives the results,
    then the memory. %i is the thread's number in the grid, %t in the block; %u, %v, %w, %z are free (32 and 64 bits,
    predicates %q, %r)."""
    letters, threads = "abcefgh"[: len(inputs)], grid * block
    names = [*(f"p_{x}" for x in letters), *(f"p_d{k}" for k in range(len(results)))]
    names += [f"p_m{k}" for k in range(len(memory))]
    lines = [f".reg .b64 %m{k}; ld.param.u64 %m{k}, [p_m{k}];" for k in range(len(memory))]

    def place(name: str, size: int) -> str:
        return f"mul.wide.u32 %o, %i, {size}; ld.param.u64 %p, [{name}]; add.u64 %p, %p, %o;"

    for x, array in zip(letters, inputs, strict=True):
        assert len(array) == threads, (len(array), threads)
        size = array.itemsize
        lines.append(f".reg .b{max(16, 8 * size)} %{x}; {place(f'p_{x}', size)} ld.global.b{8 * size} %{x}, [%p];")
    stores = []
    for k, kind in enumerate(results):
        lines.append(f".reg {bits_type(kind)} %d{k};")
        stores.append(f"{place(f'p_d{k}', NUMPY[kind].itemsize)} st.global.b{8 * NUMPY[kind].itemsize} [%p], %d{k};")
    ptx = f"""{header}{before}
    .visible .entry k({", ".join(f".param .u64 {n}" for n in names)}) {{
        .reg .b32 %i, %t, %u, %v; .reg .b64 %o, %p, %w, %z; .reg .pred %q, %r; {registers}
        mov.u32 %t, %tid.x; mov.u32 %i, %ctaid.x; mov.u32 %u, %ntid.x; mad.lo.u32 %i, %i, %u, %t;
        {" ".join(lines)}
        {text}
        {" ".join(stores)}
        ret; }}"""
    outputs = [np.zeros(threads, NUMPY[kind]) for kind in results]
    arrays = [np.ascontiguousarray(a) for a in (*inputs, *outputs, *memory)]
    return micro.launch(ptx, arrays, grid=grid, block=block, shared=shared)[len(inputs) :]
