"""GPT-OSS's experts: biases, the clamped gate, and what transformers' own modules give, on every way through the products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from internvl_kernels import UnsupportedError, ops, reference
from internvl_kernels.testing.compare import check, compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

EXPERTS, HIDDEN, INNER = 5, 40, 33
LIMIT = 7.0


def layer(dtype: str = "float32", spread: float = 3.0) -> dict[str, torch.Tensor]:
    """Weights whose gates and ups reach past the limit."""
    return {
        "gate_up": normal(EXPERTS, 2 * INNER, HIDDEN, dtype=dtype, seed=1, scale=spread * HIDDEN**-0.5),
        "down": normal(EXPERTS, HIDDEN, INNER, dtype=dtype, seed=2, scale=INNER**-0.5),
        "gate_up_bias": normal(EXPERTS, 2 * INNER, dtype=dtype, seed=3),
        "down_bias": normal(EXPERTS, HIDDEN, dtype=dtype, seed=4),
    }


def chosen(n: int, k: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    logits = normal(n, EXPERTS, seed=5)
    return reference.moe_route(logits, k)


def by_hand(x: Any, w: Any, weights: Any, experts: Any, limit: float) -> torch.Tensor:
    """The published formula on the checkpoint's own layout [E, in, out], gate and up in alternate columns, in float64."""
    turns = torch.stack(w["gate_up"].double().chunk(2, 1), 2).flatten(1, 2).transpose(1, 2)
    shift = torch.stack(w["gate_up_bias"].double().chunk(2, 1), 2).flatten(1)
    y = torch.zeros(len(x), HIDDEN, dtype=torch.float64)
    for t in range(len(x)):
        for j in range(experts.shape[1]):
            e = int(experts[t, j])
            h = x[t].double() @ turns[e] + shift[e]
            gate, up = h[0::2].clamp(max=limit), h[1::2].clamp(-limit, limit)
            inner = (up + 1) * (gate * torch.sigmoid(1.702 * gate))
            y[t] += weights[t, j].double() * (inner @ w["down"][e].double().T + w["down_bias"][e].double())
    return y


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("limit", [0.5, LIMIT, 1e30])
def test_the_published_formula(limit: float, backend: str) -> None:
    x, w = normal(9, HIDDEN), layer()
    weights, experts = chosen(9)
    y = ops.moe_experts(x, w.pop("gate_up"), w.pop("down"), weights, experts, **w, limit=limit, backend=backend)
    exact = by_hand(x, layer(), weights, experts, limit)
    assert (y.double() - exact).norm() / exact.norm() < 2e-6


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("decode", [False, True], ids=["prefill", "decode"])
@pytest.mark.parametrize("n", [0, 1, 3, 70, 400])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_ways(dtype: str, n: int, decode: bool, packed: bool, isa: str) -> None:
    x, w = normal(n, HIDDEN, dtype=dtype), layer(dtype)
    weights, experts = (t.to(x.dtype) if t.is_floating_point() else t for t in chosen(n))
    extra: dict[str, Any] = {"gate_up_bias": w["gate_up_bias"], "down_bias": w["down_bias"], "limit": LIMIT}
    matrices = (w["gate_up"], w["down"])
    same = reference.moe_experts(x, *matrices, weights, experts, **extra)
    wide = {name: t.double() if isinstance(t, torch.Tensor) else t for name, t in extra.items()}
    high = reference.moe_experts(x.double(), *(m.double() for m in matrices), weights.double(), experts, **wide)
    if packed:
        matrices = (ops.pack_weight(matrices[0], gated=True), ops.pack_weight(matrices[1]))
    y = ops.moe_experts(x, *matrices, weights, experts, decode=decode, backend="cpu", **extra)
    compare(y, same, high, "moe_experts", dtype)


@pytest.mark.parametrize("name", ["gate_up_bias", "down_bias", "limit"])
def test_each_alone(name: str) -> None:
    x, w = normal(20, HIDDEN), layer()
    weights, experts = chosen(20)
    extra = {name: LIMIT if name == "limit" else w[name]}
    y = ops.moe_experts(x, w["gate_up"], w["down"], weights, experts, **extra, backend="cpu")
    torch.testing.assert_close(y, reference.moe_experts(x, w["gate_up"], w["down"], weights, experts, **extra))
    plain = ops.moe_experts(x, w["gate_up"], w["down"], weights, experts, backend="cpu")
    assert not torch.equal(y, plain)


def test_rows_do_not_depend_on_the_batch_or_threads() -> None:
    w = layer()
    matrices = (ops.pack_weight(w["gate_up"], gated=True), ops.pack_weight(w["down"]))
    extra: dict[str, Any] = {"gate_up_bias": w["gate_up_bias"], "down_bias": w["down_bias"], "limit": LIMIT}
    weights, experts = chosen(90)
    x = normal(90, HIDDEN)

    def run(rows: slice, threads: int) -> torch.Tensor:
        return ops.moe_experts(
            x[rows], *matrices, weights[rows], experts[rows], threads=threads, backend="cpu", **extra
        )

    whole = run(slice(None), 1)
    same_bits(run(slice(None), 4), whole, "threads")
    for first, last in ((0, 1), (17, 18), (40, 90)):
        same_bits(run(slice(first, last), 2), whole[first:last])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gate_behind_a_dense_product(dtype: str, bias: bool) -> None:
    x, w = normal(17, HIDDEN, dtype=dtype), layer(dtype)
    shift = w["gate_up_bias"][0] if bias else None
    check("linear_swiglu", x, w["gate_up"][0], shift, limit=LIMIT)
    operands = (x, w["gate_up"][0], *(() if shift is None else (shift,)))
    same = reference.linear_swiglu(*operands, limit=LIMIT)
    high = reference.linear_swiglu(*(t.double() for t in operands), limit=LIMIT)
    for weight in (operands[1], ops.pack_weight(operands[1], gated=True)):
        for decode in (False, True):
            y = ops.linear_swiglu(x, weight, shift, limit=LIMIT, decode=decode, backend="cpu")
            compare(y, same, high, "linear_swiglu", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gate_alone_and_its_edges(dtype: str) -> None:
    kind = getattr(torch, dtype)
    values = [0.0, -0.0, 6.9, 7.0, 7.1, -6.9, -7.0, -7.1, 1e4, -1e4, -80.0, float("inf"), float("-inf"), float("nan")]
    gate = torch.tensor(values, dtype=kind).repeat_interleave(len(values))
    x = torch.stack([gate, torch.tensor(values, dtype=kind).repeat(len(values))], -1)
    check("swiglu", x, limit=LIMIT)
    many = normal(65, 130, dtype=dtype, scale=9.0)
    check_invariant(lambda threads: ops.swiglu(many, limit=LIMIT, threads=threads, backend="cpu"))


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), "7", True, 10**400])
def test_limits_that_are_refused(limit: Any) -> None:
    x, w = normal(3, HIDDEN), layer()
    weights, experts = chosen(3)
    for backend in ("cpu", "reference"):
        for call in (
            lambda b: ops.swiglu(x, limit=limit, backend=b),
            lambda b: ops.linear_swiglu(x, w["gate_up"][0], limit=limit, backend=b),
            lambda b: ops.moe_experts(x, w["gate_up"], w["down"], weights, experts, limit=limit, backend=b),
        ):
            with pytest.raises(UnsupportedError, match=r"limit.*allowed"):
                call(backend)


def test_biases_that_are_refused() -> None:
    x, w = normal(3, HIDDEN), layer()
    weights, experts = chosen(3)
    for name, bias in (
        ("gate_up_bias", w["gate_up_bias"][:, :-1]),
        ("gate_up_bias", w["gate_up_bias"][0]),
        ("down_bias", w["down_bias"][:-1]),
        ("down_bias", w["down_bias"].bfloat16()),
    ):
        with pytest.raises(UnsupportedError, match=rf"moe_experts: {name}"):
            ops.moe_experts(x, w["gate_up"], w["down"], weights, experts, **{name: bias})


def test_transformers_own_modules() -> None:
    """Router, experts and combination of GptOssMLP: top-k and then softmax is softmax, top-k and then their share."""
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP

    config = GptOssConfig(
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=1,
    )
    theirs, w = GptOssMLP(config).eval(), layer()
    router, bias = normal(EXPERTS, HIDDEN, seed=6), normal(EXPERTS, seed=7)
    with torch.no_grad():
        theirs.router.weight.copy_(router)
        theirs.router.bias.copy_(bias)
        theirs.experts.gate_up_proj.copy_(torch.stack(w["gate_up"].chunk(2, 1), 2).flatten(1, 2).transpose(1, 2))
        theirs.experts.gate_up_proj_bias.copy_(torch.stack(w["gate_up_bias"].chunk(2, 1), 2).flatten(1))
        theirs.experts.down_proj.copy_(w["down"].transpose(1, 2))
        theirs.experts.down_proj_bias.copy_(w["down_bias"])
        x = normal(33, HIDDEN)
        expected, scores = theirs(x[None])
    weights, experts = ops.moe_route(ops.linear(x, router, bias), 2)
    assert (weights - scores).abs().max() < 1e-6
    biases = {"gate_up_bias": w["gate_up_bias"], "down_bias": w["down_bias"]}
    y = ops.moe_experts(x, w["gate_up"], w["down"], weights, experts, **biases, limit=LIMIT)
    assert (y - expected[0]).norm() / expected.norm() < 2e-6
