"""Rotary embedding with QK-norm and KV append: reference, float64 loops, transformers, views, bits, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.testing.compare import check, same_bits
from internvl_kernels.testing.hostile import DTYPES, MANY_ROWS, VIEWS, normal, refused, special
from internvl_kernels.testing.invariance import check_invariant

THETA = 1e6
DEFAULT = {"rows": 5, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64}
AXES = [
    *({"rows": n} for n in (0, 1, 2, 17, 65)),
    *({"num_heads": q, "num_kv_heads": kv} for q, kv in ((1, 1), (7, 1), (3, 5), (16, 8))),
    *({"head_dim": d} for d in (2, 6, 30, 32, 34, 96, 128, 130, 256)),
]


def problem(
    dtype: str = "float32", *, norm: bool = True, seed: int = 0, **changes: int
) -> tuple[list[Any], dict[str, Any]]:
    """``([qkv, cos, sin], keywords)`` at positions that start far from 0."""
    size = {**DEFAULT, **changes}
    rows = size.pop("rows")
    d = size["head_dim"]
    qkv = normal(rows, (size["num_heads"] + 2 * size["num_kv_heads"]) * d, dtype=dtype, seed=seed)
    cos, sin = ops.rope_table(torch.arange(rows) * 3 + 1000, d, THETA)
    weights = {name: normal(d, dtype=dtype, seed=seed + i) for i, name in enumerate(("q_weight", "k_weight"))}
    return [qkv, cos, sin], {**size, **(weights if norm else {})}


def caches(slots: int, how: dict[str, Any], dtype: str = "float32") -> tuple[torch.Tensor, torch.Tensor]:
    shape = (slots, how["num_kv_heads"], how["head_dim"])
    return tuple(torch.full(shape, float("nan"), dtype=getattr(torch, dtype)) for _ in range(2))  # type: ignore[return-value]


def loops(qkv: Any, position: Any, how: dict[str, Any]) -> list[np.ndarray]:
    """The contract's formula element by element in float64: [q, k, v]."""
    d, half = how["head_dim"], how["head_dim"] // 2
    heads = qkv.double().numpy().reshape(len(qkv), -1, d).copy()
    kv = how["num_kv_heads"]
    for r in range(heads.shape[0]):
        for h in range(heads.shape[1] - kv):
            x = heads[r, h].copy()
            if "q_weight" in how:
                weight = how["q_weight"] if h < how["num_heads"] else how["k_weight"]
                x = x / np.sqrt(np.mean(x * x) + 1e-6) * weight.double().numpy()
            for i in range(half):
                angle = float(position[r]) / THETA ** (2 * i / d)
                heads[r, h, i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
                heads[r, h, i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return np.split(heads, [how["num_heads"], how["num_heads"] + kv], axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_against_reference(axis: dict[str, int], norm: bool, dtype: str) -> None:
    args, how = problem(dtype, norm=norm, **axis)
    check("qkv_rope", *args, **how)


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_against_float64_loops(backend: str, norm: bool) -> None:
    position = torch.tensor([0.0, 1.0, 2.25, 700.5, 4097.0])
    (qkv, _, _), how = problem(norm=norm, head_dim=6)
    actual = ops.qkv_rope(qkv, *ops.rope_table(position, 6, THETA), **how, backend=backend)
    for ours, exact in zip(actual, loops(qkv, position, how)):
        np.testing.assert_allclose(ours.numpy(), exact, rtol=0, atol=4e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str, dtype: str) -> None:
    args, how = problem(dtype)
    expected = ops.qkv_rope(*args, **how)
    same_bits(ops.qkv_rope(*(VIEWS[view](a) for a in args), **how), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_special_values_stay_where_they_are(norm: bool, dtype: str) -> None:
    args, how = problem(dtype, norm=norm, rows=64)
    args[0] = special(*args[0].shape, dtype=dtype)
    check("qkv_rope", *args, **how)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_then_rotation_is_the_fused_pass_bit_for_bit(dtype: str) -> None:
    (qkv, cos, sin), how = problem(dtype, rows=9, head_dim=128)
    q, k, v = ops.qkv_rope(qkv, cos, sin, **how)
    weights = how.pop("q_weight"), how.pop("k_weight")
    heads = qkv.view(9, -1, 128)
    split = heads.split([how["num_heads"], how["num_kv_heads"], how["num_kv_heads"]], 1)
    normed = [ops.rms_norm(x.contiguous(), w) for x, w in zip(split, weights)]
    again = torch.cat([*normed, split[2]], 1).reshape(9, -1)
    same_bits(ops.qkv_rope(again, cos, sin, **how), (q, k, v))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_against_transformers_qwen3(dtype: str) -> None:
    from transformers import Qwen3Config
    from transformers.models.qwen3 import modeling_qwen3 as qwen3

    (qkv, cos, sin), how = problem(dtype, rows=40, head_dim=128, num_heads=16, num_kv_heads=8)
    config = Qwen3Config(head_dim=128, rope_parameters={"rope_type": "default", "rope_theta": THETA})
    position = torch.arange(40) * 3 + 1000
    tables = qwen3.Qwen3RotaryEmbedding(config)(qkv, position[None])
    q, k, v = qkv.view(1, 40, 32, 128).split([16, 8, 8], 2)
    norms = [qwen3.Qwen3RMSNorm(128), qwen3.Qwen3RMSNorm(128)]
    for norm, weight in zip(norms, (how["q_weight"], how["k_weight"])):
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
    theirs = qwen3.apply_rotary_pos_emb(norms[0](q).transpose(1, 2), norms[1](k).transpose(1, 2), *tables)
    ours = ops.qkv_rope(qkv, cos, sin, **how)
    exact = loops(qkv, position, how)
    for mine, other, truth in zip(ours, theirs, exact):
        other = other[0].transpose(0, 1)
        if dtype == "float32":  # their angles are float32: 1e-4 off at position 1000
            torch.testing.assert_close(mine, other, rtol=0, atol=2e-3)
        error, error_other = (float(np.abs(t.double().numpy() - truth).max()) for t in (mine, other))
        assert error <= error_other, "the single rounding must not be worse than theirs"
    same_bits(ours[2], v[0], "v")


def test_scores_depend_on_distance_alone() -> None:
    d = 64
    x = normal(2, d)
    qkv = torch.cat([x[0], x[1], x[1]]).expand(200, -1).contiguous()
    cos, sin = ops.rope_table(torch.arange(200), d, 1e4)
    q, k, _ = ops.qkv_rope(qkv, cos, sin, num_heads=1, num_kv_heads=1, head_dim=d)
    scores = q[:, 0] @ k[:, 0].T
    for distance in (0, 1, 50, 150):
        line = scores.diagonal(-distance)
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=0, atol=2e-4)


@pytest.mark.parametrize("layout", ["dense", "slot strided", "head major", "interleaved"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_append_writes_its_slots_only(dtype: str, layout: str) -> None:
    args, how = problem(dtype)
    slots = torch.tensor([7, 0, 3, 11, 4])
    kv, d = how["num_kv_heads"], how["head_dim"]
    nan = float("nan")
    options = {"dtype": getattr(torch, dtype)}
    if layout == "dense":
        k, v = caches(12, how, dtype)
    elif layout == "slot strided":
        k, v = (torch.full((12, kv + 1, d + 3), nan, **options)[:, :kv, :d] for _ in range(2))
    elif layout == "head major":
        k, v = (torch.full((kv, 12, d), nan, **options).transpose(0, 1) for _ in range(2))
    else:
        k, v = torch.full((12, 2, kv, d), nan, **options).unbind(1)
    q = ops.qkv_rope_append(*args, k, v, slots, **how)
    same_bits((q, k[slots].contiguous(), v[slots].contiguous()), ops.qkv_rope(*args, **how))
    others = [s for s in range(12) if s not in slots]
    assert k[others].isnan().all()
    assert v[others].isnan().all()
    wide = k._base if k._base is not None else k
    assert int((~wide.isnan()).sum()) == 5 * kv * d * (2 if layout == "interleaved" else 1)


@pytest.mark.parametrize("kv", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_append_to_caches_of_another_dtype(dtype: str, kv: str, isa: str) -> None:
    """One rounding, at the store: the bits of fp32 rows rounded to the cache's dtype."""
    args, how = problem(dtype, head_dim=24)
    slots, plain = torch.tensor([4, 0, 3, 2, 5]), {n: None if "weight" in n else x for n, x in how.items()}
    k, v = caches(6, how, kv)
    same_bits(ops.qkv_rope_append(*args, k, v, slots, **plain), ops.qkv_rope(*args, **plain)[0])
    _, *wide = ops.qkv_rope(args[0].float(), *args[1:], **plain)
    same_bits((k[slots], v[slots]), [t.to(k.dtype) for t in wide])
    theirs = caches(6, how, kv)
    reference.qkv_rope_append(*args, *theirs, slots, **plain)
    for ours, same in zip((k[slots], v[slots]), theirs):
        torch.testing.assert_close(ours, same[slots])


def test_append_reference_agrees() -> None:
    args, how = problem("float32")
    slots = torch.tensor([4, 3, 2, 1, 0])
    results = []
    for backend in ("cpu", "reference"):
        k, v = caches(6, how)
        results.append((ops.qkv_rope_append(*args, k, v, slots, **how, backend=backend), k[:5], v[:5]))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_rows_beyond_a_grid_dimension() -> None:
    args, how = problem(rows=MANY_ROWS, num_heads=1, num_kv_heads=1, head_dim=16)
    q, k, v = check("qkv_rope", *args, **how)
    k_cache, v_cache = caches(MANY_ROWS, how)
    same_bits(ops.qkv_rope_append(*args, k_cache, v_cache, torch.arange(MANY_ROWS).flip(0), **how), q)
    same_bits((k_cache.flip(0), v_cache.flip(0)), (k, v))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_instructions_or_batch(dtype: str) -> None:
    args, how = problem(dtype, rows=33, head_dim=96)
    q, k, v = check_invariant(lambda threads: ops.qkv_rope(*args, **how, threads=threads))
    for row in (0, 17, 32):
        alone = ops.qkv_rope(*(a[row : row + 1] for a in args), **how)
        same_bits(alone, (q[row : row + 1], k[row : row + 1], v[row : row + 1]), f"row {row} alone")


def test_numpy_in_numpy_out() -> None:
    args, how = problem()
    expected = ops.qkv_rope(*args, **how)
    arrays = {name: w.numpy() if isinstance(w, torch.Tensor) else w for name, w in how.items()}
    actual = ops.qkv_rope(*(a.numpy() for a in args), **arrays)
    assert all(isinstance(a, np.ndarray) for a in actual)
    same_bits(actual, expected)


def test_reference_has_gradients() -> None:
    args, how = problem(rows=2, head_dim=4)
    qkv = args[0].double().requires_grad_()
    weights = {name: how.pop(name).double().requires_grad_() for name in ("q_weight", "k_weight")}

    def run(x: Any, q_weight: Any, k_weight: Any) -> Any:
        return reference.qkv_rope(x, args[1], args[2], **how, q_weight=q_weight, k_weight=k_weight)

    assert torch.autograd.gradcheck(run, (qkv, *weights.values()))
    with pytest.raises(UnsupportedError, match="requires one"):
        ops.qkv_rope(args[0].requires_grad_(), args[1], args[2], **how, backend="cpu")


def changed(**changes: Any) -> Any:
    args, how = problem()
    k, v = caches(8, how)
    named = dict(zip(("qkv", "cos", "sin"), args), k_cache=k, v_cache=v, slots=torch.arange(5), **how)
    return ops.qkv_rope_append(**{**named, **changes}, backend="cpu")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"slots": torch.tensor([0, 1, 2, 3, 8])}, r"slots\[4\] is 8; allowed: 0 to 7"),
        ({"slots": torch.tensor([0, -1, 2, 3, 4])}, r"slots\[1\] is -1"),
        ({"slots": torch.tensor([5, 1, 2, 1, 0])}, "slots name 1 twice"),
        ({"slots": torch.arange(4)}, r"slots is int64\[4\]"),
        ({"slots": torch.arange(5, dtype=torch.int32)}, "slots is int32"),
        ({"num_heads": 3}, r"qkv has shape \[5, 512\]; allowed: \[rows, 448\]"),
        ({"head_dim": 63}, "head_dim=63"),
        ({"num_kv_heads": 0}, "num_kv_heads=0"),
        ({"q_weight": None}, "one of q_weight and k_weight is absent"),
        ({"k_weight": torch.ones(32)}, r"k_weight is float32\[32\]"),
        ({"q_weight": torch.ones(64, dtype=torch.bfloat16)}, "q_weight is bfloat16"),
        ({"eps": 0.0}, "eps is 0"),
        ({"cos": torch.ones(5, 64)}, r"cos is float32\[5, 64\]"),
        ({"sin": torch.ones(5, 32, dtype=torch.float64)}, "sin is float64"),
        ({"k_cache": torch.zeros(8, 3, 64)}, r"qkv_rope: (v|qkv) is"),
        ({"v_cache": torch.zeros(9, 2, 64)}, r"v is float32\[9, 2, 64\]"),
        ({"v_cache": torch.zeros(8, 2, 64, dtype=torch.bfloat16)}, "v is bfloat16"),
        ({"k_cache": torch.zeros(8, 2, 64, dtype=torch.float64)}, "k is float64"),
        ({"k_cache": torch.zeros(8, 2, 128)[..., ::2]}, "last dimension contiguous"),
        ({"threads": -1}, "threads is -1"),
        ({"qkv": torch.zeros(5, 8, 64)}, r"\[5, 8, 64\]"),
    ],
    ids=str,
)
def test_refused_by_name(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        changed(**changes)


def test_refused_slots_leave_the_cache_alone() -> None:
    args, how = problem()
    for backend in ("cpu", "reference"):
        for slots in ([0, 1, 2, 3, 8], [0, 1, 2, 3, -1], [0, 1, 1, 2, 3]):
            k, v = caches(8, how)
            with pytest.raises(UnsupportedError, match="slots"):
                ops.qkv_rope_append(*args, k, v, torch.tensor(slots), **how, backend=backend)
            assert k.isnan().all()
            assert v.isnan().all()


def test_shared_memory_is_refused() -> None:
    args, how = problem()
    k, _ = caches(8, how)
    with pytest.raises(UnsupportedError, match="k and v share memory"):
        ops.qkv_rope_append(*args, k, k, torch.arange(5), **how)
    inside = args[0].view(-1)[: 5 * 2 * 64].view(5, 2, 64)
    with pytest.raises(UnsupportedError, match="qkv shares memory"):
        ops.qkv_rope_append(*args, inside, torch.zeros(5, 2, 64), torch.arange(5), **how)


def test_strange_tensors_are_refused() -> None:
    args, how = problem()
    for _, strange, text in refused(args[0]):
        with pytest.raises(UnsupportedError, match=text):
            ops.qkv_rope(strange, args[1], args[2], **how, backend="cpu")
