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

if TYPE_CHECKING:
    from torch import Tensor


def interpolate_positions(positions: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Position table ``[1 + h*w, D]`` for another patch grid: bicubic in fp32, the CLS row kept; identity at its own grid."""
    if grid == target:
        return positions
    patches = positions[1:].float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(patches, size=target, mode="bicubic", align_corners=False)
    rows = resized.permute(0, 2, 3, 1).reshape(target[0] * target[1], -1)
    return torch.cat([positions[:1], rows.to(positions.dtype)])


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

    @property
    def dtype(self) -> torch.dtype:
        return self._stem["patch.weight"].dtype

    @property
    def threads(self) -> int:
        return self._run["threads"] or torch.get_num_threads()

    def micro_batch(self, height: int | None = None, width: int | None = None, kept: int = 1) -> int:
        """Tiles per pass: those that are fastest, or that keep ``max_workspace`` while ``kept`` hidden states are kept.

        Raises UnsupportedError when one tile does not fit.
        """
        c, itemsize, backend = self.config, self.dtype.itemsize, self._run["backend"]
        together = tiles_a_pass(c, backend, self.threads, height, width)
        if self.max_workspace is None:
            return together
        rows = 1 + ((height or c.image_size) // c.patch_size) * ((width or c.image_size) // c.patch_size)

        def need(tiles: int) -> int:
            states = (kept - 1) * tiles * rows * c.hidden_size * itemsize
            return states + tower_workspace(c, tiles, itemsize, backend, height, width)

        return most(self.max_workspace, need, together, "one tile")

    def __call__(self, tiles: Tensor, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Hidden states of ``tiles`` (uint8 ``[T, H, W, 3]`` or normalised float ``[T, 3, H, W]``).

        Returns the last hidden state ``[T, 1 + N, D]``, or with ``layers`` a list of hidden states indexed as a Python list of
        ``num_layers + 1`` entries whose first is the embedding (so -1 is the last output, -4 leaves three layers out).
        """
        height, width = self.check(tiles)
        wanted = None if layers is None else self._layer_indices(layers)
        chunk = self.micro_batch(height, width, len(wanted or [-1]))
        if len(tiles) <= chunk:
            columns = self._forward(tiles, wanted)
        else:  # results are written where they belong: joining parts would need them twice
            rows = 1 + (height // self.config.patch_size) * (width // self.config.patch_size)
            shape, like = (len(tiles), rows, self.config.hidden_size), self._stem["cls"]
            columns = [like.new_empty(shape) for _ in range(1 if wanted is None else len(wanted))]
            space = self._space(chunk * rows)
            for i in range(0, len(tiles), chunk):
                for column, part in zip(columns, self._forward(tiles[i : i + chunk], wanted, space)):
                    column[i : i + chunk] = part
        return columns[0] if layers is None else columns

    def forward(self, tiles: Tensor) -> Tensor:
        """The last hidden state of checked tiles, all in one pass."""
        return self._forward(tiles, None)[0]

    def _forward(self, tiles: Tensor, wanted: list[int] | None, space: Space | None = None) -> list[Tensor]:
        last = self.config.num_layers
        wanted = [last] if wanted is None else wanted
        kept: dict[int, Tensor] = {}
        h = self.embed(tiles)
        space = space or self._space(h.shape[0] * h.shape[1])
        for i in range(max(wanted)):
            if i in wanted:
                kept[i] = h.clone()
            w = self._layers[i]
            h = self._mlp(w, self._attention(w, h, space), space)
        kept[max(wanted)] = h
        return [kept[i] for i in wanted]

    def embed(self, tiles: Tensor) -> Tensor:
        """Patches, CLS and positions: ``[T, 1 + N, D]``."""
        c, w = self.config, self._stem
        shape = tiles.shape[1:3] if tiles.dtype == torch.uint8 else tiles.shape[2:4]
        target = (shape[0] // c.patch_size, shape[1] // c.patch_size)
        positions = interpolate_positions(w["positions"], (c.grid, c.grid), target)
        pixels = tiles if tiles.dtype == torch.uint8 else tiles.to(self.dtype)
        return ops.patch_embed(
            pixels, w["patch.weight"], w["patch.bias"], w["cls"], positions, mean=self.mean, std=self.std,
            patch_size=c.patch_size, **self._run,
        )  # fmt: skip

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
        height, width = tiles.shape[1:3] if bytes_in else tiles.shape[2:4]
        if len(tiles) == 0:
            raise ImageError("tiles: zero tiles; allowed: one and more")
        if height < patch or width < patch or height % patch or width % patch:
            raise ImageError(f"tiles: {height} x {width} pixels; allowed: positive multiples of the patch size {patch}")
        return height, width
