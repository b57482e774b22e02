"""Parameters, FLOPs and bytes of a model, from its shapes alone."""

from __future__ import annotations

from .config import LanguageConfig, ModelConfig, VisionConfig
from .errors import UnsupportedError


def vision_parameters(c: VisionConfig) -> int:
    """Parameters of the layers that run, embeddings included."""
    d, rms = c.hidden_size, c.norm == "rms_norm"
    norms = 2 * (d if rms else 2 * d) + (2 * d if c.qk_norm else 0)
    attention = 3 * d * d + (3 * d if c.qkv_bias else 0) + d * d + d
    mlp = 2 * d * c.intermediate_size + c.intermediate_size + d
    stem = 3 * c.patch_size**2 * d + d + d + (1 + c.num_patches) * d
    return stem + c.num_layers * (norms + attention + mlp + 2 * d)


def projector_parameters(c: ModelConfig) -> int:
    wide, hidden = c.projector.input_size, c.projector.hidden_size
    return 2 * wide + wide * hidden + hidden + hidden * hidden + hidden


def language_parameters(c: LanguageConfig) -> int:
    h = c.hidden_size
    attention = h * (c.q_size + 2 * c.kv_size) + c.q_size * h
    attention += (c.q_size + 2 * c.kv_size if c.qkv_bias else 0) + (h if c.output_bias else 0)
    attention += 2 * c.head_dim if c.qk_norm else 0
    total = c.vocab_size * h * (1 if c.tied_embeddings else 2) + h
    for layer in range(c.num_layers):
        sparse = c.is_sparse(layer)
        mlp = c.num_experts * (h + 3 * h * c.expert_size) if sparse else 3 * h * c.intermediate_size
        total += attention + mlp + 2 * h
    return total


def vision_flops(c: VisionConfig, tiles: int) -> int:
    """Multiply-adds counted as two, GEMMs and attention."""
    s, d = 1 + c.num_patches, c.hidden_size
    layer = 2 * s * (4 * d * d + 2 * d * c.intermediate_size) + 4 * s * s * d
    return tiles * (c.num_layers * layer + 2 * c.num_patches * 3 * c.patch_size**2 * d)


def language_flops(c: LanguageConfig, tokens: int) -> int:
    """Prefill of ``tokens`` tokens with one row of logits."""
    h, total = c.hidden_size, 2 * c.hidden_size * c.vocab_size
    for layer in range(c.num_layers):
        sparse = c.is_sparse(layer)
        inner = (
            c.experts_per_token * 3 * h * c.expert_size + c.num_experts * h if sparse else 3 * h * c.intermediate_size
        )
        total += (
            2 * tokens * (h * (c.q_size + 2 * c.kv_size) + c.q_size * h + inner) + 2 * tokens * (tokens + 1) * c.q_size
        )
    return total


def model_parameters(c: ModelConfig) -> int:
    return vision_parameters(c.vision) + projector_parameters(c) + language_parameters(c.language)


def tower_workspace(c: VisionConfig, itemsize: int, height: int | None = None, width: int | None = None) -> int:
    """Bytes one tile needs while a layer runs: hidden and normed rows, and the wider of (q|k|v, mixed heads, branch) and the MLP."""
    rows = 1 + ((height or c.image_size) // c.patch_size) * ((width or c.image_size) // c.patch_size)
    columns = 2 * c.hidden_size + max(5 * c.hidden_size, c.intermediate_size + c.hidden_size)
    return rows * columns * itemsize


def tiles_per_pass(
    c: VisionConfig, itemsize: int, limit: int, height: int | None = None, width: int | None = None
) -> int:
    """Tiles whose workspace together stays under ``limit`` bytes. Raises when one tile does not fit."""
    need = tower_workspace(c, itemsize, height, width)
    if limit < need:
        raise UnsupportedError(f"max_workspace={limit} bytes: one tile needs {need}; allowed: at least that")
    return limit // need


def prefill_workspace(c: LanguageConfig, rows: int, itemsize: int) -> int:
    """Bytes of a prefill chunk: hidden, normed and branch rows, and the wider of q|k|v and the MLP (for MoE, the chosen experts)."""
    inner = c.experts_per_token * (3 * c.expert_size + c.hidden_size) if c.num_experts else 3 * c.intermediate_size
    return rows * (3 * c.hidden_size + max(2 * c.q_size + 2 * c.kv_size, inner)) * itemsize


def kv_bytes(c: LanguageConfig, positions: int, itemsize: int) -> int:
    return 2 * c.num_layers * positions * c.kv_size * itemsize
