"""The product's own kernels with one synchronisation missing or wrong: each is found, in every schedule.

No synchronisation of these kernels is there in vain: an entry of EQUIVALENT needs a reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mutation import FOUND, SAME, SYNC, changes_of, judge

import vgpu

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("internvl_kernels") is None or importlib.util.find_spec("internvl_kernels._cuda") is None,
    reason="the package has no CUDA part: build it with IVK_CUDA=1",
)

# (part of the kernel's name, number of the synchronisation) -> why nothing changes without it
EQUIVALENT: dict[tuple[str, int], str] = {}


def rows(*shape: int, dtype: Any = "float32", seed: int = 0) -> Any:
    import torch

    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values).to(getattr(torch, dtype))


def norm(cols: int, dtype: str) -> Callable[[], Any]:
    from internvl_kernels import ops

    x, weight, bias = rows(2, cols, dtype=dtype), rows(cols, dtype=dtype, seed=1), rows(cols, dtype=dtype, seed=2)
    return lambda: ops.layer_norm(x, weight, bias, backend="cuda")


def shuffle(width: int, dtype: str) -> Callable[[], Any]:
    from internvl_kernels import ops

    x, weight = rows(1, 5, width, dtype=dtype), rows(4 * width, dtype=dtype, seed=1)
    return lambda: ops.pixel_shuffle(x, weight=weight, backend="cuda")


def product(tile: str, dtype: str) -> Callable[[], Any]:
    """Nine slices of k through the four stages of the main loop."""
    import internvl_kernels as ivk
    from internvl_kernels.ops._backend import cuda
    from internvl_kernels.testing.on_device import host

    x, weight = (ivk.DeviceArray(rows(n, 288, dtype=dtype, seed=n)) for n in (80, 128))
    residual, y = ivk.DeviceArray(rows(80, 128, dtype=dtype)), ivk.DeviceArray.empty((80, 128), dtype)

    def call() -> Any:
        y.copy_from(residual)
        cuda().gemm(x._array, weight._array, None, None, None, residual._array, y._array, "residual", 0, tile)
        return host(y)

    return call


def tiles(pixels_apart: int, kind: str) -> Callable[[], Any]:
    """Two chunks of source columns, rows and outputs beyond an edge."""
    import torch

    import internvl_kernels as ivk
    from internvl_kernels import ops
    from internvl_kernels.testing.on_device import host

    generator = torch.Generator().manual_seed(pixels_apart)
    memory = torch.randint(0, 256, (34, 300, pixels_apart), dtype=getattr(torch, kind), generator=generator)
    array = ivk.DeviceArray(memory)._array.view(1, [34, 299, 3], [300 * pixels_apart, pixels_apart, 1])
    pixels = ivk.DeviceArray._of(array)  # from an odd address: lanes read what their neighbours copied
    return lambda: host(ops.tile_pixels(pixels, (1, 1), 33, tall_first=False))


def normed_attention(dim: int, dtype: str) -> Callable[[], Any]:
    from internvl_kernels import ops

    q, k, v = (rows(1, n, 1, dim, dtype=dtype, seed=n) for n in (70, 200, 201))
    factors = [rows(1, n, seed=n).abs() + 0.5 for n in (70, 200)]
    return lambda: ops.normed_attention(q, k, v[:, :200], *factors, rows(1, dim, seed=5) + 2, backend="cuda")


def folded(cols: int, dtype: str) -> Callable[[], Any]:
    """Statistics of rows, their factors, and a product that takes and tells them."""
    import torch

    from internvl_kernels import ops

    x, weight = rows(70, cols, dtype=dtype), rows(72, cols, dtype=dtype, seed=1)
    given = ops.fold_norm(weight, rows(cols, dtype=dtype, seed=2))

    def call() -> Any:
        told = torch.zeros(3, 70, 2)
        y = ops.linear_folded(x, ops.row_statistics(x, backend="cuda"), *given, eps=1e-6, tell=told, backend="cuda")
        factors = ops.row_factors(told, backend="cuda")
        return torch.cat([y.float().flatten(), told.flatten(), factors.flatten()])

    return call


def attention(dim: int, dtype: str) -> Callable[[], Any]:
    """Four blocks of keys, the last one short, and queries that leave warps without work."""
    from internvl_kernels import ops

    q, k, v = (rows(1, n, 1, dim, dtype=dtype, seed=n) for n in (70, 200, 201))
    return lambda: ops.attention(q, k, v[:, :200], backend="cuda")


def patches(plan: tuple[int, int, int, int], dtype: str) -> Callable[[], Any]:
    """Two panels of rows, the second one short, and columns that leave warps without work.

    plan: pixels of a patch's side, columns of y that a block multiplies at a time, how often, elements between rows of weight."""
    import torch

    import internvl_kernels as ivk
    from internvl_kernels.ops._backend import cuda
    from internvl_kernels.testing.on_device import host

    side, columns, each, gap = plan
    width, values, count = columns * each + 72, 3 * side * side, 5 if side == 14 else 1
    grid = (2, 8) if side == 14 else (10, 7)
    pixels = torch.arange(count * grid[0] * grid[1] * values).mul(37).to(torch.uint8)
    tiles = ivk.DeviceArray(pixels.view(count, grid[0] * side, grid[1] * side, 3))
    weight = ivk.DeviceArray(rows(width, gap, dtype=dtype))[:, :values]
    bias, cls = (ivk.DeviceArray(rows(width, dtype=dtype, seed=n)) for n in (1, 2))
    positions = ivk.DeviceArray(rows(1 + grid[0] * grid[1], width, dtype=dtype, seed=3))
    y = ivk.DeviceArray.empty((count, 1 + grid[0] * grid[1], width), dtype)

    def call() -> Any:
        given = [t._array for t in (tiles, weight, bias, cls, positions, y)]
        cuda().patch_embed(*given, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), side, 0, columns, each)
        return host(y)

    return call


# A row on one warp, on a block (whole vectors and single elements), and longer than a block's registers.
CALLS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "norm, warp": (norm, 96, "float32"),
    "norm, block": (norm, 1024, "float32"),
    "norm, block, bf16": (norm, 2048, "bfloat16"),
    "norm, block, f16, ragged": (norm, 2049, "float16"),
    "norm, long": (norm, 16388, "float32"),
    "norm, long, ragged": (norm, 16385, "float32"),
    "product, 80x128": (product, "80x128", "bfloat16"),
    "product, 64x64": (product, "64x64", "float16"),
    "attention, 64": (attention, 64, "bfloat16"),
    "attention, 128": (attention, 128, "float16"),
    "attention, normed, 64": (normed_attention, 64, "float16"),
    "attention, normed, 128": (normed_attention, 128, "bfloat16"),
    "folded": (folded, 288, "bfloat16"),
    "tiles, 3 bytes": (tiles, 3, "uint8"),
    "tiles, 4 bytes": (tiles, 4, "uint8"),
    "patches, 128": (patches, (14, 128, 2, 592), "bfloat16"),
    "patches, 256, halves of vectors": (patches, (14, 256, 1, 588), "float16"),
    "patches, 128, several panels of columns": (patches, (16, 128, 2, 768), "float16"),
    "patches, 128, single elements": (patches, (16, 128, 2, 769), "bfloat16"),
    "shuffle, warp": (shuffle, 32, "float32"),
    "shuffle, block": (shuffle, 256, "float32"),
    "shuffle, block, bf16, ragged": (shuffle, 515, "bfloat16"),
}


def outcome(call: Callable[[], Any], mode: vgpu.Mode) -> tuple[set[str], bytes]:
    import torch

    from internvl_kernels.errors import BackendError

    vgpu.reset()
    result = b""
    with vgpu.mode(mode):
        try:
            result = call().contiguous().view(torch.uint8).numpy().tobytes()
        except BackendError:
            assert vgpu.reports(), "an error without a finding"
        codes = {report["code"] for report in vgpu.reports()}
    vgpu.reset()
    return codes, result


@pytest.mark.parametrize("name", CALLS)
def test_every_synchronisation_is_needed(virtual_gpu: Any, name: str) -> None:
    make, size, dtype = CALLS[name]
    call = make(size, dtype)
    call()  # buffers that the library keeps are made here
    virtual_gpu.reset()
    with virtual_gpu.options(lines=True):
        call()
        launches = virtual_gpu.counters(lines=True)
    codes, expected = outcome(call, vgpu.LAZY)
    assert codes == set()
    tried = 0
    for launch in launches:
        lines = [line for line in launch["counters"]["lines"] if SYNC.match(line["opcode"])]
        for number, line in enumerate(lines):
            if not line["executed"]:
                continue
            for change in changes_of(line["opcode"]):
                mutate = f"{launch['kernel']}@{line['ptx_line']}:{change}"

                def run(mode: vgpu.Mode, mutate: str = mutate) -> tuple[set[str], bytes]:
                    return outcome(call, vgpu.Mode(mode.name, mode.options | {"mutate": mutate}))

                verdict = judge(run, expected)
                reason = [why for (part, n), why in EQUIVALENT.items() if part in launch["kernel"] and n == number]
                same = bool(reason) or change == "-1"  # waits for more than it must
                assert verdict.name == (SAME if same else FOUND), (mutate, verdict)
                assert verdict.reported_everywhere == (not same), (mutate, verdict)
                tried += 1
    assert tried >= (4 if "tiles" in name else 10 if "warp" in name else 22)
