"""The CUDA part of the build: when it is built, what that requires, and what the wheel then says of itself."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import zipfile
from pathlib import Path

# nvcc's own requirements are ranges: all of them are pinned, so that one compiler builds every release.
BUILD_REQUIRES = (
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cutlass==4.2.0.0",
)
# The runtime keeps its interface within a major version, so torch's own pin of it does not clash with ours.
RUNTIME_REQUIRES = ("nvidia-cuda-runtime>=13.0.88,<14",)
# Tells wheels of one version apart, in the file name and to `internvl-kernels info`. Where both lie in one folder, pip
# takes the one with a build tag.
BUILD_TAG = "1cuda13"

_SWITCH = {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}


def wanted(asked: object) -> bool:
    """``asked``: the value of ``-C cuda=`` or None; then IVK_CUDA decides, then whether an NVIDIA driver is here."""
    if asked is None:
        asked = os.environ.get("IVK_CUDA") or None
    if asked is None:
        return driver_is_here()
    choice = _SWITCH.get(str(asked).lower())
    if choice is None:
        raise SystemExit(f"cuda={asked!r} (-C cuda=... or IVK_CUDA): allowed are on and off")
    return choice


def driver_is_here() -> bool:
    """By its traces in the file system; nothing of it is loaded."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib"]
    folders += ["/usr/local/nvidia/lib64", f"/usr/lib/{platform.machine()}-linux-gnu"]
    return any((Path(folder) / "libcuda.so.1").exists() for folder in folders if folder)


def require_runtime(text: str) -> str:
    """METADATA with the runtime among its requirements."""
    head, blank, body = text.partition("\n\n")
    lines = [f"Requires-Dist: {name}" for name in RUNTIME_REQUIRES if f"Requires-Dist: {name}" not in head]
    return "\n".join([head, *lines]) + blank + body


def require_runtime_in_folder(folder: Path) -> None:
    path = folder / "METADATA"
    path.write_text(require_runtime(path.read_text("utf-8")), "utf-8")


def require_runtime_in_wheel(wheel: Path) -> None:
    """Rewrites METADATA, and its line in RECORD, inside a finished wheel."""
    finished = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(finished, "w", zipfile.ZIP_DEFLATED) as new:
        name = next(n for n in old.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = require_runtime(old.read(name).decode()).encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).rstrip(b"=").decode()
        for item in old.infolist():
            data = old.read(item)
            if item.filename == name:
                data = metadata
            elif item.filename.endswith(".dist-info/RECORD"):
                lines = data.decode().splitlines()
                lines = [f"{name},sha256={digest},{len(metadata)}" if x.startswith(name + ",") else x for x in lines]
                data = ("\n".join(lines) + "\n").encode()
            new.writestr(item, data)
    finished.replace(wheel)


__all__ = [
    "BUILD_REQUIRES",
    "BUILD_TAG",
    "RUNTIME_REQUIRES",
    "driver_is_here",
    "require_runtime",
    "require_runtime_in_folder",
    "require_runtime_in_wheel",
    "wanted",
]
