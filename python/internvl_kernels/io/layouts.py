"""What each published layout calls every parameter: one description, used to read and to write.

A parameter has a canonical name and shape, which the models use, and is stored as one or several pieces (pieces.py). Every
piece fills a contiguous block of the canonical tensor from a contiguous block of a stored one; writing copies it back.

Stored but never needed, and therefore ignored (``ignored``): blocks of the tower past ``select_layer``; the tower's
final norm, which the family replaces by the identity; its mask token, used in pre-training only; ``inv_freq`` tables
of rotary embeddings. Anything else that is stored and not described here is an error for the caller.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ..config import ModelConfig, ProjectorConfig, TowerConfig, VisionConfig
from .language_layout import family_of, family_of_architecture, language
from .pieces import Naming, Parameter, Piece, rows, whole

PARTS = ("vision", "projector", "language")
# Where a separate output matrix may be stored.
HEADS = tuple({n.head for n in (Naming(), Naming("hf", "new"), Naming(family="internlm2"))})


def detect(names: Collection[str], layout: str) -> Naming:
    """The naming that ``names`` follow; the layout comes from config.json."""
    return Naming(
        layout=layout,
        prefixes="new" if layout == "hf" and any(name.startswith("model.") for name in names) else "legacy",
        fused_experts=any(name.endswith(".mlp.experts.gate_up_proj") for name in names),
        family=family_of(names),
        alone=any(name in names for name in ("embeddings.class_embedding", "embeddings.cls_token")),
    )


def naming_of(config: ModelConfig, layout: str, prefixes: str = "legacy", fused_experts: bool = False) -> Naming:
    """The naming in which a model is published in ``layout``."""
    family = family_of_architecture(config.language.architecture, layout)
    return Naming(layout, prefixes, fused_experts, family)


def parameters(
    config: ModelConfig | TowerConfig, naming: Naming, parts: Collection[str] = PARTS
) -> Iterator[Parameter]:
    """Every parameter of the layers that run, in the order of the forward pass; of a tower's config the tower's alone."""
    if "vision" in parts:
        yield from _vision(config.vision, naming)
    if isinstance(config, TowerConfig):
        return
    if "projector" in parts:
        yield from _projector(config.projector, naming)
    if "language" in parts:
        yield from language(config.language, naming)


def ignored(name: str, config: ModelConfig | TowerConfig, naming: Naming) -> bool:
    """Whether a stored tensor that no parameter asks for is known to be unused (the module's text has the rule); for a tower's
    config all that is not the tower's.
    """
    if isinstance(config, TowerConfig) and not name.startswith(naming.vision):
        return True
    v = config.vision
    final_norm = re.escape(naming.vision) + r"(layernorm|norm|final_layernorm)\.(weight|bias)"
    mask_token = re.escape(naming.vision) + r"embeddings\.mask_token"
    rotary = re.escape(naming.language) + r"(layers\.\d+\.(self_attn|attention)\.)?rotary_emb\.inv_freq"
    if re.fullmatch(f"{final_norm}|{mask_token}|{rotary}", name):
        return True
    block = re.match(re.escape(_block(naming)) + r"(\d{1,6})\.", name)
    if block is None or not v.num_layers <= int(block[1]) < v.stored_layers:
        return False
    return any(name == piece.name for p in _vision_layer(v, naming, int(block[1])) for piece in p.pieces)


def _block(naming: Naming) -> str:
    return naming.vision + ("encoder.layers." if naming.layout == "original" else "encoder.layer.")


def _vision(v: VisionConfig, naming: Naming) -> Iterator[Parameter]:
    d, p, n = v.hidden_size, v.patch_size, v.num_patches
    at = naming.vision + "embeddings."
    original = naming.layout == "original"
    patch = at + ("patch_embedding" if original else "patch_embeddings.projection")
    yield whole("vision.patch.weight", (d, 3 * p * p), f"{patch}.weight", (d, 3, p, p))
    yield whole("vision.patch.bias", (d,), f"{patch}.bias")
    yield whole("vision.cls", (d,), at + ("class_embedding" if original else "cls_token"), (1, 1, d))
    yield whole(
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
        yield whole(f"{to}norm{k}.weight", (d,), f"{at}{norms[k - 1]}.weight")
        if v.norm == "layer_norm":
            yield whole(f"{to}norm{k}.bias", (d,), f"{at}{norms[k - 1]}.bias")
        yield whole(f"{to}ls{k}", (d,), at + scales[k - 1])
    for kind, columns in (("weight", (d,)), ("bias", ())) if v.qkv_bias else (("weight", (d,)),):
        if original:
            yield whole(f"{to}qkv.{kind}", (3 * d, *columns), f"{attention}qkv.{kind}")
        else:
            yield rows(f"{to}qkv.{kind}", [(f"{attention}{x}_proj.{kind}", d) for x in "qkv"], *columns)
    if v.qk_norm:
        for x in "qk":
            yield whole(f"{to}{x}_norm.weight", (d,), f"{attention}{x}_norm.weight")
    yield from _linear(f"{to}proj", project, d, d)
    yield from _linear(f"{to}fc1", f"{at}mlp.fc1", f, d)
    yield from _linear(f"{to}fc2", f"{at}mlp.fc2", d, f)


def _linear(name: str, source: str, rows: int, columns: int) -> Iterator[Parameter]:
    yield whole(f"{name}.weight", (rows, columns), f"{source}.weight")
    yield whole(f"{name}.bias", (rows,), f"{source}.bias")


def _projector(p: ProjectorConfig, naming: Naming) -> Iterator[Parameter]:
    norm, fc1, fc2 = ("0", "1", "3") if naming.layout == "original" else ("layer_norm", "linear_1", "linear_2")
    at, wide, h = naming.projector, p.input_size, p.hidden_size
    yield whole("projector.norm.weight", (wide,), f"{at}{norm}.weight")
    yield whole("projector.norm.bias", (wide,), f"{at}{norm}.bias")
    yield from _linear("projector.fc1", at + fc1, h, wide)
    yield from _linear("projector.fc2", at + fc2, h, h)


__all__ = ["HEADS", "PARTS", "Naming", "Parameter", "Piece", "detect", "ignored", "naming_of", "parameters"]
