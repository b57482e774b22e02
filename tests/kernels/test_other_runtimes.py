"""Both families from a C program, and from a Python process that has no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import internvl_kernels as ivk
from internvl_kernels.about import loaded_runtime

PACKAGE = Path(ivk.get_include()).parent


def test_c_program(cuda_environment: dict[str, str], tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "the build needs a compiler, so the tests may ask for one"
    runtime = loaded_runtime()
    assert runtime is not None
    program = tmp_path / "program"
    source = Path(__file__).with_name("c_interface.c")
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program)]
    command += [f"-I{ivk.get_include()}", f"-L{PACKAGE}", "-livk_cuda", runtime, "-lm", f"-Wl,-rpath,{PACKAGE}"]
    # The library was made by the same or a newer compiler; only its C functions matter here.
    subprocess.run([*command, "-Wl,--allow-shlib-undefined"], check=True, timeout=120)
    folders = [str(Path(runtime).parent), cuda_environment.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, **cuda_environment, "LD_LIBRARY_PATH": ":".join(filter(None, folders))}
    result = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout) == (0, "all good\n"), result.stdout + result.stderr


def test_python_without_torch(cuda_environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("without_torch.py")],
        env={**os.environ, **cuda_environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stdout) == (0, "all good\n"), result.stdout + result.stderr
