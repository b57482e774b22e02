"""What the products share: the kernel's call, and the checks before it."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError
from ._backend import choose
from ._call import start
from ._packed import PackedWeight
from ._product import by_library
from ._tensor import dtype_name


def gemm(
    backend: str,
    epilogue: str,
    x: Any,
    weight: Any,
    bias: Any,
    threads: int = 0,
    scale: Any = None,
    residual: Any = None,
    out: Any = None,
    tell: Any = None,
    limit: float = 0.0,
) -> Any:
    """The kernel on a backend that has it; ``out`` may be ``residual``."""
    packed, rows = isinstance(weight, PackedWeight), weight.shape[0]
    call = start(backend, threads, x, None if packed else weight, bias, scale, residual, tell)
    given, matrix = call.take(x, "x"), weight.data if packed else call.take(weight, "weight")
    shift, factor, rest = call.take(bias, "bias"), call.take(scale, "scale"), call.take(residual, "residual")
    shape = (*given.shape[:-1], rows // 2 if epilogue == "swiglu" else rows)
    y = (
        rest
        if out is not None and out is residual
        else call.result(shape, out, dtype_name(x if rest is None else rest))
    )
    extra: dict[str, Any] = {"limit": limit} if limit else {}
    if tell is not None:
        extra["statistics"] = call.take(tell, "tell")
    call.run("gemm", given, matrix, rows if packed else None, shift, factor, rest, y, epilogue, **extra)
    if tell is not None:
        call.give(extra["statistics"], tell)
    return call.give(y, out)


def choose_product(op: str, backend: str, x: Any, weight: Any, *others: Any, tell: Any = None) -> str:
    packed = isinstance(weight, PackedWeight)
    found = choose(op, backend, x, None if packed else weight, *others, tell)
    if tell is not None and found == "cpu":
        raise UnsupportedError(f"{op}: tell is given, backend is 'cpu'; allowed: 'cuda' or 'reference'")
    if packed and (found != "cpu" or weight.gated != (op == "linear_swiglu")):
        name, kind = ("gate_up", "gated=True") if op == "linear_swiglu" else ("weight", "gated=False")
        raise UnsupportedError(
            f"{op}: {name} is {weight!r}, backend {found!r}; allowed: one packed with {kind}, on 'cpu'"
        )
    return found


def left_to_library(x: Any, weight: Any) -> bool:
    return not isinstance(weight, PackedWeight) and by_library(x.dtype)


def check_product(op: str, x: Any, weight: Any, bias: Any, name: str = "weight") -> None:
    """Shapes, and one dtype unless the weight is packed."""
    if not x.shape or len(weight.shape) != 2 or x.shape[-1] != weight.shape[1]:
        raise UnsupportedError(
            f"{op}: x {list(x.shape)}, {name} {list(weight.shape)}; allowed: x [..., K], {name} [N, K]"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise UnsupportedError(f"{op}: bias {list(bias.shape)}, {name} {list(weight.shape)}; allowed: bias [N]")
    for key, value in ((name, weight), ("bias", bias)):
        if value is not None and not isinstance(value, PackedWeight) and dtype_name(value) != dtype_name(x):
            raise UnsupportedError(f"{op}: {key} is {value.dtype}; allowed: x's dtype, {x.dtype}")


__all__ = ["check_product", "choose_product", "gemm", "left_to_library"]
