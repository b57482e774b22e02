"""A case of bench/cpu.py: contenders that compute the same thing, ready to be called in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cpu_peers import Absent, Call
from internvl_kernels import BackendError, UnsupportedError
from internvl_kernels.testing.checkpoints import transformers_config, transformers_model

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
PRECISIONS = {  # name -> dtype of the computation, dtype of the stored weights
    "float32": ("float32", "float32"),
    "bfloat16 weights": ("float32", "bfloat16"),
    "float16 weights": ("float32", "float16"),
    "bfloat16": ("bfloat16", "bfloat16"),
}
PEERS = ("transformers", "compile", "onnxruntime", "openvino")


@dataclass
class Settings:
    threads: int
    quick: bool
    precisions: Sequence[str]
    peers: Sequence[str]
    tiles: Sequence[int]  # of the 300M tower
    folder: Path  # for checkpoints and exports
    step: Callable[[str], None]
    memory: list[dict[str, Any]] = field(default_factory=list)  # of the tower, by tile count
    left_out: str = "left out (--peers)"  # why a peer is not among them


@dataclass
class Contender:
    call: Call
    ours: bool
    dtype: str  # of the computation
    stored: str  # of the weights
    result: Callable[[Any], Any]  # what a call returns -> what all contenders of a case agree on
    seconds: list[float] = field(default_factory=list)


@dataclass
class Case:
    """``work(bytes of a stored weight)``: operations, bytes or pixels of a call; ``yard``: the loop that bounds it."""

    key: str
    title: str
    unit: str  # "GFLOP/s" | "GB/s" | "MP/s"
    work: Callable[[int], float]
    yard: str | None  # "fma" | "read"
    settings: Settings
    tolerance: float = 2e-4  # relative L2, of the whole model in fp32
    contenders: dict[str, Contender] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    median: dict[str, float] = field(default_factory=dict)  # seconds, once measured

    def __post_init__(self) -> None:
        if self.settings.quick:
            self.title += " (shrunk)"

    def peer(
        self, program: str, name: str, build: Callable[[], Call], dtype: str = "float32", result: Any = None
    ) -> None:
        if program not in self.settings.peers:
            self.absent[name] = self.settings.left_out
            return
        self.settings.step(f"{self.title}: {name}")
        try:
            self.contenders[name] = Contender(build(), False, dtype, dtype, result or array)
        except Absent as reason:
            self.absent[name] = str(reason)
        except Exception as error:  # whatever a peer fails with, the others are measured
            self.absent[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"

    def ours(
        self, build: Callable[[str, str], Call], precisions: Sequence[str] | None = None, result: Any = None
    ) -> None:
        """One contender per precision. build(dtype, weights) raises UnsupportedError for what this build does not offer."""
        for precision in self.settings.precisions if precisions is None else precisions:
            dtype, stored = PRECISIONS[precision]
            name = f"ours, {precision}"
            self.settings.step(f"{self.title}: {name}")
            try:
                self.contenders[name] = Contender(build(dtype, stored), True, dtype, stored, result or array)
            except (UnsupportedError, BackendError, Absent) as reason:
                self.absent[name] = f"not there: {reason}"


def random_model(folder: Path, text: str = "qwen3", vision: str = "layer_norm", **overrides: Any) -> Any:
    """transformers' model, random, written to ``folder``. Its values are bfloat16's, so that weights of every precision are
    the same numbers."""
    model = transformers_model(transformers_config(text, vision, **overrides))
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    model.save_pretrained(folder)
    return model


def array(found: Any) -> np.ndarray:
    """A result as float32 numpy."""
    return found.float().numpy() if isinstance(found, Tensor) else np.asarray(found, np.float32)


def difference(found: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """(largest absolute difference, relative L2)."""
    a, b = found.astype(np.float64).ravel(), base.astype(np.float64).ravel()
    if a.shape != b.shape:
        return float("inf"), float("inf")
    return float(np.abs(a - b).max()), float(np.linalg.norm(a - b) / np.linalg.norm(b))
