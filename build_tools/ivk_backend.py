"""Build backend: scikit-build-core, plus one key of our own, ``-C cuda=on|off`` (or the environment's IVK_CUDA=1|0).

The key decides what the build requires, which parts CMake makes, and what the wheel requires, so it is read before
scikit-build-core sees the settings. Left out, the CUDA part is built where an NVIDIA driver is present.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import scikit_build_core.build as _build

import ivk_cuda

Settings = dict[str, Any] | None


def _settings(given: Settings) -> tuple[bool, dict[str, Any]]:
    """Whether the CUDA part is built, and what scikit-build-core is told."""
    rest = dict(given or {})
    cuda = ivk_cuda.wanted(rest.pop("cuda", None))
    rest["cmake.define.IVK_CUDA"] = "ON" if cuda else "OFF"
    if cuda:
        rest.setdefault("wheel.build-tag", ivk_cuda.BUILD_TAG)
    return cuda, rest


def _wrap(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    def requires(config_settings: Settings = None) -> Any:
        cuda, rest = _settings(config_settings)
        found = hook(rest)
        # An offline machine with its own nvcc names it and builds with --no-build-isolation.
        return [*found, *ivk_cuda.BUILD_REQUIRES] if cuda and not name.endswith("sdist") else found

    def build(directory: str, config_settings: Settings = None, *metadata: Any) -> Any:
        cuda, rest = _settings(config_settings)
        # scikit-build-core refuses prepared metadata that it would not write itself; the finished wheel matches it again.
        made = hook(directory, rest) if cuda else hook(directory, rest, *metadata)
        if cuda and name.startswith("prepare_metadata"):
            ivk_cuda.require_runtime_in_folder(Path(directory) / made)
        elif cuda and not name.endswith("sdist"):
            ivk_cuda.require_runtime_in_wheel(Path(directory) / made)
        return made

    return requires if name.startswith("get_requires") else build


for _name in (
    "get_requires_for_build_wheel",
    "get_requires_for_build_sdist",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "build_wheel",
    "build_sdist",
    "build_editable",
):
    if hasattr(_build, _name):
        globals()[_name] = _wrap(_name, getattr(_build, _name))
