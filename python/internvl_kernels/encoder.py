"""The public class of the tower alone: features without a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._lazy import torch
from .config import ModelConfig
from .errors import ImageError, UnsupportedError, shown
from .io.checkpoint import load_weights, resolve
from .io.config import read_config
from .io.decode import MAX_TILES, check_int
from .io.images import Tiles, tile_image
from .io.packed_file import packed_weights
from .models import CudaTower, VisionTower, storage
from .options import RuntimeOptions, dense

if TYPE_CHECKING:
    from torch import Tensor


def load_vision(
    path: str | Path,
    *,
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    max_workspace: int | str | None = None,
    threads: int | None = None,
    progress: bool = True,
    download: bool = False,
    packed_cache: bool | str | Path | None = None,
) -> VisionModel:
    """The tower alone: only its tensors are read. Arguments as ``load``.

    On the cuda backend device is "cuda" or "cuda:N" and dtype bfloat16 or float16 (default: the checkpoint's).
    """
    options = RuntimeOptions.check(
        backend, device, dtype, weights, max_workspace, threads, packed_cache, tower_only=True
    )
    directory = resolve(path, download=download)
    config = read_config(directory)
    options.for_checkpoint(config.dtype)
    with options.limited():
        tensors = read_weights(directory, config, options, ("vision",), progress)
    return VisionModel(config, options.place(tensors), options)


def read_weights(
    directory: Path, config: ModelConfig, options: RuntimeOptions, parts: Sequence[str], progress: bool
) -> dict[str, Any]:
    """The checkpoint's weights as the chosen backend keeps them."""
    place = storage(config, getattr(torch, options.weights)) if options.packed else None
    if options.packed_cache is None:
        return load_weights(directory, config, options.dtype, parts=parts, progress=progress, storage=place)
    run: dict[str, Any] = {"parts": parts, "progress": progress, "storage": place}
    return packed_weights(options.packed_cache, directory, config, options.dtype, **run)


class VisionModel:
    """InternViT with its tiling: ``load_vision`` makes one, and ``Model`` contains one."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Tensor], options: RuntimeOptions) -> None:
        self.config = config
        self._options = options
        known: dict[str, Any] = {"mean": config.tiling.mean, "std": config.tiling.std}
        known["max_workspace"] = options.max_workspace
        if options.backend == "cuda":
            self._tower: VisionTower = CudaTower(config.vision, weights, device=options.ordinal, **known)
        else:
            run: dict[str, Any] = {"backend": options.backend, "threads": options.op_threads}
            self._tower = VisionTower(config.vision, weights, **known, **run)

    @property
    def backend(self) -> str:
        return self._options.backend

    @property
    def dtype(self) -> str:
        return self._options.dtype

    def vision(
        self, tiles: Any, *, layers: Sequence[int] | None = None, pool: str | None = None, check_finite: bool = False
    ) -> Tensor | list[Tensor]:
        """The tower's hidden states.

        tiles: uint8 ``[T, H, W, 3]`` (normalised inside) or float ``[T, 3, H, W]`` already normalised; any multiple of the patch
        size. Returns the last hidden state ``[T, 1 + N, D]`` (CLS first); with ``layers`` a list of hidden states, indexed like
        ``[embedding, layer 1, ..., layer L]``; with ``pool`` "cls" or "mean" (over patches) ``[T, D]``. ``check_finite`` raises
        ImageError naming the first NaN or Inf of a float tile.
        """
        if pool not in (None, "cls", "mean"):
            raise UnsupportedError(f"pool: {shown(pool)}; allowed: 'cls', 'mean' or None")
        with torch.no_grad(), self._options.limited():
            states = self._tower(self._tiles(tiles, check_finite), layers)
        if pool is None:
            return states
        pooled = [
            s[:, 0] if pool == "cls" else s[:, 1:].mean(1) for s in (states if isinstance(states, list) else [states])
        ]
        return pooled if isinstance(states, list) else pooled[0]

    def tile(self, image: Any, *, max_tiles: int | None = None, check_finite: bool = False) -> Tiles:
        """One image as this checkpoint tiles it. check_finite: refuse a float picture with NaN or Inf (``tile_image``)."""
        t = self.config.tiling
        if max_tiles is not None:
            check_int("max_tiles", max_tiles, 1, MAX_TILES)
        most = t.max_tiles if max_tiles is None else max_tiles
        if not t.dynamic:
            most = 1
        return tile_image(
            image, size=t.size, min_tiles=min(t.min_tiles, most), max_tiles=most, thumbnail=t.thumbnail and t.dynamic, rule=t.rule,
            pad_to_square=t.pad_to_square, threads=self._options.threads or 1, check_finite=check_finite,
        )  # fmt: skip

    def _tiles(self, tiles: Any, check_finite: bool = False) -> Tensor:
        if isinstance(tiles, Tiles):
            tiles = tiles.pixels
        if not isinstance(tiles, (np.ndarray, torch.Tensor)):
            raise ImageError(f"tiles: a {type(tiles).__name__}; allowed: Tiles, a numpy array or a torch tensor")
        tiles = dense("tiles", tiles, ImageError)
        if check_finite and tiles.is_floating_point():
            for number, tile in enumerate(tiles):
                finite = torch.isfinite(tile)
                if not bool(finite.all()):
                    where = (~finite).nonzero()[0].tolist()
                    names = ("channel", "row", "column") if tile.ndim == 3 else range(tile.ndim)
                    place = ", ".join(f"{name} {i}" for name, i in zip(names, where))
                    raise ImageError(
                        f"tiles: {tile[tuple(where)].item()} in tile {number}, {place}; allowed with check_finite=True: finite values"
                    )
        return tiles if self.backend == "cuda" else tiles.to(self._options.device)


__all__ = ["VisionModel", "load_vision", "read_weights"]
