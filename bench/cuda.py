"""What the CUDA kernels do at the family's shapes, counted by the virtual GPU (tests/vgpu). Counts, never times.

python bench/cuda.py [--op NAME] [--dtype bfloat16] [--part a100|l4|rtx4090|h100] [--json FILE]

Three tables: global memory (bytes that all lanes ask for, distinct bytes against the contract's, 32-byte sectors against
the least for each request), shared memory and barriers with what ptxas allotted, and warp instructions by class: those of the
PTX, of which ptxas makes fewer (moves vanish).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


def cases(dtype: str) -> list[tuple[str, str, Callable[[], Any], int]]:
    """(op, shape, call, bytes of the contract), one tile of InternViT-300M and -6B, their tokens after pixel shuffle."""
    import torch

    from internvl_kernels import DeviceArray, ops
    from internvl_kernels.testing.hostile import normal

    def array(*shape: int, seed: int = 0) -> Any:
        return DeviceArray(normal(*shape, dtype=dtype, seed=seed))

    found, s = [], SIZES[dtype]
    for rows, cols in ((1025, 1024), (1025, 3200), (8, 896)):
        x, branch, w, b = array(rows, cols), array(rows, cols, seed=1), array(cols), array(cols, seed=1)
        shape, matrix, vector = f"rows={rows},cols={cols}", rows * cols * s, cols * s
        # Defaults bind this round's arrays.
        found += [
            ("layer_norm", shape, lambda x=x, w=w, b=b: ops.layer_norm(x, w, b), 2 * matrix + 2 * vector),
            ("rms_norm", shape, lambda x=x, w=w: ops.rms_norm(x, w), 2 * matrix + vector),
            (
                "add_norm",
                shape,
                lambda x=x, y=branch, w=w, b=b: ops.add_norm(x, y, w, b, scale=b),
                4 * matrix + 2 * vector,
            ),
        ]
    qkv, q_weight, k_weight = array(1025, 9600), array(3200), array(3200, seed=1)
    call = lambda: ops.vision_qk_norm(qkv, q_weight, k_weight, inplace=True)  # noqa: E731
    found.append(("vision_qk_norm", "rows=1025,cols=3200", call, (4 * 1025 + 2) * 3200 * s))
    for side, cols, factor in ((32, 1024, 2), (32, 1024, 4), (32, 3200, 2)):
        x, w, b = array(1, 1 + side * side, cols), array(factor**2 * cols), array(factor**2 * cols, seed=1)
        found.append(
            (
                "pixel_shuffle",
                f"grid={side},cols={cols},factor={factor}",
                lambda x=x, w=w, b=b, f=factor: ops.pixel_shuffle(x, factor=f, weight=w, bias=b),
                2 * side * side * cols * s + 2 * factor**2 * cols * s,
            )
        )
    if dtype != "float32":
        for tiles, cols in ((1, 1024), (1, 3200)):
            pixels = DeviceArray(torch.randint(0, 256, (tiles, 448, 448, 3), dtype=torch.uint8))
            given = array(cols, 592)[:, :588], array(cols), array(cols), array(1025, cols)
            found.append(
                (
                    "patch_embed",
                    f"tiles={tiles},side=448,cols={cols}",
                    lambda x=pixels, g=given: ops.patch_embed(
                        x, *g, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
                    ),
                    tiles * 448**2 * 3 + ((588 + 2 + 1025) + tiles * 1025) * cols * s,
                )
            )
        for heads, dim in ((16, 64), (25, 128)):
            joined = array(1, 1025, 3 * heads, dim)
            parts = [joined[:, :, i * heads : (i + 1) * heads] for i in range(3)]
            shape = f"rows=1025,heads={heads},dim={dim}"
            found.append(("attention", shape, lambda p=parts: ops.attention(*p), 4 * 1025 * heads * dim * s))
    return found


def counted(call: Callable[[], Any], contract: int, vgpu: Any) -> dict[str, Any]:
    """Counts of one call, summed over its launches."""
    vgpu.reset()
    call()
    vgpu.assert_clean()
    launches = vgpu.counters()
    assert all(launch["registers_from_cubin"] for launch in launches), "registers are those of ptxas"
    counters = [launch["counters"] for launch in launches]
    total = {key: sum(c[key] for c in counters) for key in counters[0] if not key.startswith("by_")}
    classes = sorted({name for c in counters for name in c["by_class"]})

    def both(key: str) -> int:
        return int(total[f"global_load_{key}"] + total[f"global_store_{key}"])

    unique = total["unique_bytes_read"] + total["unique_bytes_written"]
    return {
        "memory": {
            "bytes asked for": both("bytes"),
            "sectors": both("sectors"),
            "of least": round(both("sectors") / both("sectors_min"), 4),
            "distinct bytes": unique,
            "contract's bytes": contract,
            "of contract": round(unique / contract, 4),
        },
        "block": {
            "launches": len(launches),
            "threads": launches[0]["block"][0],
            "shared wavefronts": total["shared_wavefronts"],
            "bank conflicts": total["bank_conflicts"],
            "barriers": total["barriers"],
            "registers": max(launch["registers"] for launch in launches),
            "shared bytes": max(launch["static_smem"] + launch["dynamic_smem"] for launch in launches),
            "local bytes": max(launch["local_bytes"] for launch in launches),
            "blocks per SM": min(launch["blocks_per_sm"] for launch in launches),
            "resident warps": min(launch["blocks_per_sm"] * -(-launch["block"][0] // 32) for launch in launches),
        },
        "instructions": {
            "all": total["warp_instructions"],
            **{name: sum(c["by_class"].get(name, 0) for c in counters) for name in classes},
        },
    }


TITLES = {
    "memory": "global memory",
    "block": "shared memory and barriers; registers, shared and local bytes of ptxas, residency from them",
    "instructions": "warp instructions of the PTX by class",
}


def table(kind: str, part: str, rows: list[dict[str, Any]]) -> Table:
    made = Table(title=f"{TITLES[part]}: {kind}", title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row[part]))
    for name in ("op", "shape"):
        made.add_column(name, no_wrap=True)
    for name in names:
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(row["op"], row["shape"], *(f"{row[part].get(name, 0):,}" for name in names))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", help="only this op; repeatable")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(SIZES))
    parser.add_argument("--part", default="a100", help="which GPU the virtual one stands for")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "vgpu"))
    import vgpu

    vgpu.activate(device=arguments.part)
    from internvl_kernels.ops._backend import cuda

    rows = []
    for op, shape, call, contract in cases(arguments.dtype):
        if not arguments.op or op in arguments.op:
            rows.append({"op": op, "shape": shape, "dtype": arguments.dtype, **counted(call, contract, vgpu)})
    if not rows:
        raise SystemExit(f"--op {arguments.op}: no such case")
    kind = f"{arguments.dtype}, counts of the virtual GPU as {arguments.part}, not times; {cuda().compiler}"
    for part in TITLES:
        Console(width=180).print(table(kind, part, rows))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"kind": kind, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
