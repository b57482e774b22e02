"""The tower on CUDA against the reference, in both styles; on a GPU or on the virtual one."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import internvl_kernels as ivk
import vgpu
from internvl_kernels import ops
from internvl_kernels.config import ProjectorConfig
from internvl_kernels.costs import tower_workspace
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.io.config import read_config
from internvl_kernels.models import CudaTower, Projector, VisionTower
from internvl_kernels.models._cuda_layers import upload
from internvl_kernels.ops._record import Recording
from internvl_kernels.testing.checkpoints import write_transformers
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.hostile import normal
from internvl_kernels.testing.on_device import host
from internvl_kernels.testing.towers import MEAN, SIZE, STD, STYLES, config, weights

pytestmark = [pytest.mark.usefixtures("cuda_backend"), pytest.mark.modes(vgpu.LAZY, vgpu.STARVED)]

HALVES = ("bfloat16", "float16")


def tower(style: str, dtype: str, **options: Any) -> CudaTower:
    c = config(style)
    return CudaTower(c, weights(c, dtype), mean=MEAN, std=STD, **options)


def reference(style: str, dtype: str, compute: str, tiles: torch.Tensor, layers: list[int] | None = None) -> Any:
    c = config(style)
    held = {name: tensor.to(getattr(torch, compute)) for name, tensor in weights(c, dtype).items()}
    return VisionTower(c, held, mean=MEAN, std=STD, backend="reference")(tiles, layers)


def pixels(count: int, height: int = SIZE, width: int = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count + height)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("style", STYLES)
def test_hidden_states(style: str, dtype: str) -> None:
    tiles = pixels(2)
    same, high = (reference(style, dtype, compute, tiles, [0, 1, -1]) for compute in (dtype, "float64"))
    ours = tower(style, dtype)
    states = ours(tiles, [0, 1, -1])
    compare(tuple(states), tuple(same), tuple(high), "vision", dtype)
    same_bits(ours(tiles), states[-1], "the last state alone")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("style", STYLES)
def test_bits_do_not_depend_on_the_batch(style: str, dtype: str) -> None:
    tiles, ours = pixels(5), tower(style, dtype)
    whole = ours(tiles)
    same_bits(ours(tiles), whole, "run again, recorded")
    same_bits(ours(tiles), whole, "launched from the record")
    for first, last in ((0, 1), (3, 5)):
        same_bits(ours(tiles[first:last]), whole[first:last], f"tiles {first} to {last}")
    small = tower(style, dtype, max_workspace=2 * tower_workspace(config(style), 1, 2, "cuda"))
    assert small.micro_batch() == 2
    same_bits(small(tiles), whole, "in micro-batches")


@pytest.mark.parametrize("style", STYLES)
def test_other_sizes_and_float_pixels(style: str) -> None:
    tiles, ours = pixels(1, 84, 42), tower(style, "bfloat16")
    same, high = (reference(style, "bfloat16", compute, tiles) for compute in ("bfloat16", "float64"))
    compare(ours(tiles), same, high, "vision", "bfloat16")
    floats = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    same, high = (reference(style, "bfloat16", compute, floats) for compute in ("bfloat16", "float64"))
    compare(ours(floats), same, high, "vision", "bfloat16")


def test_massive_activations_in_float16() -> None:
    """Beyond float16's range in the residual stream: the next layers and the projector go on from it."""
    c = config("6B")
    held = weights(c, "float16")
    held["vision.layers.0.fc2.bias"][7] = 60000.0
    held["vision.layers.0.ls2"][7] = 4.0
    ours = CudaTower(c, held, mean=MEAN, std=STD)
    hidden = host(ours.on_device(pixels(1)))
    assert hidden.dtype == torch.float32
    assert hidden.abs().max() > 2 * torch.finfo(torch.float16).max
    wide = {name: tensor.double() for name, tensor in held.items()}
    exact = VisionTower(c, wide, mean=MEAN, std=STD, backend="reference")(pixels(1))
    assert hidden.isfinite().all()
    usual = torch.arange(c.hidden_size) != 7
    error = (hidden.double() - exact)[..., usual].norm() / exact[..., usual].norm()
    assert error < 2e-3, error


@pytest.mark.parametrize(
    ("style", "dtype", "layer"),
    [("300M", "bfloat16", 5), ("6B", "bfloat16", 6), ("300M", "float16", 7), ("6B", "float16", 8)],
)
def test_launches_and_memory(style: str, dtype: str, layer: int) -> None:
    """Norms go into the products behind them but where the stream is wider than the weights."""
    ours = tower(style, dtype)
    run = ours.load(pixels(2))
    run(), run()
    assert run.launches == (2 if dtype == "bfloat16" else 1) + layer * config(style).num_layers
    before = ours.on_device(pixels(2)).pointer
    assert ours.on_device(pixels(2)).pointer == before


def test_projector_on_the_gpu() -> None:
    ours = tower("300M", "float16")
    projection = ProjectorConfig(vision_size=128, hidden_size=96)
    held = {"projector.norm.weight": normal(512, seed=1) + 1, "projector.norm.bias": normal(512, seed=2)}
    held |= {"projector.fc1.weight": normal(96, 512, seed=3) * 0.05, "projector.fc1.bias": normal(96, seed=4)}
    held |= {"projector.fc2.weight": normal(96, 96, seed=5) * 0.1, "projector.fc2.bias": normal(96, seed=6)}
    halves = {name: tensor.half() for name, tensor in held.items()}
    hidden = ours.on_device(pixels(2))
    tokens = Projector(projection, upload(halves), backend="cuda")(hidden)
    exact = [
        Projector(projection, {n: t.to(kind) for n, t in halves.items()}, backend="reference")(host(hidden).to(kind))
        for kind in (torch.float16, torch.float64)
    ]
    compare(host(tokens), *exact, "projector", "float16")


def test_load_vision(tmp_path: Any) -> None:
    write_transformers(tmp_path, "qwen3", "layer_norm", seed=3)
    model = ivk.load_vision(tmp_path, backend="cuda", dtype="bfloat16", progress=False)
    side = read_config(tmp_path).vision.image_size
    tiles = pixels(2, side, side)
    same = ivk.load_vision(tmp_path, backend="reference", dtype="bfloat16", progress=False).vision(tiles)
    high = ivk.load_vision(tmp_path, backend="reference", progress=False).vision(tiles).double()
    compare(model.vision(tiles), same, high, "vision", "bfloat16")
    assert model.vision(tiles, pool="cls").shape == (2, same.shape[-1])
    with pytest.raises(UnsupportedError, match="dtype: 'float32'; allowed with backend 'cuda': bfloat16, float16"):
        ivk.load_vision(tmp_path, backend="cuda", dtype="float32")
    with pytest.raises(UnsupportedError, match="device: 'cpu'; allowed with backend 'cuda'"):
        ivk.load_vision(tmp_path, backend="cuda", device="cpu")
    with pytest.raises(ivk.BackendError, match="load_vision runs the tower"):
        ivk.load(tmp_path, backend="cuda")


def test_memory_goes_with_the_tower() -> None:
    """At once, not when Python looks for cycles: it is the GPU's."""
    ours = tower("300M", "bfloat16")
    for _ in range(3):  # run, recorded, launched
        ours.on_device(pixels(1))
    run = weakref.ref(ours.load(pixels(1)))
    gc.disable()
    try:
        del ours
        assert run() is None
    finally:
        gc.enable()


def test_memory_may_be_given_up_while_recording() -> None:
    """As Python's collector may do at any time."""
    x, weight = ivk.DeviceArray(normal(3, 8)), ivk.DeviceArray(normal(8))
    out, others = ivk.DeviceArray.empty((3, 8)), [ivk.DeviceArray(normal(5, 5)) for _ in range(2)]

    def step() -> ivk.DeviceArray:
        others.pop()
        return ops.rms_norm(x, weight, out=out)

    run = Recording(step)
    run(), run()
    assert not others
    same_bits(host(run()), ops.rms_norm(normal(3, 8), normal(8), backend="cuda"))


def test_what_allocates_cannot_be_recorded() -> None:
    x, weight = ivk.DeviceArray(normal(3, 8)), ivk.DeviceArray(normal(8))
    run = Recording(lambda: ops.rms_norm(x, weight))
    run()
    with pytest.raises(ivk.BackendError, match="not permitted when stream is capturing"):
        run()
    same_bits(host(ops.rms_norm(x, weight)), ops.rms_norm(normal(3, 8), normal(8), backend="cuda"), "usable after that")


def test_threads_share_a_tower() -> None:
    """Each thread gets the states of its own tiles: the passes' memory is one thread's at a time."""
    ours = tower(next(iter(STYLES)), "bfloat16")
    batches = [pixels(1 + i % 2, SIZE + 14 * (i // 2)) for i in range(4)]
    expected = [ours(tiles) for tiles in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            for found, alone in zip(pool.map(ours, batches), expected):
                same_bits(found, alone)
