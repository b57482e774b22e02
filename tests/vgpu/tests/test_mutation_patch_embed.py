"""The source of patch_embed's CUDA kernel with one edit at a time, at the edges of its rows, panels, slices and stages.

Each edit is found, by a report or by other bits, in every schedule; what is reported stands in
tests/logs/2026-11-23-patch-embed-mutation.md. (Its synchronisations one by one: test_mutation_product.py.)"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mutation import FOUND, MODES, judge
from raw_cuda import Cuda
from test_strangers import FLAGS

import vgpu

pytestmark = pytest.mark.slow  # nvcc takes seconds for each

SOURCES = Path(__file__).parents[3] / "csrc"
FOLDER = "kernels/patch_embed"
USUAL = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Call:
    """Two panels of rows or one, the last one short, as is the last of four tiles of D."""

    count: int
    grid: tuple[int, int]
    side: int
    width: int
    gap: int  # elements between rows of weight: not numbers behind a row
    piece: int  # bytes of weight that a copy moves
    numbers: tuple[tuple[float, ...], tuple[float, ...]] = USUAL  # mean, std
    picks: bool = False  # y is the pixels themselves


CALLS = {
    "words": Call(5, (2, 8), 14, 456, 592, 16),
    "halves": Call(5, (2, 8), 14, 456, 588, 8),
    "long form": Call(5, (2, 8), 14, 456, 592, 16, ((100 / 255, 0.456, 200 / 255), USUAL[1]), True),
    "odd row": Call(5, (1, 12), 14, 456, 592, 16),
    "short": Call(1, (9, 8), 2, 456, 16, 16),
    "any": Call(5, (2, 7), 14, 456, 592, 16),
    "elements": Call(5, (2, 7), 14, 455, 588, 2),
    "panels": Call(1, (10, 7), 16, 456, 768, 16),
}

# Call, file, exact source (matches once), replacement.
KERNEL, PANEL, EPILOGUE, HOST = (f"patch_embed_sm80{end}" for end in (".cuh", "_panel.cuh", "_epilogue.cuh", ".cu"))
MUTANTS: list[tuple[str, str, str, str]] = [
    # rows of the patch matrix
    ("any", PANEL, "if (first + row < a.rows) {", "if (first + row <= a.rows) {"),
    ("any", PANEL, "row < kPanelRows; row += warps", "row < kPanelRows - 1; row += warps"),
    ("words", PANEL, "item < kPanelRows / kUnit * (kPatch / kBatch); item",
        "item < kPanelRows / kUnit * (kPatch / kBatch) - 1; item"),
    ("words", PANEL, "first + unit * kUnit < a.rows && lane < 28;\n        const uint8_t",
        "first + unit * kUnit <= a.rows && lane < 28;\n        const uint8_t"),
    ("words", PANEL, "first + unit * kUnit < a.rows && lane < 28;\n        const uint8_t",
        "first + unit * kUnit < a.rows && lane < 29;\n        const uint8_t"),
    ("words", PANEL, "if (lane < 28)\n                    place.put(panel, unit, (c",
        "if (lane < 27)\n                    place.put(panel, unit, (c"),
    ("words", PANEL, "if (lane < 28)\n                    place.put(panel, unit, (c",
        "if (lane < 29)\n                    place.put(panel, unit, (c"),
    ("words", PANEL, "const UnitPlace place;\n    const TurnThree", "UnitPlace place;\n    ++place.word[1];\n    const TurnThree"),
    ("words", EPILOGUE, "const bool inside = i < a.rows;", "const bool inside = i <= a.rows;"),
    ("words", EPILOGUE, "const bool inside = i < a.rows;", "const bool inside = i + 1 < a.rows;"),
    ("words", EPILOGUE, "y_row = i + tile + 1;", "y_row = i + tile;"),
    ("words", EPILOGUE, "(1 + patch) * a.p.width", "patch * a.p.width"),
    ("words", EPILOGUE, "first + a.patches.divisor - 1", "first + a.patches.divisor"),
    ("words", EPILOGUE, "first + kPanelRows, a.rows)) - 1;", "first + kPanelRows, a.rows));"),
    ("any", EPILOGUE, "first + kPanelRows, a.rows)) - 1;", "first + kPanelRows, a.rows)) - a.patches.divisor;"),
    ("words", "patch_embed_plan.h", "(rows + kPanelRows - 1) / kPanelRows", "rows / kPanelRows"),
    # columns of y
    ("words", KERNEL, "min(a.p.width - row, int64_t{kColumns})", "min(a.p.width - row + 1, int64_t{kColumns})"),
    ("words", KERNEL, "min(a.p.width - row, int64_t{kColumns})", "min(a.p.width - row - 1, int64_t{kColumns})"),
    ("words", EPILOGUE, "max(min(a.p.width - at, int64_t{kLanes<T>}), int64_t{0})", "int64_t{kLanes<T>}"),
    ("elements", EPILOGUE, "max(min(a.p.width - at, int64_t{kLanes<T>}), int64_t{0})",
        "max(min(a.p.width - at + 1, int64_t{kLanes<T>}), int64_t{0})"),
    ("elements", EPILOGUE, "min(a.p.width - at, int64_t{kFour})", "min(a.p.width - at - 1, int64_t{kFour})"),
    ("words", HOST, "(p.width + plan.columns - 1) / plan.columns", "p.width / plan.columns"),
    ("words", KERNEL, "sums[m][n][e] = 0.0f;", "sums[m][n][e] *= 1.0f;"),
    # columns of the patch matrix, slices and panels of them
    ("any", PANEL, "k < a.k ? c : -1", "k <= a.k ? c : -1"),
    ("any", PANEL, "k < a.k ? c : -1", "k + 1 < a.k ? c : -1"),
    ("any", KERNEL, "(a.k - begin + 15) / 16 * 16", "(a.k - begin) / 16 * 16"),
    ("any", KERNEL, "kPanelChunk + 16);", "kPanelChunk);"),
    ("panels", KERNEL, "kPanelChunk + 16);", "kPanelChunk - 16);"),
    ("words", KERNEL, "put_word(panel, i / 2, 3 * kPatchArea / 2 + i % 2, 0);", ";"),
    ("words", KERNEL, "i < kPanelRows * 2; i += blockDim.x", "i < kPanelRows * 2 - 1; i += blockDim.x"),
    ("short", KERNEL, "static_cast<uint32_t>(left * sizeof(T))", "left > 0 ? 16 : 0"),
    ("words", KERNEL, "i * kApart < rows ?", "i * kApart <= rows ?"),
    ("halves", KERNEL, "a.k - begin - piece * kElements, 0)", "a.k - begin - piece * kElements + 1, 0)"),
    ("elements", KERNEL, "a.k - begin - piece * kElements, 0)", "a.k - begin - piece * kElements + 1, 0)"),
    ("elements", KERNEL, "a.k - begin - piece * kElements, 0)", "a.k - begin - piece * kElements - 1, 0)"),
    ("words", KERNEL, "slices = (a.k + kSlice - 1) / kSlice", "slices = a.k / kSlice"),
    ("words", KERNEL, "steps = (a.k + 15) / 16", "steps = a.k / 16 + 2"),
    ("panels", KERNEL, "steps = (a.k + 15) / 16", "steps = a.k / 16 - 1"),
    ("words", KERNEL, "slice * 2 + 1 < steps", "slice * 2 + 1 <= steps"),
    ("words", KERNEL, "a.k - 16 + kPanelChunk - 1", "a.k + kPanelChunk - 1"),
    ("panels", KERNEL, "(a.k - 16 + kPanelChunk - 1) / kPanelChunk", "a.k / kPanelChunk"),
    ("words", KERNEL, "slice == 2 * kPanelSlices;", "slice == 2 * kPanelSlices + 1;"),
    # stages, and what must be uniform in a block
    ("words", KERNEL, "if (++ahead_stage == kStages)", "if (++ahead_stage == kStages - 1)"),
    ("words", KERNEL, "if (++stage == kStages)", "if (++stage == kStages + 1)"),
    ("words", KERNEL, "i < kStages - 1; ++i) fetch()", "i < kStages - 2; ++i) fetch()"),
    ("words", KERNEL, "i < kStages - 1; ++i) fetch()", "i < kStages; ++i) fetch()"),
    ("words", KERNEL, "__syncthreads();\n        fetch();", "fetch();\n        __syncthreads();"),
    ("words", KERNEL, "if (ahead < total)", "if (ahead + 1 < total)"),
    ("words", KERNEL, "WeightCopy<T, kColumns, kPiece>(a, ++ahead_tile)", "WeightCopy<T, kColumns, kPiece>(a, ahead_tile++)"),
    ("panels", KERNEL, "if (i > 0) __syncthreads();", "if (i > slices) __syncthreads();"),
    ("panels", KERNEL, "(i == 0 || chunks > 1)", "(i == 0 || (chunks > 1 && slice > 0))"),
    ("long form", PANEL, "__syncthreads_or(differs)", "differs"),
    ("long form", KERNEL, "a.p.tile_dtype != DType::u8 || short_form_holds<T>(a)", "true"),
    # what the launcher takes for aligned
    ("elements", HOST, "!aligned_bytes(p.width * s)", "false"),
    ("halves", HOST, "weight % 16 == 0 && stride % 16 == 0 ? 16 : 8", "16"),
    ("odd row", HOST, "p.grid_cols % device::kUnit == 0 &&", ""),
]  # fmt: skip


class Build:
    """Device arrays of a call, and a library that is asked for their result."""

    def __init__(self, cuda: Cuda, call: Call) -> None:
        self.cuda, self.call, rng = cuda, call, np.random.default_rng(0)
        n, values = call.grid[0] * call.grid[1], 3 * call.side**2
        weight = rng.standard_normal((call.width, call.gap)).astype(ml_dtypes.bfloat16)
        if call.picks:
            weight = np.eye(call.width, call.gap).astype(ml_dtypes.bfloat16)
        weight[:, values:] = np.nan
        shapes = ((call.width,), (call.width,), (1 + n, call.width))
        rest = [(rng.standard_normal(shape) * (not call.picks)).astype(ml_dtypes.bfloat16) for shape in shapes]
        pixels = rng.integers(0, 256, (call.count * n * values), dtype=np.uint8)
        flat = weight.ravel()[: (call.width - 1) * call.gap + values]
        self.given = [cuda.upload(np.ascontiguousarray(array)) for array in (pixels, flat, *rest)]
        self.like = np.empty((call.count, 1 + n, call.width), ml_dtypes.bfloat16)

    def __call__(self, library: Path, mode: vgpu.Mode) -> tuple[set[str], bytes]:
        call = self.call
        sizes = np.array([call.count, *call.grid, call.side, call.width, call.gap], np.int64)
        y = self.cuda.malloc(self.like.nbytes)
        numbers = [np.array(v, np.float32) for v in call.numbers]
        given = (ctypes.c_void_p * len(self.given))(*self.given)
        with vgpu.mode(mode), vgpu.options(budget=20_000_000):
            ctypes.CDLL(str(library)).run_patch_embed(
                ctypes.c_void_p(sizes.ctypes.data), given, ctypes.c_void_p(y), *(ctypes.c_void_p(v.ctypes.data) for v in numbers)
            )  # fmt: skip
            error = vgpu.load().cudaDeviceSynchronize()
        result = b"" if error else self.cuda.download(y, self.like).tobytes()
        codes = {report["code"] for report in vgpu.reports()}
        vgpu.reset()
        self.cuda("cudaFree", y)
        return codes, result


def build(compiled: Callable[..., Path], call: Call, overlay: Path | None = None) -> Path:
    flags = ["-fmad=false", "-DCOLUMNS=128", f"-DPIECE={call.piece}"]
    folders = [f"-I{folder}" for folder in (overlay, SOURCES) if folder]
    return compiled("patch_embed.cu", *FLAGS, *flags, *folders, suffix=".so")


@pytest.mark.parametrize("name", CALLS)
def test_every_edit_is_found(cuda: Cuda, compiled: Callable[..., Path], tmp_path: Path, name: str) -> None:
    call = CALLS[name]
    run, intact = Build(cuda, call), build(compiled, call)
    expected = run(intact, vgpu.LAZY)
    for mode in MODES:
        assert run(intact, mode) == expected, mode
    assert not expected[0]
    tried = [mutant for mutant in MUTANTS if mutant[0] == name]
    for number, (_, file, source, replacement) in enumerate(tried):
        target = tmp_path / str(number) / FOLDER / file
        target.parent.mkdir(parents=True)
        text = (SOURCES / FOLDER / file).read_text()
        assert text.count(source) == 1, (file, source)
        target.write_text(text.replace(source, replacement))
        library = build(compiled, call, tmp_path / str(number))
        verdict = judge(lambda mode: run(library, mode), expected[1], MODES)  # noqa: B023
        line = " ".join(source.split()), " ".join(replacement.split())
        print(f"| {name} | {file} | `{line[0]}` | `{line[1]}` | {verdict.text} |")
        assert verdict.name == FOUND, (file, source, replacement)
        assert all(verdict.codes[mode] or verdict.wrong[mode] for mode in verdict.codes), (file, source, verdict)
    assert tried
    for pointer in run.given:
        cuda("cudaFree", pointer)
