"""Patch embedding for CUDA against its reference and the cpu's patch matrix, on a GPU or on the virtual one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu, cuda
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import integers, normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

HALVES = ("bfloat16", "float16")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS: dict[str, Any] = {"mean": MEAN, "std": STD}
KINDS = ("uint8", "float32", "own")


def pixels(count: int, height: int, width: int, kind: str = "uint8", dtype: str = "bfloat16") -> torch.Tensor:
    if kind == "uint8":
        return torch.randint(
            0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7)
        )
    return normal(count, 3, height, width, dtype=dtype if kind == "own" else kind)


def weights(width: int, patches: int, dtype: str, patch: int = 14) -> list[torch.Tensor]:
    """weight, bias, cls, pos in the magnitude of a trained tower."""
    return [
        normal(width, 3 * patch * patch, dtype=dtype, scale=0.05),
        normal(width, dtype=dtype, seed=1),
        normal(width, dtype=dtype, seed=2),
        normal(1 + patches, width, dtype=dtype, seed=3),
    ]


def launch(
    tiles: torch.Tensor, given: list[Any], out: str = "", patch: int = 14, plan: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """One launch with a result's dtype and a plan of the test's choice; weights may lie on the device already."""
    there = [t if isinstance(t, ivk.DeviceArray) else ivk.DeviceArray(t) for t in (tiles, *given)]
    shape = (len(tiles), there[4].shape[0], there[1].shape[0])
    y = ivk.DeviceArray.empty(shape, out or there[1].dtype)
    cuda().patch_embed(*(t._array for t in there), y._array, MEAN, STD, patch, 0, *plan)
    return host(y)


# Height and width in patches, D: one patch, odd grids, units of 8 patches, a panel of 64 and its edges, columns of a tile.
GRIDS = ((1, 1, 8), (1, 3, 16), (3, 5, 72), (1, 8, 64), (2, 8, 136), (9, 8, 264), (5, 13, 128), (4, 16, 40))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns", "width"), GRIDS)
def test_shapes(rows: int, columns: int, width: int, kind: str, dtype: str, sums: None) -> None:
    tiles = pixels(2, rows * 14, columns * 14, kind, dtype)
    check("patch_embed", tiles, *weights(width, rows * columns, dtype), backend="cuda", dtype=dtype, **OPTIONS)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patch", [1, 2, 3, 7, 8, 13, 16, 17])
def test_patch_sizes(patch: int, kind: str, dtype: str) -> None:
    """Rows of weight that are whole vectors, halves and neither; more columns than one panel holds."""
    tiles, options = pixels(2, 2 * patch, 3 * patch, kind, dtype), {"patch_size": patch, "backend": "cuda", **OPTIONS}
    check("patch_embed", tiles, *weights(24, 6, dtype, patch), dtype=dtype, **options)


@pytest.mark.parametrize("patch", [28, 36])
def test_several_panels_of_columns(patch: int, sums: None) -> None:
    given = weights(264, 9, "bfloat16", patch)
    tiles, options = pixels(1, 3 * patch, 3 * patch), {"patch_size": patch, "backend": "cuda", **OPTIONS}
    check("patch_embed", tiles, *given, dtype="bfloat16", **options)
    for plan in ((128, 3), (256, 2), (128, 1)):
        same_bits(launch(tiles, given, "", patch, plan), launch(tiles, given, "", patch), f"{plan}")


@pytest.mark.parametrize("width", [1, 7, 15, 63, 65, 129])
def test_widths(width: int) -> None:
    check(
        "patch_embed", pixels(1, 28, 112), *weights(width, 16, "bfloat16"), backend="cuda", dtype="bfloat16", **OPTIONS
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("columns", [7, 8])
@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (MEAN, STD),
        ((0.1, 1e-9, -3.0), (0.3, 7e-4, -0.9)),
        ((0.5, 0, 9), (1e-30, 1, 1)),
        ((100 / 255, 0.5, 200 / 255), STD),
    ],
)
def test_patches_have_the_bits_of_the_cpu(mean: Any, std: Any, columns: int, dtype: str) -> None:
    """A weight that picks pixels: every byte in every channel, where the short form holds and where it does not."""
    tiles = torch.arange(3 * 14 * 14 * columns).view(1, 14, 14 * columns, 3).mul(5).to(torch.uint8)
    weight = torch.eye(588, dtype=getattr(torch, dtype))
    zeros = [torch.zeros(*shape, dtype=weight.dtype) for shape in ((588,), (588,), (1 + columns, 588))]
    patches = torch.empty(columns, 588, dtype=weight.dtype)
    cpu().patchify(tiles, patches, mean, std, 14, 1)
    y = ops.patch_embed(tiles, weight, *zeros, mean=mean, std=std, backend="cuda")[0, 1:]
    if bool(patches.isfinite().all()):
        same_bits(y + 0.0, patches + 0.0)  # a sum has no negative zero
    else:
        assert not bool(y.isfinite().all())


@pytest.mark.parametrize("dtype", HALVES)
def test_whole_numbers_are_exact(dtype: str, sums: None) -> None:
    tiles = integers(2, 3, 28, 112, dtype=dtype, high=2)
    given = [
        integers(136, 588, dtype=dtype, high=2),
        *(integers(136, dtype=dtype, seed=s, high=9) for s in (1, 2)),
        integers(17, 136, dtype=dtype, seed=3, high=99),
    ]
    exact = reference.patch_embed(*(t.double() for t in (tiles, *given)), **OPTIONS)
    assert exact.abs().max() > 256, "a sum in 16 bits would not hold it"
    for plan in ((128, 1), (128, 2), (256, 1)):
        same_bits(launch(tiles, given, "", plan=plan), exact.to(getattr(torch, dtype)), f"{plan}")
        same_bits(launch(tiles, given, "float32", plan=plan), exact.float(), f"{plan}, float32")


@pytest.mark.parametrize("dtype", HALVES)
def test_a_wide_stream_is_rounded_once_less(dtype: str) -> None:
    tiles = pixels(1, 28, 112)
    patches = torch.empty(16, 588, dtype=getattr(torch, dtype))
    cpu().patchify(tiles, patches, MEAN, STD, 14, 1)
    for width in (72, 71):
        given = weights(width, 16, dtype)
        wide = launch(tiles, given, "float32")
        same_bits(wide.to(patches.dtype), launch(tiles, given))

        def rows(kind: torch.dtype) -> torch.Tensor:
            weight, bias, cls, pos = (t.to(kind) for t in given)  # noqa: B023
            return torch.cat([cls[None], patches.to(kind) @ weight.T + bias]) + pos

        compare(wide[0], rows(torch.float32), rows(torch.float64), "patch_embed", "float32")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_other_tiles(kind: str, dtype: str, sums: None) -> None:
    tiles, given = pixels(5, 42, 112, kind, dtype), weights(72, 24, dtype)
    y = launch(tiles, given)
    same_bits(launch(tiles, given), y, "run again")
    for part in (slice(0, 1), slice(2, 4), slice(4, 5)):
        same_bits(launch(tiles[part], given), y[part], f"tiles {part}")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_strides_and_alignment_do_not_change_bits(kind: str, dtype: str) -> None:
    tiles, given = pixels(2, 28, 112, kind, dtype), weights(72, 16, dtype)
    expected = launch(tiles, given)
    for shift, gap in ((0, 4), (4, 8), (0, 3), (1, 0), (3, 8)):
        moved = [placed(t, shift, gap if i == 0 else 0) for i, t in enumerate(given)]
        same_bits(launch(tiles, moved), expected, f"weights shifted by {shift}, rows {gap} apart")
        padded = torch.nn.functional.pad(tiles, (0, 0, shift, gap) if kind == "uint8" else (shift, gap))
        view = ivk.DeviceArray(padded)._array
        step = 3 if kind == "uint8" else 1
        inner = [3, 1] if kind == "uint8" else [1]
        rest = [padded.stride(d) for d in range(4 - len(inner))]
        crop = ivk.DeviceArray._of(view.view(shift * step, list(tiles.shape), [*rest, *inner]))
        same_bits(launch(crop, given), expected, f"a crop {shift} from the left, {gap} from the right")


@pytest.mark.parametrize("patch", [2, 6])
def test_rows_of_weight_that_end_with_half_a_vector(patch: int) -> None:
    """Also in the first slice, whose copies are ahead of all others."""
    tiles, given = pixels(1, 9 * patch, 8 * patch), weights(264, 72, "bfloat16", patch)
    padded = [placed(given[0], 0, 4), *given[1:]]
    for plan in ((128, 2), (256, 1)):
        same_bits(launch(tiles, padded, "", patch, plan), launch(tiles, given, "", patch), f"{plan}")


@pytest.mark.parametrize("dtype", HALVES)
def test_special_values_stay_in_their_patch(dtype: str) -> None:
    given = weights(32, 16, dtype)
    for kind in ("float32", "own"):
        tiles = pixels(2, 28, 112, kind, dtype)
        clean = ops.patch_embed(tiles, *given, backend="cuda", **OPTIONS)
        tiles[1, 2, 20, 17], tiles[0, 0, 0, 0] = float("nan"), float("inf")
        y = check("patch_embed", tiles, *given, backend="cuda", dtype=dtype, **OPTIONS)
        touched = (y.isnan() | y.isinf()).any(-1)
        assert touched.nonzero().tolist() == [[0, 1], [1, 10]]
        same_bits(y[~touched], clean[~touched])
    massive = hostile.massive_channels(2, 3, 28, 112, dtype="float32")
    check("patch_embed", massive, *given, backend="cuda", dtype=dtype, **OPTIONS)


@pytest.mark.modes(vgpu.LAZY)
def test_many_tiles_of_one_pixel() -> None:
    tiles = pixels(hostile.MANY_ROWS, 1, 1)
    check("patch_embed", tiles, *weights(8, 1, "float16", 1), patch_size=1, backend="cuda", dtype="float16", **OPTIONS)


def test_nothing_to_do() -> None:
    given = weights(16, 4, "bfloat16")
    assert ops.patch_embed(pixels(0, 28, 28), *given, backend="cuda", **OPTIONS).shape == (0, 5, 16)
    none = weights(0, 4, "bfloat16")
    assert ops.patch_embed(pixels(2, 28, 28), *none, backend="cuda", **OPTIONS).shape == (2, 5, 0)


def test_kinds_of_results() -> None:
    tiles, given = pixels(2, 28, 28), weights(16, 4, "float16")
    expected = ops.patch_embed(tiles, *given, backend="cuda", **OPTIONS)
    assert expected.dtype == torch.float16
    as_numpy = ops.patch_embed(tiles.numpy(), *(t.numpy() for t in given), backend="cuda", **OPTIONS)
    assert isinstance(as_numpy, np.ndarray)
    same_bits(as_numpy, expected)
    there = [ivk.DeviceArray(t) for t in (tiles, *given)]
    y = ops.patch_embed(*there, **OPTIONS)
    assert isinstance(y, ivk.DeviceArray)
    assert y.dtype == "float16"
    same_bits(host(y), expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tiles": torch.zeros(1, 3, 28, 28, dtype=torch.float16)}, "tiles is float16"),
        ({"tiles": torch.zeros(1, 3, 28, 28, dtype=torch.int64)}, "tiles is int64"),
        ({"bias": torch.zeros(16).half()}, r"bias is float16\[16\]"),
        ({"cls": torch.zeros(8).bfloat16()}, r"cls is bfloat16\[8\].*allowed: a contiguous vector of 16"),
        ({"pos": torch.zeros(4, 16).bfloat16()}, r"pos is bfloat16\[4, 16\].*allowed: contiguous bfloat16 \[5, 16\]"),
        ({"std": (1.0, 0.0, 1.0)}, r"std=\(1.0, 0.0, 1.0\)"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], text: str) -> None:
    names = ("weight", "bias", "cls", "pos")
    given = dict(zip(names, weights(16, 4, "bfloat16")), tiles=pixels(1, 28, 28), **OPTIONS)
    with pytest.raises(UnsupportedError, match=text):
        ops.patch_embed(**(given | change), backend="cuda")


def test_problems_without_a_kernel_are_refused_whole() -> None:
    with pytest.raises(
        UnsupportedError, match=r"2 tiles of uint8, 2 x 2 patches.*sm80: weight float32; allowed: bfloat16"
    ):
        ops.patch_embed(pixels(2, 28, 28), *weights(16, 4, "float32"), backend="cuda", **OPTIONS)
    with pytest.raises(UnsupportedError, match="4107 values of a patch; allowed: at most 4096"):
        ops.patch_embed(pixels(1, 37, 37), *weights(8, 1, "float16", 37), patch_size=37, backend="cuda", **OPTIONS)
    with pytest.raises(UnsupportedError, match="columns is 64; allowed: 128, 256"):
        launch(pixels(1, 14, 14), weights(8, 1, "float16"), plan=(64, 0))


def test_refused_tensors_are_named() -> None:
    given = {
        "tiles": pixels(1, 14, 14, "own"),
        **dict(zip(("weight", "bias", "cls", "pos"), weights(8, 1, "bfloat16"))),
    }
    for name in ("tiles", "weight", "pos"):
        hostile.check_refused(
            lambda x: ops.patch_embed(**given | {name: x}, backend="cuda", **OPTIONS),  # noqa: B023
            given[name],
        )


def test_blocks_share_the_work_evenly() -> None:
    def plan(tiles: int, width: int, multiprocessors: int = 108, wide: bool = True) -> tuple[int, int, int]:
        found = cuda().patch_embed_plan(tiles * 1024, width, multiprocessors, wide)
        return found["columns"], found["each"], found["blocks"]

    assert plan(1, 1024) == (256, 1, 64), "one tile of 448 pixels: 16 panels"
    assert plan(13, 1024) == (256, 4, 208), "13 tiles: pixels are read once, two rounds on 108 multiprocessors"
    assert plan(13, 1024, 58, wide=False) == (128, 8, 208), "an L4: its shared memory holds a panel and 128 columns"
