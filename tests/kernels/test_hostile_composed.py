"""Ops that are put together from others hold their tensors to the rules of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import internvl_kernels as ivk

ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "negative": torch._neg_view,
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("kind", ODD)
def test_composed_ops_refuse_odd_tensors_too(kind: str) -> None:
    x, gate_up, down = torch.ones(4, 16), torch.ones(6, 8, 16), torch.ones(6, 16, 4)
    experts, ones = torch.zeros(4, 2, dtype=torch.int64), torch.ones(4, 2)
    odd = ODD[kind]
    calls: list[Callable[[], Any]] = [
        lambda: ivk.ops.moe_experts(odd(x), gate_up, down, ones, experts, backend="cpu"),
        lambda: ivk.ops.moe_experts(x, odd(gate_up), down, ones, experts, backend="cpu"),
        lambda: ivk.ops.moe_experts(x, gate_up, odd(down), ones, experts, backend="cpu"),
        lambda: ivk.ops.penalise(odd(x), experts, 1.5, backend="cpu"),
        lambda: ivk.ops.rope_table(odd(x[:, 0].contiguous()), 8, 1e4, backend="cpu"),
    ]
    for call in calls:
        with pytest.raises(ivk.UnsupportedError, match=r"x|gate_up|down|logits|positions"):
            call()
