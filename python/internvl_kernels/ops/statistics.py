"""What a norm needs to know of rows, apart from the norm: csrc/kernels/norm/statistics.h. On CUDA; elsewhere the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..errors import UnsupportedError
from ._arguments import checked, checked_reference
from ._backend import choose
from ._call import start
from ._device import DeviceArray
from ._tensor import put

if TYPE_CHECKING:
    from torch import Tensor

PART = 32  # columns


@checked
def row_statistics(x: Any, *, out: Any = None, backend: str = "auto") -> Any:
    """Of each 32 columns of each row: their sum, and the sum of their squared distances from their mean.

    x ``[..., K]`` of bfloat16 or float16 (the reference: any float); returns float32 ``[ceil(K / 32), rows, 2]``.
    ``linear_residual`` and ``linear_folded`` tell the same bits of what they store. out: memory for it, of ``statistics_space``
    written in whole sectors.
    """
    rows = _rows(x)
    if choose("row_statistics", backend, x, out) == "reference":
        return put(row_statistics_reference(x), out)
    call = start("cuda", 0, x, out)
    given = call.take(x, "x")
    shape = (parts(x.shape[-1]), rows, 2)
    result = call.result(shape, out, "float32")
    call.run("row_statistics", given, result)
    return call.give(result, out)


@checked_reference("x float [..., K]")
def row_statistics_reference(x: Tensor) -> Tensor:
    rows, columns = _rows(x), x.shape[-1]
    wide = x.reshape(rows, columns).double()
    padded = torch.nn.functional.pad(wide, (0, -columns % PART)).reshape(rows, -1, PART)
    counts = torch.full((padded.shape[1],), float(PART), dtype=torch.float64, device=x.device)
    counts[-1] = columns - PART * (padded.shape[1] - 1)
    there = torch.arange(PART, device=x.device) < counts[:, None]
    total = padded.sum(-1)
    distance = torch.where(there, padded - (total / counts)[..., None], 0.0)
    return torch.stack([total, distance.square().sum(-1)], -1).transpose(0, 1).float().contiguous()


@checked
def row_factors(
    statistics: Any, matrices: int = 1, *, eps: float = 1e-6, out: Any = None, backend: str = "auto"
) -> Any:
    """RMSNorm's factors ``1 / sqrt(mean square + eps)`` of rows whose columns are ``matrices`` matrices side by side.

    statistics as ``row_statistics`` gives them, equally many parts of 32 whole columns for each matrix; returns float32
    ``[matrices, rows]``.
    """
    if matrices < 1 or len(statistics.shape) != 3 or statistics.shape[0] == 0 or statistics.shape[0] % matrices:
        found = f"statistics {list(statistics.shape)}, matrices {matrices}"
        raise UnsupportedError(f"row_factors: {found}; allowed: [parts, rows, 2] with as many parts for each matrix")
    if choose("row_factors", backend, statistics, out) == "reference":
        return put(row_factors_reference(statistics, matrices, eps=eps), out)
    call = start("cuda", 0, statistics, out)
    given = call.take(statistics, "statistics")
    result = call.result((matrices, statistics.shape[1]), out, "float32")
    call.run("row_factors", given, result, eps)
    return call.give(result, out)


@checked_reference("statistics wide [parts, rows, 2]")
def row_factors_reference(statistics: Tensor, matrices: int = 1, *, eps: float = 1e-6) -> Tensor:
    of_matrix = statistics.reshape(matrices, -1, *statistics.shape[1:]).double()
    mean, variance = mean_and_variance(of_matrix.transpose(0, 1), of_matrix.shape[1] * PART)
    return (variance + mean.square() + eps).rsqrt().float()


def mean_and_variance(statistics: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Of rows, from statistics ``[parts, ..., 2]``."""
    total, within = statistics.double().unbind(-1)
    counts = torch.full((len(total),), float(PART), dtype=torch.float64, device=total.device)
    counts[-1] = columns - PART * (len(total) - 1)
    counts = counts.reshape(-1, *[1] * (total.ndim - 1))
    mean = total.sum(0) / columns
    between = (counts * (total / counts - mean).square()).sum(0)
    return mean, (within.sum(0) + between) / columns


@checked
def statistics_space(columns: int, rows: int, device: int = 0) -> DeviceArray:
    """Memory for the statistics of rows ``[rows, columns]`` on a GPU, its parts whole sectors apart."""
    if columns < 1 or rows < 0 or device < 0:
        found = f"columns={columns}, rows={rows}, device={device}"
        raise UnsupportedError(
            f"statistics_space: {found}; allowed: at least 1 column, 0 rows and more, a GPU's number"
        )
    return DeviceArray.empty((parts(columns), -(-rows // 4) * 4, 2), "float32", device=device)[:, :rows]


def told(y: Tensor, tell: Any) -> Tensor:
    """y, with the statistics of its first parts in ``tell`` if that is given: what a product's kernel does at once."""
    if tell is not None:
        put(row_statistics_reference(y)[: tell.shape[0]], tell)
    return y


def parts(columns: int) -> int:
    return -(-columns // PART)


def _rows(x: Any) -> int:
    if not x.shape or x.shape[-1] == 0:
        raise UnsupportedError(f"row_statistics: x is {list(x.shape)}; allowed: [..., K] with K of 1 or more")
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    return rows


__all__ = [
    "mean_and_variance",
    "parts",
    "row_factors",
    "row_factors_reference",
    "row_statistics",
    "row_statistics_reference",
    "statistics_space",
    "told",
]
