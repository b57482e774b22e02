"""Arguments of a wrong kind: every op of the package, every argument, by its name. A new op is covered by its signature."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from internvl_kernels import UnsupportedError, ops
from internvl_kernels.testing.parity import problems

NOT_TENSORS = {
    "None": None,
    "a list": [[1.0, 2.0]],
    "a string": "x",
    "an integer": 3,
    "True": True,
    "a type": torch.Tensor,
}
SCALARS: dict[str, tuple[Any, ...]] = {
    "int": (None, "3", 1.5, True, [3]),
    "float": (None, "x", True, [1.0]),
    "bool": (None, 1, "yes"),
    "str": (None, 3),
    "tuple[int, int]": (None, (1,), (1, 2, 3), (1.0, 2.0), "ab", 4),
    "Sequence[float]": (None, 1.0, "abc", ["a", "b", "c"]),
    "Spans": (None, 3, "abcd", [(0, 1, 0)], [(0.0, 1.0, 0.0, 1.0)]),
}


def odd_tensors(x: torch.Tensor) -> Iterator[tuple[str, Any]]:
    """Tensors that torch or numpy accept in some places and no kernel does."""
    if x.ndim and len(x):
        yield "sparse", x.to_sparse()
        yield "nested", torch.nested.nested_tensor([x[0], x[0]])
        yield "negative strides", x.float().numpy()[::-1]
        yield "foreign byte order", x.float().numpy().astype(">f4")
    yield "meta", x.to("meta")
    yield "complex", torch.zeros(x.shape, dtype=torch.complex64)
    yield "objects", np.full(tuple(x.shape), None, dtype=object)
    yield "no dimensions", torch.zeros((), dtype=x.dtype)
    if x.dtype == torch.float32:
        yield "quantised", torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)


def public() -> list[str]:
    return [name for name in ops.__all__ if name not in ("uniforms", "choose_grid")]


def example(name: str, need: str | None = None) -> dict[str, Any]:
    """Valid arguments of an op, by name; ``need`` must be among them."""
    signature = inspect.signature(getattr(ops, name))
    for problem in problems():
        if problem.op == name:
            args, kwargs = problem.make(problem.dtypes[0])
            bound = signature.bind(*args, **kwargs).arguments
            if need is None or bound.get(need) is not None:
                return dict(bound)
    raise AssertionError(f"testing/parity.py has no problem of {name} with {need}")


def parameters(name: str, tensors: bool) -> list[inspect.Parameter]:
    found = inspect.signature(getattr(ops, name)).parameters.values()
    return [p for p in found if str(p.annotation).startswith("Any") == tensors]


def call(name: str, arguments: dict[str, Any], backend: str) -> Any:
    signature = inspect.signature(getattr(ops, name))
    bound = signature.bind(**{**arguments, "backend": backend})
    return getattr(ops, name)(*bound.args, **bound.kwargs)


@pytest.mark.parametrize("backend", ["cpu", "reference", "auto"])
@pytest.mark.parametrize("name", public())
def test_what_is_no_tensor(name: str, backend: str) -> None:
    for parameter in parameters(name, tensors=True):
        optional = parameter.default is None
        for kind, value in NOT_TENSORS.items():
            if (kind == "None" and optional) or (kind == "a list" and "Sequence" in str(parameter.annotation)):
                continue
            with pytest.raises(UnsupportedError) as refusal:
                call(name, example(name, None if optional else parameter.name) | {parameter.name: value}, backend)
            message = str(refusal.value)
            assert message.startswith(f"{name}: {parameter.name} is "), (kind, message)
            assert "allowed: a tensor" in message, (kind, message)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("name", public())
def test_odd_tensors(name: str) -> None:
    """The kernels refuse by name or, where a step of torch takes such a tensor, give a result; nothing else comes out."""
    for parameter in parameters(name, tensors=True):
        try:
            given = example(name, parameter.name)
        except AssertionError:
            assert parameter.default is None, f"no example has {parameter.name}"
            continue
        x = torch.as_tensor(given[parameter.name])
        for kind, value in odd_tensors(x):
            try:
                call(name, given | {parameter.name: value}, "cpu")
            except UnsupportedError as refusal:
                message = str(refusal)
                assert message.startswith(f"{name}: ") or parameter.name in message, (parameter.name, kind, message)
            except Exception as error:
                pytest.fail(f"{name}, {parameter.name} {kind}: {type(error).__name__}: {error}")
            else:
                assert kind in ("negative strides", "no dimensions", "foreign byte order"), (parameter.name, kind)


@pytest.mark.parametrize("name", ops.__all__)
def test_scalars(name: str) -> None:
    known = {"uniforms": {"seed": 1, "step": 2}, "choose_grid": {"width": 640, "height": 480}}
    given = known.get(name) or example(name)
    for parameter in parameters(name, tensors=False):
        text = str(parameter.annotation)
        optional = text.endswith("| None") or parameter.default is None
        for value in SCALARS.get(text.removesuffix(" | None"), ()):
            if value is None and optional:
                continue
            with pytest.raises(UnsupportedError) as refusal:
                getattr(ops, name)(**given | {parameter.name: value})
            assert str(refusal.value).startswith(f"{name}: {parameter.name} is "), (value, str(refusal.value))


@pytest.mark.parametrize(
    ("token_ids", "text"),
    [
        ([[0, 19], [0]], "allowed: 0 to 18"),
        ([[-1], [0]], "allowed: 0 to 18"),
        ([[0.5], [0]], "other than integers"),
        ([["a"], [0]], "other than integers"),
        (torch.zeros(2, 3), "other than integers"),
        ([[0]], "1 rows of token_ids"),
        ([0, 1], "other than integers"),
    ],
    ids=str,
)
def test_penalised_tokens(token_ids: Any, text: str) -> None:
    for backend in ("cpu", "reference"):
        with pytest.raises(UnsupportedError, match=text):
            ops.penalise(torch.zeros(2, 19), token_ids, 1.2, backend=backend)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(UnsupportedError, match="penalise: logits"):
            ops.penalise(torch.zeros(2, 19, dtype=dtype), [[0], [1]], 1.2)


def test_strided_tiles_are_named_whole() -> None:
    tiles = torch.zeros(3, 28, 56, 3, dtype=torch.uint8)[:, :, ::2]
    given = example("patch_embed") | {"patch_size": 14, "weight": torch.zeros(4, 588), "bias": torch.zeros(4)}
    given |= {"cls": torch.zeros(4), "pos": torch.zeros(5, 4), "tiles": tiles}
    with pytest.raises(UnsupportedError, match=r"tiles is torch.uint8 \[3, 28, 28, 3\] with strides"):
        call("patch_embed", given, "cpu")
