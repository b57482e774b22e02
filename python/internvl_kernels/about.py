"""What was built, what was found, what will run and why. Never fails, never imports torch, makes no context on a GPU."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .ops._backend import BACKENDS, CUDA_OPS, NOT_BUILT, cpu, cuda, unavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

# Distribution -> the oldest version that works (as pyproject.toml asks).
REQUIRED = {"torch": "2.6", "numpy": "1.24", "Pillow": "10.1", "tokenizers": "0.20", "safetensors": "0.4.3"}
_UNKNOWN = "unknown"
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_LIBRARY_FOLDERS = ("/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib", "/usr/local/nvidia/lib64")


@dataclass(frozen=True)
class PackageInfo:
    name: str
    version: str | None  # None: not installed
    needed: str  # oldest version that works

    @property
    def usable(self) -> bool:
        if self.version in (None, _UNKNOWN):
            return self.version is not None
        return _release(self.version) >= _release(self.needed)


@dataclass(frozen=True)
class CpuInfo:
    """The compiled CPU extension; the last four are empty when it does not load."""

    loads: bool
    why: str | None
    compiler: str | None = None
    built: tuple[str, ...] = ()  # instruction-set levels inside the extension, lowest first
    available: tuple[str, ...] = ()  # of those, what this machine runs
    current: str | None = None
    threads: int | None = None  # an op uses this many when the caller names none


@dataclass(frozen=True)
class CudaInfo:
    """The compiled CUDA extension; the fields after ``why`` are empty when it is not built, does not load or finds no GPU."""

    built: bool
    why: str | None  # it does not run; None: it runs
    compiler: str | None = None
    architectures: tuple[str, ...] = ()  # that kernels were compiled for
    runtime: str | None = None  # the libcudart that was loaded
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackendInfo:
    name: str
    runs: bool
    why: str
    cure: str | None  # None: nothing to do


@dataclass(frozen=True)
class Info:
    """Prints as tables; ``to_dict()`` for data."""

    version: str
    location: str
    python: str
    platform: str
    packages: tuple[PackageInfo, ...]
    wheel: str | None  # the wheel's build tag: "1cuda13" with the CUDA part, "" without; None: not installed from one
    cpu: CpuInfo
    cuda: CudaInfo
    driver: str | None  # the NVIDIA driver's own words, or where its library lies; None: no driver
    backends: tuple[BackendInfo, ...]
    auto: str | None  # the backend that "auto" takes for a model in host memory; None: no backend runs

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(self._machine(), self._backends())

    def _machine(self) -> RenderableType:
        from rich.table import Table

        table = Table(title=f"internvl-kernels {self.version}", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row("installed in", self.location)
        table.add_row("Python", f"{self.python} on {self.platform}")
        for package in self.packages:
            state = package.version or "[red]missing[/red]"
            if package.version and not package.usable:
                state += f" [red](needs {package.needed} or newer)[/red]"
            table.add_row(package.name, state)
        table.add_section()
        if self.cpu.loads:
            levels = [
                f"[bold green]{level}[/] (in use)" if level == self.cpu.current
                else level if level in self.cpu.available else f"[dim]{level} (not on this machine)[/dim]"
                for level in self.cpu.built
            ]  # fmt: skip
            table.add_row("CPU extension", f"loads; compiler {self.cpu.compiler}")
            table.add_row("instruction sets", ", ".join(levels))
            table.add_row("threads", f"{self.cpu.threads} for an op that is told nothing else")
        else:
            table.add_row("CPU extension", f"[red]does not load[/red]: {self.cpu.why}")
        if self.wheel is not None:
            table.add_row("wheel", f"build {self.wheel}" if self.wheel else "no build tag (CPU)")
        table.add_row("CUDA extension", self._cuda())
        table.add_row("NVIDIA driver", self.driver or "none found")
        return table

    def _cuda(self) -> str:
        if not self.cuda.built:
            return "not built"
        if self.cuda.why is not None:
            return f"built; [red]does not run[/red]: {self.cuda.why}"
        devices = ", ".join(self.cuda.devices)
        return f"{self.cuda.compiler}, {' '.join(self.cuda.architectures)}; {devices}; runtime {self.cuda.runtime}"

    def _backends(self) -> RenderableType:
        from rich.table import Table

        table = Table(title=f"Backends: auto takes [bold]{self.auto or 'none'}[/bold]", title_justify="left")
        for column in ("backend", "runs", "why", "cure"):
            table.add_column(column, overflow="fold")
        for backend in self.backends:
            runs = "[green]yes[/green]" if backend.runs else "[red]no[/red]"
            table.add_row(backend.name, runs, backend.why, backend.cure or "-")
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=110, force_terminal=False, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def info() -> Info:
    """Look at this installation and this machine. Versions come from package metadata, so nothing heavy is imported."""
    packages = tuple(PackageInfo(name, _version(name), needed) for name, needed in REQUIRED.items())
    extension, gpu = _cpu(), _cuda()
    driver = find_driver()
    backends = tuple(_backend(name, packages[0], extension, gpu, driver) for name in BACKENDS)
    running = {b.name for b in backends if b.runs}
    return Info(
        version=__version__,
        location=str(Path(__file__).parent),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count() or '?'} cores",
        packages=packages,
        wheel=_build_tag(),
        cpu=extension,
        cuda=gpu,
        driver=driver,
        backends=backends,
        auto=next((name for name in ("cpu", "reference") if name in running), None) if packages[0].usable else None,
    )


def get_include() -> str:
    """The folder for ``-I``: internvl_kernels/ivk.h, the C interface. The library to link, libivk_cuda.so, lies in its parent."""
    return str(Path(__file__).parent / "include")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution) or _UNKNOWN
    except Exception:  # no metadata, or broken: the module may be there all the same
        module = "PIL" if distribution == "Pillow" else distribution
        return _UNKNOWN if module in sys.modules or importlib.util.find_spec(module) is not None else None


def _release(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", (version or "").partition("+")[0])[:3])


def _cpu() -> CpuInfo:
    reason = unavailable("cpu")
    if reason is not None:
        return CpuInfo(False, reason.removeprefix("the extension does not load: "))
    module = cpu()
    return CpuInfo(
        loads=True,
        why=None,
        compiler=module.compiler,
        built=tuple(module.built_isas()),
        available=tuple(module.available_isas()),
        current=module.current_isa(),
        threads=module.default_threads(),
    )


def _cuda() -> CudaInfo:
    reason = unavailable("cuda")
    if reason is not None:
        return CudaInfo(reason != NOT_BUILT, reason)
    module = cuda()
    devices = [module.device(i) for i in range(module.device_count())]
    return CudaInfo(
        built=True,
        why=None,
        compiler=module.compiler,
        architectures=tuple(module.architectures.split(";")),
        runtime=loaded_runtime(),
        devices=tuple(f"{d['name']} (compute {d['capability'][0]}.{d['capability'][1]})" for d in devices),
    )


def loaded_runtime() -> str | None:
    """The file of the CUDA runtime in this process, from the kernel's own list."""
    try:
        found = re.search(r"/\S*/libcudart\S*", Path("/proc/self/maps").read_text())
    except OSError:
        return None
    return found[0] if found else None


def _build_tag() -> str | None:
    try:
        text = metadata.distribution("internvl-kernels").read_text("WHEEL")
    except metadata.PackageNotFoundError:
        return None
    if text is None:
        return None
    found = re.search(r"^Build: (\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def find_driver() -> str | None:
    """The NVIDIA driver by its traces in the file system; its library is never loaded."""
    try:
        text = _DRIVER_FILE.read_text()
        match = re.search(r"Kernel Module[^\d]*([\d.]+)", text)
        return match[1] if match else text.partition("\n")[0].strip()
    except OSError:
        pass
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *_LIBRARY_FOLDERS]
    folders.append(f"/usr/lib/{platform.machine()}-linux-gnu")
    for folder in filter(None, folders):
        library = Path(folder) / "libcuda.so.1"
        if library.exists():
            return f"unknown version, {library}"
    return None


def _backend(name: str, torch: PackageInfo, extension: CpuInfo, gpu: CudaInfo, driver: str | None) -> BackendInfo:
    install_torch = f"pip install 'torch>={torch.needed}'"
    if name == "reference":
        if torch.usable:
            return BackendInfo(name, True, f"plain PyTorch {torch.version}", None)
        return BackendInfo(name, False, f"torch is {torch.version or 'missing'}", install_torch)
    if name == "cpu":
        if not extension.loads:
            return BackendInfo(name, False, f"the extension does not load: {extension.why}", "reinstall: pip install .")
        if torch.usable:
            return BackendInfo(name, True, f"C++ kernels, instruction set {extension.current}", None)
        return BackendInfo(
            name, True, f"ops on numpy arrays only: torch is {torch.version or 'missing'}", install_torch
        )
    if gpu.why is None:
        return BackendInfo(name, True, f"ops {', '.join(sorted(CUDA_OPS))} on {gpu.devices[0]}", None)
    found = f"an NVIDIA driver is here ({driver})" if driver else "no NVIDIA driver is here"
    return BackendInfo(name, False, f"{gpu.why}; {found}", _cuda_cure(gpu, driver))


def _cuda_cure(gpu: CudaInfo, driver: str | None) -> str:
    if not gpu.built:
        return (
            "IVK_CUDA=1 pip install . builds it"
            if driver
            else "use cpu; IVK_CUDA=1 pip install . builds it all the same"
        )
    why = gpu.why or ""
    if "libcudart" in why:
        return "pip install 'nvidia-cuda-runtime>=13.0.88,<14'"
    if "compute capability" in why or "no GPU" in why or "cudaErrorNoDevice" in why:
        return "use cpu"
    return (
        "update the NVIDIA driver to 580 or newer" if driver else "install an NVIDIA driver of 580 or newer, or use cpu"
    )


__all__ = [
    "BackendInfo",
    "CpuInfo",
    "CudaInfo",
    "Info",
    "PackageInfo",
    "find_driver",
    "get_include",
    "info",
    "loaded_runtime",
]
