"""InternViT on the cuda backend: memory planned ahead, the launches of a pass recorded once for each shape of its tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import ops
from .._lazy import torch
from ..config import VisionConfig
from ..costs import tower_workspace
from ..errors import ImageError, UnsupportedError
from ..ops._device import DeviceArray
from ..ops._record import Recording
from ._cuda_layers import CudaLayers, stream_dtype, upload
from .features import WHOLE, Features
from .position_tables import PositionTables
from .vision import VisionTower

if TYPE_CHECKING:
    from torch import Tensor

KEPT_PASSES = 8  # shapes of tiles whose memory and records are kept, if max_workspace has room for so many


def _whole_vectors(matrix: Tensor, device: int) -> DeviceArray:
    """Rows of whole vectors of 16 bytes, of which the columns are a view: 588 of a patch are none."""
    columns = matrix.shape[1]
    padded = matrix.new_zeros(len(matrix), -(-columns // 8) * 8)
    padded[:, :columns] = matrix
    return DeviceArray(padded, device=device)[:, :columns]


class Pass:
    """Some tiles of one shape through the tower: their pixels, the hidden rows, and what a layer computes beside them.

    ``layers(first, last)``: those layers, before the first one the embedding; returns the hidden rows. Nothing here leads back
    to the tower or to itself, so that memory is given back with the last user, not when Python looks for cycles.
    """

    def __init__(self, tower: CudaTower, shape: tuple[int, ...], dtype: str, size: tuple[int, int]) -> None:
        c, device = tower.config, tower.device
        grid = (size[0] // c.patch_size, size[1] // c.patch_size)
        rows = 1 + grid[0] * grid[1]
        self.size = tower_workspace(c, shape[0], tower.dtype.itemsize, "cuda", *size)
        self.pixels = DeviceArray.empty(shape, dtype, device=device)
        self.hidden = DeviceArray.empty((shape[0], rows, c.hidden_size), stream_dtype(tower.dtype_name), device=device)
        pixels, hidden, positions = self.pixels, self.hidden, tower.positions_for(grid)
        memory, encoder, embed = tower.encoder.memory(shape[0] * rows, tower.like), tower.encoder, tower.embedding()

        def layers(first: int, last: int) -> DeviceArray:
            if first == 0:
                embed(pixels, positions, hidden)
                encoder.begin(hidden, memory)
            for i in range(first, last):
                encoder(i, hidden, memory)
            return hidden

        self.layers = layers
        self._whole = Recording(lambda: layers(0, c.num_layers), device)

    def __call__(self) -> DeviceArray:
        """The last hidden state of ``pixels``."""
        return self._whole()

    @property
    def launches(self) -> int:
        return self._whole.launches


class CudaTower(VisionTower):
    """``VisionTower`` on DeviceArrays. Results come back to the host, or stay on the GPU with ``on_device``."""

    def __init__(
        self,
        config: VisionConfig,
        weights: Mapping[str, Any],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: int = 0,
        max_workspace: int | None = None,
    ) -> None:
        held = {name: tensor for name, tensor in weights.items() if name.startswith("vision.")}
        super().__init__(config, held, mean=mean, std=std, backend="cuda", max_workspace=max_workspace)
        self.encoder = CudaLayers(config, held, device)
        self._layers = []  # those of the host
        stem = {name: tensor for name, tensor in self._stem.items() if not name.startswith("layers.")}
        own = (config.grid, config.grid)  # interpolated on the host
        self._tables = PositionTables(stem["positions"], own, lambda table: DeviceArray(table, device=device))
        self._stem = upload(stem, device) | {"patch.weight": _whole_vectors(stem["patch.weight"], device)}
        self.device = device
        self._passes: dict[tuple[Any, ...], Pass] = {}
        self._alone = threading.Lock()

    @property
    def like(self) -> DeviceArray:
        like: DeviceArray = self._stem["cls"]
        return like

    @property
    def dtype_name(self) -> str:
        return self.like.dtype

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype_name)
        return found

    def __call__(
        self, tiles: Tensor | DeviceArray, layers: Sequence[int] | None = None, features: Features = WHOLE
    ) -> Any:
        """As ``VisionTower``. Tiles in a DeviceArray give DeviceArrays, of the residual stream's dtype (``stream_dtype``)."""
        height, width = self.check(tiles)
        wanted = [self.config.num_layers] if layers is None else self._layer_indices(layers)
        grid, d = self.grid(height, width), self.config.hidden_size
        shape = features.shape(len(tiles), grid, d)
        columns: list[Any]
        if isinstance(tiles, DeviceArray):
            kind = stream_dtype(self.dtype_name)
            columns = [DeviceArray.empty(shape, kind, device=self.device) for _ in wanted]
        else:
            columns = [torch.empty(shape, dtype=self.dtype, device=tiles.device) for _ in wanted]
        chunk = self.micro_batch(height, width)
        for i in range(0, len(tiles), chunk):
            part = tiles[i : i + chunk]

            def keep(state: int, hidden: DeviceArray, begin: int = i, count: int = len(part)) -> None:
                for index, column in zip(wanted, columns):
                    if index == state:
                        _fetch(features, hidden, column[begin : begin + count], grid)

            with self._alone:  # threads share the passes
                self._run_pass(self.load(part), None if layers is None else wanted, keep)
        return columns[0] if layers is None else columns

    def load(self, tiles: Any) -> Pass:
        """The pass for tiles of this number and shape, with their pixels in place."""
        dtype = str(tiles.dtype).rpartition(".")[2]
        if dtype not in ("uint8", "float32", self.dtype_name):
            if isinstance(tiles, DeviceArray):
                raise ImageError(f"tiles: {tiles!r}; allowed: uint8, float32 or {self.dtype_name}")
            tiles, dtype = tiles.to(torch.float32), "float32"
        shape = tuple(tiles.shape)
        size = (shape[1], shape[2]) if dtype == "uint8" else (shape[2], shape[3])
        key = (*shape, dtype)
        if key not in self._passes:
            self._make_room(tower_workspace(self.config, shape[0], self.dtype.itemsize, "cuda", *size))
            self._passes[key] = Pass(self, shape, dtype, size)
        found = self._passes[key] = self._passes.pop(key)  # the last one used is the last one given up
        found.pixels.copy_from(tiles if isinstance(tiles, DeviceArray) else tiles.contiguous())
        return found

    def on_device(self, tiles: Any) -> DeviceArray:
        """The last hidden state of tiles, on the host or on the GPU, all in one pass; the next pass of this shape overwrites it."""
        self.check(tiles)
        return self.load(tiles)()

    def _make_room(self, size: int) -> None:
        """Gives up the passes that were not used for longest, so that all that are kept stay under max_workspace."""
        while self._passes:
            held = sum(run.size for run in self._passes.values())
            fits = self.max_workspace is None or held + size <= self.max_workspace
            if fits and len(self._passes) < KEPT_PASSES:
                return
            self._passes.pop(next(iter(self._passes)))

    def embedding(self) -> Callable[[DeviceArray, DeviceArray, DeviceArray], None]:
        """Of pixels, with positions, into hidden rows."""
        w, known = self._stem, {"mean": self.mean, "std": self.std, "patch_size": self.config.patch_size, **self._run}

        def embed(pixels: DeviceArray, positions: DeviceArray, hidden: DeviceArray) -> None:
            ops.patch_embed(pixels, w["patch.weight"], w["patch.bias"], w["cls"], positions, out=hidden, **known)

        return embed

    def _run_pass(self, run: Pass, wanted: list[int] | None, keep: Callable[[int, DeviceArray], None]) -> None:
        """``keep(i, hidden)`` for hidden state i; one launch for the last one alone."""
        if wanted is None:
            keep(self.config.num_layers, run())
            return
        done = 0
        for state in sorted(set(wanted)):
            keep(state, run.layers(done, state))
            done = state

    def takes(self, tiles: Any) -> bool:
        if isinstance(tiles, torch.Tensor) and tiles.requires_grad and torch.is_grad_enabled():
            raise UnsupportedError(
                "tiles require a gradient; allowed on cuda: none; use torch.no_grad() or backend='reference'"
            )
        return isinstance(tiles, (torch.Tensor, DeviceArray))

    def forward(self, tiles: Any) -> Any:
        raise UnsupportedError("forward: allowed on the cuda backend: on_device, or a call")


def _fetch(features: Features, hidden: DeviceArray, into: Any, grid: tuple[int, int]) -> None:
    """Features of a hidden state to where the caller's result lies, in its dtype. Means are taken on the host."""
    if features.pool == "mean":
        host = torch.empty(hidden.shape, dtype=getattr(torch, hidden.dtype))
        hidden.copy_to(host)
        found = features.of(host, grid)
        into.copy_from(found) if isinstance(into, DeviceArray) else into.copy_(found)
        return
    part = hidden if features.whole else hidden[:, 0] if features.pool else hidden[:, 1:]
    into = into.reshape(*part.shape)
    if isinstance(into, DeviceArray):
        into.copy_from(part)
        return
    kind: torch.dtype = getattr(torch, hidden.dtype)
    target = into if into.dtype == kind else torch.empty(into.shape, dtype=kind, device=into.device)
    part.copy_to(target)
    if target is not into:
        into.copy_(target)
