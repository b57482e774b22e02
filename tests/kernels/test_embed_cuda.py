"""Token embeddings on CUDA, on a GPU or on the virtual one: copies, so every bit."""

from __future__ import annotations

import pytest
import torch

import internvl_kernels as ivk
from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.on_device import host, placed

pytestmark = pytest.mark.usefixtures("cuda_backend")

IMAGE = 77


def prompt(*shape: int, images: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, shape, generator=generator)
    ids.view(-1)[torch.randperm(ids.numel(), generator=generator)[:images]] = IMAGE
    return ids


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 3, 8, 17, 896, 1032])
def test_visual_rows_go_in_order(width: int, dtype: str) -> None:
    table, visual = normal(50, width, dtype=dtype), normal(20, width, dtype=dtype, seed=1)
    check("embed_tokens", prompt(3, 40, images=20), table, visual=visual, image_token_id=IMAGE, backend="cuda")


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 0), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    check("embed_tokens", prompt(*shape, images=0), normal(50, 8), backend="cuda")
    check(
        "embed_tokens",
        prompt(*shape, images=0),
        normal(50, 8),
        visual=normal(0, 8),
        image_token_id=IMAGE,
        backend="cuda",
    )


@pytest.mark.parametrize(("shift", "gap"), [(0, 8), (1, 0), (3, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_views(dtype: str, shift: int, gap: int) -> None:
    table, visual, ids = normal(50, 24, dtype=dtype), normal(5, 24, dtype=dtype, seed=1), prompt(30, images=5)
    expected = reference.embed_tokens(ids, table, visual=visual, image_token_id=IMAGE)
    on_gpu = placed(table, shift, gap), placed(visual, shift, gap)
    found = ops.embed_tokens(ids, on_gpu[0], visual=on_gpu[1], image_token_id=IMAGE)
    assert isinstance(found, ivk.DeviceArray)
    same_bits(host(found), expected)
    fetched = ops.embed_tokens(ivk.DeviceArray(ids), on_gpu[0], visual=on_gpu[1], image_token_id=IMAGE)
    same_bits(host(fetched), expected, "ids on the GPU")


def test_refused() -> None:
    table, visual = ivk.DeviceArray(normal(50, 8)), ivk.DeviceArray(normal(2, 8))
    with pytest.raises(UnsupportedError, match="input_ids holds 77 at position 3"):
        ops.embed_tokens(torch.tensor([1, 2, 3, IMAGE]), table)
    with pytest.raises(UnsupportedError, match=r"1 image positions .* for 2 visual rows"):
        ops.embed_tokens(torch.tensor([1, IMAGE]), table, visual=visual, image_token_id=IMAGE)
    with pytest.raises(UnsupportedError, match="input_ids is int32"):
        ops.embed_tokens(torch.tensor([1], dtype=torch.int32), table)
    hostile.check_refused(lambda t: ops.embed_tokens(torch.tensor([1]), t, backend="cuda"), normal(50, 8))
