"""Features of the tower on CUDA: layers, pools, maps and sizes; from the host, and from GPU memory to GPU memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels.costs import tower_workspace
from internvl_kernels.errors import ImageError
from internvl_kernels.models import CudaTower, Features, VisionTower
from internvl_kernels.testing.checkpoints import write_tower
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.on_device import host
from internvl_kernels.testing.towers import MEAN, STD, STYLES, config, weights

pytestmark = [pytest.mark.usefixtures("cuda_backend"), pytest.mark.modes(vgpu.LAZY)]

HEIGHT, WIDTH = 42, 70  # a grid of 3 x 5, whose table is interpolated
TAKEN = [{}, {"pool": "cls"}, {"pool": "mean"}, {"dense": True}]
SHAPES = [(3, 16, -1), (3, -1), (3, -1), (3, 3, 5, -1)]


def pixels(count: int, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def model(folder: Any, style: str, **options: Any) -> ivk.VisionModel:
    path = folder / style
    if not path.exists():
        write_tower(
            path, STYLES[style][0], vision_overrides={"hidden_size": 128, "num_heads": 2, "intermediate_size": 256}
        )
    return ivk.load_vision(path, progress=False, **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("style", STYLES)
def test_what_is_given_back(tmp_path: Any, style: str, dtype: str) -> None:
    """Beside PyTorch's own error; on the GPU the same as on the host, in the stream's dtype."""
    tiles, layers = pixels(3), [0, 2, -1]
    ours = model(tmp_path, style, backend="cuda", dtype=dtype)
    same = model(tmp_path, style, backend="reference", dtype=dtype)
    high = model(tmp_path, style, backend="reference")
    on_gpu = ivk.DeviceArray(tiles)
    for how, shape in zip(TAKEN, SHAPES):
        found = ours.vision(tiles, layers=layers, **how)
        expected = tuple(state.double() for state in high.vision(tiles, layers=layers, **how))
        compare(tuple(found), tuple(same.vision(tiles, layers=layers, **how)), expected, "vision", dtype)
        stay = ours.vision(on_gpu, layers=layers, **how)
        for state, array in zip(found, stay):
            assert isinstance(array, ivk.DeviceArray)
            assert array.dtype == ("bfloat16" if dtype == "bfloat16" else "float32")
            assert array.shape == state.shape == state.view(shape).shape
            same_bits(host(array).to(state.dtype), state, str(how))
        same_bits(host(ours.vision(on_gpu, **how)).to(found[-1].dtype), found[-1], "the last state alone")
        same_bits(ours.vision(tiles, layers=-1, **how), found[-1], "by its number")


@pytest.mark.parametrize("how", TAKEN, ids=str)
def test_bits_depend_on_the_tile_alone(tmp_path: Any, how: dict[str, Any]) -> None:
    tiles, ours = pixels(5), model(tmp_path, "6B", backend="cuda", dtype="bfloat16")
    whole = ours.vision(tiles, **how)
    same_bits(ours.vision(tiles[3:], **how), whole[3:], "two of them")
    need = tower_workspace(ours.config.vision, 2, 2, "cuda", HEIGHT, WIDTH)
    small = model(tmp_path, "6B", backend="cuda", dtype="bfloat16", max_workspace=need)
    assert small.plan_tower(5, height=HEIGHT, width=WIDTH).micro_batch == 2
    same_bits(small.vision(tiles, **how), whole, "two at a time")
    same_bits(host(small.vision(ivk.DeviceArray(tiles), **how)), whole, "two at a time, on the GPU")


def test_other_libraries_take_the_results(tmp_path: Any) -> None:
    """Arrays on a GPU as host memory: numpy has no bfloat16, torch has."""
    tiles = pixels(2)
    for dtype in ("bfloat16", "float16"):
        ours = model(tmp_path, "300M", backend="cuda", dtype=dtype)
        found, stay = ours.vision(tiles, dense=True), ours.vision(ivk.DeviceArray(tiles), dense=True)
        same_bits(torch.from_dlpack(found), found)
        assert stay.__dlpack_device__() == (2, 0)
        taken = torch.from_dlpack(stay.__dlpack__(dl_device=(1, 0)))
        same_bits(taken, host(stay))
        if dtype == "float16":
            assert np.array_equal(np.from_dlpack(found), found.numpy())
            assert np.array_equal(np.from_dlpack(stay, device="cpu"), host(stay).numpy())


def test_passes_share_max_workspace() -> None:
    """Those of many sizes are given up before they are too much together; tables of positions are made once for each."""
    c = config("300M")
    sizes = [(14 * n, 56) for n in range(1, 6)]
    limit = sum(tower_workspace(c, 1, 2, "cuda", *size) for size in sizes[-2:])
    ours = CudaTower(c, weights(c, "bfloat16"), mean=MEAN, std=STD, max_workspace=limit)
    roomy = CudaTower(c, weights(c, "bfloat16"), mean=MEAN, std=STD)
    for size in sizes * 2:
        same_bits(ours(pixels(1, *size)), roomy(pixels(1, *size)))
        kept = [run.size for run in ours._passes.values()]
        assert sum(kept) <= limit
        assert tower_workspace(c, 1, 2, "cuda", *size) == kept[-1]
    assert 2 <= len(kept) < len(roomy._passes) == len(sizes)
    tables = {size: roomy.positions_for(roomy.grid(*size)).pointer for size in sizes}
    assert all(roomy.positions_for(roomy.grid(*size)).pointer == tables[size] for size in sizes)


def test_arrays_that_are_refused(tmp_path: Any) -> None:
    ours = model(tmp_path, "300M", backend="cuda", dtype="bfloat16")
    with pytest.raises(ImageError, match="57 x 56 pixels; allowed: positive multiples of the patch size 14"):
        ours.vision(ivk.DeviceArray(np.zeros((1, 57, 56, 3), np.uint8)))
    floats = torch.zeros(2, 3, 28, 28)
    floats[1, 2, 3, 4] = float("nan")
    assert host(ours.vision(ivk.DeviceArray(floats))).isnan().any()
    with pytest.raises(ImageError, match="nan in tile 1, channel 2, row 3, column 4"):
        ours.vision(ivk.DeviceArray(floats), check_finite=True)
    with pytest.raises(ImageError, match="a list; allowed: Tiles, a numpy array or a torch tensor, or a DeviceArray"):
        ours.vision([1, 2])
    with pytest.raises(ImageError, match=r"a DeviceArray; allowed: Tiles, a numpy array or a torch tensor$"):
        model(tmp_path, "300M", backend="cpu").vision(ivk.DeviceArray(floats))


def test_features_of_a_wide_stream() -> None:
    """Beyond float16's range: arrays on the GPU have it in float32."""
    c = config("6B")
    held = weights(c, "float16")
    held["vision.layers.0.fc2.bias"][7] = 60000.0
    held["vision.layers.0.ls2"][7] = 4.0
    ours = CudaTower(c, held, mean=MEAN, std=STD)
    wide = {name: tensor.double() for name, tensor in held.items()}
    exact = VisionTower(c, wide, mean=MEAN, std=STD, backend="reference")
    for how in (Features("mean"), Features("cls"), Features(dense=True)):
        found, expected = host(ours(ivk.DeviceArray(pixels(1)), None, how)), exact(pixels(1), None, how)
        assert found.abs().max() > 2 * torch.finfo(torch.float16).max
        assert (found.double() - expected).norm() / expected.norm() < 2e-3
