"""How fast the virtual GPU (tests/vgpu) runs an unmodified CUTLASS sm_80 GEMM (bf16, GELU), as a share of what one core does.

    python bench/vgpu_speed.py [--repeats 7] [--compiled strangers.so] [--json FILE]

Needs the extra cuda-test (nvcc takes 20 s) or a library compiled before. The yardstick is a plain fp32 FMA loop on
AVX2, one core, compiled and timed in the same run, in turn with the GEMM; every figure is a median. A launch is timed
from its start to its end: no copies, no decoding of the PTX. One core is timed by the processor time of its thread, which
other work on the machine disturbs little; two by the clock on the wall, so they want a quiet machine.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "vgpu")]

FMA = r"""
#include <time.h>
typedef float V __attribute__((vector_size(32)));
// 12 independent chains of 8 lanes keep both FMA units of a core busy. Multiply-adds a second.
extern "C" double fma_rate(long rounds) {
    V acc[12], scale = {}, step = {};
    for (auto& v : acc) v = V{1, 2, 3, 4, 5, 6, 7, 8};
    scale += 0.999f, step += 0.001f;
    timespec begin, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (long i = 0; i < rounds; i++)
        for (auto& v : acc) v = v * scale + step;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    double seconds = double(end.tv_sec - begin.tv_sec) + 1e-9 * double(end.tv_nsec - begin.tv_nsec);
    float sum = 0;
    for (auto& v : acc)
        for (int i = 0; i < 8; i++) sum += v[i];
    return sum == 0 ? 0 : 12.0 * 8 * rounds / seconds;
}
"""
SHAPES = [(512, 512, 512), (768, 768, 1024)]
OFF = {"definedness": 0, "counters": 0, "races": 0, "bounds": 0}
WAYS = {
    "no check": OFF,
    "bounds": OFF | {"bounds": 1},
    "races and bounds": OFF | {"races": 1, "bounds": 1},
    "every check and counter": dict.fromkeys(OFF, 1),
    "races and bounds, 2 cores": OFF | {"races": 1, "bounds": 1, "threads": 2},
    "every check and counter, 2 cores": dict.fromkeys(OFF, 1) | {"threads": 2},
}


def fma_loop(folder: Path) -> Any:
    source = folder / "fma.cpp"
    source.write_text(FMA)
    library = folder / "fma.so"
    flags = ["-O3", "-march=x86-64-v3", "-ffp-contract=fast", "-shared", "-fPIC"]
    subprocess.run([os.environ.get("CXX", "c++"), *flags, source, "-o", library], check=True)
    rate = ctypes.CDLL(str(library)).fma_rate
    rate.restype, rate.argtypes = ctypes.c_double, [ctypes.c_long]
    return rate


def package(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is missing: pip install 'internvl-kernels[cuda-test]', or give --compiled")
    return Path(next(iter(spec.submodule_search_locations)))


def compile_gemm(folder: Path) -> Path:
    home, include = package("nvidia.cu13"), package("cutlass_library") / "source" / "include"
    library = folder / "strangers.so"
    flags = [
        "-std=c++17",
        "-O2",
        "-DNDEBUG",
        "-DSTRANGER=0",
        "-gencode=arch=compute_80,code=compute_80",
        "-cudart=none",
    ]
    flags += ["-shared", "-Xcompiler=-fPIC,-fno-gnu-unique", "--compress-mode=none", "-I", str(include)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NVCC", "CUDA"))}
    clean["PATH"] = f"{home / 'bin'}:/usr/bin:/bin"
    source = ROOT / "tests/vgpu/tests/cuda/strangers.cu"
    subprocess.run([home / "bin" / "nvcc", *flags, source, "-o", library], check=True, env=clean)
    return library


class Gemm:
    def __init__(self, library: Path, shape: tuple[int, int, int]) -> None:
        from raw_cuda import Cuda

        self.cuda, self.shape = Cuda(), shape
        self.run = ctypes.CDLL(str(library)).run_gemm
        m, n, k = shape
        rng = np.random.default_rng(0)

        def bf16(*size: int) -> np.ndarray:
            return (rng.standard_normal(size, np.float32).view(np.uint32) >> 16).astype(np.uint16)

        arrays = [bf16(m, k), bf16(n, k), bf16(m, n), np.zeros((m, n), np.uint16), np.zeros(1 << 14, np.int32)]
        self.pointers = [ctypes.c_void_p(self.cuda.upload(a)) for a in arrays]

    def __call__(self, clock: Callable[[], float] = time.thread_time) -> float:
        """Seconds of the launch."""
        import vgpu

        a, b, c, d, workspace = self.pointers
        status = self.run(*self.shape, a, b, c, d, ctypes.c_float(1), ctypes.c_float(0.5), 1, workspace)
        assert status == 0, status
        begin = clock()
        vgpu.finish()
        return clock() - begin

    def result(self) -> np.ndarray:
        return self.cuda.download(self.pointers[3].value or 0, np.empty(self.shape[:2], np.uint16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compiled", type=Path, help="strangers.cu with -DSTRANGER=0, compiled before")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    import vgpu

    vgpu.activate(device="a100", mode=vgpu.LAZY)
    with tempfile.TemporaryDirectory() as name:
        rate, library = fma_loop(Path(name)), arguments.compiled or compile_gemm(Path(name))
        rows = []
        for shape in SHAPES:
            gemm = Gemm(library, shape)
            macs, bits = shape[0] * shape[1] * shape[2], None
            gemm()
            (launch,) = vgpu.counters()
            assert launch["counters"]["mma_flops"] == 2 * macs
            instructions = launch["counters"]["warp_instructions"]
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            plain: list[float] = []
            for _ in range(arguments.repeats):
                plain.append(rate(20_000_000))
                for way, options in WAYS.items():
                    vgpu.reset()
                    with vgpu.options(**options):
                        clock = time.perf_counter if "threads" in options else time.thread_time
                        seconds[way].append(gemm(clock))
                        vgpu.assert_clean()
                    again = gemm.result()
                    bits = again if bits is None else bits
                    assert (again == bits).all(), f"{way}: other bits"
            fma = statistics.median(plain)
            for way, taken in seconds.items():
                median = statistics.median(taken)
                rows.append(
                    {
                        "gemm": "x".join(map(str, shape)),
                        "what is on": way,
                        "ms": round(1e3 * median, 1),
                        "warp instructions/s (M)": round(instructions / median / 1e6, 2),
                        "MAC/s (G)": round(macs / median / 1e9, 2),
                        "FMA loop, one core (G)": round(fma / 1e9, 1),
                        "share of it": round(macs / median / fma, 4),
                    }
                )
            vgpu.reset(hard=False)
    table = Table(title="CUTLASS GEMM on the virtual GPU", title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("gemm", "what is on") else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=150).print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
