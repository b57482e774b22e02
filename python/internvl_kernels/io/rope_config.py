"""``rope_scaling`` and ``rope_parameters`` of a language model's section -> theta and ``RopeScaling``."""

from __future__ import annotations

import math

from ..config import RopeScaling
from .fields import Fields

KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "su")
_MAX_POSITIONS = 1 << 30
# What GPT-OSS means without either section.
_GPT_OSS = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}


def yarn_attention(factor: float, mscale: float = 1.0) -> float:
    """The attention factor that YaRN takes for a factor."""
    return 0.1 * mscale * math.log(factor) + 1.0


def longrope_attention(factor: float, original: int) -> float:
    return 1.0 if factor <= 1.0 else math.sqrt(1.0 + math.log(factor) / math.log(original))


def read_rotary(
    text: Fields, kind: str, positions: int, head_dim: int, theta: float
) -> tuple[float, RopeScaling | None]:
    """theta (the class's default is given) and the scaling, if any. ``positions``: max_position_embeddings.

    transformers 4 writes rope_scaling beside rope_theta, transformers 5 rope_parameters that hold both.
    """
    theta = text.number("rope_theta", theta)
    if text.number("partial_rotary_factor", 1.0) != 1.0:
        raise text.refuse("partial_rotary_factor", "1")
    found: list[RopeScaling] = []
    sections = [(key, text.section(key)) for key in ("rope_scaling", "rope_parameters")]
    if kind == "gpt_oss" and not any(section.data for _, section in sections):
        sections.append(("rope_scaling", Fields(_GPT_OSS, text.source, f"{text.path}rope_scaling.")))
    for key, rope in sections:
        if any(isinstance(value, dict) for value in rope.data.values()):
            raise text.refuse(key, "one set of values for all layers")
        given = rope.number("rope_theta", theta)
        if text.get("rope_theta") is not None and given != theta:
            raise rope.refuse("rope_theta", f"{text.path}rope_theta's {theta:g}", given)
        theta = given
        if rope.number("partial_rotary_factor", 1.0) != 1.0:
            raise rope.refuse("partial_rotary_factor", "1")
        scaling = _scaling(rope, text, kind, positions, head_dim)
        found += [scaling] if scaling is not None else []
    if len(found) == 2 and found[0] != found[1]:
        raise text.refuse("rope_parameters", "what rope_scaling says")
    return theta, found[0] if found else None


def _scaling(rope: Fields, text: Fields, model: str, positions: int, head_dim: int) -> RopeScaling | None:
    kind = rope.choice("rope_type" if rope.get("rope_type") is not None else "type", "default", KINDS)
    if kind == "default":
        return None
    if kind in ("longrope", "su") or (model == "phi3" and kind == "yarn"):
        return _longrope(rope, text, positions, head_dim, yarn=kind == "yarn")
    if kind == "yarn":
        return _yarn(rope, positions)
    factor = rope.number("factor", 1.0, high=1e6)
    if factor < 1.0:
        raise rope.refuse("factor", "1 and more", factor)
    if kind == "dynamic" and head_dim < 4:
        raise rope.refuse("rope_type", "another with heads of 2 values", kind)
    return None if factor == 1.0 else RopeScaling(kind, factor, positions)


def _yarn(rope: Fields, positions: int) -> RopeScaling:
    """The attention factor: as given, else 0.1 ln(factor) + 1, or the quotient of two of that form (mscale)."""
    original = rope.integer("original_max_position_embeddings", positions, high=_MAX_POSITIONS)
    factor = rope.number("factor", max(1.0, positions / original), high=1e6)
    if factor < 1.0:
        raise rope.refuse("factor", "1 and more", factor)

    default = yarn_attention(factor)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        whole, all_dims = (rope.number(key, 1.0) for key in ("mscale", "mscale_all_dim"))
        default = yarn_attention(factor, whole) / yarn_attention(factor, all_dims)
    fast, slow = rope.number("beta_fast", 32.0), rope.number("beta_slow", 1.0)
    if fast < slow:
        raise rope.refuse("beta_fast", f"at least beta_slow, {slow:g}", fast)
    attention = rope.number("attention_factor", default, high=1e3)
    return RopeScaling(
        "yarn", factor, original, attention, beta_fast=fast, beta_slow=slow, truncate=rope.boolean("truncate", True)
    )


def _longrope(rope: Fields, text: Fields, positions: int, head_dim: int, *, yarn: bool) -> RopeScaling:
    """original_max_position_embeddings stands beside the section (Phi-3) or in it. yarn: Phi-3's name for the same
    factors with another attention factor."""
    beside = text.integer("original_max_position_embeddings", min(4096, positions), high=_MAX_POSITIONS)
    original = rope.integer("original_max_position_embeddings", beside, low=2, high=_MAX_POSITIONS)
    factors = []
    for key in ("short_factor", "long_factor"):
        values = rope.get(key)
        sane = isinstance(values, list) and len(values) == head_dim // 2
        if not sane or not all(type(v) in (int, float) and math.isfinite(v) and 0 < v <= 1e6 for v in values):
            raise rope.refuse(key, f"a list of {head_dim // 2} numbers above 0, one for each pair of a head's values")
        factors.append(tuple(float(v) for v in values))
    factor = rope.number("factor", positions / original, high=1e6)
    default = yarn_attention(max(factor, 1.0)) if yarn else longrope_attention(factor, original)
    attention = rope.number("attention_factor", default, high=1e3)
    return RopeScaling("longrope", factor, original, attention, short_factors=factors[0], long_factors=factors[1])
