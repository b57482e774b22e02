"""Inputs that break kernels: awkward sizes, views, special values, and tensors that must be refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .._lazy import torch
from ..errors import UnsupportedError

LANES = 16  # elements of one vector step on every instruction set

# Columns: alone, below, at and above one vector, odd, four vectors (an unrolled step) and their edges, real widths.
COLUMNS = (1, 2, LANES - 1, LANES, LANES + 1, 47, 4 * LANES - 1, 4 * LANES, 4 * LANES + 1, 896, 1024, 3200)
# Rows: empty, alone, odd, around work-item grains.
ROWS = (0, 1, 2, 3, 17, 64, 65)
MANY_ROWS = 65_537  # beyond what one grid dimension of a GPU holds

DTYPES = ("float32", "bfloat16", "float16")


def normal(*shape: int, dtype: str = "float32", seed: int = 0, scale: float = 1.0) -> Any:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).to(getattr(torch, dtype))


def integers(*shape: int, dtype: str = "float32", seed: int = 0, high: int = 8) -> Any:
    """Small whole numbers, whose sums and products are exact in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-high, high + 1, shape, generator=generator).to(getattr(torch, dtype))


def massive_channels(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Activations as in trained towers: a few channels hundreds of times larger than the rest, and an offset."""
    x = normal(*shape, seed=seed)
    x[..., :: max(shape[-1] // 3, 1)] *= 500.0
    return (x + 3.0).to(getattr(torch, dtype))


def special(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Normal values with NaN, infinities, zeros of both signs, subnormal and huge numbers strewn in."""
    x = normal(*shape, dtype=dtype, seed=seed)
    info = torch.finfo(x.dtype)
    values = [
        float("nan"),
        float("inf"),
        float("-inf"),
        0.0,
        -0.0,
        info.tiny / 4,
        info.max / 2,
        -info.max,
        100.0,
        -100.0,
    ]
    flat = x.view(-1)
    for i, value in enumerate(values):
        flat[(i * 37 + seed) % max(flat.numel(), 1) :: 401] = value
    return x


def row_strided(x: Any) -> Any:
    """The same values with unused columns between rows, filled with NaN."""
    buffer = torch.full((*x.shape[:-1], x.shape[-1] + 5), float("nan")).to(x.dtype)
    view = buffer[..., : x.shape[-1]]
    view.copy_(x)
    return view


def offset(x: Any) -> Any:
    """The same values one element after an allocation's start, so that no vector load is aligned."""
    buffer = torch.full((x.numel() + 2,), float("nan")).to(x.dtype)
    view = buffer[1:-1].view(x.shape)
    view.copy_(x)
    return view


VIEWS: dict[str, Callable[[Any], Any]] = {"row_strided": row_strided, "offset": offset}


def refused(x: Any) -> Iterator[tuple[str, Any, str]]:
    """``(kind, tensor, text)``: stand-ins for ``x`` that a kernel must refuse with ``text`` in the message."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    yield "negative view", torch._neg_view(x), "neg"
    yield "conjugate view", torch.complex(x.float(), x.float()).conj(), "conj"
    yield "meta", torch.empty_like(x, device="meta"), "meta"
    yield "fake", FakeTensorMode().from_tensor(x), "FakeTensor"
    yield "sparse", x.to_sparse(), "sparse"
    yield "expanded", x[..., :1].expand(x.shape), "expanded"
    yield "float64", x.double(), "float64"
    yield "int32", torch.zeros(x.shape, dtype=torch.int32), "int32"
    yield "requires grad", x.clone().requires_grad_(), "requires"


def check_refused(call: Callable[[Any], Any], x: Any) -> None:
    """``call`` must raise UnsupportedError, naming the reason, for every stand-in of ``x``."""
    call(x)
    for kind, tensor, text in refused(x):
        message = "accepted"
        try:
            call(tensor)
        except UnsupportedError as error:
            message = f"refused with {error}"
        assert text in message, f"{kind}: {message}; expected a refusal with {text!r} in it"


__all__ = [
    "COLUMNS", "DTYPES", "LANES", "MANY_ROWS", "ROWS", "VIEWS", "check_refused", "integers", "massive_channels", "normal", "offset",
    "refused", "row_strided", "special",
]  # fmt: skip
