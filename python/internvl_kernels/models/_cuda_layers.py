"""Encoder layers on the cuda backend: their parameters as kernels take them, and the launches of one.

Where the stream has the dtype of the weights, norms go into the products behind them: the product that writes a row tells its
statistics, the next one applies them. RMSNorm of q and k goes into attention in the same way. A stream in float32 beside
float16 weights is normed by kernels of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import ops
from ..config import VisionConfig
from ..ops._device import DeviceArray
from ._space import Space
from ._weights import layers

FOLDED = {"norm1": "qkv", "norm2": "fc1"}


def upload(weights: Mapping[str, Any], device: int = 0) -> dict[str, DeviceArray]:
    """Parameters as DeviceArrays of their dtype."""
    return {name: DeviceArray(tensor.contiguous(), device=device) for name, tensor in weights.items()}


def stream_dtype(dtype: str) -> str:
    """Of the residual stream: float16 cannot hold the massive activations of large towers, and its stream is in float32."""
    return "float32" if dtype == "float16" else dtype


class CudaLayers:
    """``vision.layers.*`` on a GPU."""

    def __init__(self, config: VisionConfig, weights: Mapping[str, Any], device: int) -> None:
        self.config = config
        self._run: dict[str, Any] = {"backend": "cuda"}
        dtype = str(weights["vision.cls"].dtype).rpartition(".")[2]
        self.folds = stream_dtype(dtype) == dtype
        self.attends_normed = config.qk_norm and config.hidden_size % 32 == 0  # parts of q and of k
        held = layers(weights, "vision", config.num_layers)
        self._layers = [upload(self._prepared(w), device) for w in held]

    def _prepared(self, w: dict[str, Any]) -> dict[str, Any]:
        w, c = dict(w), self.config
        for norm, product in FOLDED.items() if self.folds else ():
            both = w.pop(f"{product}.weight"), w.pop(f"{norm}.weight")
            folded = ops.fold_norm(*both, w.pop(f"{product}.bias", None), w.pop(f"{norm}.bias", None))
            w |= {f"{product}.weight": folded[0], f"{product}.columns": folded[1]}
        if self.attends_normed:
            weight = w.pop("q_norm.weight").float() * w.pop("k_norm.weight").float()
            w["qk_norm.weight"] = weight.reshape(c.num_heads, c.head_dim)
        return w

    def memory(self, rows: int, like: DeviceArray) -> LayerMemory:
        return LayerMemory(self, rows, like)

    def begin(self, hidden: DeviceArray, memory: LayerMemory) -> None:
        """Before the first layer."""
        if self.folds:
            ops.row_statistics(hidden, out=memory.told, **self._run)

    def __call__(self, number: int, hidden: DeviceArray, memory: LayerMemory) -> None:
        w, rows = self._layers[number], _rows(hidden)
        self._attention(w, hidden, memory)
        inner = self._product(w, "norm2", rows, memory, memory.inner(rows), gelu=True)
        self._residual(w, "fc2", inner, rows, "ls2", memory)

    def _attention(self, w: Mapping[str, Any], hidden: DeviceArray, memory: LayerMemory) -> None:
        c, (batch, length) = self.config, hidden.shape[:2]
        rows = _rows(hidden)
        qkv = self._product(w, "norm1", rows, memory, memory.qkv(rows), tell=memory.told_qk)
        if c.qk_norm and not self.attends_normed:
            names = ("q_norm.weight", "k_norm.weight")
            ops.vision_qk_norm(qkv, *(w[name] for name in names), eps=c.norm_eps, inplace=True, **self._run)
        heads = qkv.reshape(batch, length, 3, c.num_heads, c.head_dim)
        parts = [heads[:, :, i] for i in range(3)]
        mixed = memory.mixed(rows)
        out = mixed.reshape(batch, length, c.num_heads, c.head_dim)
        if memory.factors is None:
            ops.attention(*parts, out=out, **self._run)
        else:
            ops.row_factors(memory.told_qk, 2, eps=c.norm_eps, out=memory.factors, **self._run)
            parts += [memory.factors[i].reshape(batch, length) for i in range(2)] + [w["qk_norm.weight"]]
            ops.normed_attention(*parts, out=out, **self._run)
        self._residual(w, "proj", mixed, rows, "ls1", memory)

    def _product(
        self, w: Mapping[str, Any], norm: str, rows: DeviceArray, memory: LayerMemory, out: DeviceArray, **more: Any
    ) -> DeviceArray:
        """The norm of rows and the product behind it."""
        name, c = FOLDED[norm], self.config
        known: dict[str, Any] = {"out": out, **self._run}
        found: DeviceArray
        if self.folds:
            shape = {"eps": c.norm_eps, "rms": c.norm == "rms_norm", **more}
            found = ops.linear_folded(rows, memory.told, w[f"{name}.weight"], w[f"{name}.columns"], **shape, **known)
            return found
        given = {"eps": c.norm_eps, "out": memory.normed(rows), **self._run}
        if c.norm == "rms_norm":
            y = ops.rms_norm(rows, w[f"{norm}.weight"], **given)
        else:
            y = ops.layer_norm(rows, w[f"{norm}.weight"], w[f"{norm}.bias"], **given)
        product = ops.linear_gelu if more.pop("gelu", False) else ops.linear
        found = product(y, w[f"{name}.weight"], w.get(f"{name}.bias"), **more, **known)
        return found

    def _residual(
        self, w: Mapping[str, Any], name: str, x: DeviceArray, rows: DeviceArray, scale: str, memory: LayerMemory
    ) -> None:
        ops.linear_residual(
            x, w[f"{name}.weight"], w[f"{name}.bias"], residual=rows, scale=w[scale], inplace=True, tell=memory.told,
            **self._run,
        )  # fmt: skip


def _rows(hidden: DeviceArray) -> DeviceArray:
    return hidden.reshape(hidden.shape[0] * hidden.shape[1], hidden.shape[2])


class LayerMemory:
    """What a layer computes beside the hidden rows: taken once, places that follow each other share it."""

    def __init__(self, of: CudaLayers, rows: int, like: DeviceArray) -> None:
        c, device = of.config, like.device
        d, self._inner, self._first = c.hidden_size, c.intermediate_size, 0 if of.folds else rows * c.hidden_size
        normed = 0 if of.folds else d
        self._space = Space(like, rows * max(4 * d, normed + self._inner))
        self.told = ops.statistics_space(d, rows, device) if of.folds else None
        self.told_qk = ops.statistics_space(2 * d, rows, device) if of.attends_normed else None
        self.factors = DeviceArray.empty((2, rows), "float32", device=device) if of.attends_normed else None

    def normed(self, rows: DeviceArray) -> Any:
        return self._space(0, *rows.shape)

    def qkv(self, rows: DeviceArray) -> Any:
        return self._space(self._first, len(rows), 3 * rows.shape[1])

    def mixed(self, rows: DeviceArray) -> Any:
        """Where the normed rows were, or behind q, k and v."""
        return self._space(0 if self._first else 3 * len(rows) * rows.shape[1], *rows.shape)

    def inner(self, rows: DeviceArray) -> Any:
        return self._space(self._first, len(rows), self._inner)


__all__ = ["CudaLayers", "LayerMemory", "stream_dtype", "upload"]
