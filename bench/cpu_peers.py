"""The peers of bench/cpu.py at their own best settings, on the same weights and the same number of threads.

Each function takes a module of transformers that returns one tensor, with its inputs, and gives back a call without arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


class Absent(Exception):
    """Why a contender does not run here."""


def need(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise Absent(f"package {name} is not installed (extra: bench)")


def room(size: int) -> None:
    """Refuses what would not fit beside what is there: memory that runs out ends the whole run."""
    with open("/proc/meminfo") as file:
        free = next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    if free < size:
        raise Absent(f"takes about {size / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Exporters and compilers talk a lot; their exceptions still come through."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def plain(configs: Sequence[Any], attention: str, run: Call) -> Call:
    """transformers as it is. Both attentions share one model: the config says which one runs."""

    def call() -> Any:
        for config in configs:
            config._attn_implementation = attention
        with torch.inference_mode():
            return run()

    return call


def _compiled(run: Callable[..., Tensor], inputs: Sequence[Any], before: Call) -> Call:
    """torch.compile with frozen weights and the fastest of the products that Inductor has. before: runs ahead of every call."""
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    best = {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
    made = torch.compile(run, dynamic=False)

    def call() -> Any:
        before()
        with torch.no_grad():
            return made(*inputs)

    with quietly(), inductor.patch(best):
        call()
        call()  # a first call that changes a cache may compile again
    return call


def compiled_sdpa(
    configs: Sequence[Any], run: Any, inputs: Sequence[Any], size: int, before: Call = lambda: None
) -> Call:
    """``_compiled`` of a model of transformers whose weights take ``size`` bytes. Its config is one of ``configs``."""
    room(2 * size)

    def choose() -> None:
        for config in configs:
            config._attn_implementation = "sdpa"  # another value would compile again
        before()

    return _compiled(run, inputs, choose)


class Exported:
    """A module as an ONNX file, written when first asked for. dynamic: dimension 0 of the only input varies."""

    def __init__(
        self, module: torch.nn.Module, inputs: Sequence[Tensor], folder: Path, *, dynamic: bool = False
    ) -> None:
        self._module, self._inputs, self._dynamic = module, tuple(inputs), dynamic
        self._folder, self._path = folder, folder / "model.onnx"
        self._error: Exception | None = None
        self.names = [f"x{i}" for i in range(len(self._inputs))]

    @property
    def path(self) -> Path:
        need("onnx", "onnxscript")
        if self._error is not None:
            raise self._error
        if not self._path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if self._dynamic else None
            try:
                with quietly(), torch.no_grad():
                    torch.onnx.export(
                        self._module, self._inputs, self._path, dynamo=True, dynamic_shapes=shapes, external_data=True,
                        input_names=self.names, output_names=["y"], verbose=False,
                    )  # fmt: skip
            except Exception as error:  # tried once: the second user gets the same answer
                self._error = error
                raise
        return self._path

    def feeds(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in zip(self.names, inputs)}


def onnx_runtime(exported: Exported, inputs: Sequence[Tensor], threads: int) -> Call:
    """ONNX Runtime's CPU provider with every graph optimisation (its default) and the shapes fixed."""
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", len(inputs[0]))
    session = onnxruntime.InferenceSession(exported.path, options, providers=["CPUExecutionProvider"])
    feeds = exported.feeds(inputs)
    return lambda: session.run(None, feeds)[0]


def openvino(exported: Exported, inputs: Sequence[Tensor], threads: int, *, precision: str = "f32") -> Call:
    """OpenVINO's CPU plugin for latency; precision: it would take bfloat16 by itself where the processor has it."""
    need("openvino")
    from openvino import Core

    model = Core().read_model(exported.path)
    model.reshape({name: list(tensor.shape) for name, tensor in zip(exported.names, inputs)})
    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = Core().compile_model(model, "CPU", properties).create_infer_request()
    feeds = exported.feeds(inputs)
    return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)[0]


class Tower(torch.nn.Module):
    """transformers' vision tower, its last hidden state alone."""

    def __init__(self, tower: torch.nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tiles: Tensor) -> Tensor:
        return self.tower(tiles).last_hidden_state


class Prefill(torch.nn.Module):
    """Logits of the last row; keys and values are not kept, which favours the peer."""

    def __init__(self, model: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1:])


class Step(torch.nn.Module):
    """Logits of one more token after the keys and values given (key, value, key, ...); the new ones are not kept, as above."""

    def __init__(self, model: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, ids: Tensor, *past: Tensor) -> Tensor:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(past[::2], past[1::2])):
            cache.update(key, value, layer)
        return self.head(self.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state)


__all__ = [
    "Absent",
    "Call",
    "Exported",
    "Prefill",
    "Step",
    "Tower",
    "compiled_sdpa",
    "need",
    "onnx_runtime",
    "openvino",
    "plain",
    "room",
]
