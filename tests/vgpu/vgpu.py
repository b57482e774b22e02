"""The virtual GPU from Python: a stand-in for the CUDA runtime that executes kernels on the CPU with every check on.

``activate()`` must run before anything loads the real ``libcudart.so.13``: the loader gives a name to whoever comes first.

    import vgpu
    vgpu.activate(device="a100")
    import internvl_kernels ...          # kernels of its CUDA part now run here
    with vgpu.mode(vgpu.EAGER):
        ...
    vgpu.assert_clean()
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAME = "libcudart.so.13"
_NO_LOAD = 4  # RTLD_NOLOAD


class VirtualGpuError(RuntimeError):
    """The virtual GPU could not be built, loaded or configured, or it has findings."""


@dataclass(frozen=True)
class Mode:
    """One way to run: when asynchronous copies land, which warps, lanes and streams go first."""

    name: str
    options: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.name


def _mode(name: str, **options: object) -> Mode:
    base: dict[str, object] = {"async": "lazy", "seed": 0, "host": "lazy", "starve": -1, "split": 0}
    if options.get("seed"):
        base["split"] = 1
    return Mode(name, {key: str(value) for key, value in (base | options).items()})


LAZY = _mode("lazy")
EAGER = _mode("eager", **{"async": "eager"}, host="eager")
STARVED = _mode("starved", **{"async": "random"}, seed=1, host="random", starve=0)
SMALL = (LAZY, EAGER, STARVED)
FULL = (
    *SMALL,
    _mode("lazy-seed2", seed=2),
    _mode("eager-seed3", **{"async": "eager"}, seed=3, host="eager"),
    *(_mode(f"random-seed{seed}", **{"async": "random"}, seed=seed, host="random") for seed in range(4, 10)),
    *(_mode(f"starved{cta}", **{"async": "random"}, seed=10 + cta, host="random", starve=cta) for cta in (1, 2)),
)


CPUINFO = Path("/proc/cpuinfo")


def unfit_host() -> str | None:
    """Why this machine cannot run the virtual GPU, or None: its engine is built for x86-64 with AVX2, FMA and F16C."""
    machine, missing = platform.machine(), []
    if machine in ("x86_64", "AMD64"):
        flags = re.search(r"^flags\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
        missing = [name for name in ("avx2", "fma", "f16c") if name not in (flags[1].split() if flags else ())]
        if not missing:
            return None
    found = f"{machine} without {', '.join(missing)}" if missing else machine
    return f"the virtual GPU needs an x86-64 processor with AVX2, FMA and F16C; this machine is {found}"


def build_folder() -> Path:
    """Where the library is built: ``VGPU_BUILD``, or ``build/vgpu`` of the checkout."""
    return Path(os.environ.get("VGPU_BUILD") or HERE.parents[1] / "build" / "vgpu")


def build() -> Path:
    """Bring the library up to date and return its path. ``VGPU_BUILD`` names a folder that is built already."""
    folder, unfit = build_folder(), unfit_host()
    if unfit:
        raise VirtualGpuError(unfit)
    library = folder / NAME
    if "VGPU_BUILD" in os.environ:
        if not library.exists():
            raise VirtualGpuError(f"VGPU_BUILD={folder} holds no {NAME}")
        return library
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake, ninja = (shutil.which(tool, path=search) for tool in ("cmake", "ninja"))
    if not cmake or not ninja:
        raise VirtualGpuError('building the virtual GPU needs cmake and ninja: pip install "internvl-kernels[test]"')
    folder.mkdir(parents=True, exist_ok=True)
    configure = [cmake, "-S", HERE, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, [cmake, "--build", folder, "-j2"]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise VirtualGpuError(f"building the virtual GPU failed\n{done.stdout}{done.stderr}")
    return library


_library: ctypes.CDLL | None = None
_STRINGS = ("reports", "notes", "counters", "counter_table", "coverage", "leaks", "devices", "state", "last_message")


def _loaded_elsewhere() -> str | None:
    """Path of a real CUDA runtime that this process holds already."""
    try:
        held = ctypes.CDLL(NAME, mode=_NO_LOAD)
    except OSError:
        return None
    if hasattr(held, "vgpu_version"):
        return None
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if NAME in line}
    return ", ".join(sorted(paths)) or NAME


def load() -> ctypes.CDLL:
    """The library, loaded under the runtime's name. Every CUDA call is refused until ``activate``."""
    global _library
    if _library is None:
        real = _loaded_elsewhere()
        if real:
            raise VirtualGpuError(
                f"this process has loaded the real CUDA runtime, {real} (a CUDA build of torch does when it is imported): "
                "activate the virtual GPU before that, or in a process with a CPU build of torch"
            )
        path = build()
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        for name in _STRINGS:
            getattr(library, f"vgpu_{name}").restype = ctypes.c_char_p
        library.vgpu_configure.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            getattr(library, name).restype = ctypes.c_char_p
        _library = library
    return _library


def _text(name: str, *arguments: int) -> str:
    value = getattr(load(), f"vgpu_{name}")(*arguments)
    return value.decode(errors="replace")


def active() -> bool:
    return _library is not None and bool(_library.vgpu_active())


def activate(device: str | None = None, mode: Mode | None = None, **options: object) -> None:
    """Load the library, choose the part (``a100``, ``l4``, ``rtx4090``, ``h100``) and accept CUDA calls."""
    library = load()
    if device is not None:
        configure(device=device)
    configure(**(mode.options if mode else {}), **options)
    if library.vgpu_activate():
        raise VirtualGpuError(last_message())


def deactivate() -> None:
    """Refuse CUDA calls again (error 3), as before ``activate``."""
    load().vgpu_deactivate()


def configure(**options: object) -> None:
    """Set ``device``, ``sms``, ``memory``, ``host``, ``print`` or an option of the engine. ``async_`` stands for ``async``."""
    for key, value in options.items():
        text = str(int(value) if isinstance(value, bool) else value)
        if load().vgpu_configure(key.rstrip("_").encode(), text.encode()):
            raise VirtualGpuError(last_message())


def state() -> dict[str, Any]:
    return json.loads(_text("state"))


@contextlib.contextmanager
def options(**changes: object) -> Iterator[None]:
    """Options for the time of a block."""
    before = state()["config"]
    configure(**changes)
    try:
        yield
    finally:
        configure(**{key.rstrip("_"): before[key.rstrip("_")] for key in changes})


@contextlib.contextmanager
def mode(chosen: Mode) -> Iterator[None]:
    """One mode for the time of a block."""
    with options(**chosen.options):
        yield


def reset(hard: bool = False) -> None:
    """Forget findings, counters and errors; ``hard`` also memory, streams, graphs and loaded modules."""
    load().vgpu_reset(int(hard))


def finish() -> None:
    """Run what is enqueued in any stream."""
    load().vgpu_finish()


def reports() -> list[dict[str, Any]]:
    """Findings since the last reset: code, text, kernel, block, thread, PTX line, source line, opcode."""
    return json.loads(_text("reports"))


def launch_count() -> int:
    """Kernel launches since the last reset."""
    return int(load().vgpu_launch_count())


def notes() -> list[dict[str, Any]]:
    """What is worth knowing and no fault."""
    return json.loads(_text("notes"))


def counters(lines: bool = False) -> list[dict[str, Any]]:
    """One entry per launch since the last reset: shape, registers, occupancy and counts (never times).

    ``lines`` adds counts per PTX line, where ``configure(lines=True)`` had them kept.
    """
    return json.loads(_text("counters", int(lines)))


def counter_table(launch: int = -1) -> str:
    count = len(counters())
    return _text("counter_table", launch if launch >= 0 else count + launch)


def coverage() -> dict[str, dict[str, Any]]:
    """By kernel: launches, and every PTX instruction with how often it ran over all of them (a soft reset keeps it)."""
    return json.loads(_text("coverage"))


def leaks() -> list[dict[str, Any]]:
    """What was not given back: allocations, streams, events, graphs."""
    return json.loads(_text("leaks"))


def devices() -> list[str]:
    return json.loads(_text("devices"))


def last_message() -> str:
    """Why the thread's last CUDA call failed, in words."""
    return _text("last_message")


def describe(report: dict[str, Any]) -> str:
    where = f" (PTX line {report['ptx_line']} `{report['opcode']}`)" if report.get("ptx_line") else ""
    return f"{report['code']}: {report['text']} [{report.get('kernel') or 'host'}{where}]"


def assert_clean() -> None:
    """Run what is enqueued; raise if anything was found since the last reset."""
    finish()
    found = reports()
    if found:
        listed = "\n".join(describe(report) for report in found[:20])
        raise VirtualGpuError(f"{len(found)} findings\n{listed}")
