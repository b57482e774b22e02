"""The public class of the tower alone: features without a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._lazy import torch
from .config import ModelConfig, TowerConfig
from .errors import ImageError, UnsupportedError
from .io.checkpoint import load_weights, resolve
from .io.config import read_tower_config
from .io.decode import MAX_TILES, check_int
from .io.images import Tiles, squash, tile_image
from .io.packed_file import packed_weights
from .models import POOLS, CudaTower, Features, VisionTower, storage
from .ops._device import DeviceArray
from .options import RuntimeOptions, dense
from .plan import TowerPlan, make_tower_plan

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
    """The tower alone: only its tensors are read, and only what config.json says of it, so that the language model may be any.
    Stand-alone towers (InternViT's own repositories, transformers' InternVLVisionModel) load too. Arguments as ``load``.

    On the cuda backend device is "cuda" or "cuda:N" and dtype bfloat16 or float16 (default: the checkpoint's).
    """
    options = RuntimeOptions.check(
        backend, device, dtype, weights, max_workspace, threads, packed_cache, tower_only=True
    )
    directory = resolve(path, download=download)
    config = read_tower_config(directory)
    options.for_checkpoint(config.dtype)
    with options.limited():
        tensors = read_weights(directory, config, options, ("vision",), progress)
    return VisionModel(config, options.place(tensors), options)


def read_weights(
    directory: Path, config: ModelConfig | TowerConfig, options: RuntimeOptions, parts: Sequence[str], progress: bool
) -> dict[str, Any]:
    """The checkpoint's weights as the chosen backend keeps them."""
    place = storage(config, getattr(torch, options.weights)) if options.packed else None
    if options.packed_cache is None:
        return load_weights(directory, config, options.dtype, parts=parts, progress=progress, storage=place)
    run: dict[str, Any] = {"parts": parts, "progress": progress, "storage": place}
    return packed_weights(options.packed_cache, directory, config, options.dtype, **run)


class VisionModel:
    """InternViT with its tiling: ``load_vision`` makes one, and ``Model`` contains one."""

    config: ModelConfig | TowerConfig

    def __init__(
        self, config: ModelConfig | TowerConfig, weights: Mapping[str, Tensor], options: RuntimeOptions
    ) -> None:
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
        self,
        tiles: Any,
        *,
        layers: int | Sequence[int] | None = None,
        pool: str | None = None,
        dense: bool = False,
        check_finite: bool = False,
    ) -> Tensor | list[Tensor]:
        """The tower's hidden states.

        tiles: uint8 ``[T, H, W, 3]`` (normalised inside) or float ``[T, 3, H, W]`` already normalised; H and W any multiples of the
        patch size, for which the table of positions is interpolated where they are not the tower's own. Returns the last hidden
        state ``[T, 1 + N, D]`` (CLS first); with ``layers`` an integer that hidden state, with several a list of them, indexed like
        ``[embedding, layer 1, ..., layer L]``. ``pool`` "cls" or "mean" (over patches): ``[T, D]`` each. ``dense``: maps of patches
        ``[T, H / patch, W / patch, D]`` each, without CLS.

        Results are contiguous torch tensors of the model's dtype, for ``from_dlpack`` of other libraries too. On the cuda backend tiles
        in a DeviceArray give DeviceArrays: bfloat16, or float32 beside float16 weights, as the residual stream is.
        ``check_finite`` raises ImageError naming the first NaN or Inf of a float tile.
        """
        features = _features(pool, dense)
        single = isinstance(layers, (int, np.integer)) and not isinstance(layers, bool)
        wanted: Any = [layers] if single else layers
        with torch.no_grad(), self._options.limited():
            found = self._tower(self._tiles(tiles, check_finite), wanted, features)
        return found[0] if single else found

    def plan_tower(
        self,
        tiles: int = 1,
        *,
        height: int | None = None,
        width: int | None = None,
        layers: int = 1,
        pool: str | None = None,
        dense: bool = False,
    ) -> TowerPlan:
        """Bytes and FLOPs of ``vision`` for so many uint8 tiles and hidden states, before any work. Prints as a table."""
        check_int("tiles", tiles, 1, 1 << 20)
        check_int("layers", layers, 1, self.config.vision.num_layers + 1)
        own, patch, o = self.config.tiling.size, self.config.vision.patch_size, self._options
        sides = (own if height is None else height, own if width is None else width)
        for name, side in zip(("height", "width"), sides):
            check_int(name, side, 1, 1 << 20)
            if side % patch:
                raise UnsupportedError(f"{name}: {side}; allowed: a multiple of the patch size {patch}")
        features = _features(pool, dense)
        rows = None if features.whole else features.rows(sides[0] // patch * (sides[1] // patch))
        return make_tower_plan(
            self.config.vision, tiles, sides, layers, rows=rows, itemsize=getattr(torch, self.dtype).itemsize,
            stored=getattr(torch, o.weights).itemsize, backend=self.backend, limit=o.max_workspace, threads=o.op_threads,
        )  # fmt: skip

    def tile(
        self,
        image: Any,
        *,
        max_tiles: int | None = None,
        size: int | tuple[int, int] | None = None,
        check_finite: bool = False,
    ) -> Tiles:
        """One image as this checkpoint tiles it. size: a side, or (height, width), of one tile for the whole picture instead.

        check_finite: refuse a float picture with NaN or Inf (``tile_image``).
        """
        t = self.config.tiling
        if max_tiles is not None:
            check_int("max_tiles", max_tiles, 1, MAX_TILES)
        if size is not None:
            if max_tiles is not None:
                raise UnsupportedError(
                    f"max_tiles: {max_tiles} with size {size!r}, which makes one tile; allowed: either"
                )
            return squash(image, *self._sides(size), rule=t.rule, check_finite=check_finite)
        most = t.max_tiles if max_tiles is None else max_tiles
        if not t.dynamic:
            most = 1
        return tile_image(
            image, size=t.size, min_tiles=min(t.min_tiles, most), max_tiles=most, thumbnail=t.thumbnail and t.dynamic, rule=t.rule,
            pad_to_square=t.pad_to_square, threads=self._options.threads or 1, check_finite=check_finite,
        )  # fmt: skip

    def _sides(self, size: Any) -> tuple[int, int]:
        """(height, width) that the tower takes."""
        patch = self.config.vision.patch_size
        sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        whole = all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) for s in sides)
        if len(sides) != 2 or not whole or any(s < patch or s % patch for s in sides):
            raise UnsupportedError(
                f"size: {size!r}; allowed: a side, or (height, width), of positive multiples of the patch size {patch}"
            )
        return int(sides[0]), int(sides[1])

    def _tiles(self, tiles: Any, check_finite: bool = False) -> Any:
        if isinstance(tiles, Tiles):
            tiles = tiles.pixels
        if isinstance(tiles, DeviceArray) and self.backend == "cuda":
            if check_finite and "float" in tiles.dtype:
                host = torch.empty(tiles.shape, dtype=getattr(torch, tiles.dtype))
                tiles.copy_to(host)
                _refuse_not_finite(host)
            return tiles
        if not isinstance(tiles, (np.ndarray, torch.Tensor)):
            more = ", or a DeviceArray" if self.backend == "cuda" else ""
            raise ImageError(f"tiles: a {type(tiles).__name__}; allowed: Tiles, a numpy array or a torch tensor{more}")
        tiles = dense("tiles", tiles, ImageError)
        if check_finite and tiles.is_floating_point():
            _refuse_not_finite(tiles)
        return tiles if self.backend == "cuda" else tiles.to(self._options.device)


def _refuse_not_finite(tiles: Tensor) -> None:
    for number, tile in enumerate(tiles):
        finite = torch.isfinite(tile)
        if not bool(finite.all()):
            where = (~finite).nonzero()[0].tolist()
            names = ("channel", "row", "column") if tile.ndim == 3 else range(tile.ndim)
            place = ", ".join(f"{name} {i}" for name, i in zip(names, where))
            raise ImageError(
                f"tiles: {tile[tuple(where)].item()} in tile {number}, {place}; allowed with check_finite=True: finite values"
            )


def _features(pool: Any, dense: Any) -> Features:
    if pool is not None and pool not in POOLS:
        raise UnsupportedError(f"pool: {pool!r}; allowed: 'cls', 'mean' or None")
    if not isinstance(dense, (bool, np.bool_)) or (dense and pool is not None):
        raise UnsupportedError(f"dense: {dense!r} with pool {pool!r}; allowed: False, or True without pool")
    return Features(pool, bool(dense))


__all__ = ["VisionModel", "load_vision", "read_weights"]
