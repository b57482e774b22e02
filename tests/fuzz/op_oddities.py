"""A tensor in other forms: the same values lying elsewhere, and what is no tensor that a kernel reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fuzz.values import Rng, anything


class Foreign:
    """Somebody else's tensor, which comes by DLPack."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.shape, self.dtype = tensor, tuple(tensor.shape), tensor.dtype

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __len__(self) -> int:
        return len(self.tensor)


class Subclass(torch.Tensor):
    pass


def _numpy(x: torch.Tensor) -> np.ndarray:
    """The same memory."""
    if x.dtype == torch.float8_e4m3fn:  # numpy has none
        return x.view(torch.uint8).numpy()
    if x.dtype == torch.bfloat16:
        import ml_dtypes

        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def _gaps(rng: Rng, x: torch.Tensor) -> Any:
    """Unused elements between the rows, which hold what must not be read."""
    if not x.ndim:
        return x
    buffer = torch.full((*x.shape[:-1], x.shape[-1] + rng.choice((1, 3, 8))), 77).to(x.dtype)
    view = buffer[..., : x.shape[-1]]
    view.copy_(x)
    return view


def _away(rng: Rng, x: torch.Tensor) -> Any:
    """Not at the start of an allocation, and aligned to nothing."""
    buffer = torch.full((x.numel() + 3,), 77).to(x.dtype)
    view = buffer[1 : 1 + x.numel()].view(x.shape)
    view.copy_(x)
    return view


def _turned(rng: Rng, x: torch.Tensor) -> Any:
    """Two dimensions in the other order in memory."""
    if x.ndim < 2:
        return x
    a, b = rng.sample(range(x.ndim), 2)
    return x.transpose(a, b).contiguous().transpose(a, b)


def _stepped(rng: Rng, x: torch.Tensor) -> Any:
    """Every second element of a dimension."""
    if not x.ndim:
        return x
    dim = rng.randrange(x.ndim)
    shape = list(x.shape)
    shape[dim] *= 2
    buffer = torch.full(shape, 77).to(x.dtype)
    view = buffer[tuple(slice(None, None, 2) if d == dim else slice(None) for d in range(x.ndim))]
    view.copy_(x)
    return view


def _backwards(rng: Rng, x: torch.Tensor) -> Any:
    if not x.ndim:
        return _numpy(x)
    return np.flip(np.flip(_numpy(x), 0).copy(), 0)


def _read_only(rng: Rng, x: torch.Tensor) -> Any:
    array = _numpy(x).copy()
    array.flags.writeable = False
    return array


# The same values: kernels may read them or refuse them by name, but not read anything else.
FAITHFUL: dict[str, Callable[[Rng, torch.Tensor], Any]] = {
    "numpy": lambda rng, x: _numpy(x),
    "gaps": _gaps,
    "away": _away,
    "turned": _turned,
    "stepped": _stepped,
    "backwards": _backwards,
    "read only": _read_only,
    "dlpack": lambda rng, x: Foreign(x),
    "subclass": lambda rng, x: x.as_subclass(Subclass),
    "parameter": lambda rng, x: torch.nn.Parameter(x, requires_grad=False) if x.is_floating_point() else x,
    "foreign byte order": lambda rng, x: _numpy(x).astype(_numpy(x).dtype.newbyteorder(">")),
    "fortran": lambda rng, x: np.asfortranarray(_numpy(x)),
    "pending negation": lambda rng, x: torch._neg_view(-x) if x.is_floating_point() else x,
    "one for all": lambda rng, x: _expanded(rng, x),
    "numpy gaps": lambda rng, x: _numpy(_gaps(rng, x)),
    "a matrix": lambda rng, x: _numpy(x).view(np.matrix) if x.ndim == 2 else _numpy(x),
}


def _expanded(rng: Rng, x: torch.Tensor) -> Any:
    """One row (column, ...) that stands for all: other values than before, which is why callers take those of the view."""
    if not x.ndim or not x.numel():
        return x
    dim = rng.randrange(x.ndim)
    return x.narrow(dim, 0, 1).expand(x.shape)


def _resized(rng: Rng, x: torch.Tensor) -> Any:
    """Another shape."""
    kind = rng.randrange(6)
    if kind == 0:
        return x[None]
    if kind == 1:
        return x[..., None]
    if kind == 2 and x.ndim:
        return x[0] if len(x) else x
    dim = rng.randrange(x.ndim) if x.ndim else 0
    if kind == 3 and x.numel() and x.ndim:
        return torch.cat([x, x.narrow(dim, 0, 1)], dim)
    if kind == 4 and x.ndim and x.shape[dim]:
        return x.narrow(dim, 0, x.shape[dim] - rng.choice((1, x.shape[dim]))).clone()
    return x.reshape(-1)


def _given_back(rng: Rng, x: torch.Tensor) -> Any:
    gone = x.clone()
    gone.untyped_storage().resize_(0)
    return gone


def _retyped(rng: Rng, x: torch.Tensor) -> Any:
    names = (
        "float32",
        "float64",
        "bfloat16",
        "float16",
        "int64",
        "int32",
        "uint8",
        "bool",
        "complex64",
        "float8_e4m3fn",
        "uint16",
    )
    return (
        x.nan_to_num().to(getattr(torch, rng.choice(names)))
        if x.is_floating_point()
        else x.to(getattr(torch, rng.choice(names)))
    )


def _quantised(rng: Rng, x: torch.Tensor) -> Any:
    return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8) if x.dtype == torch.float32 else _retyped(rng, x)


def _wrong_numpy(rng: Rng, x: torch.Tensor) -> Any:
    kind = rng.choice(("O", "U2", "g", "f2", "u2", "M8[s]", "V3", "c16"))
    if kind == "O":
        return np.full(tuple(x.shape), rng.choice((None, 1, "a")), dtype=object)
    return np.zeros(tuple(x.shape), kind)


# Other values, or none: refused, or the reference takes them too.
STRANGE: dict[str, Callable[[Rng, torch.Tensor], Any]] = {
    "resized": _resized,
    "resized twice": lambda rng, x: _resized(rng, _resized(rng, x)),
    "retyped": _retyped,
    "sparse": lambda rng, x: x.to_sparse() if x.ndim else x,
    "nested": lambda rng, x: torch.nested.nested_tensor([x, x]),
    "meta": lambda rng, x: x.to("meta"),
    "given back": _given_back,
    "quantised": _quantised,
    "gradient": lambda rng, x: x.clone().requires_grad_() if x.is_floating_point() else x,
    "masked": lambda rng, x: np.ma.masked_array(_numpy(x), mask=rng.random() < 0.5),
    "wrong numpy": _wrong_numpy,
    "conjugate": lambda rng, x: torch.complex(x.float(), x.float()).conj(),
    "a list": lambda rng, x: x.tolist(),
    "anything": lambda rng, x: anything(rng),
    "nothing": lambda rng, x: None,
}


class NoPlainError(Exception):
    """There is no plain tensor of these values."""


def plain(value: Any) -> Any:
    """A contiguous copy in torch of a tensor of any kind; other values as they are. Raises NoPlainError."""
    if isinstance(value, Foreign):
        value = value.tensor
    if isinstance(value, (list, tuple)) and any(isinstance(v, (torch.Tensor, np.ndarray)) for v in value):
        return [plain(v) for v in value]
    if isinstance(value, np.ma.MaskedArray):
        raise NoPlainError
    if isinstance(value, np.ndarray):
        array = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", copy=True)
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        try:
            return torch.from_numpy(array.view(np.ndarray))
        except TypeError:
            raise NoPlainError from None
    if not isinstance(value, torch.Tensor):
        return value
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_nested or value.is_quantized:
        raise NoPlainError
    if value.numel() and not value.untyped_storage().nbytes():
        raise NoPlainError
    return value.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg().contiguous().clone()
