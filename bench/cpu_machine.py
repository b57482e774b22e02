"""What this machine can do at most: a bare loop of fused multiply-adds and a bare loop of reads, on any number of threads."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = r"""
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <sys/mman.h>
#include <thread>
#include <vector>

template <class Body>
static double seconds(int threads, Body body) {  // from the moment when every thread is ready
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; t++)
        pool.emplace_back([&, t] {
            ready++;
            while (!go) std::this_thread::yield();
            body(t);
        });
    while (ready < threads) std::this_thread::yield();
    auto begin = std::chrono::steady_clock::now();
    go = true;
    for (auto& thread : pool) thread.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

static volatile float sink;
typedef float V16 __attribute__((vector_size(16)));
typedef float V32 __attribute__((vector_size(32)));
typedef float V64 __attribute__((vector_size(64)));

// 12 independent chains a thread keep every FMA unit busy. Floating-point operations a second, a multiply-add being two.
template <class V>
static double fma_rate(int threads, long rounds) {
    constexpr int lanes = sizeof(V) / 4;
    double taken = seconds(threads, [&](int) {
        V acc[12], scale = {}, step = {};
        for (auto& v : acc) v = V{1, 2, 3, 4};
        scale += 0.999f, step += 0.001f;
        for (long i = 0; i < rounds; i++)
            for (auto& v : acc) v = v * scale + step;
        float sum = 0;
        for (auto& v : acc)
            for (int i = 0; i < lanes; i++) sum += v[i];
        sink = sum;
    });
    return 2.0 * 12 * lanes * rounds * threads / taken;
}

extern "C" double fma_loop(int bytes, int threads, long rounds) {
    return bytes == 16 ? fma_rate<V16>(threads, rounds) : bytes == 32 ? fma_rate<V32>(threads, rounds)
                                                                      : fma_rate<V64>(threads, rounds);
}

typedef int W __attribute__((vector_size(64)));

extern "C" W* reserve(size_t bytes) {
    void* memory = aligned_alloc(1 << 21, bytes);
    if (!memory) return nullptr;
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < bytes / 64; i++) static_cast<W*>(memory)[i] = W{} + int(i);
    return static_cast<W*>(memory);
}

extern "C" void release(W* memory) { free(memory); }

// Bytes a second: every thread reads its own part from one end to the other, in four streams.
extern "C" double read_loop(const W* memory, size_t bytes, int threads, int times) {
    size_t part = bytes / 64 / threads, stream = part / 4;
    double taken = seconds(threads, [&](int t) {
        const W* from = memory + t * part;
        W sum[8] = {};
        for (int n = 0; n < times; n++)
            for (size_t i = 0; i + 2 <= stream; i += 2)
                for (int s = 0; s < 4; s++) {
                    sum[2 * s] += from[s * stream + i];
                    sum[2 * s + 1] += from[s * stream + i + 1];
                }
        for (int s = 1; s < 8; s++) sum[0] += sum[s];
        sink = sum[0][t % 16];
    });
    return double(stream / 2 * 2 * 4 * threads) * 64 * times / taken;
}
"""
WIDTHS = (16, 32, 64)  # bytes of a vector; one that the machine lacks is done in halves and loses


class Machine:
    """The two loops, compiled for this processor, on ``threads`` threads. ``fma`` and ``read`` are one sample each."""

    def __init__(
        self, folder: Path, threads: int, *, widest: int = 64, least: float = 0.3, read_bytes: int = 1 << 30
    ) -> None:
        source, made = folder / "machine.cpp", folder / "machine.so"
        source.write_text(SOURCE)
        compiler = os.environ.get("CXX", "c++")
        flags = [
            "-std=c++17",
            "-O3",
            "-march=native",
            "-ffp-contract=fast",
            "-shared",
            "-fPIC",
            "-pthread",
            "-Wno-psabi",
        ]
        subprocess.run([compiler, *flags, source, "-o", made], check=True)
        self._code = ctypes.CDLL(str(made))
        self._code.fma_loop.restype = self._code.read_loop.restype = ctypes.c_double
        self._code.fma_loop.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long]
        self._code.reserve.restype = ctypes.c_void_p
        self._code.reserve.argtypes = [ctypes.c_size_t]
        self._code.release.argtypes = [ctypes.c_void_p]
        self._code.read_loop.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
        self.threads, self._bytes, self._least = threads, read_bytes, least
        self._memory: int | None = None
        self.samples: dict[str, list[float]] = {"fma": [], "read": []}
        widths = [width for width in WIDTHS if width <= widest]
        self.width = max(widths, key=lambda width: max(self._fma(width, 2) for _ in range(3)))

    def _fma(self, width: int, times: int = 1) -> float:
        return float(self._code.fma_loop(width, self.threads, times * 5_000_000))

    def fma(self) -> float:
        """FLOP/s of the best width."""
        return self._sample("fma", lambda times: self._fma(self.width, times))

    def read(self) -> float:
        """Bytes/s of plain reads. The memory is kept until ``release``."""
        if self._memory is None:
            self._memory = self._code.reserve(self._bytes)
        if not self._memory:
            raise MemoryError(f"read loop: no {self._bytes} bytes of memory")
        run = self._code.read_loop
        return self._sample("read", lambda times: float(run(self._memory, self._bytes, self.threads, times)))

    def release(self) -> None:
        if self._memory is not None:
            self._code.release(self._memory)
        self._memory = None

    def _sample(self, name: str, loop: Callable[[int], float]) -> float:
        """The better half of ``self._least`` seconds and more: processors that rested need some time to come to speed."""
        times = 1
        while True:
            begin = time.perf_counter()
            rate = loop(times)
            if time.perf_counter() - begin >= self._least / 2:
                break
            times *= 2
        self.samples[name].append(max(rate, loop(times)))
        return self.samples[name][-1]


PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "onnx", "onnxscript", "numpy", "pillow")


def facts(threads: int) -> dict[str, Any]:
    """Processor, software and its versions."""
    from internvl_kernels import __version__
    from internvl_kernels.ops._backend import cpu

    versions: dict[str, str] = {"internvl-kernels": __version__}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "isa": cpu().current_isa(),
        "memory_gb": round(int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": cpu().compiler,
        "versions": versions,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _field(path: str, name: str) -> str | None:
    try:
        with open(path) as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(name)), None)
    except OSError:
        return None
