"""One call of an op, from plain arguments to strange ones."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fuzz import op_choices, op_makers  # noqa: F401
from fuzz.op_arguments import DTYPES, arguments
from fuzz.op_oddities import FAITHFUL, STRANGE, NoPlainError, plain
from fuzz.values import FLOATS, INTEGERS, Rng, anything
from internvl_kernels import ops, reference
from internvl_kernels.ops._backend import CUDA_ALONE

REFERENCE_ONLY = {*CUDA_ALONE, "fold_norm", "statistics_space"}
OTHERS = ("fold_norm", "pack_weight", "uniforms", "choose_grid", "statistics_space")  # without a reference of their own
_SMALL = {
    "size",
    "grid",
    "num_experts",
    "max_tiles",
    "min_tiles",
    "threads",
    "columns",
    "rows",
}  # what results grow with


@dataclass
class Case:
    op: str
    given: dict[str, Any]
    door: str  # a backend, or "reference module"
    oddities: list[str] = field(default_factory=list)
    strange: bool = False  # among them one that is not just another form of the same values


@functools.lru_cache(maxsize=1)
def names() -> list[str]:
    """Those of many ways come more often."""
    many = (
        "linear",
        "linear_gelu",
        "linear_residual",
        "linear_swiglu",
        "attention",
        "cached_attention",
        "rms_norm",
        "layer_norm",
        "moe_experts",
    )
    return [*(name for name in ops.__all__), *(name for name in many if name in ops.__all__)]


def make_case(rng: Rng) -> Case:
    op = rng.choice(names())
    dtype = rng.choice(DTYPES)
    made = Case(
        op,
        arguments(rng, op, dtype),
        "reference" if op in REFERENCE_ONLY else rng.choice(("cpu", "cpu", "cpu", "auto", "reference")),
    )
    known = inspect.signature(getattr(ops, op)).parameters
    if "threads" in known:
        made.given["threads"] = rng.choice((0, 1, 1, 1, 2))
    if rng.random() < 0.15 and made.door in ("cpu", "auto"):
        _pack(made)
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))):
        rng.choice((_faithful, _faithful, _strange, _scalar))(rng, made)
    if "out" in known and rng.random() < 0.35:
        _out(rng, made)
    if rng.random() < 0.03:
        made.door = rng.choice(("cuda", "reference module", "gpu", ""))
    return made


def _tensors(made: Case) -> list[str]:
    return [
        n
        for n, value in made.given.items()
        if isinstance(value, (torch.Tensor, np.ndarray)) and not n.startswith("plain ")
    ]


def _pack(made: Case) -> None:
    weights = [n for n in ("weight", "gate_up", "down") if n in made.given]
    if made.op not in ("linear", "linear_gelu", "linear_residual", "linear_swiglu", "moe_experts"):
        return
    if all(made.given[n].dtype != torch.float64 for n in weights):
        for n in weights:
            made.given[f"plain {n}"] = made.given[n]
            made.given[n] = ops.pack_weight(made.given[n], gated=n == "gate_up")
        made.oddities.append("packed")


def _faithful(rng: Rng, made: Case) -> None:
    names = _tensors(made)
    if names:
        name, kind = rng.choice(names), rng.choice(list(FAITHFUL))
        try:
            value = plain(made.given[name])
        except NoPlainError:
            return
        if value.dtype.is_complex or value.dtype == torch.float8_e4m3fn:
            return
        made.given[name] = FAITHFUL[kind](rng, value)
        made.oddities.append(f"{name}: {kind}")
        made.strange |= kind == "one for all"


def _strange(rng: Rng, made: Case) -> None:
    names = _tensors(made)
    if names:
        name, kind = rng.choice(names), rng.choice(list(STRANGE))
        try:
            made.given[name] = STRANGE[kind](rng, plain(made.given[name]))
        except (RuntimeError, TypeError, NoPlainError):  # torch has no such form of it
            return
        made.oddities.append(f"{name}: {kind}")
        made.strange = True


def _scalar(rng: Rng, made: Case) -> None:
    known = inspect.signature(getattr(ops, made.op)).parameters
    others = [n for n in known if n not in _tensors(made) and n not in ("backend", "out", "tell")]
    if not others:
        return
    name = rng.choice(others)
    if name in _SMALL:
        value = rng.choice((0, -1, 1, 2, 2**31, 2**62, 2**70, (0, 1), (2**40, 2**40), (1, 2, 3), 1.0, None, "3", True))
    else:
        kind = rng.randrange(3)
        value = anything(rng) if kind == 0 else rng.choice(FLOATS) if kind == 1 else rng.choice(INTEGERS)
    if isinstance(value, (torch.Tensor, np.ndarray)) and name == "spans":
        return
    made.given[name] = value
    made.oddities.append(f"{name}: {value!r:.80}")
    made.strange = True


def _out(rng: Rng, made: Case) -> None:
    """Memory for the result: right, of another kind, or that of an input."""
    try:
        expected = results(by_reference(made.op, plain_arguments(made.given)))[-1]
    except Exception:
        return
    kind = rng.randrange(10)
    out: Any = torch.full_like(expected, 77)
    if kind == 1:
        out = STRANGE["resized"](rng, out)
    elif kind == 2:
        out = STRANGE[rng.choice(("retyped", "meta", "given back", "sparse", "gradient", "masked"))](rng, out)
    elif kind == 3:
        out = FAITHFUL["one for all"](rng, out)
    elif kind == 4:
        out = FAITHFUL["read only"](rng, out)
    elif kind == 5 and _tensors(made):
        out = made.given[rng.choice(_tensors(made))]
    elif kind == 6 and _tensors(made):
        out = _overlapping(rng, made, expected)
    elif kind > 6:
        out = FAITHFUL[rng.choice(("numpy", "gaps", "away", "turned", "stepped", "numpy gaps"))](rng, out)
    made.given["out"] = out
    made.oddities.append(f"out of kind {kind}")
    made.strange |= 0 < kind < 7


def _overlapping(rng: Rng, made: Case, expected: torch.Tensor) -> Any:
    """A view that shares some of an input's memory, which comes to lie in a larger one."""
    name = rng.choice(_tensors(made))
    value = made.given[name]
    if (
        not isinstance(value, torch.Tensor)
        or value.dtype != expected.dtype
        or not value.numel()
        or value.layout != torch.strided
    ):
        return torch.full_like(expected, 77)
    shift = rng.choice((0, 1, max(1, value.numel() // 2), max(1, value.numel() - 1)))
    memory = torch.zeros(value.numel() + expected.numel() + shift, dtype=value.dtype)
    if value.device.type == "cpu" and value.untyped_storage().nbytes() and not value.requires_grad:
        memory[: value.numel()] = plain(value).reshape(-1)
        made.given[name] = memory[: value.numel()].view(value.shape)
    return memory[shift : shift + expected.numel()].view(expected.shape)


def plain_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The call's arguments as plain tensors. Raises NoPlainError."""
    found = {name: plain(value) for name, value in given.items() if not name.startswith("plain ")}
    for name, value in given.items():
        if name.startswith("plain "):
            found[name[6:]] = plain(value)
    return found


def by_reference(op: str, given: dict[str, Any]) -> Any:
    known = {
        name: value for name, value in given.items() if name not in ("threads", "out", "tell", "inplace", "decode")
    }
    if op in OTHERS:
        raise NoPlainError
    function = getattr(reference, op)
    known = {name: value for name, value in known.items() if name in inspect.signature(function).parameters}
    if op == "sample":
        known["uniform"] = torch.as_tensor(known["uniform"], dtype=torch.float64)
    return function(**known)


def results(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]
