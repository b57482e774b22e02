"""What each family of language models calls its parameters, and how it stores them.

llama      separate q, k, v, gate and up: Qwen2, Qwen3, Qwen3-MoE, Llama, Yi, InternLM3, and what was converted to them
internlm2  wqkv with its rows grouped by key head: [kv, heads / kv + 2, head_dim, H], the last two of a group k and v
phi3       fused qkv and gate_up, rows as the parameters'
gpt_oss    Llama's attention with sinks; experts [E, in, out], gate and up in alternate columns
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from ..config import LanguageConfig
from .pieces import Naming, Parameter, Piece, rows, whole

_MARKS = {  # a name's ending that only one family has
    ".attention.wqkv.weight": "internlm2",
    ".self_attn.qkv_proj.weight": "phi3",
    ".mlp.router.weight": "gpt_oss",
}
_NORMS = {"internlm2": ("attention_norm", "ffn_norm")}


def family_of(names: Collection[str]) -> str:
    """The family whose names are there, whatever the config calls the class."""
    for ending, family in _MARKS.items():
        if any(name.endswith(ending) for name in names):
            return family
    return "llama"


def family_of_architecture(architecture: str, layout: str) -> str:
    """The family in which an architecture is published; transformers has InternLM2 only as a Llama."""
    if architecture == "internlm2":
        return "internlm2" if layout == "original" else "llama"
    return architecture if architecture in ("phi3", "gpt_oss") else "llama"


def language(c: LanguageConfig, naming: Naming) -> Iterator[Parameter]:
    """Every parameter of a language model, in the order of the forward pass."""
    embed = "tok_embeddings" if naming.family == "internlm2" else "embed_tokens"
    yield whole("language.embed.weight", (c.vocab_size, c.hidden_size), f"{naming.language}{embed}.weight")
    for i in range(c.num_layers):
        to, at = f"language.layers.{i}.", f"{naming.language}layers.{i}."
        yield from _attention(c, naming, to, at)
        if not c.is_sparse(i):
            yield from _mlp(c, naming, to, at)
        elif c.expert_bias:
            yield from _clamped_experts(c, to, f"{at}mlp.")
        else:
            yield from _experts(c, naming, to, f"{at}mlp.")
    yield whole("language.norm.weight", (c.hidden_size,), naming.language + "norm.weight")
    if not c.tied_embeddings:
        yield whole("language.head.weight", (c.vocab_size, c.hidden_size), naming.head)


def _attention(c: LanguageConfig, naming: Naming, to: str, at: str) -> Iterator[Parameter]:
    h, of = c.hidden_size, at + ("attention." if naming.family == "internlm2" else "self_attn.")
    first, second = _NORMS.get(naming.family, ("input_layernorm", "post_attention_layernorm"))
    yield whole(f"{to}norm1.weight", (h,), f"{at}{first}.weight")
    for kind, columns in (("weight", (h,)), *((("bias", ()),) if c.qkv_bias else ())):
        yield _qkv(c, naming, f"{to}qkv.{kind}", of, kind, columns)
    if c.qk_norm:
        for x in "qk":
            yield whole(f"{to}{x}_norm.weight", (c.head_dim,), f"{of}{x}_norm.weight")
    if c.sinks:
        yield whole(f"{to}sinks", (c.num_heads,), f"{of}sinks")
    output = of + ("wo" if naming.family == "internlm2" else "o_proj")
    yield whole(f"{to}o.weight", (h, c.q_size), f"{output}.weight")
    if c.output_bias:
        yield whole(f"{to}o.bias", (h,), f"{output}.bias")
    yield whole(f"{to}norm2.weight", (h,), f"{at}{second}.weight")


def _qkv(c: LanguageConfig, naming: Naming, name: str, of: str, kind: str, columns: tuple[int, ...]) -> Parameter:
    sizes = (c.q_size, c.kv_size, c.kv_size)
    if naming.family == "phi3":
        return whole(name, (sum(sizes), *columns), f"{of}qkv_proj.{kind}")
    if naming.family != "internlm2":
        return rows(name, [(f"{of}{x}_proj.{kind}", size) for x, size in zip("qkv", sizes)], *columns)
    source, stored, each = f"{of}wqkv.{kind}", (sum(sizes), *columns), math.prod(columns)
    queries, d = c.q_size // c.num_kv_heads, c.head_dim
    pieces = []
    for group in range(c.num_kv_heads):
        row = group * (queries + 2 * d)
        for count, target, offset in (
            (queries, group * queries, 0),
            (d, c.q_size + group * d, queries),
            (d, c.q_size + c.kv_size + group * d, queries + d),
        ):
            pieces.append(Piece(source, (count, *columns), target * each, (row + offset) * each, stored))
    return Parameter(name, stored, tuple(pieces))


def _mlp(c: LanguageConfig, naming: Naming, to: str, at: str) -> Iterator[Parameter]:
    h, size = c.hidden_size, c.intermediate_size
    if naming.family == "internlm2":
        gate, up, down = (f"{at}feed_forward.w{i}.weight" for i in (1, 3, 2))
    else:
        gate, up, down = (f"{at}mlp.{x}_proj.weight" for x in ("gate", "up", "down"))
    if naming.family == "phi3":
        yield whole(f"{to}gate_up.weight", (2 * size, h), f"{at}mlp.gate_up_proj.weight")
    else:
        yield rows(f"{to}gate_up.weight", [(gate, size), (up, size)], h)
    yield whole(f"{to}down.weight", (h, size), down)


def _experts(c: LanguageConfig, naming: Naming, to: str, mlp: str) -> Iterator[Parameter]:
    e, size, h = c.num_experts, c.expert_size, c.hidden_size
    yield whole(f"{to}router.weight", (e, h), f"{mlp}gate.weight")
    if naming.fused_experts:
        yield whole(f"{to}experts.gate_up", (e, 2 * size, h), f"{mlp}experts.gate_up_proj")
        yield whole(f"{to}experts.down", (e, h, size), f"{mlp}experts.down_proj")
        return
    halves = [
        (f"{mlp}experts.{x}.{half}_proj.weight", 2 * x + k) for x in range(e) for k, half in enumerate(("gate", "up"))
    ]
    gate_up = tuple(Piece(source, (size, h), at_half * size * h) for source, at_half in halves)
    down = tuple(Piece(f"{mlp}experts.{x}.down_proj.weight", (h, size), x * h * size) for x in range(e))
    yield Parameter(f"{to}experts.gate_up", (e, 2 * size, h), gate_up)
    yield Parameter(f"{to}experts.down", (e, h, size), down)


def _clamped_experts(c: LanguageConfig, to: str, mlp: str) -> Iterator[Parameter]:
    e, size, h = c.num_experts, c.expert_size, c.hidden_size
    yield whole(f"{to}router.weight", (e, h), f"{mlp}router.weight")
    yield whole(f"{to}router.bias", (e,), f"{mlp}router.bias")
    for name, source, shape, stored, form in (
        ("gate_up", "gate_up_proj", (2 * size, h), (e, h, 2 * size), "interleaved"),
        ("gate_up_bias", "gate_up_proj_bias", (2 * size,), (e, 2 * size), "interleaved"),
        ("down", "down_proj", (h, size), (e, size, h), "transposed"),
        ("down_bias", "down_proj_bias", (h,), (e, h), "same"),
    ):
        each = math.prod(shape)
        pieces = (Piece(f"{mlp}experts.{source}", shape, x * each, x * each, stored, form) for x in range(e))
        yield Parameter(f"{to}experts.{name}", (e, *shape), tuple(pieces))
