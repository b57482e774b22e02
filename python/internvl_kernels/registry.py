"""The released models as data: towers, language models, and which release joins which. Facts only; no download.

A mark ``UNVERIFIED`` in a note stands for a value that was inferred and not read from the released files. Whatever is here,
a checkpoint is always read by its own config.json.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from . import costs
from .config import ChatConfig, LanguageConfig, ModelConfig, ProjectorConfig, RopeScaling, TilingConfig, VisionConfig
from .errors import UnsupportedError

# Language architectures that this version runs.
SUPPORTED = ("qwen2", "qwen3", "qwen3_moe", "llama", "internlm2", "internlm3", "phi3", "gpt_oss")


def _vit_6b(layers: int, stored: int | None = None, size: int = 448) -> VisionConfig:
    return VisionConfig(num_layers=layers, stored_layers=stored or layers, image_size=size)


_VIT_300M = VisionConfig(
    hidden_size=1024, num_layers=24, stored_layers=24, num_heads=16, intermediate_size=4096, image_size=448,
    norm="layer_norm", qkv_bias=True, qk_norm=False,
)  # fmt: skip

# name -> layers that run as a chat model's tower (select_layer -4 leaves the last three out)
TOWERS: dict[str, VisionConfig] = {
    "InternViT-6B-224px": _vit_6b(48, size=224),
    "InternViT-6B-448px-V1-0": _vit_6b(45, 48),  # depth UNVERIFIED
    "InternViT-6B-448px-V1-2": _vit_6b(45),
    "InternViT-6B-448px-V1-5": _vit_6b(45),
    "InternViT-6B-448px-V2.5": _vit_6b(45),
    "InternViT-300M-448px": _VIT_300M,
    "InternViT-300M-448px-V2.5": _VIT_300M,
}


def _language(
    architecture: str, hidden: int, layers: int, heads: int, kv: int, head_dim: int, inner: int, vocab: int,
    theta: float, eps: float, positions: int, experts: tuple[int, int] = (0, 0), scaling: RopeScaling | None = None,
) -> LanguageConfig:  # fmt: skip
    qwen3 = architecture.startswith("qwen3")
    dense = 3 * hidden if experts[0] else inner  # a mixture of experts names a dense size too, which no layer uses
    return LanguageConfig(
        architecture, hidden, layers, heads, kv, head_dim, dense, vocab, theta, eps,
        qkv_bias=architecture == "qwen2", qk_norm=qwen3, max_positions=positions,
        num_experts=experts[0], experts_per_token=experts[1], expert_size=inner if experts[0] else 0, rope_scaling=scaling,
    )  # fmt: skip


def _dynamic(factor: float, positions: int) -> RopeScaling:
    return RopeScaling("dynamic", factor, positions)


def _qwen25(
    hidden: int, layers: int, heads: int, kv: int, head_dim: int, inner: int, vocab: int = 151674
) -> LanguageConfig:
    return _language("qwen2", hidden, layers, heads, kv, head_dim, inner, vocab, 1e6, 1e-6, 32768)


def _qwen3(hidden: int, layers: int, heads: int, inner: int) -> LanguageConfig:
    return _language("qwen3", hidden, layers, heads, 8, 128, inner, 151936, 1e6, 1e-6, 40960)


def _internlm2(hidden: int, layers: int, heads: int, inner: int) -> LanguageConfig:
    scaling = _dynamic(2.0, 32768)
    return _language("internlm2", hidden, layers, heads, 8, 128, inner, 92553, 1e6, 1e-5, 32768, scaling=scaling)


def _gpt_oss() -> LanguageConfig:
    yarn = RopeScaling("yarn", 32.0, 4096, 0.1 * math.log(32.0) + 1.0, truncate=False)
    plain = _language("gpt_oss", 2880, 24, 64, 8, 64, 2880, 201088, 1.5e5, 1e-5, 131072, (32, 4), yarn)
    return replace(
        plain, intermediate_size=2880, qkv_bias=True, output_bias=True, sinks=True, window=128, window_layers=tuple(range(0, 24, 2)),
        expert_bias=True, expert_limit=7.0, norm_once=True,
    )  # fmt: skip


# The divisors of its frequencies are not known here: ones stand for them, UNVERIFIED as every release that has it says.
_PHI3 = _language(
    "phi3", 3072, 32, 32, 32, 96, 8192, 32020, 1e4, 1e-5, 131072,
    scaling=RopeScaling(
        "longrope", 32.0, 4096, math.sqrt(1 + math.log(32.0) / math.log(4096)), short_factors=(1.0,) * 48, long_factors=(1.0,) * 48
    ),
)  # fmt: skip
LANGUAGES: dict[str, LanguageConfig] = {
    "Qwen2-0.5B-Instruct": _qwen25(896, 24, 14, 2, 64, 4864, 151655),
    "Qwen2.5-0.5B": _qwen25(896, 24, 14, 2, 64, 4864),
    "Qwen2.5-1.5B": _qwen25(1536, 28, 12, 2, 128, 8960),
    "Qwen2.5-3B": _qwen25(2048, 36, 16, 2, 128, 11008),
    "Qwen2.5-7B": _qwen25(3584, 28, 28, 4, 128, 18944),
    "Qwen2.5-14B": _qwen25(5120, 48, 40, 8, 128, 13824),
    "Qwen2.5-32B": _qwen25(5120, 64, 40, 8, 128, 27648),
    "Qwen2.5-72B": _qwen25(8192, 80, 64, 8, 128, 29568),
    "Qwen3-0.6B": _qwen3(1024, 28, 16, 3072),
    "Qwen3-1.7B": _qwen3(2048, 28, 16, 6144),
    "Qwen3-4B": _qwen3(2560, 36, 32, 9728),
    "Qwen3-8B": _qwen3(4096, 36, 32, 12288),
    "Qwen3-14B": _qwen3(5120, 40, 40, 17408),
    "Qwen3-32B": _qwen3(5120, 64, 64, 25600),
    "Qwen3-30B-A3B": _language("qwen3_moe", 2048, 48, 32, 4, 128, 768, 151936, 1e6, 1e-6, 40960, (128, 8)),
    "Qwen3-235B-A22B": _language("qwen3_moe", 4096, 94, 64, 4, 128, 1536, 151936, 1e6, 1e-6, 40960, (128, 8)),
    "Nous-Hermes-2-Yi-34B": _language("llama", 7168, 60, 56, 8, 128, 20480, 64009, 5e6, 1e-5, 4096),
    "Hermes-2-Theta-Llama-3-70B": _language("llama", 8192, 80, 64, 8, 128, 28672, 128265, 5e5, 1e-5, 8192),
    "LLaMA2-13B": _language("llama", 5120, 40, 40, 40, 128, 13824, 0, 1e4, 1e-5, 4096),
    "Vicuna-7B-v1.5": _language("llama", 4096, 32, 32, 32, 128, 11008, 32000, 1e4, 1e-5, 4096),
    "Vicuna-13B-v1.5": _language("llama", 5120, 40, 40, 40, 128, 13824, 32000, 1e4, 1e-5, 4096),
    "internlm2-chat-1_8b": _internlm2(2048, 24, 16, 8192),
    "internlm2_5-1_8b-chat": _internlm2(2048, 24, 16, 8192),
    "internlm2_5-7b-chat": _internlm2(4096, 32, 32, 14336),
    "internlm2-chat-20b": _internlm2(6144, 48, 48, 16384),
    "internlm2_5-20b-chat": _internlm2(6144, 48, 48, 16384),
    "InternLM3-8B-instruct": _language(
        "internlm2", 4096, 48, 32, 2, 128, 10240, 128521, 5e7, 1e-5, 32768, scaling=_dynamic(6.0, 32768)
    ),
    "Phi-3-mini-128k": _PHI3,
    "Phi-3-mini-128k-instruct": _PHI3,
    "gpt-oss-20b": _gpt_oss(),
    "QLLaMA-8B": _language("qllama", 4096, 32, 32, 32, 128, 11008, 49954, 1e4, 1e-6, 2048),
}


@dataclass(frozen=True)
class Release:
    """One released model. ``published`` is its parameter sum in 1e9, as digits; None where no total was seen."""

    name: str
    date: str
    tower: str
    language: str
    template: str | None
    shuffle: str | None  # token order of the pixel shuffle; None: the model has none
    max_tiles: int  # 1: no tiling
    published: str | None = None
    notes: str = ""
    rope_factor: float = 1.0  # of dynamic NTK scaling, where its config has it beside the base model's

    @property
    def architecture(self) -> str:
        return LANGUAGES[self.language].architecture

    @property
    def blocker(self) -> str | None:
        """Why this version does not run it, or None."""
        if self.shuffle is None:
            return "not a pixel-shuffle chat model; not supported yet"
        if self.architecture not in SUPPORTED:
            return f"language model not supported yet: {self.architecture}"
        return None if LANGUAGES[self.language].vocab_size else "vocabulary size not published; read its config.json"


def _series(prefix: str, date: str, template: str, tail: str, rows: str, notes: str = "") -> list[Release]:
    """Releases of one day: lines of ``size tower language published [rope_factor]``; towers 300M and 6B get ``tail``."""
    releases = []
    for line in rows.strip().splitlines():
        size, tower, language, published, *factor = line.split()
        name = f"InternViT-{tower}-448px{tail}"
        releases.append(
            Release(f"{prefix}-{size}", date, name, language, template, "v2", 12, published, notes, *map(float, factor))
        )
    return releases


_MPO = "also as -MPO, same architecture; -AWQ stores a 4-bit language model"
_STAGES = "also as -Pretrained and -Instruct, same architecture; -AWQ stores a 4-bit language model"
_STAGES35 = (
    "also as -Pretrained, -Instruct and -MPO, same architecture; tower version UNVERIFIED; -Flash (2B, 8B, 38B seen) adds a "
    "router, not supported yet"
)
_YI = "Nous-Hermes-2-Yi-34B"
RELEASES: tuple[Release, ...] = (
    Release("InternVL-14B-224px", "2023-12-21", "InternViT-6B-224px", "QLLaMA-8B", None, None, 1, None, "contrastive: InternVL-C and -G"),
    Release("InternVL-Chat-V1-0-Vicuna-7B", "2023-12-25", "InternViT-6B-224px", "Vicuna-7B-v1.5", "vicuna_v1", None, 1, None,
            "LLaVA code, tower at 336 or 448 px, layer -4, two-layer MLP"),
    Release("InternVL-Chat-V1-0-Vicuna-13B", "2023-12-25", "InternViT-6B-224px", "Vicuna-13B-v1.5", "vicuna_v1", None, 1, None,
            "LLaVA code, tower at 336 or 448 px, layer -4, two-layer MLP"),
    Release("InternVL-Chat-V1-1", "2024-01-24", "InternViT-6B-448px-V1-0", "LLaMA2-13B", "internvl_zh", "v1", 1, None,
            "tower depth UNVERIFIED; only its config was read"),
    Release("InternVL-Chat-V1-2", "2024-02-11", "InternViT-6B-448px-V1-2", _YI, "Hermes-2", "v1", 1, "40.07",
            "select_layer in config.json UNVERIFIED; vocabulary rows UNVERIFIED"),
    Release("InternVL-Chat-V1-2-Plus", "2024-02-21", "InternViT-6B-448px-V1-2", _YI, "Hermes-2", "v1", 1, "40.07",
            "select_layer in config.json UNVERIFIED; vocabulary rows UNVERIFIED"),
    Release("InternVL-Chat-V1-5", "2024-04-18", "InternViT-6B-448px-V1-5", "internlm2-chat-20b", "internlm2-chat", "v2", 12, "25.51",
            "inference up to 40 tiles; dynamic rotary factor UNVERIFIED; also -Int8 and -AWQ (recollection)"),
    Release("Mini-InternVL-Chat-2B-V1-5", "2024-05-19", "InternViT-300M-448px", "internlm2-chat-1_8b", "internlm2-chat", "v2", 12, "2.21"),
    Release("Mini-InternVL-Chat-4B-V1-5", "2024-05-28", "InternViT-300M-448px", "Phi-3-mini-128k", "phi3-chat", "v2", 12, "4.15",
            "longrope factors UNVERIFIED"),
    Release("InternVL2-1B", "2024-07-08", "InternViT-300M-448px", "Qwen2-0.5B-Instruct", "Hermes-2", "v2", 12, "0.938",
            "vocabulary rows UNVERIFIED (the total fits)"),
    Release("InternVL2-2B", "2024-07-04", "InternViT-300M-448px", "internlm2-chat-1_8b", "internlm2-chat", "v2", 12, "2.206"),
    Release("InternVL2-4B", "2024-07-04", "InternViT-300M-448px", "Phi-3-mini-128k-instruct", "phi3-chat", "v2", 12, "4.147",
            "vocabulary rows UNVERIFIED (the total fits); longrope factors UNVERIFIED"),
    Release("InternVL2-8B", "2024-07-04", "InternViT-300M-448px", "internlm2_5-7b-chat", "internlm2-chat", "v2", 12, "8.075"),
    Release("InternVL2-26B", "2024-07-04", "InternViT-6B-448px-V1-5", "internlm2-chat-20b", "internlm2-chat", "v2", 12, "25.51",
            "dynamic rotary factor UNVERIFIED"),
    Release("InternVL2-40B", "2024-07-08", "InternViT-6B-448px-V1-5", _YI, "Hermes-2", "v2", 12, "40.07", "vocabulary rows UNVERIFIED"),
    Release("InternVL2-Llama3-76B", "2024-07-15", "InternViT-6B-448px-V1-5", "Hermes-2-Theta-Llama-3-70B", "internlm2-chat", "v2", 12,
            "76.26", "template UNVERIFIED; vocabulary rows UNVERIFIED"),
    *_series("InternVL2.5", "2024-12-05", "internvl2_5", "-V2.5", """
        1B 300M Qwen2.5-0.5B 0.938
        2B 300M internlm2_5-1_8b-chat 2.206
        4B 300M Qwen2.5-3B 3.713
        8B 300M internlm2_5-7b-chat 8.075
        26B 6B internlm2_5-20b-chat 25.51
        38B 6B Qwen2.5-32B 38.39
        78B 6B Qwen2.5-72B 78.41""", _MPO),
    *_series("InternVL3", "2025-04-11", "internvl2_5", "-V2.5", """
        1B 300M Qwen2.5-0.5B 0.938 2
        2B 300M Qwen2.5-1.5B 2.089 2
        8B 300M Qwen2.5-7B 7.944 2
        9B 300M InternLM3-8B-instruct 9.14
        14B 300M Qwen2.5-14B 15.12 2
        38B 6B Qwen2.5-32B 38.39 2
        78B 6B Qwen2.5-72B 78.41 2""", _STAGES),
    *_series("InternVL3.5", "2025-08-25", "internvl2_5", "-V2.5", """
        1B 300M Qwen3-0.6B 1.061
        2B 300M Qwen3-1.7B 2.348
        4B 300M Qwen3-4B 4.732
        8B 300M Qwen3-8B 8.528
        14B 300M Qwen3-14B 15.12
        38B 6B Qwen3-32B 38.39
        30B-A3B 300M Qwen3-30B-A3B 30.85
        241B-A28B 6B Qwen3-235B-A22B 240.70""", _STAGES35),
    Release("InternVL3.5-GPT-OSS-20B-A4B-Preview", "2025-08-25", "InternViT-300M-448px-V2.5", "gpt-oss-20b", "internvl3_5_gpt_oss",
            "v2", 12, "21.24", "ids of <img> and </img> UNVERIFIED"),
    Release("VisualPRM-8B", "2025-03", "InternViT-300M-448px-V2.5", "internlm2_5-7b-chat", "internvl2_5", "v2", 12, None,
            "process reward model on InternVL2.5-8B; also -v1_1"),
)  # fmt: skip


def _key(name: str) -> str:
    plain = name.rstrip("/").rpartition("/")[2].lower().replace("_", ".")
    return re.sub(r"(-(hf|mpo|pretrained|instruct))+$", "", plain)


_BY_KEY = {_key(release.name): release for release in RELEASES}


def find(name: str) -> Release:
    """The release called ``name``. An owner before a slash, case, "_" for "." and endings of equal architecture (-HF, -MPO,
    -Pretrained, -Instruct) do not matter."""
    release = _BY_KEY.get(_key(name))
    if release is None:
        raise UnsupportedError(f"name: {name!r} is no released model; allowed: {', '.join(r.name for r in RELEASES)}")
    return release


def config_of(name: str) -> ModelConfig:
    """The configuration of a released model. Raises UnsupportedError for an unknown name or one that this version can't run."""
    release = find(name)
    if release.blocker is not None:
        raise UnsupportedError(f"name: {release.name!r}: {release.blocker}")
    return _config(release)


def _config(release: Release) -> ModelConfig:
    vision, language = TOWERS[release.tower], LANGUAGES[release.language]
    if release.rope_factor != 1.0:
        language = replace(language, rope_scaling=_dynamic(release.rope_factor, language.max_positions))
    tiled = release.max_tiles > 1
    return ModelConfig(
        vision=vision,
        projector=ProjectorConfig(vision.hidden_size, language.hidden_size, version=release.shuffle or "v2"),
        language=language,
        tiling=TilingConfig(vision.image_size, dynamic=tiled, max_tiles=release.max_tiles, thumbnail=tiled),
        chat=ChatConfig(template=release.template),
    )


def parameters(release: Release) -> int | None:
    """Parameters computed from the dimensions, a separate lm_head included; None where the sums don't know the architecture."""
    language = LANGUAGES[release.language]
    if release.shuffle is None or not language.vocab_size:
        return None
    return costs.model_parameters(_config(release))


def stored_tower_parameters(name: str) -> int:
    """Parameters in the file of a stand-alone tower, layers that select_layer leaves out included."""
    tower = TOWERS[name]
    return costs.vision_parameters(replace(tower, num_layers=tower.stored_layers))


__all__ = [
    "LANGUAGES",
    "RELEASES",
    "SUPPORTED",
    "TOWERS",
    "Release",
    "config_of",
    "find",
    "parameters",
    "stored_tower_parameters",
]
