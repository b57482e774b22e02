"""Bad arguments: every op of the package, every argument, by its name. A new op is covered by its signature and its problems."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from internvl_kernels import BackendError, UnsupportedError, ops, reference
from internvl_kernels.ops._backend import CUDA_ALONE
from internvl_kernels.testing.parity import problems


class Exporter:
    """Looks like a DLPack exporter of host memory and is none."""

    def __dlpack__(self, **_: Any) -> Any:
        raise RuntimeError("nothing to give")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class Fields:
    __dlpack__ = __dlpack_device__ = None


NOT_TENSORS = {
    "None": None,
    "a list": [[1.0, 2.0]],
    "a string": "x",
    "bytes": b"abc",
    "an integer": 3,
    "a numpy number": np.float32(3),
    "True": True,
    "a type": torch.Tensor,
    "a dtype": torch.float32,
    "a device": torch.device("cpu"),
    "a shape": torch.Size([2, 2]),
    "a module": torch.nn.Identity(),
    "a storage": torch.zeros(4).untyped_storage(),
    "a masked array": np.ma.masked_array(np.zeros((2, 2)), mask=True),
    "no exporter": Fields(),
}
NOT_FINITE = (float("nan"), float("inf"), 1e400, 10**400)
SCALARS: dict[str, tuple[Any, ...]] = {
    "int": (None, "3", 1.5, True, [3], 2**70, -(2**70)),
    "float": (None, "x", True, [1.0], 1j, torch.tensor(1.0), *NOT_FINITE),
    "bool": (None, 1, "yes"),
    "str": (None, 3),
    "tuple[int, int]": (None, (1,), (1, 2, 3), (1.0, 2.0), "ab", 4, (2**70, 1)),
    "Sequence[float]": (None, 1.0, "abc", ["a", "b", "c"], torch.zeros(1, 3), NOT_FINITE[:3]),
    "Spans": (None, 3, "abcd", [(0, 1, 0)], [(0.0, 1.0, 0.0, 1.0)], [(0, 1, 2**70, 1)]),
}
DOORS = ("cpu", "reference", "auto", "cuda", "reference module")


def odd_tensors(x: torch.Tensor) -> Iterator[tuple[str, Any]]:
    """Tensors that torch or numpy accept in some places and no kernel does."""
    if x.ndim and len(x):
        yield "sparse", x.to_sparse()
        yield "nested", torch.nested.nested_tensor([x[0], x[0]])
        yield "negative strides", x.numpy()[::-1]
        yield "foreign byte order", x.numpy().astype(x.numpy().dtype.newbyteorder(">"))
        given_back = x.clone()
        given_back.untyped_storage().resize_(0)  # torch itself would read through a null pointer
        yield "memory given back", given_back
    yield "meta", x.to("meta")
    yield "fake", FakeTensorMode().from_tensor(x)
    yield "complex", torch.zeros(x.shape, dtype=torch.complex64)
    yield "objects", np.full(tuple(x.shape), None, dtype=object)
    yield "text", np.full(tuple(x.shape), "a")
    yield "records", np.zeros(tuple(x.shape), dtype=[("a", "f4")])
    yield "long doubles", np.zeros(tuple(x.shape), dtype=np.longdouble)
    yield "no dimensions", torch.zeros((), dtype=x.dtype)
    yield "an exporter that fails", Exporter()
    if x.dtype == torch.float32:
        yield "quantised", torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)


def ill_fitting(x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Of another shape or dtype. Some fit all the same: then both backends must say so."""
    yield "a dimension in front", x[None].clone()
    yield "a dimension behind", x[..., None].clone()
    for dim in {0, x.ndim - 1} if x.ndim and x.numel() else ():
        yield f"one more in dimension {dim}", torch.cat([x, x.narrow(dim, 0, 1)], dim)
        yield f"one less in dimension {dim}", x.narrow(dim, 1, x.shape[dim] - 1).clone()
        yield f"only one in dimension {dim}", x.narrow(dim, 0, 1).clone()
        yield f"none in dimension {dim}", x.narrow(dim, 0, 0).clone()
    for dtype in (torch.bfloat16, torch.int32, torch.uint8, torch.bool):
        yield str(dtype), x.to(dtype)


PIECES = {"fold_norm", "statistics_space", *CUDA_ALONE}  # of the CUDA tower's fusion, refused in files of their own


def public() -> list[str]:
    """Those with a kernel on the cpu backend."""
    return [name for name in ops.__all__ if name not in {"uniforms", "choose_grid", "pack_weight", *PIECES}]


def example(name: str, need: str | None = None) -> dict[str, Any]:
    """Valid arguments of an op, by name; ``need`` must be among them. The last problem: sizes of 1 would hide broadcasting."""
    signature = inspect.signature(getattr(ops, name))
    found = {}
    for problem in problems():
        if problem.op == name:
            args, kwargs = problem.make(problem.dtypes[0])
            bound = dict(signature.bind(*args, **kwargs).arguments)
            if need is None or bound.get(need) is not None:
                found = bound
    assert found, f"testing/parity.py has no problem of {name} with {need}"
    return found


def parameters(name: str, tensors: bool) -> list[inspect.Parameter]:
    found = inspect.signature(getattr(ops, name)).parameters.values()
    # The caller's memory, which no reference has: test_out.py
    found = [p for p in found if p.name not in ("out", "tell")]
    return [p for p in found if str(p.annotation).startswith("Any") == tensors]


def call(name: str, arguments: dict[str, Any], door: str) -> Any:
    op = getattr(reference if door == "reference module" else ops, name)
    known = inspect.signature(op).parameters
    chosen = arguments if door == "reference module" else {**arguments, "backend": door}
    return op(**{key: value for key, value in chosen.items() if key in known})


def refusal(run: Callable[[], Any], name: str, argument: str, what: str) -> str:
    """The text of the refusal, which must name op and argument; empty when the op gave a result."""
    try:
        run()
    except UnsupportedError as error:
        message = str(error)
    except Exception as error:
        pytest.fail(f"{name}, {argument} {what}: {type(error).__name__}: {error}")
    else:
        return ""
    assert message.startswith(f"{name}: "), (argument, what, message)
    return message


def as_tensors(result: Any) -> list[torch.Tensor]:
    return [torch.as_tensor(t) for t in (result if isinstance(result, tuple) else (result,))]


def named(message: str, *arguments: str) -> bool:
    return bool(set(re.findall(r"\w+", message)) & set(arguments))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", public())
def test_what_is_no_tensor(name: str, door: str) -> None:
    for parameter in parameters(name, tensors=True):
        optional = parameter.default is None
        given = example(name, None if optional else parameter.name)
        for kind, value in NOT_TENSORS.items():
            listed = kind in ("a list", "a shape") and "Sequence" in str(parameter.annotation)
            if listed or (kind == "None" and optional):
                continue
            message = refusal(
                lambda given=given | {parameter.name: value}: call(name, given, door), name, parameter.name, kind
            )
            assert message.startswith(f"{name}: {parameter.name} is "), (kind, message)
            assert "allowed: a tensor" in message, (kind, message)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("door", ["cpu", "reference"])
@pytest.mark.parametrize("name", public())
def test_odd_tensors(name: str, door: str) -> None:
    """Refused by name, or read as the plain tensor of the same elements is. Tensors without elements go through plain torch."""
    for parameter in parameters(name, tensors=True):
        given = example(name, parameter.name)
        for kind, value in odd_tensors(torch.as_tensor(given[parameter.name])):
            result: list[Any] = []
            message = refusal(
                lambda given=given | {parameter.name: value}, keep=result: keep.append(call(name, given, door)),
                name, parameter.name, kind,
            )  # fmt: skip
            if message:
                others = [p.name for p in parameters(name, tensors=True)] if kind == "no dimensions" else []
                assert named(message, parameter.name, *others), (parameter.name, kind, message)
            elif kind in ("meta", "fake"):
                assert door == "reference", (parameter.name, kind)
            else:
                assert kind in ("negative strides", "no dimensions", "foreign byte order"), (parameter.name, kind)
                plain = np.ascontiguousarray(value, value.dtype.newbyteorder("=")) if kind != "no dimensions" else value
                for a, b in zip(as_tensors(result[0]), as_tensors(call(name, given | {parameter.name: plain}, door))):
                    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=f"{parameter.name} {kind}")


@pytest.mark.parametrize("name", public())
def test_ill_fitting_tensors(name: str) -> None:
    """What the kernels refuse, the reference neither broadcasts nor promotes; what they take, both give in one shape."""
    tensors = [p.name for p in parameters(name, tensors=True)]
    for argument in tensors:
        for kind, value in ill_fitting(torch.as_tensor(example(name, argument)[argument])):
            outcome = []
            for door in ("cpu", "reference"):
                result: list[Any] = []
                given = example(name, argument) | {argument: value}
                message = refusal(
                    lambda given=given, door=door, keep=result: keep.append(call(name, given, door)),
                    name,
                    argument,
                    kind,
                )
                assert not message or named(message, *tensors), (argument, kind, message)
                outcome.append([(t.dtype, t.shape) for t in as_tensors(result[0])] if result else "refused")
            assert outcome[0] == outcome[1], (argument, kind)


@pytest.mark.parametrize("held", [None, "a"])
@pytest.mark.parametrize("door", ["cpu", "reference"])
def test_lists_of_what_is_no_tensor(door: str, held: Any) -> None:
    for name, argument in (("tile_pixels", "pixels"), ("sample", "uniform"), ("penalise", "token_ids")):
        given = example(name) | {argument: [held]}
        message = refusal(lambda name=name, given=given: call(name, given, door), name, argument, "a list")
        assert named(message, argument), message


def test_gradients_and_threads_are_named() -> None:
    x, weight = torch.ones(2, 4), torch.ones(4, requires_grad=True)
    with pytest.raises(UnsupportedError, match="no gradient and weight requires one"):
        ops.rms_norm(x, weight, backend="cpu")
    for threads in (-1, 1025):
        with pytest.raises(UnsupportedError, match=f"rms_norm: threads is {threads}; allowed"):
            ops.rms_norm(x, x[0], threads=threads)
    with pytest.raises(UnsupportedError, match=r"rms_norm: eps is -1\.0; allowed"):
        reference.rms_norm(x, x[0], eps=-1.0)


def test_python_and_memory_keep_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="missing 1 required"):
        ops.rms_norm(torch.ones(2, 4))
    with pytest.raises(TypeError, match="unexpected keyword"):
        ops.rms_norm(torch.ones(2, 4), torch.ones(4), epsilon=1.0)
    with pytest.raises(MemoryError, match=rf"moe_permute: experts=.*, num_experts={2**50}"):
        ops.moe_permute(torch.zeros(2, 2, dtype=torch.int64), 2**50)
    with pytest.raises((BackendError, UnsupportedError), match="moe_permute"):
        ops.moe_permute(torch.zeros(2, 2, dtype=torch.int64), 3, backend="cuda")


@pytest.mark.parametrize("name", [n for n in ops.__all__ if n not in PIECES])
def test_scalars(name: str) -> None:
    known = {"uniforms": {"seed": 1, "step": 2}, "choose_grid": {"width": 640, "height": 480}}
    known["pack_weight"] = {"weight": torch.ones(2, 3)}
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
