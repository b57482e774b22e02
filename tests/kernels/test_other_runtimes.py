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


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of it raises
import numpy as np
import internvl_kernels as ivk

rng = np.random.default_rng(0)
x, branch = rng.standard_normal((2, 5, 200), np.float32)
weight, bias = rng.standard_normal((2, 200), np.float32)
h, y = ivk.ops.add_norm(ivk.DeviceArray(x), branch, weight, bias)
assert isinstance(y, ivk.DeviceArray), type(y)
total = x + branch
expected = (total - total.mean(-1, keepdims=True)) / np.sqrt(total.var(-1, keepdims=True) + 1e-6) * weight + bias
np.testing.assert_array_equal(h.numpy(), total)
np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)

tiles = rng.standard_normal((2, 17, 24), np.float32)
tokens = ivk.ops.pixel_shuffle(ivk.DeviceArray(tiles))
blocks = tiles[:, 1:].reshape(2, 2, 2, 2, 2, 24).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 96)
np.testing.assert_array_equal(tokens.numpy(), blocks)
host = ivk.ops.pixel_shuffle(tiles, backend="cuda")
assert isinstance(host, np.ndarray)
np.testing.assert_array_equal(host, blocks)
class Foreign:
    shape = tokens.shape
    def __dlpack__(self, *, stream=None): return tokens.__dlpack__(stream=stream)
    def __dlpack_device__(self): return tokens.__dlpack_device__()
normed = ivk.ops.rms_norm(Foreign(), np.ones(96, np.float32))
np.testing.assert_allclose(np.square(normed.numpy()).mean(-1), 1.0, rtol=1e-4)
print("all good")
"""


def test_python_without_torch(cuda_environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        env={**os.environ, **cuda_environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stdout) == (0, "all good\n"), result.stdout + result.stderr
