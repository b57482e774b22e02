"""internvl-kernels: the kernels InternVL needs, and the complete model on top of them.

Importing this package never fails, never imports torch and never touches a GPU; names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import BackendError, CheckpointError, ImageError, UnsupportedError

if TYPE_CHECKING:
    from . import ops, reference
    from . import torch_ops as torch_ops
    from .about import get_include, info
    from .encoder import VisionModel, load_vision
    from .io.images import Tiles, Video, tile_image
    from .model import Model, load
    from .ops._device import DeviceArray, use_stream
    from .synthetic import random_checkpoint

# Public name -> module that holds it ("" for the module itself).
_LAZY = {
    "DeviceArray": "ops._device",
    "Model": "model",
    "Tiles": "io.images",
    "Video": "io.images",
    "VisionModel": "encoder",
    "get_include": "about",
    "info": "about",
    "load": "model",
    "load_vision": "encoder",
    "ops": "",
    "random_checkpoint": "synthetic",
    "reference": "",
    "tile_image": "io.images",
    "torch_ops": "",  # not in __all__: it imports torch
    "use_stream": "ops._device",
}

__version__ = "0.1.0"
__all__ = [
    "BackendError",
    "CheckpointError",
    "DeviceArray",
    "ImageError",
    "Model",
    "Tiles",
    "UnsupportedError",
    "Video",
    "VisionModel",
    "get_include",
    "info",
    "load",
    "load_vision",
    "ops",
    "random_checkpoint",
    "reference",
    "tile_image",
    "use_stream",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'internvl_kernels' has no attribute {name!r}")
    module = importlib.import_module(f".{_LAZY[name] or name}", __name__)
    value = getattr(module, name) if _LAZY[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *__all__})
