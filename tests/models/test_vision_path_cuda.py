"""From pictures to text embeddings on the GPU: tiles, tower, projector and scatter, without the host between them."""

from __future__ import annotations

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import demo, ops
from internvl_kernels.config import ProjectorConfig
from internvl_kernels.errors import ImageError, UnsupportedError
from internvl_kernels.io.config import read_config
from internvl_kernels.models import CudaTower, Projector, VisionTower
from internvl_kernels.models._cuda_layers import upload
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host
from internvl_kernels.testing.towers import MEAN, PATCH, SIZE, STD, config, weights

pytestmark = [pytest.mark.usefixtures("cuda_backend"), pytest.mark.modes(vgpu.LAZY)]

IMAGE, WIDTH = 7, 96
TOKENS = (SIZE // PATCH // 2) ** 2  # of a tile


def tower(style: str, dtype: str) -> CudaTower:
    return CudaTower(config(style), weights(config(style), dtype), mean=MEAN, std=STD)


def picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(width)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def projector_weights(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    held = {"norm.weight": normal(512, seed=1) + 1, "norm.bias": normal(512, seed=2)}
    held |= {"fc1.weight": normal(WIDTH, 512, seed=3) * 0.05, "fc1.bias": normal(WIDTH, seed=4)}
    held |= {"fc2.weight": normal(WIDTH, WIDTH, seed=5) * 0.1, "fc2.bias": normal(WIDTH, seed=6)}
    return {f"projector.{name}": tensor.bfloat16().to(dtype) for name, tensor in held.items()}


# Three pictures of four, two and one tile with their thumbnails: 5, 3 and 1.
PICTURES = ((picture(120, 130), (2, 2)), (picture(60, 140), (2, 1)), (picture(40, 30), (1, 1)))


def cut(number: int) -> ivk.DeviceArray:
    pixels, grid = PICTURES[number]
    found: ivk.DeviceArray = ops.tile_pixels(
        ivk.DeviceArray(pixels), grid, SIZE, thumbnail=grid != (1, 1), tall_first=False
    )
    return found


def test_unequal_tile_counts() -> None:
    """Pictures of 5, 3 and 1 tiles in one batch: the bits of each alone, and what the reference computes of all."""
    ours, projection = tower("300M", "bfloat16"), ProjectorConfig(vision_size=128, hidden_size=WIDTH)
    project = Projector(projection, upload(projector_weights(torch.bfloat16)), backend="cuda")
    table = normal(50, WIDTH, dtype="bfloat16", seed=9)
    on_gpu = ivk.DeviceArray(table)

    def embedded(tiles: torch.Tensor | ivk.DeviceArray, ids: torch.Tensor) -> torch.Tensor:
        visual = project(ours.on_device(tiles))
        rows = visual.reshape(visual.shape[0] * visual.shape[1], WIDTH)
        return host(ops.embed_tokens(ids, on_gpu, visual=rows, image_token_id=IMAGE))

    tiles = [host(cut(i)) for i in range(3)]
    prompts = [
        torch.cat([torch.tensor([1, 2]), torch.full((len(t) * TOKENS,), IMAGE), torch.tensor([3])]) for t in tiles
    ]
    together = embedded(torch.cat(tiles), torch.cat(prompts))
    begin = 0
    for number, ids in enumerate(prompts):
        same_bits(embedded(cut(number), ids), together[begin : begin + len(ids)], f"picture {number} alone")
        begin += len(ids)

    def expected(dtype: torch.dtype) -> torch.Tensor:
        held = {name: tensor.to(dtype) for name, tensor in weights(config("300M"), "bfloat16").items()}
        hidden = VisionTower(config("300M"), held, mean=MEAN, std=STD, backend="reference")(torch.cat(tiles))
        visual = Projector(projection, projector_weights(dtype), backend="reference")(hidden)
        rows = visual.reshape(-1, WIDTH)
        return ops.embed_tokens(
            torch.cat(prompts), table.to(dtype), visual=rows, image_token_id=IMAGE, backend="reference"
        )

    compare(together, expected(torch.bfloat16), expected(torch.float64), "projector", "bfloat16")


def test_tiles_on_the_gpu_go_in_as_those_on_the_host() -> None:
    ours, tiles = tower("6B", "float16"), cut(1)
    same_bits(host(ours(tiles)).half(), ours(host(tiles)), "a call")
    with pytest.raises(UnsupportedError, match="tiles require a gradient"):
        ours(torch.zeros(1, 3, SIZE, SIZE, requires_grad=True))
    same_bits(host(ours.on_device(tiles)).clone(), host(ours.on_device(host(tiles))))
    with pytest.raises(ImageError, match=r"tiles: DeviceArray\(float16.*allowed: uint8, float32 or bfloat16"):
        tower("6B", "bfloat16").on_device(ivk.DeviceArray(normal(1, 3, SIZE, SIZE, dtype="float16")))
    with pytest.raises(ImageError, match="tiles: int64"):
        ours.on_device(ivk.DeviceArray(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.int64)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_demo_models_tower(dtype: str) -> None:
    """Trained weights: beside PyTorch's own error, and bit for bit whatever stands in the batch."""
    path = demo.checkpoint_path()
    side = read_config(path).vision.image_size
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=generator)
    ours = ivk.load_vision(path, backend="cuda", dtype=dtype, progress=False)
    found = ours.vision(tiles)
    for first, last in ((0, 1), (1, 3)):
        same_bits(ours.vision(tiles[first:last]), found[first:last], f"tiles {first} to {last}")
    same = ivk.load_vision(path, backend="reference", dtype=dtype, progress=False).vision(tiles)
    high = ivk.load_vision(path, backend="reference", dtype="float32", progress=False).vision(tiles).double()
    compare(found, same, high, "vision", dtype)
