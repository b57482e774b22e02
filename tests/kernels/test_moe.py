"""Mixture of experts: reference, plain loops, transformers' Qwen3-MoE, ties and NaN, bits, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import COLUMNS, DTYPES, MANY_ROWS, VIEWS, integers, normal, refused, special
from internvl_kernels.testing.invariance import check_invariant

NAN, INF = float("nan"), float("inf")
ROUTES = [(n, 8, 2) for n in (0, 1, 2, 65)] + [
    (5, e, k) for e, k in ((1, 1), (3, 3), (7, 5), (16, 4), (17, 17), (128, 8), (300, 33))
]


def chosen(n: int, num_experts: int, k: int, seed: int = 0) -> torch.Tensor:
    return ops.moe_route(normal(n, num_experts, seed=seed), k)[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("n", "num_experts", "k"), ROUTES)
def test_route_against_reference(n: int, num_experts: int, k: int, normalize: bool, dtype: str) -> None:
    check("moe_route", normal(n, num_experts, dtype=dtype, scale=3.0), k, normalize=normalize)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_route_against_float64_loops(backend: str, normalize: bool) -> None:
    logits = normal(30, 11, scale=4.0)
    weights, experts = ops.moe_route(logits, 3, normalize=normalize, backend=backend)
    for row, w, e in zip(logits.double().numpy(), weights.double().numpy(), experts.tolist()):
        ranked = sorted(range(11), key=lambda i: (-row[i], i))[:3]
        p = np.exp(row) / np.exp(row).sum()
        assert e == ranked
        np.testing.assert_allclose(w, p[ranked] / (p[ranked].sum() if normalize else 1.0), rtol=3e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_equal_logits_keep_the_lower_expert(backend: str, dtype: str) -> None:
    logits = integers(200, 24, dtype=dtype, high=2)  # five values: nothing but ties
    logits[logits == 0] *= -1.0  # zeros of both signs are one value
    logits[::2][logits[::2] == 0] = 0.0
    logits[0, ::2] = -0.0
    _, experts = ops.moe_route(logits, 10, backend=backend)
    for row, e in zip(logits.tolist(), experts.tolist()):
        assert e == sorted(range(24), key=lambda i: (-row[i], i))[:10]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "poison", [{3: NAN}, {0: NAN, 7: NAN}, {5: INF}, {2: INF, 3: -INF}, dict.fromkeys(range(9), -INF)], ids=str
)
def test_rows_without_a_softmax_are_nan_and_alone(
    poison: dict[int, float], backend: str, normalize: bool, dtype: str
) -> None:
    clean = normal(3, 9, dtype=dtype)
    logits = clean.clone()
    for column, value in poison.items():
        logits[1, column] = value
    weights, experts = ops.moe_route(logits, 4, normalize=normalize, backend=backend)
    assert weights[1].isnan().all()
    assert experts[1].tolist() == [0, 1, 2, 3]
    expected = ops.moe_route(clean, 4, normalize=normalize, backend=backend)
    same_bits((weights[::2], experts[::2]), (expected[0][::2], expected[1][::2]))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_minus_infinity_only_forbids_an_expert(backend: str) -> None:
    logits = torch.tensor([[-INF, 1.0, -INF, 0.0]])
    weights, experts = ops.moe_route(logits, 3, backend=backend)
    assert experts.tolist() == [[1, 3, 0]]
    torch.testing.assert_close(weights, torch.tensor([[0.7310586, 0.2689414, 0.0]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS)
def test_route_views(view: str, dtype: str) -> None:
    logits = normal(9, 20, dtype=dtype)
    same_bits(ops.moe_route(VIEWS[view](logits), 4), ops.moe_route(logits, 4))


@pytest.mark.parametrize("shape", [(0, 2), (1, 1), (1, 8), (3, 0), (65, 3), (700, 8)], ids=str)
@pytest.mark.parametrize("num_experts", [1, 3, 128])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_permutation_is_a_stable_sort(backend: str, num_experts: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    experts = torch.randint(0, num_experts, shape, generator=generator)
    order, offsets = ops.moe_permute(experts, num_experts, backend=backend)
    flat = experts.flatten().tolist()
    assert order.tolist() == sorted(range(len(flat)), key=lambda i: flat[i])
    assert offsets.tolist() == [sum(e < bound for e in flat) for bound in range(num_experts + 1)]
    same_bits(ops.moe_permute(experts.T.contiguous().T, num_experts, backend=backend), (order, offsets))


def test_permutation_of_one_crowded_expert() -> None:
    experts = torch.full((MANY_ROWS, 1), 6)
    order, offsets = ops.moe_permute(experts, 9)
    same_bits(order, torch.arange(MANY_ROWS))
    assert offsets.tolist() == [0] * 7 + [MANY_ROWS] * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "k", "cols"), [(0, 2, 8), (1, 1, 5), (65, 3, 47), (7, 16, 20)] + [(5, 2, c) for c in COLUMNS]
)
def test_combine_against_reference(n: int, k: int, cols: int, dtype: str) -> None:
    order, _ = ops.moe_permute(chosen(n, 16, k), 16)
    check("moe_combine", normal(n * k, cols, dtype=dtype), normal(n, k, dtype=dtype, seed=1), order)


@pytest.mark.parametrize("dtype", DTYPES)
def test_combine_adds_choices_in_their_order(dtype: str) -> None:
    n, k, cols = 6, 5, 33
    order, _ = ops.moe_permute(chosen(n, 8, k), 8)
    y, weights = normal(n * k, cols, dtype=dtype), normal(n, k, dtype=dtype, seed=1)
    place = {int(choice): row for row, choice in enumerate(order)}
    wide, w = y.float().numpy(), weights.float().numpy()
    total = np.zeros((n, cols), np.float32)
    for t in range(n):
        total[t] = w[t, 0] * wide[place[t * k]]
        for j in range(1, k):
            total[t] += w[t, j] * wide[place[t * k + j]]
    same_bits(ops.moe_combine(y, weights, order), torch.from_numpy(total).to(y.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_combine_views_and_special_values(dtype: str) -> None:
    order, _ = ops.moe_permute(chosen(40, 8, 3), 8)
    y, weights = special(120, 33, dtype=dtype), normal(40, 3, dtype=dtype)
    expected = check("moe_combine", y, weights, order)
    for view in VIEWS.values():
        same_bits(ops.moe_combine(view(y), view(weights), order), expected)


def test_rows_beyond_a_grid_dimension() -> None:
    weights, experts = check("moe_route", normal(MANY_ROWS, 4), 2)
    order, _ = ops.moe_permute(experts, 4)
    check("moe_combine", normal(2 * MANY_ROWS, 3), weights, order)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_instructions_or_batch(dtype: str) -> None:
    logits = normal(70, 128, dtype=dtype)
    weights, experts = check_invariant(lambda threads: ops.moe_route(logits, 8, threads=threads))
    same_bits(ops.moe_route(logits[41:42], 8), (weights[41:42], experts[41:42]), "one token alone")
    full = check_invariant(lambda threads: ops.moe_route(logits, 128, normalize=False, threads=threads))
    same_bits(ops.moe_route(logits[41:42], 128, normalize=False), (full[0][41:42], full[1][41:42]), "one token alone")
    order, _ = ops.moe_permute(experts, 128)
    y = normal(70 * 8, 200, dtype=dtype)
    out = check_invariant(lambda threads: ops.moe_combine(y, weights, order, threads=threads))
    rows = [int((order == 41 * 8 + j).nonzero()) for j in range(8)]
    same_bits(ops.moe_combine(y[rows], weights[41:42], torch.arange(8)), out[41:42], "one token alone")


def layer(
    n: int, num_experts: int, k: int, dtype: str = "float32", hidden: int = 24, inner: int = 10
) -> list[torch.Tensor]:
    weights, experts = ops.moe_route(normal(n, num_experts, dtype=dtype), k)
    gate_up = normal(num_experts, 2 * inner, hidden, dtype=dtype, scale=0.2)
    return [
        normal(n, hidden, dtype=dtype, seed=5),
        gate_up,
        normal(num_experts, hidden, inner, dtype=dtype),
        weights,
        experts,
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("decode", [False, True], ids=["prefill", "decode"])
@pytest.mark.parametrize(
    ("n", "num_experts", "k"), [(0, 4, 2), (1, 4, 2), (6, 4, 4), (5, 3, 1), (33, 7, 2), (4, 128, 8)]
)
def test_experts_against_loops(n: int, num_experts: int, k: int, decode: bool, dtype: str) -> None:
    x, gate_up, down, weights, experts = layer(n, num_experts, k, dtype)
    expected = torch.zeros(n, 24, dtype=torch.float64)
    for t in range(n):
        for w, e in zip(weights[t].double(), experts[t]):
            gate, up = (gate_up[e].double() @ x[t].double()).chunk(2)
            expected[t] += w * (down[e].double() @ (gate / (1 + (-gate).exp()) * up))
    actual = ops.moe_experts(x, gate_up, down, weights, experts, decode=decode, backend="cpu")
    compare(actual, reference.moe_experts(x, gate_up, down, weights, experts), expected, "moe_experts", dtype)


def test_experts_read_only_the_chosen_matrices() -> None:
    x, gate_up, down, weights, _ = layer(20, 9, 2)
    experts = torch.tensor([[4, 7]]).repeat(20, 1)
    experts[3] = torch.tensor([7, 7])  # one expert twice
    clean = ops.moe_experts(x, gate_up, down, weights, experts)
    torch.testing.assert_close(clean, reference.moe_experts(x, gate_up, down, weights, experts))
    others = [0, 1, 2, 3, 5, 6, 8]
    gate_up[others], down[others] = NAN, NAN
    same_bits(ops.moe_experts(x, gate_up, down, weights, experts), clean)


@pytest.mark.parametrize("normalize", [True, False])
def test_against_transformers_qwen3_moe(normalize: bool) -> None:
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    config = Qwen3MoeConfig(
        hidden_size=32, moe_intermediate_size=16, num_experts=12, num_experts_per_tok=3, norm_topk_prob=normalize
    )
    config._experts_implementation = "eager"
    block = Qwen3MoeSparseMoeBlock(config)
    for index, parameter in enumerate(block.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    state = block.state_dict()
    x = normal(40, 32)
    with torch.no_grad():
        expected = block(x[None])[0]
        weights, experts = ops.moe_route(ops.linear(x, state["gate.weight"]), 3, normalize=normalize)
        actual = ops.moe_experts(x, state["experts.gate_up_proj"], state["experts.down_proj"], weights, experts)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_numpy_in_numpy_out() -> None:
    logits = normal(6, 4)
    tensors = layer(6, 4, 2)
    arrays = [t.numpy() for t in tensors]
    weights, experts = ops.moe_route(logits.numpy(), 2)
    order, offsets = ops.moe_permute(experts, 4)
    out = ops.moe_combine(normal(12, 5).numpy(), weights, order)
    y = ops.moe_experts(*arrays)
    assert all(isinstance(a, np.ndarray) for a in (weights, experts, order, offsets, out, y))
    same_bits((weights, experts), ops.moe_route(logits, 2))
    same_bits(y, ops.moe_experts(*tensors))


def test_reference_has_gradients() -> None:
    logits = normal(4, 5).double().requires_grad_()
    x, gate_up, down, _, _ = (t.double() if t.is_floating_point() else t for t in layer(4, 5, 2, hidden=3, inner=2))

    def run(logits: Any, *tensors: Any) -> Any:
        return reference.moe_experts(*tensors, *reference.moe_route(logits, 2))

    assert torch.autograd.gradcheck(run, (logits, x.requires_grad_(), gate_up.requires_grad_(), down.requires_grad_()))


X, GU, DOWN, W, E = layer(5, 4, 2)
ORDER = torch.arange(10)
REFUSED = [
    ("moe_route", (normal(3, 4), 0), {}, "k is 0"),
    ("moe_route", (normal(3, 4), 5), {}, r"k is 5, logits have shape \[3, 4\]"),
    ("moe_route", (normal(4), 1), {}, r"shape \[4\]"),
    ("moe_route", (normal(3, 8)[:, ::2], 1), {}, "last dimension contiguous"),
    ("moe_route", (normal(3, 4), 1), {"threads": 5000}, "threads is 5000"),
    ("moe_permute", (torch.tensor([[0, 4]]), 4), {}, r"experts\[0, 1\] is 4; allowed: 0 to 3"),
    ("moe_permute", (torch.tensor([[0, 1], [-1, 1]]), 4), {}, r"experts\[1, 0\] is -1"),
    ("moe_permute", (torch.zeros(2, 2, dtype=torch.int32), 4), {}, "experts is int32"),
    ("moe_permute", (torch.zeros(2, dtype=torch.int64), 4), {}, r"experts has shape \[2\]"),
    ("moe_permute", (torch.zeros(2, 2, dtype=torch.int64), 0), {}, "num_experts=0"),
    ("moe_combine", (normal(10, 8), W, ORDER - 1), {}, r"order\[0\] is -1"),
    ("moe_combine", (normal(10, 8), W, ORDER.clamp(max=8)), {}, r"order\[9\] is 8; allowed: every number from 0 to 9 once"),
    ("moe_combine", (normal(10, 8), W, ORDER + 1), {}, r"order\[9\] is 10"),
    ("moe_combine", (normal(10, 8), W, ORDER[:9]), {}, r"order is int64\[9\]"),
    ("moe_combine", (normal(9, 8), W, ORDER), {}, r"weights is float32\[5, 2\]"),
    ("moe_combine", (normal(10, 8), W.bfloat16(), ORDER), {}, "weights is bfloat16"),
    ("moe_combine", (normal(10, 8), W[0], ORDER), {}, r"weights \[2\]"),
    ("moe_experts", (X, GU, DOWN, W, E + 4), {}, r"experts\[0, 0\] is \d; allowed: 0 to 3"),
    ("moe_experts", (X, GU[:3], DOWN, W, E), {}, r"\[3, 20, 24\], \[4, 24, 10\]"),
    ("moe_experts", (X, GU[:, :18], DOWN, W, E), {}, r"\[4, 18, 24\]"),
    ("moe_experts", (X[:4], GU, DOWN, W, E), {}, r"shapes \[4, 24\]"),
    ("moe_experts", (X[0], GU, DOWN, W, E), {}, r"shapes \[24\]"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "args", "options", "text"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_refused_by_name(op: str, args: tuple[Any, ...], options: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        getattr(ops, op)(*args, **options, backend="cpu")


def test_strange_tensors_are_refused() -> None:
    for _, strange, text in refused(normal(5, 8)):
        with pytest.raises(UnsupportedError, match=text):
            ops.moe_route(strange, 2, backend="cpu")
    for _, strange, text in refused(normal(10, 8)):
        with pytest.raises(UnsupportedError, match=text):
            ops.moe_combine(strange, W, ORDER, backend="cpu")
    with pytest.raises(UnsupportedError, match=r"experts in \[0, 4\]"):
        reference.moe_permute(torch.tensor([[0, 4]]), 4)
