"""The class between the tower and the whole model: images to visual tokens, in the language model's width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._lazy import torch
from .config import ModelConfig
from .encoder import VisionModel
from .errors import UnsupportedError
from .io.images import Video
from .models import Projector, encode_tiles
from .options import RuntimeOptions, as_list, joined

if TYPE_CHECKING:
    from torch import Tensor


class VisualModel(VisionModel):
    """Tower, pixel shuffle and projector."""

    config: ModelConfig
    image_token_id: int  # whose positions visual tokens take

    def __init__(self, config: ModelConfig, weights: Mapping[str, Tensor], options: RuntimeOptions) -> None:
        super().__init__(config, weights, options)
        run: dict[str, Any] = {"backend": options.backend, "threads": options.op_threads}
        self._projector = Projector(config.projector, weights, **run)

    def encode_tiles(self, tiles: Any, *, check_finite: bool = False) -> Tensor:
        """Tiles through tower, pixel shuffle and projector: ``[T, tokens_per_tile, H]``, in micro-batches under max_workspace.

        check_finite: raise ImageError naming the first NaN or Inf of a float tile.
        """
        with torch.no_grad(), self._options.limited():
            return self._encode(self._tiles(tiles, check_finite))

    def encode(self, images: Any, *, max_tiles: int | None = None, check_finite: bool = False) -> list[Tensor]:
        """One ``[tokens_i, H]`` per image (path, PIL image, uint8 array, or a list of them; a ``Video`` is one entry).

        check_finite: raise ImageError naming the first NaN or Inf of a picture with float pixels (Pillow's mode F).
        """
        items = [self._prepare(item, max_tiles, check_finite) for item in as_list(images)]
        visual = self.encode_tiles(joined([pixels for item in items for pixels in item])) if items else None
        result, begin = [], 0
        for item in items:
            count = sum(len(pixels) for pixels in item)
            assert visual is not None
            result.append(visual[begin : begin + count].reshape(-1, visual.shape[-1]))
            begin += count
        return result

    def _encode(self, tiles: Tensor) -> Tensor:
        return encode_tiles(self.config, self._tower, self._projector, tiles, self.backend, self._options.max_workspace)

    def _prepare(self, item: Any, max_tiles: int | None, check_finite: bool = False) -> list[np.ndarray]:
        """Pixels of one image (a list of one) or of each frame of a video (one tile a frame)."""
        if isinstance(item, Video):
            return [self.tile(frame, max_tiles=1, check_finite=check_finite).pixels for frame in item.frames]
        return [self.tile(item, max_tiles=max_tiles, check_finite=check_finite).pixels]

    def _sized(self, tiles: Any, check_finite: bool) -> tuple[Tensor | None, tuple[int, int] | None]:
        """Checked tiles and their (height, width)."""
        if tiles is None:
            return None, None
        pixels = self._tiles(tiles, check_finite)
        return pixels, self._tower.check(pixels)

    def _visual(self, ids: Tensor, pixels: Tensor | None) -> Tensor | None:
        """Visual rows for the image positions of ``ids``; both counts must agree."""
        wanted = int((ids == self.image_token_id).sum())
        if pixels is None:
            if wanted:
                raise UnsupportedError(
                    f"input_ids: {wanted} {self.config.chat.image_token} tokens but no tiles; pass tiles"
                )
            return None
        visual = self._encode(pixels)
        given = visual.shape[0] * visual.shape[1]
        if given != wanted:
            raise UnsupportedError(
                f"input_ids: {wanted} {self.config.chat.image_token} tokens, but {len(pixels)} tiles give {given} visual tokens; "
                f"allowed: equal counts"
            )
        return visual.reshape(given, -1)


__all__ = ["VisualModel"]
