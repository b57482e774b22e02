"""InternViT: patch embedding, pre-norm encoder layers with layer scale, no final norm, no pooling."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import ops
from .._lazy import torch
from ..config import VisionConfig
from ..costs import mlp_pieces, most, tiles_a_pass, tower_workspace
from ..errors import ImageError, UnsupportedError, shown
from ._space import Space
from ._weights import group, layers
from .features import WHOLE, Features
from .position_tables import PositionTables

if TYPE_CHECKING:
    from torch import Tensor


class VisionTower:
    """The encoder on canonical weights ``vision.*``; every computation is an op of ``internvl_kernels.ops``."""

    def __init__(
        self,
        config: VisionConfig,
        weights: Mapping[str, Any],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        backend: str = "auto",
        threads: int = 0,
        max_workspace: int | None = None,
    ) -> None:
        self.config = config
        self.mean, self.std = tuple(mean), tuple(std)
        self.max_workspace = max_workspace
        self._run: dict[str, Any] = {"backend": backend, "threads": threads}
        self._stem = group(weights, "vision.")
        self._layers = layers(weights, "vision", config.num_layers)
        self._tables = PositionTables(self._stem["positions"], (config.grid, config.grid))

    @property
    def dtype(self) -> torch.dtype:
        return self._stem["patch.weight"].dtype

    @property
    def threads(self) -> int:
        return self._run["threads"] or torch.get_num_threads()

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches."""
        return height // self.config.patch_size, width // self.config.patch_size

    def micro_batch(self, height: int | None = None, width: int | None = None, kept_rows: int = 0) -> int:
        """Tiles per pass: those that are fastest, or that keep ``max_workspace`` while ``kept_rows`` rows of each are kept beside
        its hidden rows.

        Raises UnsupportedError when one tile does not fit.
        """
        c, itemsize, backend = self.config, self.dtype.itemsize, self._run["backend"]
        together = tiles_a_pass(c, backend, self.threads, height, width)
        if self.max_workspace is None:
            return together

        def need(tiles: int) -> int:
            return tower_workspace(c, tiles, itemsize, backend, height, width, kept_rows)

        return most(self.max_workspace, need, together, "one tile")

    def __call__(
        self, tiles: Tensor, layers: Sequence[int] | None = None, features: Features = WHOLE
    ) -> Tensor | list[Tensor]:
        """Hidden states of ``tiles`` (uint8 ``[T, H, W, 3]`` or normalised float ``[T, 3, H, W]``), or ``features`` of them.

        Returns the last hidden state ``[T, 1 + N, D]``, or with ``layers`` a list of hidden states indexed as a Python list of
        ``num_layers + 1`` entries whose first is the embedding (so -1 is the last output, -4 leaves three layers out).
        """
        height, width = self.check(tiles)
        wanted = [self.config.num_layers] if layers is None else self._layer_indices(layers)
        grid, d = self.grid(height, width), self.config.hidden_size
        chunk = self.micro_batch(height, width, features.rows(grid[0] * grid[1]) * (len(wanted) - 1))
        if len(tiles) <= chunk:
            columns = self._forward(tiles, wanted, features)
        else:  # results are written where they belong: joining parts would need them twice
            like = self._stem["cls"]
            columns = [like.new_empty(features.shape(len(tiles), grid, d)) for _ in wanted]
            for i in range(0, len(tiles), chunk):
                _write(columns, i, self._forward(tiles[i : i + chunk], wanted, features))
        return columns[0] if layers is None else columns

    def forward(self, tiles: Tensor) -> Tensor:
        """The last hidden state of checked tiles, all in one pass."""
        return self._forward(tiles, [self.config.num_layers])[0]

    def _forward(self, tiles: Tensor, wanted: Sequence[int], features: Features = WHOLE) -> list[Tensor]:
        last, grid = max(wanted), self.grid(*_size(tiles))
        kept: dict[int, Tensor] = {}
        h = self.embed(tiles)
        space = self._space(h.shape[0] * h.shape[1])
        for i in range(last):
            if i in wanted:
                kept[i] = h.clone() if features.whole else features.of(h, grid)
            w = self._layers[i]
            h = self._mlp(w, self._attention(w, h, space), space)
        del space
        kept[last] = features.of(h, grid)
        return [kept[i] for i in wanted]

    def embed(self, tiles: Tensor) -> Tensor:
        """Patches, CLS and positions: ``[T, 1 + N, D]``."""
        c, w = self.config, self._stem
        positions = self.positions_for(self.grid(*_size(tiles)))
        pixels = tiles if tiles.dtype == torch.uint8 else tiles.to(self.dtype)
        return ops.patch_embed(
            pixels, w["patch.weight"], w["patch.bias"], w["cls"], positions, mean=self.mean, std=self.std,
            patch_size=c.patch_size, **self._run,
        )  # fmt: skip

    def positions_for(self, grid: tuple[int, int]) -> Any:
        """The table ``[1 + N, D]`` for a grid of patches."""
        return self._stem["positions"] if grid == (self.config.grid, self.config.grid) else self._tables(grid)

    def _space(self, rows: int) -> Space:
        """For what a layer computes beside its hidden rows. A library that multiplies plain weights makes memory of its own."""
        c, like = self.config, self._stem["cls"]
        if not isinstance(self._layers[0]["fc1.weight"], ops.PackedWeight):
            return Space()
        piece = -(-rows // mlp_pieces(c, rows, self._run["backend"]))
        return Space(like, max(4 * rows * c.hidden_size, piece * (c.hidden_size + c.intermediate_size)))

    def _attention(self, w: Mapping[str, Any], h: Any, space: Space) -> Any:
        c, run = self.config, self._run
        batch, length, width = h.shape
        y = self._norm(h, w, "norm1", space(0, batch, length, width))
        qkv = space(batch * length * width, batch, length, 3 * width)
        qkv = ops.linear(y, w["qkv.weight"], w.get("qkv.bias"), out=qkv, **run)
        del y  # the place of what follows
        if c.qk_norm:
            qkv = ops.vision_qk_norm(qkv, w["q_norm.weight"], w["k_norm.weight"], eps=c.norm_eps, inplace=True, **run)
        heads = qkv.reshape(batch, length, 3, c.num_heads, c.head_dim)
        out = space(0, batch, length, c.num_heads, c.head_dim)
        mixed = ops.attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2], out=out, **run)
        del qkv, heads  # not held through the product
        return ops.linear_residual(
            mixed.reshape(batch, length, width), w["proj.weight"], w["proj.bias"], residual=h, scale=w["ls1"],
            inplace=True, **run,
        )  # fmt: skip

    def _mlp(self, w: Mapping[str, Any], h: Any, space: Space) -> Any:
        rows = h.reshape(h.shape[0] * h.shape[1], h.shape[2])
        pieces = mlp_pieces(self.config, len(rows), self._run["backend"])
        if pieces == 1:
            return self._mlp_rows(w, rows, space).reshape(*h.shape)
        for piece in rows.tensor_split(pieces):
            self._mlp_rows(w, piece, space)
        return h

    def _mlp_rows(self, w: Mapping[str, Any], h: Any, space: Space) -> Any:
        y = self._norm(h, w, "norm2", space(0, *h.shape))
        inner = space(h.shape[0] * h.shape[1], len(h), self.config.intermediate_size)
        inner = ops.linear_gelu(y, w["fc1.weight"], w["fc1.bias"], out=inner, **self._run)
        return ops.linear_residual(
            inner, w["fc2.weight"], w["fc2.bias"], residual=h, scale=w["ls2"], inplace=True, **self._run
        )

    def _norm(self, x: Any, w: Mapping[str, Any], name: str, out: Any) -> Any:
        eps = self.config.norm_eps
        if self.config.norm == "rms_norm":
            return ops.rms_norm(x, w[f"{name}.weight"], eps=eps, out=out, **self._run)
        return ops.layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps=eps, out=out, **self._run)

    def _layer_indices(self, layers: Sequence[int]) -> list[int]:
        count = self.config.num_layers + 1
        try:
            wanted = [operator.index(i) for i in layers]
        except TypeError:
            wanted = []
        if not wanted or not all(-count <= i < count for i in wanted):
            raise UnsupportedError(
                f"layers: {shown(layers)}; allowed: one or more integers from {-count} to {count - 1} (hidden state 0 is the embedding)"
            )
        return [i % count for i in wanted]

    def takes(self, tiles: Any) -> bool:
        return isinstance(tiles, torch.Tensor)

    def check(self, tiles: Any) -> tuple[int, int]:
        """(height, width) of tiles that the tower takes. Raises ImageError."""
        patch = self.config.patch_size
        if not self.takes(tiles):
            raise ImageError(
                f"tiles: a {type(tiles).__name__}; allowed: a torch tensor, uint8 [T, H, W, 3] or float [T, 3, H, W]"
            )
        dtype = str(tiles.dtype).rpartition(".")[2]  # of torch, or of a DeviceArray
        bytes_in = dtype == "uint8"
        channels = tiles.shape[-1 if bytes_in else 1] if tiles.ndim == 4 else None
        if channels != 3 or not (bytes_in or "float" in dtype):
            raise ImageError(
                f"tiles: {tiles.dtype} {list(tiles.shape)}; allowed: uint8 [T, H, W, 3] or float [T, 3, H, W]"
            )
        height, width = _size(tiles)
        if len(tiles) == 0:
            raise ImageError("tiles: zero tiles; allowed: one and more")
        if height < patch or width < patch or height % patch or width % patch:
            raise ImageError(f"tiles: {height} x {width} pixels; allowed: positive multiples of the patch size {patch}")
        return height, width


def _size(tiles: Any) -> tuple[int, int]:
    height, width = tiles.shape[1:3] if str(tiles.dtype).endswith("uint8") else tiles.shape[2:4]
    return height, width


def _write(columns: Sequence[Tensor], begin: int, parts: Sequence[Tensor]) -> None:
    """A function of its own, so that no part is held while the next pass runs."""
    for column, part in zip(columns, parts):
        column[begin : begin + len(part)] = part
