"""Programs and images as nvcc makes them; what the library exports; who may use it."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_cuda import Cuda

HERE = Path(__file__).parent
SM80 = "-gencode=arch=compute_80,code=[sm_80,compute_80]"
Compile = Callable[..., Path]


def run(program: Path, build: Path, what: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VGPU")}
    clean |= {"LD_LIBRARY_PATH": str(build), **env}
    return subprocess.run([program, what], env=clean, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module", params=["legacy", "per-thread"])
def program(request: pytest.FixtureRequest, compiled: Compile, vgpu_build: Path) -> Path:
    """The program, with the default stream of either kind."""
    link = ["-L", vgpu_build, "-l:libcudart.so.13"]
    return compiled("program.cu", "-default-stream", request.param, SM80, "-Wno-deprecated-gpu-targets", *link)


@pytest.mark.parametrize(
    "env", [{}, {"VGPU_HOST": "eager", "VGPU_ASYNC": "eager"}, {"VGPU_HOST": "random", "VGPU_SEED": "3"}]
)
def test_a_program(program: Path, vgpu_build: Path, env: dict[str, str]) -> None:
    done = run(program, vgpu_build, "plain", VGPU="1", **env)
    assert (done.stdout, done.stderr) == ("kernel says 7\nok\n", "")


def test_a_program_on_another_part(program: Path, vgpu_build: Path) -> None:
    done = run(program, vgpu_build, "plain", VGPU="1", VGPU_DEVICE="rtx4090")
    assert (done.stdout, done.stderr) == ("kernel says 7\nok\n", "")


def test_a_fault_names_kernel_and_line(program: Path, vgpu_build: Path) -> None:
    done = run(program, vgpu_build, "fault", VGPU="1")
    assert done.stdout == "ok\n"
    assert re.search(r"vgpu: oob: .* 64 bytes past its end .*fails.*PTX line \d+ `st\.global\.u32`", done.stderr)


def test_users_are_refused(program: Path, vgpu_build: Path) -> None:
    done = run(program, vgpu_build, "refused")
    assert done.stdout == "ok\n"
    assert "is a simulator for tests" in done.stderr


def test_a_part_without_image(compiled: Compile, vgpu_build: Path) -> None:
    link = ["-L", vgpu_build, "-l:libcudart.so.13"]
    newer = compiled("program.cu", "-gencode=arch=compute_90,code=[sm_90,compute_90]", *link)
    assert run(newer, vgpu_build, "image", VGPU="1").stdout == "ok\n"


@pytest.mark.parametrize("variable", ["VGPU_DEVICE", "VGPU_SMS", "VGPU_HOST", "VGPU_ASYNC", "VGPU_SEED", "VGPU_MEMORY"])
def test_bad_settings_stop_the_program(program: Path, vgpu_build: Path, variable: str) -> None:
    done = run(program, vgpu_build, "plain", VGPU="1", **{variable: "nonsense"})
    assert done.returncode != 0
    assert "nonsense" in done.stderr


@pytest.fixture(scope="module")
def fat(compiled: Compile) -> bytes:
    return compiled("features.cu", "-fatbin", SM80, "--compress-mode=speed", suffix=".fatbin").read_bytes()


def load_code(cuda: Cuda, path: Path) -> int:
    library = ctypes.c_void_p()
    code = cuda.code("cudaLibraryLoadFromFile", ctypes.byref(library), str(path).encode(), *[0] * 6)
    if code == 0:
        count = ctypes.c_uint()
        cuda("cudaLibraryGetKernelCount", ctypes.byref(count), library)
        assert count.value > 0
        cuda("cudaLibraryUnload", library)
    return code


def test_truncated_fat_binaries(cuda: Cuda, fat: bytes, tmp_path: Path, virtual_gpu: Any) -> None:
    path = tmp_path / "cut.fatbin"
    path.write_bytes(fat)
    assert load_code(cuda, path) == 0
    cuts = [*range(0, 160, 8), *range(160, len(fat), max(1, len(fat) // 40)), len(fat) - 1]
    for cut in cuts:
        path.write_bytes(fat[:cut])
        assert load_code(cuda, path) in (200, 209, 218), cut
        assert virtual_gpu.last_message()
    path.write_bytes(fat[:300])
    assert load_code(cuda, path) == 200


def test_an_image_that_claims_more_than_there_is(cuda: Cuda, fat: bytes) -> None:
    """In memory only the header says how long an image is."""
    data = bytearray(fat)
    data[8:16] = (2**40).to_bytes(8, "little")
    assert cuda.code("cudaLibraryLoadData", ctypes.byref(ctypes.c_void_p()), bytes(data), *[0] * 6) == 200


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ("-gencode=arch=compute_80,code=sm_80", 209),  # machine code only
        ("-gencode=arch=compute_90,code=compute_90", 209),  # for a newer part
        ("-gencode=arch=compute_80,code=compute_80", 0),  # PTX only
    ],
)
def test_images_for_this_part(cuda: Cuda, compiled: Compile, virtual_gpu: Any, flags: str, code: int) -> None:
    assert load_code(cuda, compiled("features.cu", "-fatbin", flags, suffix=".fatbin")) == code
    if code:
        assert re.search(
            r"holds no PTX for a100 \(sm_80\); it holds (PTX compute|cubin sm)_[89]0", virtual_gpu.last_message()
        )


def test_text_that_is_no_ptx(cuda: Cuda, virtual_gpu: Any) -> None:
    bad = b".version 9.0\n.target sm_80\n.address_size 64\n.entry k() { bogus }\n\0"
    assert cuda.code("cudaLibraryLoadData", ctypes.byref(ctypes.c_void_p()), bad, *[0] * 6) == 218
    assert "bogus" in virtual_gpu.last_message()


def symbols(path: Path) -> set[str]:
    done = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True)
    found = re.findall(r" [TW] (\S+?)@@?libcudart\.so\.13$", done.stdout, re.M)
    return {name for name in found if not name.startswith("vgpu_")}


def test_every_symbol_of_the_real_library_is_there(toolkit: Any, vgpu_build: Path) -> None:
    real = symbols(toolkit.home / "lib" / "libcudart.so.13")
    assert len(real) > 400
    assert symbols(vgpu_build / "libcudart.so.13") == real
    assert set((HERE.parent / "cudart" / "symbols.txt").read_text().split()) == real


def test_structures_are_laid_out_as_in_the_real_headers(toolkit: Any) -> None:
    command: list[Any] = ["g++", "-std=c++17", "-fsyntax-only", f"-I{HERE.parent}", f"-I{toolkit.home / 'include'}"]
    done = subprocess.run([*command, HERE / "cuda" / "abi_layout.cpp"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_error_names_and_texts_are_the_real_ones(toolkit: Any, cuda: Cuda) -> None:
    script = (
        "import ctypes, sys\nlib = ctypes.CDLL(sys.argv[1])\n"
        "for name in ('cudaGetErrorName', 'cudaGetErrorString'): getattr(lib, name).restype = ctypes.c_char_p\n"
        "for i in range(1000): print(i, lib.cudaGetErrorName(i).decode(), lib.cudaGetErrorString(i).decode(), sep='|')"
    )
    command = [sys.executable, "-c", script, str(toolkit.home / "lib" / "libcudart.so.13")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    known = 0
    for line in done.stdout.splitlines():
        code, name, text = line.split("|")
        ours = cuda.handle.cudaGetErrorName(int(code)).decode()
        if ours != "unrecognized error code":
            known += 1
            assert (ours, cuda.handle.cudaGetErrorString(int(code)).decode()) == (name, text)
    declared = (HERE.parent / "cudart" / "errors.h").read_text()
    assert known >= len(set(re.findall(r"k\w+ = (\d+),", declared)))


def test_a_real_runtime_in_the_process_is_noticed(toolkit: Any, vgpu_build: Path) -> None:
    real = (toolkit.home / "lib" / "libcudart.so.13").resolve()
    script = f"import ctypes; ctypes.CDLL({str(real)!r}); import vgpu; vgpu.activate()"
    env = os.environ | {"PYTHONPATH": str(HERE.parent), "VGPU_BUILD": str(vgpu_build)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert f"has loaded the real CUDA runtime, {real}" in done.stderr
