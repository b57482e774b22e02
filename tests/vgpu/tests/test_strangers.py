"""Kernels by other authors: unmodified CUTLASS sm_80 GEMMs against numpy in every schedule. (What is found when one of their
synchronisations is missing: test_mutation_gemm.py.)"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from raw_cuda import Cuda

import vgpu

FLAGS = (
    "-O2",
    "-gencode=arch=compute_80,code=compute_80",
    "-lineinfo",
    "-shared",
    "-Xcompiler",
    "-fPIC,-fno-gnu-unique",
    "--compress-mode=none",
)
TYPES = {0: ml_dtypes.bfloat16, 1: np.float16, 2: np.float32, 3: np.int8, 4: np.float16}
SHAPES = {
    0: [(128, 128, 64), (200, 136, 72), (256, 128, 320)],
    1: [(128, 128, 512), (72, 136, 264)],
    2: [(128, 64, 128), (68, 72, 36)],
    3: [(128, 128, 256), (80, 72, 80)],
    4: [(128, 128, 128), (72, 136, 40)],
}
SPLITS = {1: 4}


class Gemm:
    def __init__(self, cuda: Cuda, library: Path, which: int) -> None:
        self.cuda, self.which = cuda, which
        self.run = ctypes.CDLL(str(library)).run_gemm
        self.dtype = np.dtype(TYPES[which])
        self.out = np.dtype(np.int32) if which == 3 else self.dtype

    def __call__(self, m: int, n: int, k: int, keep_counters: bool = False) -> tuple[int, np.ndarray, np.ndarray]:
        """Error of the launch, D, and what D should be in f64."""
        rng = np.random.default_rng(m + n + k)
        if self.which == 3:
            a, b, c = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n)), rng.integers(-9, 9, (m, n))
        else:
            a, b, c = rng.standard_normal((m, k)), rng.standard_normal((k, n)), rng.standard_normal((m, n))
        a, b, c = a.astype(self.dtype), b.astype(self.dtype), c.astype(self.out)
        if self.which == 2:  # tf32 operands
            a, b = ((v.view(np.uint32) & 0xFFFFE000).view(np.float32) for v in (a, b))
        turned = self.which == 4
        pointers = [self.cuda.upload(np.ascontiguousarray(v)) for v in (a.T if turned else a, b if turned else b.T, c)]
        pointers += [self.cuda.upload(np.full((m, n), 77, self.out)), self.cuda.upload(np.zeros(1 << 14, np.int32))]
        pa, pb, pc, pd, workspace = map(ctypes.c_void_p, pointers)
        beta = 1.0 if self.which == 3 else 0.5
        status = self.run(
            m, n, k, pa, pb, pc, pd, ctypes.c_float(1), ctypes.c_float(beta), SPLITS.get(self.which, 1), workspace
        )
        assert status in (0, 7), status
        error = vgpu.load().cudaDeviceSynchronize()
        got = np.empty((m, n), self.out)
        if not error:
            got = self.cuda.download(pointers[3], got)
        self.findings = vgpu.reports()
        self.lines = vgpu.counters(lines=True)[-1]["counters"]["lines"] if keep_counters else []
        vgpu.reset()
        for pointer in pointers:
            self.cuda("cudaFree", pointer)
        want = a.astype(np.float64) @ b.astype(np.float64) + beta * c.astype(np.float64)
        if self.which == 0:
            want = want * 0.5 * (1 + np.vectorize(math.erf)(want / math.sqrt(2)))
        return error, got, want


@pytest.fixture(scope="module", params=TYPES, ids=["bf16-gelu", "f16-split", "tf32", "s8", "f16-transposed"])
def which(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def library(which: int, compiled: Callable[..., Path]) -> Path:
    return compiled("strangers.cu", *FLAGS, f"-DSTRANGER={which}", suffix=".so")


@pytest.fixture
def gemm(cuda: Cuda, which: int, library: Path) -> Iterator[Gemm]:
    return Gemm(cuda, library, which)


MODES = [
    {},
    {"async_": "eager"},
    {"seed": 3, "async_": "random"},
    {"seed": 5, "starve": 0, "async_": "random"},
    {"threads": 2},
]


def test_gemm(gemm: Gemm) -> None:
    for shape in SHAPES[gemm.which]:
        first = None
        for mode in MODES:
            with vgpu.options(**mode):
                error, got, want = gemm(*shape)
            assert (error, gemm.findings) == (0, []), (shape, mode)
            first = got if first is None else first
            assert (got.view(np.uint8) == first.view(np.uint8)).all(), (shape, mode)
        step = {0: 2**-8, 1: 2**-10, 2: 2**-20, 3: 0, 4: 2**-10}[gemm.which]
        # Rounding of the result, and of sums of k terms on the way; split over k they pass through f16 three times.
        slack = 4 if gemm.which in SPLITS else 1
        assert (
            np.abs(first.astype(np.float64) - want) <= slack * step * (np.abs(want) + math.sqrt(shape[2]) / 4)
        ).all(), shape
    with vgpu.options(truncating_mma=1):
        error, got, want = gemm(*SHAPES[gemm.which][0])
    assert not error
    assert np.allclose(got.astype(np.float64), want, rtol=0.02, atol=0.05)
