"""The ops once more, as operators of torch: ``torch.ops.internvl_kernels.linear`` and the rest, for torch.compile and torch.export.

``import internvl_kernels.torch_ops`` registers them. Each calls the function of ``internvl_kernels.ops`` that it is named after,
with its arguments and its bits, and stands in a graph as one node. What is different:

- Tensors are of torch, results contiguous and apart from the arguments. Tensors that the function takes by keyword alone come
  after its positional arguments here (torch has no gradients otherwise); by keyword they go in under the same names.
- No packed weights, no ``out`` or ``tell``, no lists: a graph holds tensors. The pieces of the CUDA tower's fusion (``linear_folded``
  and what stands around it) have no operator: the tower launches them in a graph of its own.
- ``spans`` of ``cached_attention`` is int64 ``[sequences, 4]``.
- Instead of ``inplace`` there is an operator with an underscore, which returns what remains: ``linear_residual_`` nothing,
  ``add_norm_`` the norm. It and ``qkv_rope_append`` say in their schemas what they write.
- Gradients: the kernel runs forwards, and backwards the reference is computed again and differentiated (``backend`` "auto" or
  "reference"). Operators that write refuse an argument that requires one. cached_attention, embed_tokens, moe_combine, moe_experts
  and penalise, whose references read values on the host, refuse the backward pass.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import library

from . import ops, reference
from .errors import UnsupportedError
from .ops._tensor import normed

NAMESPACE = "internvl_kernels"
# A parameter's annotation -> its type in a schema.
_TYPES = {
    "Any": "Tensor",
    "Any | PackedWeight": "Tensor",
    "Any | Sequence[Any]": "Tensor",
    "Any | Sequence[float]": "Tensor",
    "Any | Sequence[Sequence[int]]": "Tensor",
    "Spans": "Tensor",
    "Sequence[float]": "float[]",
    "tuple[int, int]": "SymInt[2]",
    "bool": "bool",
    "float": "float",
    "int": "SymInt",
    "str": "str",
}


def _like(x: Any, *shape: Any, dtype: torch.dtype | None = None) -> Any:
    return x.new_empty(shape or x.shape, dtype=dtype)


def _normed(x: Any, weight: Any, *shape: Any) -> Any:
    return _like(x, *shape, dtype=getattr(torch, normed(x, weight)))


def _product(x: Any, weight: Any, **_: Any) -> Any:
    return _like(x, *x.shape[:-1], weight.shape[0])


def _tokens(x: Any, factor: Any, drop_cls: bool, weight: Any, **_: Any) -> Any:
    area = factor * factor
    return _normed(x, weight, x.shape[0], (x.shape[1] - int(drop_cls)) // area, x.shape[2] * area)


def _patches(tiles: Any, weight: Any, patch_size: Any, **_: Any) -> Any:
    height, width = tiles.shape[1:3] if tiles.dtype == torch.uint8 else tiles.shape[2:4]
    return _like(weight, tiles.shape[0], 1 + height // patch_size * (width // patch_size), weight.shape[0])


def _heads(qkv: Any, num_heads: Any, num_kv_heads: Any, head_dim: Any, **_: Any) -> Any:
    return tuple(_like(qkv, qkv.shape[0], count, head_dim) for count in (num_heads, num_kv_heads, num_kv_heads))


def _angles(positions: Any, head_dim: Any, **_: Any) -> Any:
    return tuple(_like(positions, positions.shape[0], head_dim // 2, dtype=torch.float32) for _ in range(2))


def _routes(logits: Any, k: Any, **_: Any) -> Any:
    return _like(logits, logits.shape[0], k), _like(logits, logits.shape[0], k, dtype=torch.int64)


def _order(experts: Any, num_experts: Any, **_: Any) -> Any:
    return _like(experts, experts.shape[0] * experts.shape[1]), _like(experts, num_experts + 1)


def _tiles(pixels: Any, grid: Any, size: Any, thumbnail: bool, **_: Any) -> Any:
    return _like(pixels, grid[0] * grid[1] + int(thumbnail), size, size, 3)


def _drawn(logits: Any, **_: Any) -> Any:
    return _like(logits, logits.shape[0], dtype=torch.int64)


@dataclass(frozen=True)
class Door:
    """One operator, its schema taken from the signature of the function that it calls.

    shape: of its arguments, by name, the results with nothing in them; gradient: whether it has the reference's; writes: the
    arguments that it changes.
    """

    name: str  # the function's; with an underscore behind it works in place
    shape: Callable[..., Any]
    gradient: bool = False
    writes: tuple[str, ...] = ()

    @property
    def inplace(self) -> bool:
        return self.name.endswith("_")

    @property
    def op(self) -> Callable[..., Any]:
        op: Callable[..., Any] = getattr(ops, self.name.rstrip("_"))
        return op


DOORS = (
    Door("add_norm", lambda x, **_: (_like(x), _like(x)), True),
    Door("add_norm_", lambda x, **_: _like(x), writes=("x",)),
    Door("add_scaled", lambda x, **_: _like(x), True),
    Door("add_scaled_", lambda **_: None, writes=("x",)),
    Door("argmax", _drawn),
    Door("attention", lambda q, **_: _like(q), True),
    Door("cached_attention", lambda q, **_: _like(q)),
    Door("embed_tokens", lambda input_ids, table, **_: _like(table, *input_ids.shape, table.shape[1])),
    Door("layer_norm", lambda x, weight, **_: _normed(x, weight), True),
    Door("linear", _product, True),
    Door("linear_gelu", _product, True),
    Door("linear_residual", lambda residual, **_: _like(residual), True),
    Door("linear_residual_", lambda **_: None, writes=("residual",)),
    Door("linear_swiglu", lambda x, gate_up, **_: _like(x, *x.shape[:-1], gate_up.shape[0] // 2), True),
    Door("moe_combine", lambda y, weights, **_: _like(y, weights.shape[0], y.shape[1])),
    Door("moe_experts", lambda x, **_: _like(x)),
    Door("moe_permute", _order),
    Door("moe_route", _routes, True),
    Door("patch_embed", _patches, True),
    Door("penalise", lambda logits, **_: _like(logits)),
    Door("pixel_shuffle", _tokens, True),
    Door("qkv_rope", _heads, True),
    Door("qkv_rope_append", lambda **given: _heads(**given)[0], writes=("k_cache", "v_cache")),
    Door("rms_norm", lambda x, weight, **_: _normed(x, weight), True),
    Door("rope_table", _angles, True),
    Door("sample", _drawn),
    Door("swiglu", lambda gate_up, **_: _like(gate_up, *gate_up.shape[:-1], gate_up.shape[-1] // 2), True),
    Door("tile_pixels", _tiles),
    Door("vision_qk_norm", lambda qkv, **_: _like(qkv), True),
    Door("vision_qk_norm_", lambda **_: None, writes=("qkv",)),
)


_NEEDED = inspect.Parameter.empty


@dataclass(frozen=True)
class _Argument:
    name: str
    type: str
    default: Any

    @staticmethod
    def of(p: inspect.Parameter, writes: Sequence[str]) -> _Argument:
        text = str(p.annotation)
        kind = _TYPES[text.removesuffix(" | None")]
        if p.name in writes:
            kind = f"Tensor({string.ascii_lowercase[writes.index(p.name)]}!)"
        return _Argument(p.name, f"{kind}?" if text.endswith("| None") or p.default is None else kind, p.default)

    def __str__(self) -> str:
        if self.default is _NEEDED:
            return f"{self.type} {self.name}"
        default = f'"{self.default}"' if isinstance(self.default, str) else self.default
        return f"{self.type} {self.name}={default}"


class _Signature:
    """An operator's arguments in order, and how many tensors it returns."""

    def __init__(self, door: Door) -> None:
        found = inspect.signature(door.op)
        given = [p for p in found.parameters.values() if p.name not in ("out", "inplace", "tell")]
        named = [p for p in given if p.kind is p.KEYWORD_ONLY and not str(p.annotation).startswith("Any")]
        first = [p for p in given if p.kind is not p.KEYWORD_ONLY]
        first += [p for p in given if p.kind is p.KEYWORD_ONLY and p not in named]
        arguments = [_Argument.of(p, door.writes) for p in first]
        last = max(i for i, a in enumerate(arguments) if a.default is _NEEDED)  # none before it may have a default
        self.first = [replace(a, default=_NEEDED) if i < last else a for i, a in enumerate(arguments)]
        self.named = [_Argument.of(p, door.writes) for p in named]
        self.returns = str(found.return_annotation).count("Any") - int(door.inplace)

    def __str__(self) -> str:
        results = ", ".join(["Tensor"] * self.returns)
        first, named = (", ".join(map(str, arguments)) for arguments in (self.first, self.named))
        return f"({first}, *, {named}) -> {results if self.returns == 1 else f'({results})'}"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument by name: torch leaves out what has its default's value."""
        defaults = {a.name: a.default for a in (*self.first, *self.named)}
        return {**defaults, **{a.name: value for a, value in zip(self.first, args)}, **kwargs}


def _kernel(door: Door, signature: _Signature) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(args, kwargs)
        memory = {t.untyped_storage().data_ptr() for t in given.values() if _plain(t)} - {0}
        options: dict[str, Any] = {"inplace": True} if door.inplace else {}
        if "spans" in given:
            options["spans"] = given["spans"].tolist()
        found = door.op(**{**given, **options})
        results = list(found) if isinstance(found, tuple) else [found]
        if door.inplace:
            written, target = results.pop(0), given[door.writes[0]]
            if written is not target:  # of the reference
                target.copy_(written)
        # the reference may return views, also of what it was given
        mine = tuple(
            t.clone(memory_format=torch.contiguous_format)
            if t.untyped_storage().data_ptr() in memory
            else t.contiguous()
            for t in results
        )
        return (None, *mine)[-1] if len(mine) < 2 else mine

    return run


def _plain(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.layout is torch.strided and not x.is_nested


def _setup(door: Door, signature: _Signature) -> Callable[..., None]:
    """What runs in the forward pass where an argument requires a gradient."""
    name = door.name.rstrip("_")

    def setup(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
        given = signature.bind(inputs, keyword_only_inputs)
        if door.writes or given["backend"] not in ("auto", "reference"):
            tracked = next(key for key, value in given.items() if getattr(value, "requires_grad", False))
            what = "an operator that writes into its arguments" if door.writes else f"backend {given['backend']!r}"
            raise UnsupportedError(
                f"{name}: {what} has no gradient and {tracked} requires one; allowed: torch.no_grad(), or "
                f"{NAMESPACE}.reference.{name}"
            )
        if door.gradient:
            ctx.names = [key for key, value in given.items() if isinstance(value, torch.Tensor)]
            ctx.rest = {key: value for key, value in given.items() if key not in ctx.names}
            ctx.save_for_backward(*(given[key] for key in ctx.names))

    return setup


def _backward(door: Door, signature: _Signature) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Any) -> Any:
        if not door.gradient:
            raise UnsupportedError(
                f"{door.name}: no gradient through {NAMESPACE}::{door.name}, an argument requires one; allowed: "
                f"torch.no_grad(), or {NAMESPACE}.reference.{door.name}"
            )
        define, again = getattr(reference, door.name), torch.is_grad_enabled()
        wanted = [a.name for a, needed in zip(signature.first, ctx.needs_input_grad) if needed]
        with torch.enable_grad():
            # views: a tensor given twice has a gradient of its own in each place
            own = {name: t.view_as(t) for name, t in zip(ctx.names, ctx.saved_tensors)}
            known = inspect.signature(define).parameters
            found = define(**{key: value for key, value in {**ctx.rest, **own}.items() if key in known})
            results = found if isinstance(found, tuple) else (found,)
            parts = [(y, g) for y, g in zip(results, grads) if g is not None and y.requires_grad]
            outputs, weights = zip(*parts)
            got = torch.autograd.grad(
                outputs, [own[name] for name in wanted], weights, allow_unused=True, create_graph=again
            )
        by_name = dict(zip(wanted, got))
        return tuple(by_name.get(a.name) for a in signature.first)

    return backward


def _define(door: Door) -> library.CustomOpDef:
    signature = _Signature(door)

    def empty(*args: Any, **kwargs: Any) -> Any:
        return door.shape(**signature.bind(args, kwargs))

    run = _kernel(door, signature)
    operator = library.custom_op(f"{NAMESPACE}::{door.name}", run, mutates_args=door.writes, schema=str(signature))
    operator.register_fake(empty)
    if door.writes:
        # torch takes no formula for these, and without one a gradient would silently lack; refused once the write is done
        operator._setup_context_fn = _setup(door, signature)
    else:
        operator.register_autograd(_backward(door, signature), setup_context=_setup(door, signature))
    return operator


OPERATORS = {door.name: _define(door) for door in DOORS}  # torch itself holds them weakly

__all__ = ["DOORS", "NAMESPACE", "OPERATORS", "Door"]
