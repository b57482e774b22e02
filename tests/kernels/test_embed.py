"""Token embeddings with visual rows in their places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internvl_kernels import ops
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.testing import hostile
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

IMAGE = 77


def prompt(*shape: int, images: int, vocabulary: int = 50, seed: int = 0) -> torch.Tensor:
    """Ids below ``vocabulary`` with ``images`` image positions spread at random."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, shape, generator=generator)
    ids.view(-1)[torch.randperm(ids.numel(), generator=generator)[:images]] = IMAGE
    return ids


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 3, 16, 17, 896])
def test_visual_rows_go_in_order(width: int, dtype: str) -> None:
    table, visual = normal(50, width, dtype=dtype), normal(20, width, dtype=dtype, seed=1)
    ids = prompt(3, 40, images=20)
    out = check("embed_tokens", ids, table, visual=visual, image_token_id=IMAGE)
    same_bits(out[ids == IMAGE], visual, "visual rows")
    same_bits(out[ids != IMAGE], table[ids[ids != IMAGE]], "text rows")


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 0), (1, 1), (2, 3, 4), (hostile.MANY_ROWS,)])
def test_shapes(shape: tuple[int, ...]) -> None:
    check("embed_tokens", prompt(*shape, images=0), normal(50, 8))


def test_all_image_and_all_text() -> None:
    visual = normal(6, 8)
    same_bits(ops.embed_tokens(torch.full((6,), IMAGE), normal(50, 8), visual=visual, image_token_id=IMAGE), visual)
    check("embed_tokens", prompt(9, images=0), normal(50, 8), visual=normal(0, 8), image_token_id=IMAGE)
    check("embed_tokens", prompt(9, images=0), normal(50, 8), image_token_id=IMAGE)


def test_image_id_inside_the_table() -> None:
    check("embed_tokens", torch.tensor([3, 5, 3]), normal(10, 4), visual=normal(2, 4), image_token_id=3)


def test_without_image_id_every_id_is_a_row() -> None:
    check("embed_tokens", torch.tensor([3, 5, 3]), normal(10, 4))


@pytest.mark.parametrize("view", hostile.VIEWS)
def test_views(view: str) -> None:
    make = hostile.VIEWS[view]
    table, visual, ids = normal(50, 24), normal(5, 24, seed=1), prompt(30, images=5)
    same_bits(
        ops.embed_tokens(ids, make(table), visual=make(visual), image_token_id=IMAGE, backend="cpu"),
        ops.embed_tokens(ids, table, visual=visual, image_token_id=IMAGE, backend="cpu"),
    )
    strided = torch.stack([ids, ids], dim=1)[:, 0]
    same_bits(
        ops.embed_tokens(strided, table, visual=visual, image_token_id=IMAGE, backend="cpu"),
        ops.embed_tokens(ids, table, visual=visual, image_token_id=IMAGE, backend="cpu"),
    )


def test_values_are_copied_bit_for_bit() -> None:
    table = hostile.special(50, 33)
    same_bits(ops.embed_tokens(torch.arange(50), table, backend="cpu"), table)


def test_threads_and_instruction_sets() -> None:
    ids, table, visual = prompt(4000, images=900), normal(50, 64), normal(900, 64, seed=1)
    options = {"visual": visual, "image_token_id": IMAGE, "backend": "cpu"}
    check_invariant(lambda threads: ops.embed_tokens(ids, table, threads=threads, **options))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("ids", "options", "text"),
    [
        ([1, IMAGE, 2], {}, "2 visual rows"),
        ([IMAGE] * 3, {}, "3 image positions (id 77) for 2 visual rows"),
        ([1, 2], {"visual": None, "image_token_id": None}, None),
        ([IMAGE], {"visual": None}, "1 image positions (id 77) for 0 visual rows"),
        ([1, 50, IMAGE, IMAGE], {}, "50"),
        ([-1, IMAGE, IMAGE], {}, "-1"),
        ([1], {"image_token_id": None}, "visual without image_token_id"),
    ],
)
def test_counts_and_ids(ids: list[int], options: dict, text: str | None, backend: str) -> None:
    arguments = {"visual": normal(2, 8), "image_token_id": IMAGE, "backend": backend} | options
    if text is None:
        assert ops.embed_tokens(torch.tensor(ids), normal(50, 8), **arguments).shape == (2, 8)
        return
    with pytest.raises(UnsupportedError) as refused:
        ops.embed_tokens(torch.tensor(ids), normal(50, 8), **arguments)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("ids", "table", "visual", "text"),
    [
        (torch.zeros(2, dtype=torch.int32), torch.zeros(5, 8), None, r"input_ids is int32\[2\]"),
        (torch.zeros(2), torch.zeros(5, 8), None, r"input_ids is float32\[2\]"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(5), None, r"table is \[5\]"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(5, 8).t(), None, "contiguous rows"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(5, 8), torch.zeros(0, 7), r"visual is float32\[0, 7\]"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(5, 8), torch.zeros(0, 8).half(), r"visual is float16"),
    ],
)
def test_wrong_tensors_are_refused(ids: torch.Tensor, table: torch.Tensor, visual: torch.Tensor, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        ops.embed_tokens(ids, table, visual=visual, image_token_id=IMAGE, backend="cpu")


def test_refused_tensors_are_named() -> None:
    ids = torch.tensor([1, IMAGE, IMAGE])
    options = {"image_token_id": IMAGE, "backend": "cpu"}
    hostile.check_refused(lambda x: ops.embed_tokens(ids, x, visual=torch.zeros(2, 8), **options), normal(5, 8))
    hostile.check_refused(lambda x: ops.embed_tokens(ids, torch.zeros(5, 8), visual=x, **options), normal(2, 8))


def test_numpy_in_numpy_out() -> None:
    table = normal(50, 8)
    out = ops.embed_tokens(np.array([[1, 2]]), table.numpy())
    assert isinstance(out, np.ndarray)
    same_bits(out, table[1:3][None])


def test_reference_is_differentiable() -> None:
    table, visual = normal(5, 3).double().requires_grad_(), normal(2, 3).double().requires_grad_()
    ids = torch.tensor([0, 4, 9, 4, 9])
    assert torch.autograd.gradcheck(lambda t, v: ops.embed_tokens(ids, t, visual=v, image_token_id=9), (table, visual))
