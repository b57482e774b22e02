"""internvl-kernels: the kernels InternVL needs, and the complete model on top of them."""

from __future__ import annotations

from .errors import BackendError, CheckpointError, ImageError, UnsupportedError

__all__ = ["BackendError", "CheckpointError", "ImageError", "UnsupportedError"]
