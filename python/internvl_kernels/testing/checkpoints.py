"""Small checkpoints with random weights, for tests: our own by ``tiny_config`` and ``random_weights``, and
transformers' own.

transformers is imported only by the functions whose names say so. Every parameter is random, norms, biases, layer
scales and position embeddings included, so that a swapped or forgotten tensor shows.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._lazy import torch
from ..config import ChatConfig, LanguageConfig, ModelConfig, ProjectorConfig, RopeScaling, TilingConfig, VisionConfig
from ..io.layouts import Naming, parameters

if TYPE_CHECKING:
    from torch import Tensor

TEXT_MODELS = ("qwen2", "qwen3", "qwen3_moe", "llama", "phi3", "gpt_oss")  # those that transformers has
VISION_STYLES = ("layer_norm", "rms_norm")  # the 300M tower's (with qkv bias) and the 6B tower's (with QK-norm)
IMAGE_TOKEN_ID = 7

_VISION: dict[str, Any] = {
    "hidden_size": 64,
    "num_layers": 3,
    "num_heads": 4,
    "intermediate_size": 96,
    "image_size": 56,
    "patch_size": 14,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 128,
}

_LONGROPE = RopeScaling(
    "longrope", 32.0, 16, math.sqrt(1 + math.log(32) / math.log(16)),
    short_factors=(1.0, 1.0, 1.1, 1.2, 1.3, 1.4), long_factors=(1.0, 1.5, 2.0, 4.0, 9.0, 16.0),
)  # fmt: skip


def tiny_config(
    text: str = "qwen2",
    vision: str = "layer_norm",
    *,
    tied: bool = False,
    layout: str = "original",
    text_overrides: dict[str, Any] | None = None,
    vision_overrides: dict[str, Any] | None = None,
) -> ModelConfig:
    """A model of 4 visual tokens per 56-pixel tile. Overrides name fields of ``LanguageConfig`` and ``VisionConfig``.

    Heads have 12 values in Qwen2, Llama and their like, and 24 in Qwen3 and GPT-OSS, where they do not multiply to the hidden
    size. Rotary embeddings are scaled as the architecture's releases scale them, from contexts that tests pass.
    """
    hf = layout == "hf"
    fields = _VISION | (vision_overrides or {})
    fields.setdefault("stored_layers", fields["num_layers"])
    plain = vision == "layer_norm"
    style: dict[str, Any] = {"norm": vision, "qkv_bias": plain, "qk_norm": not plain}
    tower = VisionConfig(**(style | fields))
    language: dict[str, Any] = {
        "architecture": text,
        "head_dim": 24 if text.startswith("qwen3") or text == "gpt_oss" else 12,
        "qkv_bias": text in ("qwen2", "gpt_oss"),
        "qk_norm": text.startswith("qwen3"),
        "tied_embeddings": tied,
        "rope_theta": 1e6 if text.startswith("qwen") else 1e4,
        "max_positions": 512,
    }
    if text == "qwen3_moe":
        language |= {"num_experts": 4, "experts_per_token": 2, "expert_size": 40}
    elif text in ("internlm2", "internlm3"):
        language |= {"rope_scaling": RopeScaling("dynamic", 2.0, 512), "norm_eps": 1e-5}
    elif text == "phi3":
        language |= {"rope_scaling": _LONGROPE, "norm_eps": 1e-5}
    elif text == "gpt_oss":
        yarn = RopeScaling("yarn", 32.0, 16, 0.1 * math.log(32) + 1, truncate=False)
        language |= {"num_experts": 4, "experts_per_token": 2, "expert_size": 80, "rope_theta": 1.5e5, "norm_eps": 1e-5}
        language |= {"output_bias": True, "sinks": True, "expert_bias": True, "expert_limit": 7.0, "norm_once": True}
        language |= {"rope_scaling": yarn, "window": 7, "window_layers": (0,)}
    spoken = LanguageConfig(**(language | _TEXT | (text_overrides or {})))
    tiling = TilingConfig(
        size=tower.image_size, dynamic=True, max_tiles=12, thumbnail=True, rule="hf" if hf else "original"
    )
    chat = ChatConfig(
        template=None if hf else "internvl2_5", eos_token_ids=(2,), image_token_id=IMAGE_TOKEN_ID if hf else None
    )
    projector = ProjectorConfig(tower.hidden_size, spoken.hidden_size)
    return ModelConfig(tower, projector, spoken, tiling, chat, layout, "float32")


def random_weights(config: ModelConfig, *, dtype: str = "float32", seed: int = 0) -> dict[str, Tensor]:
    """Every canonical parameter, contiguous on the CPU, scaled so that activations stay near one."""
    generator = torch.Generator().manual_seed(seed)
    final = getattr(torch, dtype)
    return {p.name: _random(p.name, p.shape, generator).to(final) for p in parameters(config, Naming())}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * noise
    if name.endswith(("ls1", "ls2", "lambda_1", "lambda_2")):
        return 0.5 + 0.1 * noise
    if name.endswith("bias"):
        return 0.1 * noise
    if len(shape) < 2 or any(part in name for part in ("cls", "position", "embed_tokens", "embed.weight")):
        return 0.5 * noise
    return noise * (shape[-1] if len(shape) < 4 else shape[1] * shape[2] * shape[3]) ** -0.5


def transformers_config(
    text: str = "qwen2",
    vision: str = "layer_norm",
    *,
    tied: bool = False,
    text_overrides: dict[str, Any] | None = None,
    vision_overrides: dict[str, Any] | None = None,
) -> Any:
    """transformers' ``InternVLConfig`` of the same model as ``tiny_config``; overrides name transformers' keys. InternLM2 and 3
    are the Llama that they are converted to.
    """
    from transformers import InternVLConfig

    plain = vision == "layer_norm"
    tower: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "image_size": [56, 56],
        "patch_size": [14, 14],
        "norm_type": vision,
        "attention_bias": plain,
        "use_qk_norm": not plain,
    }
    language: dict[str, Any] = {
        "model_type": "llama" if text.startswith("internlm") else text,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
        "vocab_size": 128,
        "max_position_embeddings": 512,
        "rope_theta": 1e6 if text.startswith("qwen") else 1e4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": tied,
    }
    if text.startswith("qwen3") or text == "gpt_oss":
        language["head_dim"] = 24
    if text.startswith("internlm"):
        language |= {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "rms_norm_eps": 1e-5}
    if text == "phi3":
        scaling = {"short_factor": _LONGROPE.short_factors, "long_factor": _LONGROPE.long_factors}
        language |= {"rope_scaling": {"type": "longrope", **{k: list(v) for k, v in scaling.items()}}}
        language |= {"original_max_position_embeddings": _LONGROPE.original_positions, "rms_norm_eps": 1e-5}
    if text == "gpt_oss":
        yarn = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 16, "truncate": False}
        language |= {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7, "rope_theta": 1.5e5}
        language |= {"rope_scaling": {**yarn, "beta_fast": 32.0, "beta_slow": 1.0}}
    if text == "qwen3_moe":
        language |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "norm_topk_prob": True}
    return InternVLConfig(
        vision_config=tower | (vision_overrides or {}),
        text_config=language | (text_overrides or {}),
        image_token_id=IMAGE_TOKEN_ID,
        image_seq_length=4,
        tie_word_embeddings=tied,
    )


def transformers_model(config: Any, *, dtype: str = "float32", seed: int = 0) -> Any:
    """``InternVLForConditionalGeneration`` with every parameter random, in evaluation mode."""
    from transformers import InternVLForConditionalGeneration

    generator = torch.Generator().manual_seed(seed)
    model = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # a tied matrix appears once
            parameter.copy_(_random(name, tuple(parameter.shape), generator))
    return model.to(getattr(torch, dtype)).requires_grad_(False)


def write_transformers(
    path: str | Path,
    text: str = "qwen2",
    vision: str = "layer_norm",
    *,
    tied: bool = False,
    dtype: str = "float32",
    seed: int = 0,
    prefixes: str = "legacy",
    fused_experts: bool = False,
    max_shard_size: str | int = "5GB",
    text_overrides: dict[str, Any] | None = None,
    vision_overrides: dict[str, Any] | None = None,
) -> Any:
    """Write a checkpoint with transformers' own ``save_pretrained`` and return the model that it holds.

    transformers 5 writes ``prefixes`` "legacy" with one tensor per expert, or "new" with fused experts. The two other
    combinations are its files with the prefixes changed.
    """
    config = transformers_config(
        text, vision, tied=tied, text_overrides=text_overrides, vision_overrides=vision_overrides
    )
    model = transformers_model(config, dtype=dtype, seed=seed)
    fused = fused_experts and text == "qwen3_moe"
    own = "new" if fused or (prefixes == "new" and text != "qwen3_moe") else "legacy"
    model.save_pretrained(path, save_original_format=own == "legacy", max_shard_size=max_shard_size)
    if own != prefixes:
        _change_prefixes(Path(path), to_new=prefixes == "new")
    return model


_PREFIXES = (  # legacy, new; in the order in which they must be tried
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)


def _change_prefixes(directory: Path, *, to_new: bool) -> None:
    def renamed(name: str) -> str:
        for pair in _PREFIXES:
            old, new = pair if to_new else pair[::-1]
            if name.startswith(old):
                return new + name[len(old) :]
        raise ValueError(f"{name}: no known prefix")

    rename_tensors(directory, renamed)


def rename_tensors(directory: Path, renamed: Any) -> None:
    """Rewrite every shard and the index with ``renamed(name)`` for each tensor; None drops the tensor."""
    from safetensors.torch import load_file, save_file

    for file in directory.glob("*.safetensors"):
        tensors = {renamed(name): tensor for name, tensor in load_file(file).items()}
        tensors.pop(None, None)
        save_file(tensors, file, metadata={"format": "pt"})
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        data = json.loads(index.read_text())
        data["weight_map"] = {renamed(name): file for name, file in data["weight_map"].items() if renamed(name)}
        index.write_text(json.dumps(data))


def cut_tower(config: ModelConfig, layers: int) -> ModelConfig:
    """``config`` running only the first ``layers`` of the tower's stored layers, as ``select_layer`` does."""
    return replace(config, vision=replace(config.vision, num_layers=layers))


SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")


def byte_tokenizer_files() -> dict[str, str]:
    """A byte-level tokenizer without merges, as a Qwen2-type repository ships it: 256 bytes, then the special tokens."""
    from tokenizers import pre_tokenizers

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    added = {str(256 + i): {"content": token, "special": True} for i, token in enumerate(SPECIAL_TOKENS)}
    head = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return {
        "vocab.json": json.dumps(vocab),
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": json.dumps(head | {"added_tokens_decoder": added}),
    }


def write_tiny(path: str | Path, text: str = "qwen3", vision: str = "layer_norm", *, seed: int = 0) -> Path:
    """A whole small checkpoint that can chat (nonsense): random weights and ``byte_tokenizer_files``."""
    from ..io.save import save_checkpoint

    end_of_turn = 256 + SPECIAL_TOKENS.index("<|im_end|>")
    config = tiny_config(text, vision, text_overrides={"vocab_size": 264, "max_positions": 1024})
    config = replace(config, chat=replace(config.chat, system_message="Be brief.", eos_token_ids=(end_of_turn,)))
    save_checkpoint(random_weights(config, seed=seed), config, path, extra_files=byte_tokenizer_files())
    return Path(path)


def write_tower(
    path: str | Path, vision: str = "layer_norm", *, seed: int = 0, vision_overrides: dict[str, Any] | None = None
) -> Path:
    """A tower alone, as InternViT's own repositories hold it: random weights in float32."""
    from safetensors.torch import save_file

    from ..io.config_json import config_files

    config = tiny_config(vision=vision, vision_overrides=vision_overrides)
    weights = random_weights(config, seed=seed)
    Path(path).mkdir()
    described = [(p.name, p.pieces[0]) for p in parameters(config, Naming(alone=True), ("vision",))]
    save_file({p.name: weights[name].view(p.stored) for name, p in described}, Path(path) / "model.safetensors")
    whole = json.loads(config_files(config, "original", dtype="float32")["config.json"])
    (Path(path) / "config.json").write_text(json.dumps(whole["vision_config"] | {"torch_dtype": "float32"}))
    return Path(path)
