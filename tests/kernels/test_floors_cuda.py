"""What the kernels for CUDA move, counted by the virtual GPU: each byte of the contract once, whole sectors, no conflicts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.ops._backend import cuda
from internvl_kernels.testing.hostile import DTYPES, normal

pytestmark = pytest.mark.modes(vgpu.LAZY)  # counts do not depend on the schedule

SECTORS = 1.02  # of the least a request of that many bytes can take
TOWERS = {"300M": 1024, "6B": 3200}


def device(*shape: int, dtype: str, seed: int = 0) -> ivk.DeviceArray:
    return ivk.DeviceArray(normal(*shape, dtype=dtype, seed=seed))


def size_of(dtype: str) -> int:
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size()


def check(launches: list[dict[str, Any]], *, read: int, written: int) -> None:
    """All launches together move exactly these bytes of distinct memory."""
    counters = [launch["counters"] for launch in launches]
    assert sum(c["unique_bytes_read"] for c in counters) == read
    assert sum(c["unique_bytes_written"] for c in counters) == written
    for c in counters:
        assert c["bank_conflicts"] == 0
        assert c["local_requests"] == 0
        for kind in ("load", "store"):
            assert c[f"global_{kind}_sectors"] <= SECTORS * c[f"global_{kind}_sectors_min"]
        assert c["global_store_bytes"] == c["unique_bytes_written"], "written once"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tower", TOWERS)
def test_norms(counted: Any, tower: str, dtype: str) -> None:
    rows, cols, s = 41, TOWERS[tower], size_of(dtype)
    x, branch = device(rows, cols, dtype=dtype), device(rows, cols, dtype=dtype, seed=1)
    weight, bias, scale = (device(cols, dtype=dtype, seed=seed) for seed in (2, 3, 4))
    matrix, vector = rows * cols * s, cols * s
    check(counted(lambda: ops.layer_norm(x, weight, bias)), read=matrix + 2 * vector, written=matrix)
    check(counted(lambda: ops.rms_norm(x, weight)), read=matrix + vector, written=matrix)
    launches = counted(lambda: ops.add_norm(x, branch, weight, bias, scale=scale))
    assert len(launches) == 1, "residual, layer scale and norm are one pass"
    check(launches, read=2 * matrix + 3 * vector, written=2 * matrix)
    check(counted(lambda: ops.add_scaled(x, branch, scale)), read=2 * matrix + vector, written=matrix)
    launches = counted(lambda: ops.add_norm(x, branch, weight, rms=True, inplace=True))
    check(launches, read=2 * matrix + vector, written=2 * matrix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vision_qk_norm(counted: Any, dtype: str) -> None:
    rows, width, s = 41, 3200, size_of(dtype)
    qkv = device(rows, 3 * width, dtype=dtype)
    q_weight, k_weight = (device(width, dtype=dtype, seed=seed) for seed in (1, 2))
    launches = counted(lambda: ops.vision_qk_norm(qkv, q_weight, k_weight, inplace=True))
    assert len(launches) == 1, "q and k together"
    check(launches, read=2 * (rows + 1) * width * s, written=2 * rows * width * s)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tower", "factor"), [("300M", 2), ("300M", 4), ("6B", 2)])
def test_pixel_shuffle(counted: Any, tower: str, factor: int, dtype: str, version: str) -> None:
    width, side, s = TOWERS[tower], 8, size_of(dtype)
    x = device(2, 1 + side * side, width, dtype=dtype)
    weight, bias = (device(factor**2 * width, dtype=dtype, seed=seed) for seed in (1, 2))
    moved, vector = 2 * side * side * width * s, factor**2 * width * s
    options = {"factor": factor, "version": version}
    check(
        counted(lambda: ops.pixel_shuffle(x, weight=weight, bias=bias, **options)),
        read=moved + 2 * vector,
        written=moved,
    )
    check(counted(lambda: ops.pixel_shuffle(x, **options)), read=moved, written=moved)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding(counted: Any, dtype: str) -> None:
    rows, width, s = 37, 896, size_of(dtype)
    table, ids = device(64, width, dtype=dtype), torch.randperm(64)[:rows]
    launches = counted(lambda: ops.embed_tokens(ids, table))
    check(launches, read=rows * (width * s + 8), written=rows * width * s)


@pytest.mark.parametrize("tile", ["128x128", "80x128", "64x128", "64x64"])
@pytest.mark.parametrize("stream", ["bfloat16", "float32"])
def test_products(counted: Any, stream: str, tile: str) -> None:
    """Every operand comes from memory in whole sectors, meets no bank twice, and little is multiplied in vain."""
    m, n, k = 1025, 256, 96
    x, weight = device(m, k, dtype="bfloat16"), device(n, k, dtype="bfloat16", seed=1)
    bias, scale = device(n, dtype="bfloat16"), device(n, dtype="bfloat16", seed=1)
    residual = device(m, n, dtype=stream, seed=2)
    operands, matrix = (m * k + n * k + n) * 2, m * n * size_of(stream)
    y = ivk.DeviceArray.empty((m, n), stream)
    run: dict[str, tuple[Any, Any, int]] = {"residual": (scale._array, residual._array, operands + n * 2 + matrix)}
    if stream == "bfloat16":
        run |= {"linear": (None, None, operands), "gelu": (None, None, operands)}
    for epilogue, (factor, rest, read) in run.items():
        given = (x._array, weight._array, None, bias._array, factor, rest, y._array, epilogue, 0, tile)
        launches = counted(lambda: cuda().gemm(*given))  # noqa: B023
        check(launches, read=read, written=matrix)
        (launch,) = launches
        assert launch["counters"]["mma_flops"] <= 1.07 * 2 * m * n * k
        assert launch["registers"] * launch["block"][0] * 2 <= 65536, "two blocks fit a multiprocessor"


@pytest.mark.parametrize("tile", ["128x128", "80x128", "64x128", "64x64"])
@pytest.mark.parametrize("k", [96, 1024])
def test_a_norm_folded_in(counted: Any, k: int, tile: str) -> None:
    """Statistics come in whole sectors, once for a tile, and go out with the result."""
    m, n, parts = 1025, 256, k // 32
    x, weight = device(m, k, dtype="bfloat16"), device(n, k, dtype="bfloat16", seed=1)
    statistics, told = ops.statistics_space(k, m), ops.statistics_space(n, m)
    launches = counted(lambda: ops.row_statistics(x, out=statistics))
    check(launches, read=m * k * 2, written=m * parts * 8)
    columns, y = device(n, 2, dtype="float32"), ivk.DeviceArray.empty((m, n), "bfloat16")
    known = {"rows": statistics._array, "columns": columns._array, "eps": 1e-6, "statistics": told._array}
    given = (x._array, weight._array, None, None, None, None, y._array, "gelu", 0, tile)
    launches = counted(lambda: cuda().gemm(*given, **known))
    check(launches, read=(m * k + n * k) * 2 + m * parts * 8 + n * 8, written=m * n * 2 + m * (n // 32) * 8)
    (launch,) = launches
    assert launch["registers"] * launch["block"][0] * 2 <= 65536
    assert launch["blocks_per_sm"] >= 2, "two blocks fit a multiprocessor"
    factors = ivk.DeviceArray.empty((1, m))
    check(counted(lambda: ops.row_factors(told, out=factors)), read=m * (n // 32) * 8, written=m * 4)


@pytest.mark.parametrize(("heads", "dim"), [(2, 64), (1, 128)])
def test_normed_attention(counted: Any, heads: int, dim: int) -> None:
    """The norm costs factors and a weight, no pass over q and k."""
    rows = 1025
    qkv = device(1, rows, 3 * heads, dim, dtype="bfloat16")
    parts = [qkv[:, :, i * heads : (i + 1) * heads] for i in range(3)]
    factors = [device(1, rows, dtype="float32", seed=seed) for seed in (1, 2)]
    weight, out = device(heads, dim, dtype="float32", seed=3), ivk.DeviceArray.empty((1, rows, heads, dim), "bfloat16")
    launches = counted(lambda: ops.normed_attention(*parts, *factors, weight, out=out))
    extra = (2 * rows + heads * dim) * 4
    check(launches, read=3 * rows * heads * dim * 2 + extra, written=rows * heads * dim * 2)
    (launch,) = launches
    assert launch["counters"]["mma_flops"] <= 1.05 * 4 * rows * rows * heads * dim
    assert launch["counters"]["shared_wavefronts"] <= 2.02 * launch["counters"]["mma_flops"] / 4096, (
        "two last as an mma"
    )
    assert launch["blocks_per_sm"] * launch["block"][0] >= 192, "three blocks of two warps at the least"


def test_tiles(counted: Any) -> None:
    """A picture to tiles and a thumbnail: each pass reads its rows and writes its own once; nothing meets a bank twice."""
    height, width, size, grid = 200, 333, 64, (3, 2)
    pixels = ivk.DeviceArray(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8))
    launches = counted(lambda: ops.tile_pixels(pixels, grid, size, thumbnail=True))
    assert len(launches) == 4, "two passes of two targets"
    source, tables = pixels_of(height, width), 1.25  # and the tables of weights
    targets = [(grid[0] * size, grid[1] * size)] * 2 + [(size, size)] * 2
    for number, (launch, (wide, high)) in enumerate(zip(launches, targets)):
        counters = launch["counters"]
        between, down = pixels_of(height, wide), number % 2 == 1
        read, written = (between, pixels_of(high, wide)) if down else (source, between)
        assert read <= counters["unique_bytes_read"] <= tables * read + 40000
        assert counters["unique_bytes_written"] == counters["global_store_bytes"] == written
        assert counters["bank_conflicts"] <= 0.02 * counters["shared_wavefronts"]
        assert counters["local_requests"] == 0
        for kind in ("load", "store"):
            assert counters[f"global_{kind}_sectors"] <= 1.05 * counters[f"global_{kind}_sectors_min"], kind


def pixels_of(height: int, width: int) -> int:
    return 3 * height * width


TOWER_TILES = [(1, 1024), (1, 3200), (13, 1024), pytest.param(13, 3200, marks=pytest.mark.slow)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def patch_embed(
    counted: Any, tiles: int, side: int, width: int, padding: int = 4, kind: str = "uint8", stream: str = "bfloat16"
) -> dict[str, Any]:
    """One launch on bytes or floats, rows of weight ``padding`` elements apart; what it moves is what the contract says."""
    patches = (side // 14) ** 2
    pixels = torch.randint(
        0, 256, (tiles, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    if kind != "uint8":
        pixels = normal(tiles, 3, side, side, dtype=kind)
    weight = device(width, 588 + padding, dtype="bfloat16")[:, :588]
    bias, cls, pos = (device(*shape, dtype="bfloat16") for shape in ((width,), (width,), (1 + patches, width)))
    y, image = ivk.DeviceArray.empty((tiles, 1 + patches, width), stream), ivk.DeviceArray(pixels)
    y_bytes = tiles * (1 + patches) * width * size_of(stream)
    arrays = [t._array for t in (image, weight, bias, cls, pos, y)]
    (launch,) = counted(lambda: cuda().patch_embed(*arrays, MEAN, STD, 14, 0))
    counters: dict[str, Any] = launch["counters"]
    assert counters["unique_bytes_read"] == pixels.nbytes + (588 + 3 + patches) * width * 2
    assert counters["global_store_bytes"] == counters["unique_bytes_written"] == y_bytes, "written once"
    assert counters["global_store_sectors"] == counters["global_store_sectors_min"]
    assert counters["local_requests"] == 0
    assert counters["bank_conflicts"] <= 0.01 * counters["shared_wavefronts"], "those of the last 16 columns of a panel"
    assert counters["mma_flops"] <= 1.01 * 2 * tiles * patches * 588 * width, "592 columns for 588, no row in vain"
    return launch


@pytest.mark.parametrize(("tiles", "width"), TOWER_TILES)
def test_patch_embed(counted: Any, tiles: int, width: int) -> None:
    launch = patch_embed(counted, tiles, 448, width)
    counters, panels = launch["counters"], tiles * 16
    assert counters["global_load_sectors"] <= 1.05 * counters["global_load_sectors_min"]
    # What all blocks ask for: weight once for a panel of 64 rows, pixels once for a panel and a block's columns.
    splits, position = launch["grid"][0] // panels, tiles * (1 + 1024) * width * 2
    small = tiles * width * 2 + panels * width * 2 * 2 * 8  # cls; bias, by every row of lanes of two warps
    assert counters["global_load_bytes"] <= panels * 588 * width * 2 + splits * tiles * 448**2 * 3 + position + small


@pytest.mark.parametrize("stream", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "bfloat16"])
@pytest.mark.parametrize("padding", [0, 4])
def test_patch_embed_of_every_kind(counted: Any, padding: int, kind: str, stream: str) -> None:
    counters = patch_embed(counted, 1, 224, 256, padding, kind, stream)["counters"]
    # Rows of 1176 bytes begin anywhere in a sector, and 64 bytes of one are three sectors three times in four.
    assert counters["global_load_sectors"] <= (1.05 if padding else 1.35) * counters["global_load_sectors_min"]


@pytest.mark.parametrize(("heads", "dim", "tile"), [(2, 64, "128"), (2, 64, "64"), (1, 96, "128"), (1, 128, "128")])
def test_attention(counted: Any, heads: int, dim: int, tile: str) -> None:
    """1025 = 1024 + CLS costs no whole block of queries or keys."""
    rows = 1025
    qkv = device(1, rows, 3 * heads, dim, dtype="bfloat16")
    parts = [qkv[:, :, i * heads : (i + 1) * heads]._array for i in range(3)]
    y = ivk.DeviceArray.empty((1, rows, heads, dim), "bfloat16")
    launches = counted(lambda: cuda().attention(*parts, y._array, False, dim**-0.5, 0, None, 0, tile))
    check(launches, read=3 * rows * heads * dim * 2, written=rows * heads * dim * 2)
    (launch,) = launches
    counters = launch["counters"]
    assert counters["mma_flops"] <= 1.05 * 4 * rows * rows * heads * dim
    blocks = heads * -(-rows // int(tile))
    assert counters["shared_wavefronts"] <= 1.65 * counters["mma_flops"] / 4096, "two last as long as an mma"
    assert counters["global_load_bytes"] == (rows * heads + blocks * 2 * rows) * dim * 2, "keys and values once a block"
    assert launch["blocks_per_sm"] * launch["block"][0] >= 256, "two warps for each scheduler"


@pytest.mark.parametrize("out", ["bfloat16", "float16"])
def test_norms_of_a_wide_stream(counted: Any, out: str) -> None:
    x, weight = device(41, 1024, dtype="float32"), device(1024, dtype=out)
    check(counted(lambda: ops.rms_norm(x, weight)), read=(41 * 4 + 2) * 1024, written=41 * 1024 * 2)
    x, weight = device(2, 17, 1024, dtype="float32"), device(4096, dtype=out)
    launches = counted(lambda: ops.pixel_shuffle(x, weight=weight, bias=weight))
    check(launches, read=(32 * 4 + 8) * 1024, written=32 * 1024 * 2)


def test_a_whole_tile_of_each_tower(counted: Any) -> None:
    for cols in TOWERS.values():
        x, branch = device(1025, cols, dtype="bfloat16"), device(1025, cols, dtype="bfloat16", seed=1)
        weight, bias = (device(cols, dtype="bfloat16", seed=seed) for seed in (2, 3))
        launches = counted(lambda: ops.add_norm(x, branch, weight, bias, scale=weight))  # noqa: B023
        check(launches, read=(2 * 1025 + 2) * cols * 2, written=2 * 1025 * cols * 2)
        assert launches[0]["registers"] <= 64
        assert launches[0]["blocks_per_sm"] * launches[0]["block"][0] >= 1024, "half of an A100's threads and more"


@pytest.mark.parametrize(("cols", "shift"), [(1025, 0), (1024, 1)])
def test_single_elements_still_move_each_byte_once(counted: Any, cols: int, shift: int) -> None:
    """Rows that are no whole vectors, and addresses that are not aligned: more sectors, no byte more."""
    flat = device(5 * cols + shift, dtype="bfloat16")
    x, weight = flat[shift:].reshape(5, cols), device(cols, dtype="bfloat16")
    (launch,) = counted(lambda: ops.rms_norm(x, weight))
    assert launch["counters"]["unique_bytes_read"] == (5 + 1) * cols * 2
    assert launch["counters"]["global_store_bytes"] == launch["counters"]["unique_bytes_written"] == 5 * cols * 2
