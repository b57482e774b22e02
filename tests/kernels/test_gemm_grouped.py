"""The experts' products in one call: skew, empty experts, packed and plain weights, 16-bit weights, bits, refusals."""

from __future__ import annotations

import pytest
import torch

from internvl_kernels import ops, reference
from internvl_kernels.errors import UnsupportedError
from internvl_kernels.ops._backend import cpu
from internvl_kernels.testing.compare import compare, same_bits
from internvl_kernels.testing.hostile import DTYPES, normal
from internvl_kernels.testing.invariance import check_invariant

EXPERTS, HIDDEN, INNER = 5, 72, 24


def layer(dtype: str = "float32") -> tuple[torch.Tensor, torch.Tensor]:
    gate_up = normal(EXPERTS, 2 * INNER, HIDDEN, dtype=dtype, seed=1, scale=HIDDEN**-0.5)
    return gate_up, normal(EXPERTS, HIDDEN, INNER, dtype=dtype, seed=2, scale=INNER**-0.5)


def packed(gate_up: torch.Tensor, down: torch.Tensor) -> tuple[ops.PackedWeight, ops.PackedWeight]:  # type: ignore[name-defined]
    return ops.pack_weight(gate_up, gated=True), ops.pack_weight(down)


CHOICES = {
    "even": lambda n: (torch.arange(2 * n) % EXPERTS).reshape(n, 2),
    "all to one": lambda n: torch.full((n, 2), 3),
    "the last alone": lambda n: torch.full((n, 2), EXPERTS - 1),
    "one is empty": lambda n: (torch.arange(2 * n) * 7 % 4).reshape(n, 2),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("rows", [1, 2, 13, 130])
def test_experts(rows: int, choice: str, dtype: str) -> None:
    x, (gate_up, down), experts = normal(rows, HIDDEN, dtype=dtype), layer(dtype), CHOICES[choice](rows)
    weights = normal(rows, 2, dtype=dtype, seed=3).abs()
    wide = reference.moe_experts(x.double(), gate_up.double(), down.double(), weights.double(), experts)
    expected = reference.moe_experts(x, gate_up, down, weights, experts)
    y = ops.moe_experts(x, *packed(gate_up, down), weights, experts, backend="cpu")
    compare(y, expected, wide, "moe_experts", dtype)
    compare(ops.moe_experts(x, gate_up, down, weights, experts, backend="cpu"), expected, wide, "moe_experts", dtype)
    if dtype == "float32":
        same_bits(ops.moe_experts(x, gate_up, down, weights, experts, backend="cpu"), y, "plain weights")
        same_bits(ops.moe_experts(x, *packed(gate_up, down), weights, experts, decode=True, backend="cpu"), y, "decode")
    for row in {0, rows - 1}:
        alone = [t[row : row + 1] for t in (weights, experts)]
        same_bits(ops.moe_experts(x[row : row + 1], *packed(gate_up, down), *alone, backend="cpu"), y[row : row + 1])


def test_bits_do_not_depend_on_threads_or_width() -> None:
    x, matrices = normal(300, HIDDEN), packed(*layer())
    experts, weights = CHOICES["even"](300), normal(300, 2, seed=3)
    check_invariant(
        lambda threads: ops.moe_experts(x, *matrices, weights, experts, threads=threads, backend="cpu"), fused=True
    )


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_weights_of_sixteen_bits(stored: str, isa: str) -> None:
    x, (gate_up, down), experts = normal(40, HIDDEN), layer(stored), CHOICES["one is empty"](40)
    weights = normal(40, 2, seed=3)
    expected = ops.moe_experts(x, *packed(gate_up.float(), down.float()), weights, experts, backend="cpu")
    same_bits(ops.moe_experts(x, *packed(gate_up, down), weights, experts, backend="cpu"), expected)


def test_weights_of_unchosen_experts_are_not_read() -> None:
    x, (gate_up, down), experts = normal(9, HIDDEN), layer(), CHOICES["one is empty"](9)
    weights = normal(9, 2, seed=3)
    clean = ops.moe_experts(x, *packed(gate_up, down), weights, experts, backend="cpu")
    gate_up[4], down[4] = float("nan"), float("nan")
    same_bits(ops.moe_experts(x, *packed(gate_up, down), weights, experts, backend="cpu"), clean)


def test_refusals() -> None:
    x, (gate_up, down), experts = normal(4, HIDDEN), layer(), CHOICES["even"](4)
    matrices, weights = packed(gate_up, down), normal(4, 2)
    with pytest.raises(UnsupportedError, match="both packed"):
        ops.moe_experts(x, matrices[0], down, weights, experts)
    with pytest.raises(UnsupportedError, match="gated=True"):
        ops.moe_experts(x, ops.pack_weight(gate_up), matrices[1], weights, experts)
    with pytest.raises(UnsupportedError, match="packed, backend 'reference'"):
        ops.moe_experts(x, *matrices, weights, experts, backend="reference")
    run = cpu().gemm_grouped
    y, offsets = torch.empty(4, INNER), torch.tensor([0, 1, 1, 2, 4, 4])
    rows = torch.arange(4)
    run(x, rows, offsets, gate_up, None, None, y, True)
    for changed, text in (
        ({"rows": torch.tensor([0, 1, 2, 4])}, r"rows\[3\] is 4; allowed: 0 to 3"),
        ({"rows": torch.tensor([0, -1, 2, 3])}, r"rows\[1\] is -1"),
        ({"offsets": torch.tensor([0, 3, 1, 2, 4, 4])}, r"offsets\[2\] is 1; allowed: at least 3"),
        ({"offsets": torch.tensor([0, 1, 1, 2, 4, 5])}, "from 0 to 5"),
        ({"offsets": torch.tensor([0, 1, 4])}, "one offset more"),
        ({"weight": gate_up.double()}, "float32, bfloat16 or float16"),
        ({"weight": gate_up[:, :, :-1]}, "weight is"),
        ({"y": torch.empty(4, INNER + 1)}, "y is"),
        ({"bias": torch.zeros(5, 2 * INNER - 1)}, r"bias is .*allowed: contiguous \[5, "),
        ({"bias": torch.zeros(5, 2 * INNER, dtype=torch.bfloat16)}, "bias is bfloat16"),
        ({"limit": -1.0}, "limit is -1; allowed: above 0"),
        ({"limit": float("nan")}, "limit is -?nan"),
        ({"y": gate_up.view(-1)[: 4 * INNER].view(4, INNER)}, "apart from x and weight"),
    ):
        given = {
            "x": x,
            "rows": rows,
            "offsets": offsets,
            "weight": gate_up,
            "bias": None,
            "y": y,
            "limit": 0.0,
            **changed,
        }
        with pytest.raises(UnsupportedError, match=text):
            run(packed_rows=None, gated=True, **given)
