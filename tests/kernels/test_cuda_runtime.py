"""Which CUDA runtime the extension takes, and what `info` says where it finds no GPU for it.

Each case is a process of its own without the virtual GPU, whose runtime comes from the package registry.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import internvl_kernels as ivk
import vgpu
from internvl_kernels.about import find_driver
from internvl_kernels.ops._backend import NOT_BUILT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("internvl_kernels._cuda") is None, reason=f"{NOT_BUILT}: build it with IVK_CUDA=1"
)
ASK = """
import json, re
import numpy as np
import internvl_kernels as ivk
info = ivk.info()
runtimes = sorted(set(re.findall(r"/\\S*/libcudart\\S*", open("/proc/self/maps").read())))
try:
    ivk.ops.rms_norm(np.ones((1, 8), np.float32), np.ones(8, np.float32), backend="cuda")
    refused = None
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
backend = next(b for b in info.backends if b.name == "cuda")
found = {"runtimes": runtimes, "built": info.cuda.built, "why": info.cuda.why, "refused": refused}
print(json.dumps(found | {"runs": backend.runs, "said": backend.why, "cure": backend.cure}))
"""


def ask(**extra: str) -> dict[str, Any]:
    hidden = ("VGPU", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)} | extra
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_runtime_is_the_package_registrys() -> None:
    """One runtime, and the very file that the package's own list of files has."""
    (runtime,) = ask()["runtimes"]
    path = Path(runtime)
    assert path.parts[-4:-1] == ("nvidia", "cu13", "lib"), runtime
    site = path.parents[3]
    (package,) = [
        d for d in metadata.distributions(path=[str(site)]) if d.metadata["Name"].replace("_", "-") == "nvidia-cuda-runtime"
    ]  # fmt: skip
    assert package.version.startswith("13."), package.version
    (entry,) = [f for f in package.files or () if str(f) == path.relative_to(site).as_posix()]
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
    assert entry.hash is not None
    assert (entry.hash.mode, entry.hash.value) == ("sha256", digest)


no_driver = pytest.mark.skipif(find_driver() is not None, reason="an NVIDIA driver is here")


@no_driver
def test_no_driver() -> None:
    found = ask()
    assert found["built"]
    assert not found["runs"]
    assert "(35)" in found["why"], found
    assert found["said"] == f"{found['why']}; no NVIDIA driver is here"
    assert found["cure"] == "install an NVIDIA driver of 580 or newer, or use cpu"
    assert found["refused"].startswith("BackendError: ")
    assert found["why"] in found["refused"]


def driver(folder: Path, version: int, init: int) -> Path:
    """A driver as far as the runtime looks at it before it looks for GPUs: its version, and what cuInit returns."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    source, library = folder / "driver.c", folder / "libcuda.so.1"
    source.write_text(
        f"int cuDriverGetVersion(int* version) {{ *version = {version}; return 0; }}\n"
        f"int cuInit(unsigned flags) {{ return flags ? 1 : {init}; }}\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True, timeout=60)
    return library


@no_driver
def test_driver_too_old(tmp_path: Path) -> None:
    library = driver(tmp_path, 12080, 0)
    found = ask(LD_LIBRARY_PATH=str(tmp_path))
    assert not found["runs"]
    assert "(35)" in found["why"], found
    assert f"an NVIDIA driver is here (unknown version, {library})" in found["said"]
    assert found["cure"] == "update the NVIDIA driver to 580 or newer"
    assert found["why"] in found["refused"]


@no_driver
def test_driver_without_a_gpu(tmp_path: Path) -> None:
    driver(tmp_path, 13000, 100)
    found = ask(LD_LIBRARY_PATH=str(tmp_path))
    assert not found["runs"]
    assert "(100)" in found["why"], found
    assert found["cure"] == "use cpu"
    assert found["why"] in found["refused"]


def on_the_virtual_gpu(environment: dict[str, str], **extra: str) -> dict[str, Any]:
    if "VGPU" not in environment:
        pytest.skip("needs the virtual GPU")
    return ask(**environment, **extra)


@pytest.mark.modes(vgpu.LAZY)
def test_part_too_old(cuda_environment: dict[str, str]) -> None:
    found = on_the_virtual_gpu(cuda_environment, VGPU_DEVICE="t4")
    assert not found["runs"]
    assert found["why"].endswith("has compute capability (7, 5); needed: 8.0 (Ampere) or newer"), found
    assert found["cure"] == "use cpu"
    assert found["why"] in found["refused"]


@pytest.mark.modes(vgpu.LAZY)
def test_a_part_that_serves(cuda_environment: dict[str, str]) -> None:
    found = on_the_virtual_gpu(cuda_environment)
    assert (found["runs"], found["why"], found["refused"]) == (True, None, None)


def test_the_wheel_says_that_it_has_the_cuda_part() -> None:
    info = ivk.info()
    assert info.cuda.built
    assert info.wheel in (None, "1cuda13"), "a wheel with the CUDA part carries the build tag"
