"""Graphs with the operators of torch in them: torch.compile and torch.export, each operator one node, the bits of eager."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from internvl_kernels import UnsupportedError, torch_ops
from internvl_kernels.testing.compare import same_bits
from internvl_kernels.testing.hostile import normal, special

DOOR = torch.ops.internvl_kernels
assert torch_ops.OPERATORS

pytestmark = pytest.mark.usefixtures("fresh_compiler")


class Layer(torch.nn.Module):
    """A tower's layer, of InternViT-6B's parts."""

    def __init__(self, width: int = 64, heads: int = 4, *, inplace: bool = False) -> None:
        super().__init__()
        self.heads, self.inplace = heads, inplace
        shapes = {"n1": (width,), "n2": (width,), "qn": (width,), "kn": (width,), "s1": (width,), "s2": (width,)}
        shapes |= {
            "qkv": (3 * width, width),
            "proj": (width, width),
            "up": (4 * width, width),
            "down": (width, 4 * width),
        }
        for seed, (name, shape) in enumerate(shapes.items()):
            self.register_parameter(name, torch.nn.Parameter(normal(*shape, seed=seed, scale=shape[-1] ** -0.5)))

    def forward(self, h: Any) -> Any:
        batch, length, width = h.shape
        qkv = DOOR.linear(DOOR.rms_norm(h, self.n1), self.qkv)
        if self.inplace:
            DOOR.vision_qk_norm_(qkv, self.qn, self.kn)
        else:
            qkv = DOOR.vision_qk_norm(qkv, self.qn, self.kn)
        q, k, v = qkv.reshape(batch, length, 3, self.heads, width // self.heads).unbind(2)
        branch = DOOR.linear(DOOR.attention(q, k, v).reshape(batch, length, width), self.proj)
        if self.inplace:
            h = h.clone()
            y = DOOR.add_norm_(h, branch, self.n2, scale=self.s1, rms=True)
            DOOR.linear_residual_(DOOR.linear_gelu(y, self.up), self.down, None, residual=h, scale=self.s2)
            return h
        h, y = DOOR.add_norm(h, branch, self.n2, scale=self.s1, rms=True)
        return DOOR.linear_residual(DOOR.linear_gelu(y, self.up), self.down, None, residual=h, scale=self.s2)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_layer(backend: str, inplace: bool) -> None:
    layer, graphs = Layer(inplace=inplace), []

    def count(module: Any, inputs: Any) -> Any:
        graphs.append(module)
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    compiled = torch.compile(layer, fullgraph=True, backend=count, dynamic=True)
    with torch.no_grad():
        for batch, length in ((2, 17), (3, 17), (5, 33)):
            h = normal(batch, length, 64)
            expected = layer(h)
            same_bits(expected, Layer()(h), "in place or not")
            same_bits(compiled(h), expected)
    assert len(graphs) == 1, "one graph for every shape"


def test_compiled_training_step() -> None:
    grads = []
    for wrap in (lambda m: m, lambda m: torch.compile(m, fullgraph=True, backend="aot_eager", dynamic=True)):
        layer, h = Layer(), normal(2, 17, 64).requires_grad_()
        wrap(layer)(h).square().mean().backward()
        grads.append([h.grad, *(p.grad for p in layer.parameters())])
    assert all(g is not None and bool(g.any()) for g in grads[0])
    same_bits(grads[1], grads[0], "gradients")


def test_exported_layer(tmp_path: Path) -> None:
    layer, tokens = Layer(), torch.export.Dim("tokens", min=2, max=4096)
    program = torch.export.export(layer, (normal(2, 17, 64),), dynamic_shapes=({1: tokens},))
    named = [str(node.target) for node in program.graph.nodes if "internvl_kernels" in str(node.target)]
    assert sorted(named) == sorted(
        f"internvl_kernels.{n}.default"
        for n in (
            "rms_norm",
            "linear",
            "vision_qk_norm",
            "attention",
            "linear",
            "add_norm",
            "linear_gelu",
            "linear_residual",
        )
    )
    torch.export.save(program, tmp_path / "layer.pt2")
    again = torch.export.load(tmp_path / "layer.pt2")
    h = special(2, 33, 64, seed=3)
    with torch.no_grad():
        for each in (program, again):
            same_bits(each.module()(h), layer(h))


def test_decode_step_writes_the_cache_in_a_graph() -> None:
    heads: dict[str, int] = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16}

    def step(qkv: Any, cos: Any, sin: Any, k: Any, v: Any, slots: Any, spans: Any) -> Any:
        q = DOOR.qkv_rope_append(qkv, cos, sin, k, v, slots, **heads)
        return DOOR.cached_attention(q, k, v, spans, decode=True).flatten(1)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (2, 3):
        cos, sin = DOOR.rope_table(torch.arange(rows) + 5, 16, 1e4)
        spans = torch.tensor([[i, i + 1, 8 * i, 6] for i in range(rows)])
        caches = [[normal(32, 2, 16, seed=s) for s in (1, 2)] for _ in range(2)]
        rest = spans[:, 2] + 5, spans
        results = [
            run(normal(rows, 128, seed=7), cos, sin, *mine, *rest) for run, mine in zip((step, compiled), caches)
        ]
        same_bits(results[1], results[0])
        same_bits(caches[1], caches[0], "caches")
        assert bool((caches[0][0][5] != normal(32, 2, 16, seed=1)[5]).all())


def test_refused_where_the_graph_runs() -> None:
    compiled = torch.compile(lambda a, b: DOOR.linear(a, b), fullgraph=True, backend="aot_eager")
    with pytest.raises(UnsupportedError, match=r"linear: weight is torch\.float32; allowed: x's dtype, torch\.float16"):
        compiled(normal(4, 8, dtype="float16"), normal(8, 8))
