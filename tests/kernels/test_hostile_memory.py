"""Memory that ops must not take for what it is not: shared with the result, given back, on another device, empty, oddly strided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.hostile import normal


def gone(*shape: int, dtype: str = "float32") -> torch.Tensor:
    """A tensor whose storage was given back: reading or writing it goes through a null pointer."""
    tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
    tensor.untyped_storage().resize_(0)
    return tensor


def within(memory: torch.Tensor, first: int, *shape: int) -> torch.Tensor:
    return memory[first : first + int(np.prod(shape))].view(shape)


# -- results over inputs --------------------------------------------------------------------------------------------------

ROPE: dict[str, Any] = {"num_heads": 2, "num_kv_heads": 1, "head_dim": 4}


def over_a_norms_weight() -> Any:
    memory = normal(100)
    return ops.layer_norm(normal(5, 8), within(memory, 20, 8), normal(8, seed=1), out=within(memory, 0, 5, 8))


def over_a_norms_bias() -> Any:
    memory = normal(100)
    return ops.layer_norm(normal(5, 8), normal(8), within(memory, 39, 8), out=within(memory, 0, 5, 8))


def over_a_layer_scale() -> Any:
    memory = normal(100)
    return ops.add_norm(
        normal(5, 8), normal(5, 8, seed=1), normal(8), scale=within(memory, 7, 8), out=within(memory, 0, 5, 8)
    )


def over_the_heads_norm() -> Any:
    memory = normal(200)
    return ops.vision_qk_norm(within(memory, 0, 2, 24), within(memory, 24, 8), normal(8), inplace=True)


def over_a_shuffles_weight() -> Any:
    memory = normal(100)
    return ops.pixel_shuffle(normal(1, 17, 2), weight=within(memory, 30, 8), out=within(memory, 0, 1, 4, 8))


def over_a_bias() -> Any:
    memory = normal(100)
    return ops.linear(normal(2, 3), normal(8, 3), within(memory, 10, 8), decode=True, out=within(memory, 0, 2, 8))


def over_sinks() -> Any:
    memory = normal(100)
    q = normal(1, 3, 2, 4)
    return ops.attention(q, q.clone(), q.clone(), sinks=within(memory, 11, 2), out=within(memory, 0, 1, 3, 2, 4))


def over_the_rows_that_are_rotated() -> Any:
    memory, table = normal(200), torch.ones(5, 2)
    caches = torch.zeros(5, 1, 4), torch.zeros(5, 1, 4)
    return ops.qkv_rope_append(
        within(memory, 0, 5, 16), table, table, *caches, torch.arange(5), **ROPE, out=within(memory, 6, 5, 2, 4)
    )


def over_a_rotary_table() -> Any:
    memory = torch.ones(200)
    caches = torch.zeros(5, 1, 4), torch.zeros(5, 1, 4)
    return ops.qkv_rope_append(
        normal(5, 16),
        within(memory, 0, 5, 2),
        torch.ones(5, 2),
        *caches,
        torch.arange(5),
        **ROPE,
        out=within(memory, 3, 5, 2, 4),
    )


def over_each_other() -> Any:
    memory, table = torch.zeros(200), torch.ones(5, 2)
    caches = within(memory, 0, 5, 1, 4), within(memory, 10, 5, 1, 4)
    return ops.qkv_rope_append(normal(5, 16), table, table, *caches, torch.arange(5), **ROPE)


@pytest.mark.parametrize(
    "call",
    [
        over_a_norms_weight, over_a_norms_bias, over_a_layer_scale, over_the_heads_norm, over_a_shuffles_weight, over_a_bias,
        over_sinks, over_the_rows_that_are_rotated, over_a_rotary_table, over_each_other,
    ],
    ids=lambda call: call.__name__,
)  # fmt: skip
def test_results_over_inputs_are_refused(call: Callable[[], Any]) -> None:
    """Rows that are written first would change what later rows read."""
    with pytest.raises(UnsupportedError, match="apart"):
        call()


@pytest.mark.parametrize("head_major", [False, True])
def test_caches_in_one_buffer(head_major: bool) -> None:
    """Keys and values side by side share no element."""
    buffer = torch.zeros(2, 3, 2, 7, 4) if head_major else torch.zeros(7, 2, 2, 4)
    k, v = (buffer[0, 0].transpose(0, 1), buffer[1, 0].transpose(0, 1)) if head_major else (buffer[:, 0], buffer[:, 1])
    qkv, cos, sin = normal(7, 24), torch.ones(7, 2), torch.zeros(7, 2)
    heads = {"num_heads": 2, "num_kv_heads": 2, "head_dim": 4}
    ops.qkv_rope_append(qkv, cos, sin, k, v, torch.arange(7), **heads)
    same_bits(k.contiguous(), qkv[:, 8:16].reshape(7, 2, 4))
    same_bits(v.contiguous(), qkv[:, 16:].reshape(7, 2, 4))


# -- memory given back, on another device, of no elements -------------------------------------------------------------------

PIXELS: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "patch_size": 2}
OF_PATCHES = (normal(4, 12), normal(4), normal(4), normal(2, 4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.linear(normal(2, 3).double(), normal(4, 3).double(), out=gone(2, 4, dtype="float64")),
        lambda: ops.rms_norm(normal(2, 3), normal(3), out=gone(2, 3), backend="reference"),
        lambda: ops.row_statistics(normal(2, 3), out=gone(1, 2, 2), backend="reference"),
        lambda: ops.patch_embed(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), *OF_PATCHES, **PIXELS, out=gone(1, 2, 4)),
        lambda: ops.patch_embed(torch.zeros(0, 2, 2, 3, dtype=torch.uint8), *OF_PATCHES[:3], gone(2, 4), **PIXELS),
        lambda: ops.fold_norm(gone(2, 3), normal(3)),
        lambda: ops.fold_norm(normal(2, 3), normal(3), norm_bias=gone(3)),
        lambda: ops.rope_table(torch.arange(3), 4, 1e4, frequencies=gone(2, dtype="float64")),
        lambda: reference.rope_table(torch.arange(3), 4, 1e4, frequencies=gone(2, dtype="float64")),
    ],
)
def test_memory_given_back(call: Callable[[], Any]) -> None:
    with pytest.raises(UnsupportedError):
        call()


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_tensors_of_two_devices(backend: str) -> None:
    """Beside a tensor on "meta" torch makes results on the host that nobody filled."""
    weight = torch.ones(4, 3, device="meta")
    with pytest.raises(UnsupportedError, match=r"linear: weight is .* on meta; allowed: on cpu, as x"):
        ops.linear(torch.ones(2, 3), weight, backend=backend)
    q, k = torch.ones(1, 2, 1, 4, device="meta"), torch.ones(1, 2, 1, 4)
    with pytest.raises(UnsupportedError, match=r"attention: k is .* on cpu; allowed: on meta, as q"):
        ops.attention(q, k, k, backend=backend)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bias_with_gaps(dtype: str) -> None:
    x, weight, bias = normal(4, 24, dtype=dtype), normal(16, 24, dtype=dtype), normal(16, dtype=dtype, scale=50.0)
    gaps = torch.zeros(32, dtype=bias.dtype)[::2].copy_(bias)
    plain = ops.linear(x, weight, bias)
    try:
        found = ops.linear(x, weight, gaps)
    except UnsupportedError:  # our own GEMM wants it contiguous; oneDNN says nothing and reads on
        return
    same_bits(found, plain)


def test_no_elements_of_any_strides() -> None:
    """numpy and torch give tensors without elements what strides they like."""
    none = torch.from_numpy(np.lib.stride_tricks.as_strided(np.empty((0, 8), np.float32), (0, 8), (0, 0)))
    assert none.stride() == (0, 0)
    weight, vector = normal(6, 8), normal(8)
    assert ops.linear(none, weight).shape == (0, 6)
    assert ops.linear_gelu(none, weight, backend="cpu").shape == (0, 6)
    assert ops.rms_norm(none, vector).shape == (0, 8)
    assert ops.add_scaled(none, none).shape == (0, 8)
    assert ops.swiglu(none).shape == (0, 4)
    assert ops.vision_qk_norm(none.view(0, 8)[:, :6], vector[:2], vector[:2]).shape == (0, 6)
    q = none.reshape(1, 0, 2, 4).as_strided((1, 0, 2, 4), (0, 0, 0, 0))
    assert ops.attention(q, normal(1, 3, 2, 4), normal(1, 3, 2, 4)).shape == (1, 0, 2, 4)
    shuffled = none.as_strided((0, 5, 2), (0, 0, 0))
    assert ops.pixel_shuffle(shuffled).shape == (0, 1, 8)
    tiles = torch.zeros(0, 2, 2, 3, dtype=torch.uint8).as_strided((0, 2, 2, 3), (0, 0, 0, 0))
    assert ops.patch_embed(tiles, *OF_PATCHES, **PIXELS).shape == (0, 2, 4)


def test_expanded_caches_are_refused_by_the_reference() -> None:
    cache, own = torch.zeros(1, 1, 4).expand(5, 1, 4), torch.zeros(5, 1, 4)
    for caches in ((cache, own), (own, cache)):
        with pytest.raises(UnsupportedError, match="_cache is expanded"):
            reference.qkv_rope_append(
                normal(5, 16), torch.ones(5, 2), torch.ones(5, 2), *caches, torch.arange(5), **ROPE
            )


# -- numbers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e300, -1e39])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_scale_past_float32(scale: float, backend: str) -> None:
    q = normal(1, 2, 1, 4)
    with pytest.raises(UnsupportedError, match=r"attention: scale is .* float32"):
        ops.attention(q, q, q, scale=scale, backend=backend)
    with pytest.raises(UnsupportedError, match=r"cached_attention: scale is .* float32"):
        ops.cached_attention(q[0], q[0], q[0], [(0, 2, 0, 2)], scale=scale, backend=backend)
    with pytest.raises(UnsupportedError, match=r"rope_table: scale is .* float32"):
        ops.rope_table(torch.arange(3), 4, 1e4, scale=scale, backend=backend)
    factors = torch.ones(1, 2)
    with pytest.raises(UnsupportedError, match=r"normed_attention: scale is .* float32"):
        ops.normed_attention(q, q, q, factors, factors, torch.ones(1, 4), scale=scale, backend="reference")


@pytest.mark.parametrize("eps", [1e-300, 1e-40, 1e39, float("nan"), -1.0, 0])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_an_epsilon_past_float32(eps: float, backend: str) -> None:
    """A row of zeros would be 0 / 0."""
    with pytest.raises(UnsupportedError, match="rms_norm: eps is"):
        ops.rms_norm(torch.zeros(2, 3), torch.ones(3), eps=eps, backend=backend)


@pytest.mark.parametrize("std", [torch.float32, torch.ones(3, device="meta"), np.float32(1)])
def test_what_is_no_list_of_numbers(std: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"patch_embed: std is .* a list of numbers"):
        ops.patch_embed(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), *OF_PATCHES, **{**PIXELS, "std": std})


@pytest.mark.parametrize(("name", "value"), [("cls", normal(5)), ("pos", normal(3, 4)), ("pos", normal(2, 4).double())])
def test_patches_without_a_tile_are_checked(name: str, value: torch.Tensor) -> None:
    given = {**dict(zip(("weight", "bias", "cls", "pos"), OF_PATCHES)), name: value}
    with pytest.raises(UnsupportedError, match=f"patch_embed: {name} is"):
        ops.patch_embed(torch.zeros(0, 2, 2, 3, dtype=torch.uint8), **given, **PIXELS)


@pytest.mark.parametrize("given", [(None, 4), (3, (1, 2)), (3, "x"), (0, 4), (3, -1), (3, 4, -1), (3, 4, True)])
def test_space_for_statistics_of_nothing(given: tuple[Any, ...]) -> None:
    with pytest.raises(UnsupportedError, match=r"statistics_space: (columns|rows|device)"):
        ops.statistics_space(*given)
