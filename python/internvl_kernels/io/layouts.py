"""What each published layout calls every parameter: one description, used to read and to write.

A parameter has a canonical name and shape, which the models use, and is stored as one or several pieces. Every piece
fills a contiguous block of the canonical tensor, so reading copies stored bytes to that block and writing copies them
back.

Stored but never needed, and therefore ignored (``ignored``): blocks of the tower past ``select_layer``; the tower's
final norm, which the family replaces by the identity; its mask token, used in pre-training only; ``inv_freq`` tables
of rotary embeddings. Anything else that is stored and not described here is an error for the caller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig

PARTS = ("vision", "projector", "language")


@dataclass(frozen=True)
class Naming:
    """Which of the name systems a checkpoint uses."""

    layout: str = "original"  # "original" | "hf"
    prefixes: str = (
        "legacy"  # of "hf": "legacy" (vision_tower.*, language_model.model.*) | "new" (model.vision_tower.*, lm_head)
    )
    fused_experts: bool = (
        False  # experts.gate_up_proj [E,2I,H] and experts.down_proj [E,H,I] instead of one tensor per expert
    )

    @property
    def vision(self) -> str:
        return "vision_model." if self.layout == "original" else self._root + "vision_tower."

    @property
    def projector(self) -> str:
        return "mlp1." if self.layout == "original" else self._root + "multi_modal_projector."

    @property
    def language(self) -> str:
        return "model.language_model." if self._root else "language_model.model."

    @property
    def head(self) -> str:
        return "lm_head.weight" if self._root else "language_model.lm_head.weight"

    @property
    def _root(self) -> str:
        return "model." if self.layout == "hf" and self.prefixes == "new" else ""


HEADS = tuple({Naming().head, Naming("hf", "new").head})  # where a separate output matrix may be stored


@dataclass(frozen=True)
class Piece:
    """One stored tensor: elements ``start`` to ``start + prod(shape)`` of the canonical tensor."""

    name: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Parameter:
    name: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def detect(names: Collection[str], layout: str) -> Naming:
    """The naming that ``names`` follow; the layout comes from config.json."""
    return Naming(
        layout=layout,
        prefixes="new" if layout == "hf" and any(name.startswith("model.") for name in names) else "legacy",
        fused_experts=any(name.endswith(".mlp.experts.gate_up_proj") for name in names),
    )


def parameters(config: ModelConfig, naming: Naming, parts: Collection[str] = PARTS) -> Iterator[Parameter]:
    """Every parameter of the layers that run, in the order of the forward pass."""
    if "vision" in parts:
        yield from _vision(config.vision, naming)
    if "projector" in parts:
        yield from _projector(config.projector, naming)
    if "language" in parts:
        yield from _language(config.language, naming)


def ignored(name: str, config: ModelConfig, naming: Naming) -> bool:
    """Whether a stored tensor that no parameter asks for is known to be unused (the module's text has the rule)."""
    v = config.vision
    final_norm = re.escape(naming.vision) + r"(layernorm|norm|final_layernorm)\.(weight|bias)"
    mask_token = re.escape(naming.vision) + r"embeddings\.mask_token"
    rotary = re.escape(naming.language) + r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
    if re.fullmatch(f"{final_norm}|{mask_token}|{rotary}", name):
        return True
    block = re.match(re.escape(_block(naming)) + r"(\d{1,6})\.", name)
    if block is None or not v.num_layers <= int(block[1]) < v.stored_layers:
        return False
    return any(name == piece.name for p in _vision_layer(v, naming, int(block[1])) for piece in p.pieces)


def _whole(name: str, shape: tuple[int, ...], source: str, stored: tuple[int, ...] | None = None) -> Parameter:
    return Parameter(name, shape, (Piece(source, stored or shape),))


def _rows(name: str, sources: list[tuple[str, int]], *columns: int) -> Parameter:
    """Sources of so many rows each, one below the other."""
    pieces, row = [], 0
    for source, rows in sources:
        pieces.append(Piece(source, (rows, *columns), row * math.prod(columns)))
        row += rows
    return Parameter(name, (row, *columns), tuple(pieces))


def _block(naming: Naming) -> str:
    return naming.vision + ("encoder.layers." if naming.layout == "original" else "encoder.layer.")


def _vision(v: VisionConfig, naming: Naming) -> Iterator[Parameter]:
    d, p, n = v.hidden_size, v.patch_size, v.num_patches
    at = naming.vision + "embeddings."
    original = naming.layout == "original"
    patch = at + ("patch_embedding" if original else "patch_embeddings.projection")
    yield _whole("vision.patch.weight", (d, 3 * p * p), f"{patch}.weight", (d, 3, p, p))
    yield _whole("vision.patch.bias", (d,), f"{patch}.bias")
    yield _whole("vision.cls", (d,), at + ("class_embedding" if original else "cls_token"), (1, 1, d))
    yield _whole(
        "vision.positions",
        (1 + n, d),
        at + ("position_embedding" if original else "position_embeddings"),
        (1, 1 + n, d),
    )
    for i in range(v.num_layers):
        yield from _vision_layer(v, naming, i)


def _vision_layer(v: VisionConfig, naming: Naming, i: int) -> Iterator[Parameter]:
    d, f = v.hidden_size, v.intermediate_size
    to, at = f"vision.layers.{i}.", f"{_block(naming)}{i}."
    original = naming.layout == "original"
    attention = at + ("attn." if original else "attention.")
    norms = ("norm1", "norm2") if original else ("layernorm_before", "layernorm_after")
    scales = ("ls1", "ls2") if original else ("lambda_1", "lambda_2")
    project = attention + ("proj" if original else "projection_layer")
    for k in (1, 2):
        yield _whole(f"{to}norm{k}.weight", (d,), f"{at}{norms[k - 1]}.weight")
        if v.norm == "layer_norm":
            yield _whole(f"{to}norm{k}.bias", (d,), f"{at}{norms[k - 1]}.bias")
        yield _whole(f"{to}ls{k}", (d,), at + scales[k - 1])
    for kind, columns in (("weight", (d,)), ("bias", ())) if v.qkv_bias else (("weight", (d,)),):
        if original:
            yield _whole(f"{to}qkv.{kind}", (3 * d, *columns), f"{attention}qkv.{kind}")
        else:
            yield _rows(f"{to}qkv.{kind}", [(f"{attention}{x}_proj.{kind}", d) for x in "qkv"], *columns)
    if v.qk_norm:
        for x in "qk":
            yield _whole(f"{to}{x}_norm.weight", (d,), f"{attention}{x}_norm.weight")
    yield from _linear(f"{to}proj", project, d, d)
    yield from _linear(f"{to}fc1", f"{at}mlp.fc1", f, d)
    yield from _linear(f"{to}fc2", f"{at}mlp.fc2", d, f)


def _linear(name: str, source: str, rows: int, columns: int) -> Iterator[Parameter]:
    yield _whole(f"{name}.weight", (rows, columns), f"{source}.weight")
    yield _whole(f"{name}.bias", (rows,), f"{source}.bias")


def _projector(p: ProjectorConfig, naming: Naming) -> Iterator[Parameter]:
    norm, fc1, fc2 = ("0", "1", "3") if naming.layout == "original" else ("layer_norm", "linear_1", "linear_2")
    at, wide, h = naming.projector, p.input_size, p.hidden_size
    yield _whole("projector.norm.weight", (wide,), f"{at}{norm}.weight")
    yield _whole("projector.norm.bias", (wide,), f"{at}{norm}.bias")
    yield from _linear("projector.fc1", at + fc1, h, wide)
    yield from _linear("projector.fc2", at + fc2, h, h)


def _language(c: LanguageConfig, naming: Naming) -> Iterator[Parameter]:
    yield _whole("language.embed.weight", (c.vocab_size, c.hidden_size), naming.language + "embed_tokens.weight")
    for i in range(c.num_layers):
        yield from _language_attention(c, f"language.layers.{i}.", f"{naming.language}layers.{i}.")
        yield from _language_mlp(c, naming, i, f"language.layers.{i}.", f"{naming.language}layers.{i}.")
    yield _whole("language.norm.weight", (c.hidden_size,), naming.language + "norm.weight")
    if not c.tied_embeddings:
        yield _whole("language.head.weight", (c.vocab_size, c.hidden_size), naming.head)


def _language_attention(c: LanguageConfig, to: str, at: str) -> Iterator[Parameter]:
    h, attention = c.hidden_size, at + "self_attn."
    yield _whole(f"{to}norm1.weight", (h,), f"{at}input_layernorm.weight")
    sizes = (("q", c.q_size), ("k", c.kv_size), ("v", c.kv_size))
    yield _rows(f"{to}qkv.weight", [(f"{attention}{x}_proj.weight", size) for x, size in sizes], h)
    if c.qkv_bias:
        yield _rows(f"{to}qkv.bias", [(f"{attention}{x}_proj.bias", size) for x, size in sizes])
    if c.qk_norm:
        for x in "qk":
            yield _whole(f"{to}{x}_norm.weight", (c.head_dim,), f"{attention}{x}_norm.weight")
    yield _whole(f"{to}o.weight", (h, c.q_size), f"{attention}o_proj.weight")
    if c.output_bias:
        yield _whole(f"{to}o.bias", (h,), f"{attention}o_proj.bias")
    yield _whole(f"{to}norm2.weight", (h,), f"{at}post_attention_layernorm.weight")


def _language_mlp(c: LanguageConfig, naming: Naming, i: int, to: str, at: str) -> Iterator[Parameter]:
    h, mlp = c.hidden_size, at + "mlp."
    if not c.is_sparse(i):
        size = c.intermediate_size
        yield _rows(f"{to}gate_up.weight", [(f"{mlp}gate_proj.weight", size), (f"{mlp}up_proj.weight", size)], h)
        yield _whole(f"{to}down.weight", (h, size), f"{mlp}down_proj.weight")
        return
    e, size = c.num_experts, c.expert_size
    yield _whole(f"{to}router.weight", (e, h), f"{mlp}gate.weight")
    if naming.fused_experts:
        yield _whole(f"{to}experts.gate_up", (e, 2 * size, h), f"{mlp}experts.gate_up_proj")
        yield _whole(f"{to}experts.down", (e, h, size), f"{mlp}experts.down_proj")
        return
    halves = [
        (f"{mlp}experts.{x}.{half}_proj.weight", 2 * x + k) for x in range(e) for k, half in enumerate(("gate", "up"))
    ]
    gate_up = tuple(Piece(source, (size, h), at_half * size * h) for source, at_half in halves)
    down = tuple(Piece(f"{mlp}experts.{x}.down_proj.weight", (h, size), x * h * size) for x in range(e))
    yield Parameter(f"{to}experts.gate_up", (e, 2 * size, h), gate_up)
    yield Parameter(f"{to}experts.down", (e, h, size), down)
