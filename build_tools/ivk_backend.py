"""Build backend: scikit-build-core, plus one key of our own, ``-C cuda=on|off`` (or the environment's IVK_CUDA=1|0).

The key decides what the build requires and which parts CMake makes, so it has to be read before scikit-build-core sees
the settings. This version has no CUDA part: asking for one is refused here, before anything is fetched or compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import scikit_build_core.build as _build

Settings = dict[str, Any] | None
_SWITCH = {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}


def _without_own_keys(settings: Settings) -> Settings:
    """Check and remove our key; what remains belongs to scikit-build-core."""
    rest = dict(settings or {})
    asked = rest.pop("cuda", os.environ.get("IVK_CUDA"))
    if asked is not None:
        wanted = _SWITCH.get(str(asked).lower())
        if wanted is None:
            raise SystemExit(f"cuda={asked!r} (-C cuda=... or IVK_CUDA): allowed are on and off")
        if wanted:
            raise SystemExit(
                "cuda=on: this version of internvl-kernels has no CUDA part yet; build with cuda=off or leave it out"
            )
    return rest


def _wrap(hook: Callable[..., Any]) -> Callable[..., Any]:
    def requires(config_settings: Settings = None) -> Any:
        return hook(_without_own_keys(config_settings))

    def build(directory: str, config_settings: Settings = None, *metadata: Any) -> Any:
        return hook(directory, _without_own_keys(config_settings), *metadata)

    return requires if hook.__name__.startswith("get_requires") else build


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
        globals()[_name] = _wrap(getattr(_build, _name))
