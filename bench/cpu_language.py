"""The language cases of bench/cpu.py: prefill and one decode step of the 1B model's decoder, one layer of experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import cpu_peers as peers
from cpu_cases import SIZES, Case, Settings, random_model
from cpu_peers import Call
from internvl_kernels import costs, ops
from internvl_kernels.config import LanguageConfig
from internvl_kernels.encoder import read_weights
from internvl_kernels.io.config import read_config
from internvl_kernels.models import DecodeSteps, KVCache, LanguageModel, Piece, Positions, Prompt, prefill
from internvl_kernels.options import RuntimeOptions
from internvl_kernels.registry import LANGUAGES


def language_1b(s: Settings) -> Iterator[Case]:
    shape, length = LANGUAGES["Qwen3-0.6B"], 320
    if s.quick:
        small = {"hidden_size": 128, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32}
        shape, length = replace(shape, **small, intermediate_size=256, vocab_size=512), 24  # type: ignore[arg-type]
    s.step("Qwen3-0.6B: random weights")
    folder = s.folder / "language"
    overrides = {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
    }
    theirs = random_model(folder, text_overrides=overrides)
    model, head = theirs.model.language_model, theirs.lm_head
    models: dict[tuple[str, str], tuple[LanguageModel, RuntimeOptions]] = {}
    ids = torch.randint(8, shape.vocab_size, (1, length + 1), generator=torch.Generator().manual_seed(2))

    def load(dtype: str, stored: str) -> tuple[LanguageModel, RuntimeOptions]:
        if (dtype, stored) not in models:
            options = RuntimeOptions.check("cpu", None, dtype, stored, None, s.threads)
            peers.room(costs.language_parameters(shape) * SIZES[stored])
            config = read_config(folder)
            with options.limited():
                tensors = read_weights(folder, config, options, ("language",), False)
            made = LanguageModel(config.language, tensors, backend="cpu", threads=options.op_threads)
            models[dtype, stored] = made, options
        return models[dtype, stored]

    bench = _Language(s, shape, model, head, ids, load)
    yield bench.prefill()
    yield bench.decode()


class _Language:
    """transformers' model and ours by precision, prompt ids ``[1, L + 1]`` of which the last is the token to decode."""

    def __init__(
        self, s: Settings, shape: LanguageConfig, model: Any, head: Any, ids: Tensor, load: Callable[..., Any]
    ) -> None:
        self.s, self.shape, self.model, self.head, self.load = s, shape, model, head, load
        self.ids, self.token = ids[:, :-1].contiguous(), ids[:, -1:].contiguous()
        self.length = self.ids.shape[1]
        self.parameters = costs.language_parameters(shape)
        self.read_each_step = self.parameters - shape.vocab_size * shape.hidden_size  # all but the table looked up

    def prefill(self) -> Case:
        s, configs = self.s, [self.model.config]
        module = peers.Prefill(self.model, self.head)
        case = Case(
            "prefill", f"Qwen3-0.6B, prefill of {self.length} tokens", "GFLOP/s",
            lambda itemsize: costs.language_flops(self.shape, self.length), "fma", s,
        )  # fmt: skip

        def keeping() -> Tensor:
            return self.head(self.model(input_ids=self.ids, use_cache=True).last_hidden_state[:, -1:])

        case.peer("transformers", "transformers eager", lambda: peers.plain(configs, "eager", keeping))
        case.peer("transformers", "transformers sdpa", lambda: peers.plain(configs, "sdpa", keeping))
        case.peer("compile", "torch.compile", lambda: peers.compiled_sdpa(configs, module, [self.ids], self.size))
        exported = peers.Exported(module, [self.ids], s.folder / "language-prefill")
        self._exported(case, exported, [self.ids])

        def ours(dtype: str, stored: str) -> Call:
            model, options = self.load(dtype, stored)
            prompt = Prompt(self.ids[0], None, Positions(len(self.ids[0])))

            def call() -> Tensor:
                with torch.no_grad(), options.limited():
                    cache = KVCache(model.config, [self.length], model.kv_dtype, model.device)
                    ((_, rows),) = prefill(model, cache, [prompt], costs.MOST_ROWS, None)
                    return model.head(rows[-1:])

            return call

        case.ours(ours)
        return case

    def decode(self) -> Case:
        from transformers import DynamicCache, StaticCache

        s, configs, length = self.s, [self.model.config], self.length
        case = Case(
            "decode", f"Qwen3-0.6B, one token after {length}", "GB/s",
            lambda itemsize: float(self.read_each_step * itemsize), "read", s,
        )  # fmt: skip
        with torch.inference_mode(False), torch.no_grad():
            grown = DynamicCache()
            self.model(input_ids=self.ids, past_key_values=grown, use_cache=True)
            fixed = StaticCache(config=self.model.config, max_cache_len=length + 8)
            self.model(input_ids=self.ids, past_key_values=fixed, use_cache=True)
        kept = [(layer.keys, layer.values) for layer in grown.layers]

        def step(cache: Any) -> Tensor:
            return self.head(self.model(input_ids=self.token, past_key_values=cache, use_cache=True).last_hidden_state)

        def with_grown() -> Tensor:
            for layer, (keys, values) in zip(grown.layers, kept):  # as it was before the step
                layer.keys, layer.values = keys, values
            return step(grown)

        def rewind() -> None:
            for layer in fixed.layers:
                layer.cumulative_length.fill_(length)

        def with_fixed() -> Tensor:
            rewind()
            return step(fixed)

        case.peer("transformers", "transformers eager", lambda: peers.plain(configs, "eager", with_grown))
        case.peer("transformers", "transformers sdpa", lambda: peers.plain(configs, "sdpa", with_grown))
        case.peer("transformers", "transformers sdpa, static cache", lambda: peers.plain(configs, "sdpa", with_fixed))
        compiled = lambda: peers.compiled_sdpa(configs, lambda: step(fixed), [], self.size, rewind)  # noqa: E731
        case.peer("compile", "torch.compile", compiled)
        inputs = [self.token, *(tensor for pair in kept for tensor in pair)]
        self._exported(case, peers.Exported(peers.Step(self.model, self.head), inputs, s.folder / "step"), inputs)

        def ours(dtype: str, stored: str) -> Call:
            model, options = self.load(dtype, stored)
            with torch.no_grad(), options.limited():
                cache = KVCache(model.config, [length + 1], model.kv_dtype, model.device)
                positions = [Positions(len(self.ids[0]))]
                list(prefill(model, cache, [Prompt(self.ids[0], None, *positions)], costs.MOST_ROWS, None))
                steps = DecodeSteps(model, cache, positions)

            def call() -> Tensor:
                with torch.no_grad(), options.limited():
                    return model.head(steps(self.token[0], [Piece(0, length, length + 1)]))

            return call

        case.ours(ours)
        return case

    @property
    def size(self) -> int:
        return 4 * self.parameters

    def _exported(self, case: Case, exported: peers.Exported, inputs: list[Tensor]) -> None:
        def run(program: Callable[..., Call]) -> Callable[[], Call]:
            def build() -> Call:
                peers.room(2 * self.size)
                for config in [self.model.config]:
                    config._attn_implementation = "sdpa"
                return program(exported, inputs, self.s.threads)

            return build

        case.peer("onnxruntime", "ONNX Runtime", run(peers.onnx_runtime))
        case.peer("openvino", "OpenVINO", run(peers.openvino))


def experts(s: Settings) -> Iterator[Case]:
    """Router, top-8 of 128 experts and their SwiGLU: one layer of the 30B-A3B model without attention and norms."""
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    shape = LANGUAGES["Qwen3-30B-A3B"]
    if s.quick:
        shape = replace(shape, hidden_size=128, num_experts=8, experts_per_token=2, expert_size=64)
    count, chosen, inner, wide = shape.num_experts, shape.experts_per_token, shape.expert_size, shape.hidden_size
    s.step(f"{count} experts: random weights")
    config = Qwen3MoeConfig(
        hidden_size=wide,
        moe_intermediate_size=inner,
        num_experts=count,
        num_experts_per_tok=chosen,
        norm_topk_prob=True,
    )
    config._experts_implementation = "eager"
    block = Qwen3MoeSparseMoeBlock(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for weight in block.parameters():
        for part in weight if weight.ndim == 3 else [weight]:
            part.copy_((torch.randn(part.shape, generator=generator) * part.shape[-1] ** -0.5).bfloat16())
    matrices = [block.gate.weight, block.experts.gate_up_proj, block.experts.down_proj]
    packed: dict[tuple[str, str], list[Any]] = {}

    def weights(dtype: str, stored: str) -> tuple[list[Any], RuntimeOptions]:
        options = RuntimeOptions.check("cpu", None, dtype, stored, None, s.threads)
        if (dtype, stored) not in packed:
            peers.room(sum(m.numel() for m in matrices) * SIZES[stored])
            found: list[Any] = []
            for matrix, gated in zip(matrices, (False, True, False)):
                if options.packed:
                    found.append(ops.PackedWeight(tuple(matrix.shape), getattr(torch, stored), gated=gated))
                    for i, part in enumerate(matrix if matrix.ndim == 3 else [matrix]):
                        part = part.to(getattr(torch, stored))
                        found[-1].write(part[None] if matrix.ndim == 3 else part, i)
                else:
                    found.append(matrix.to(getattr(torch, stored)))
            packed[dtype, stored] = found
        return packed[dtype, stored], options

    for tokens in (1, 4) if s.quick else (1, 16, 320):
        x = torch.randn(1, tokens, wide, generator=generator)
        used = len(block.gate(x[0])[2].unique())
        case = _experts_case(s, block, config, x, used, shape)

        def ours(dtype: str, stored: str, x: Tensor = x, tokens: int = tokens) -> Call:
            (router, gate_up, down), options = weights(dtype, stored)
            rows = x[0].to(getattr(torch, dtype))
            run: dict[str, Any] = {"backend": "cpu", "threads": options.op_threads}
            few = tokens <= 16  # one new token of as many sequences

            def call() -> Tensor:
                with torch.no_grad(), options.limited():
                    scores = ops.linear(rows, router, decode=few, **run)
                    scales, experts = ops.moe_route(scores, chosen, normalize=True, **run)
                    return ops.moe_experts(rows, gate_up, down, scales, experts, decode=few, **run)

            return call

        case.ours(ours)
        yield case


def _experts_case(s: Settings, block: Any, config: Any, x: Tensor, used: int, shape: Any) -> Case:
    tokens, wide = x.shape[1:]
    one = 3 * wide * shape.expert_size  # parameters of an expert
    read, router = used * one, shape.num_experts * wide
    few = tokens <= 16

    def work(itemsize: int) -> float:
        if few:
            return float((read + router) * itemsize)
        return 2.0 * tokens * (shape.experts_per_token * one + router)

    case = Case(
        f"experts-{tokens}", f"30B-A3B layer of experts, {tokens} token{'s' * (tokens > 1)} ({used} experts chosen)",
        "GB/s" if few else "GFLOP/s", work, "read" if few else "fma", s,
    )  # fmt: skip

    def run(name: str) -> Callable[[], Call]:
        def build() -> Call:
            if name == "batched_mm":  # copies the weights of every choice
                peers.room(4 * tokens * shape.experts_per_token * one + (1 << 30))

            def call() -> Any:
                config._experts_implementation = name
                with torch.inference_mode():
                    return block(x)

            return call

        return build

    for name in ("eager", "grouped_mm", "batched_mm"):
        case.peer("transformers", f"transformers {name}", run(name))
    return case
