"""What the virtual GPU's own tests share: its build, and the CUDA compiler where the `cuda-test` extra is installed."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door import library
from raw_cuda import Cuda
from vgpu_micro import CudaError, Micro

import vgpu


def package_folder(name: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


@dataclass(frozen=True)
class Toolkit:
    """nvcc and its companions from the package registry; never the machine's own."""

    home: Path

    def run(self, tool: str, *arguments: str | Path) -> str:
        path = f"{self.home / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
        hidden = ("NVCC", "CUDA", "LD_PRELOAD")  # the last is for sanitizers
        environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)} | {"PATH": path}
        command = [str(self.home / "bin" / tool), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def toolkit() -> Toolkit:
    home = package_folder("nvidia.cu13")
    if home is None or not (home / "bin" / "nvcc").exists():
        pytest.skip('needs nvcc from the package registry: pip install "internvl-kernels[cuda-test]"')
    return Toolkit(home)


@pytest.fixture(scope="session")
def cutlass() -> Path:
    home = package_folder("cutlass_library")
    if home is None:
        pytest.skip('needs the CUTLASS headers: pip install "internvl-kernels[cuda-test]"')
    return home / "source" / "include"


@pytest.fixture(scope="session")
def vgpu_build(fit_host: None) -> Path:
    """The folder with libcudart.so.13 and vgpu_ptx, brought up to date; VGPU_BUILD names one that is built already."""
    return vgpu.build().parent


@dataclass(frozen=True)
class PtxTool:
    """vgpu_ptx: what the virtual GPU reads from a file."""

    program: Path
    folder: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.program, *arguments], capture_output=True, timeout=60)

    def show(self, path: Path, *flags: str) -> Any:
        done = self.run(*flags, path)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def refuse(self, path: Path, *flags: str) -> str:
        """The message of a refusal: exit status 1, never a signal."""
        done = self.run(*flags, path)
        assert done.returncode == 1, (done.returncode, done.stdout[:200], done.stderr)
        return done.stderr.decode()

    def write(self, content: str | bytes, name: str = "case.ptx") -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


@pytest.fixture
def ptx_tool(vgpu_build: Path, tmp_path: Path) -> PtxTool:
    return PtxTool(vgpu_build / "vgpu_ptx", tmp_path)


@pytest.fixture(scope="session")
def compiled(toolkit: Toolkit, cutlass: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """compiled("gemm_sm80.cu", "-fatbin", …): a source of tests/vgpu/tests/cuda through nvcc, once per set of flags."""
    folder = tmp_path_factory.mktemp("cuda")
    made: dict[tuple[str, ...], Path] = {}

    def compile_source(source: str, *flags: str, suffix: str = "") -> Path:
        key = (source, *flags)
        if key not in made:
            path = folder / f"{Path(source).stem}_{len(made)}{suffix}"
            options = ("-std=c++17", "-DNDEBUG", "-I", cutlass, "-cudart", "none")
            toolkit.run("nvcc", *options, *flags, Path(__file__).parent / "cuda" / source, "-o", path)
            made[key] = path
        return made[key]

    return compile_source


@pytest.fixture
def cuda(virtual_gpu: Any) -> Iterator[Cuda]:
    """Runtime calls on the virtual GPU; a test gives back what it takes."""
    calls = Cuda()
    before = len(vgpu.leaks())
    yield calls
    vgpu.reset()  # a test may have killed the context
    vgpu.finish()
    left = vgpu.leaks()[before:]
    assert not left, f"the test leaves {left}"


@pytest.fixture
def kernel(cuda: Cuda) -> Iterator[Callable[[str], int]]:
    """kernel("add_one"): a kernel of kernels.ptx."""
    ptx = (Path(__file__).parent / "kernels.ptx").read_bytes() + b"\0"
    library = cuda.new("cudaLibraryLoadData", ptx, 0, 0, 0, 0, 0, 0)
    yield lambda name: cuda.new("cudaLibraryGetKernel", library, name.encode())
    vgpu.reset()
    cuda("cudaLibraryUnload", library)


@pytest.fixture
def buffer(cuda: Cuda) -> Iterator[Callable[[np.ndarray], int]]:
    """buffer(array): device memory with the array's bytes, released after the test."""
    pointers: list[int] = []

    def upload(array: np.ndarray) -> int:
        pointers.append(cuda.upload(array))
        return pointers[-1]

    yield upload
    vgpu.reset()
    for pointer in pointers:
        cuda("cudaFree", pointer)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith("test_ops_"):
            item.add_marker("rows")


@pytest.fixture(scope="session")
def micro(request: pytest.FixtureRequest) -> Micro:
    """Single instructions through the runtime front (vgpu_micro.py): the virtual GPU's, or with --cuda=real the real one."""
    if request.config.getoption("--cuda") == "real":
        home = package_folder("nvidia.cu13")
        if home is None:
            pytest.skip("needs the CUDA runtime of the package registry: nvidia-cuda-runtime")
        try:
            found = Micro.load(home / "lib" / vgpu.NAME)
        except (OSError, CudaError) as error:
            pytest.skip(f"--cuda=real: {error}")
        assert not found.virtual, "the virtual GPU has the runtime's name in this process: run -m rows alone"
        return found
    return Micro.load(request.getfixturevalue("vgpu_build") / "libcudart.so.13")


@pytest.fixture
def virtual_only(micro: Micro) -> None:
    if not micro.virtual:
        pytest.skip("would end the context of a real GPU")


@pytest.fixture(scope="session")
def engine(vgpu_build: Path) -> ctypes.CDLL:
    """The engine without the runtime front (door.py)."""
    return library(vgpu_build)
