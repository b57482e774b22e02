"""``config.json`` and its companions -> ``ModelConfig``, for the family's own layout and for transformers' ``-hf``
layout.

A missing key means what the publishing code's class says; a value that cannot be right, or a feature that is not
built, raises ``CheckpointError`` naming file, key and value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..config import ChatConfig, ModelConfig, ProjectorConfig, TilingConfig, TowerConfig, VisionConfig
from ..errors import CheckpointError
from .fields import Fields, read_object, read_text, show
from .language_config import read_language
from .quantized import Source, read_sources
from .shards import FLOATS, has_weights

ARCHITECTURES = {"InternVLChatModel": "original", "InternVLForConditionalGeneration": "hf"}
# Stand-alone towers: their class, or their model_type.
_TOWERS = {
    "InternVisionModel": "original", "intern_vit_6b": "original", "InternVLVisionModel": "hf", "internvl_vision": "hf",
}  # fmt: skip
_MODEL_TYPES = {"internvl_chat": "original", "internvl": "hf"}
_CLASS_EOS = {"llama": 2, "internlm2": 2, "internlm3": 2, "phi3": 32000}  # of classes that have one
_MAX_TILES = 1024
_MAX_SIDE = 1 << 14  # pixels
_MAX_TEMPLATE = 1 << 20  # bytes


def read_config(path: str | Path) -> ModelConfig:
    """The model that a checkpoint directory holds. Weights need not be there; where they are, their headers settle
    dtype and tying.

    Raises ``CheckpointError``: no directory or config.json, an unknown architecture or quantisation, a key of wrong
    type or range.
    """
    directory = Path(path)
    top = _top(directory)
    layout = _layout(top)
    _refuse_unbuilt(top)
    stored = read_sources(directory) if has_weights(directory) else {}
    if layout == "original":
        vision, tiling = _vision(top.section("vision_config"), top), _tiling(top)
        text = top.section("llm_config")
        version = top.choice("ps_version", "v1", ("v1", "v2"))
    else:
        vision = _vision_hf(top.section("vision_config"), top)
        tiling = _tiling_hf(directory, vision)
        text = top.section("text_config")
        version = "v2"
    language = read_language(text, top, layout, stored)
    projector = ProjectorConfig(vision.hidden_size, language.hidden_size, _factor(top, vision, tiling), version)
    chat = _chat(directory, top, text, layout, language.architecture)
    return ModelConfig(vision, projector, language, tiling, chat, layout, _dtype(top, stored), extras=top.rest())


def read_tower_config(path: str | Path) -> TowerConfig:
    """The tower that a checkpoint directory holds: of a whole model, whatever its own class and its language model are, or a
    stand-alone ``InternVisionModel`` | ``InternVLVisionModel``, whose config.json is the tower's own.

    Raises ``CheckpointError`` as ``read_config``, for what concerns the tower.
    """
    directory = Path(path)
    top = _top(directory)
    alone, layout = _tower_layout(top)
    v = top if alone else top.section("vision_config")
    if layout == "original":
        # Only the chat models leave out the layers that they do not use.
        vision = _vision(v, top, last=_class(top) not in ("InternVLChatModel", "internvl_chat"))
        tiling = _tiling_alone(directory, vision, "original") if alone else _tiling(top)
    else:
        vision = _vision_hf(v, top)
        tiling = _tiling_alone(directory, vision, "hf") if alone else _tiling_hf(directory, vision)
    _check_quantization(v)
    stored = read_sources(directory) if has_weights(directory) else {}
    own = {n: s for n, s in stored.items() if "vision" in n or alone}
    return TowerConfig(vision, tiling, layout, _dtype(top, own))


def stands_alone(path: str | Path) -> bool:
    """Whether a checkpoint directory holds a tower and nothing else. Raises ``CheckpointError`` where it holds none that is known."""
    return _tower_layout(_top(Path(path)))[0]


def _tower_layout(top: Fields) -> tuple[bool, str]:
    """Whether config.json is a tower's own, and the layout. A class that nobody here knows is fine around a section that says
    what tower it describes."""
    name, inner = _class(top), top.section("vision_config").get("model_type")
    if name in _TOWERS:
        return True, _TOWERS[name]
    if name not in ARCHITECTURES and isinstance(inner, str) and inner in _TOWERS:
        return False, _TOWERS[inner]
    return False, _layout(top, _TOWERS)


def _class(top: Fields) -> str:
    """The class that config.json names, or its model_type."""
    names, kind = top.get("architectures"), top.get("model_type")
    name = names[0] if isinstance(names, list) and names else kind if names is None else None
    return name if isinstance(name, str) else ""


def _top(directory: Path) -> Fields:
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory}: no such directory; a checkpoint is a directory with config.json and safetensors"
        )
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory}: has no config.json; a checkpoint is a directory with config.json and safetensors"
        )
    return Fields(read_object(directory / "config.json"), "config.json")


def _layout(top: Fields, others: Collection[str] = ()) -> str:
    names, kind = top.get("architectures"), top.get("model_type")
    if names is None:
        known: Mapping[str, str] = _MODEL_TYPES
        key, name = "model_type", kind
    elif isinstance(names, list) and names:
        known, key, name = ARCHITECTURES, "architectures", names[0]
    else:
        raise top.refuse("architectures", "a list with one of " + ", ".join((*ARCHITECTURES, *others)))
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(
            f"config.json: unknown architecture: {key} is {show(top.get(key))}; supported: {', '.join((*known, *others))}"
        )
    return known[name]


def _refuse_unbuilt(top: Fields) -> None:
    for fields in (top, top.section("llm_config"), top.section("text_config"), top.section("vision_config")):
        _check_quantization(fields)
    if top.get("flash_mode"):
        raise top.refuse("flash_mode", "false or missing: the Flash router is not supported")


def _check_quantization(fields: Fields) -> None:
    """AWQ in 4 bits and MXFP4 are read, whatever tensors they are used for (quantized.py); every other form is refused."""
    if fields.get("quantization_config") is None:
        return
    q = fields.section("quantization_config")
    if fields.path.startswith("vision"):
        raise fields.refuse("quantization_config", "none for the tower")
    if q.choice("quant_method", "none", ("awq", "mxfp4")) == "awq":
        q.integer("bits", 4, low=4, high=4)
        q.choice("version", "gemm", ("gemm", "GEMM"))
        if not q.boolean("zero_point", True):
            raise q.refuse("zero_point", "true")


def _vision(v: Fields, top: Fields, last: bool = False) -> VisionConfig:
    """last: a missing select_layer is the last one, whatever the depth."""
    v.choice("model_type", "intern_vit_6b", ("intern_vit_6b",))
    v.choice("hidden_act", "gelu", ("gelu",))
    v.integer("num_channels", 3, low=3, high=3)
    stored = v.integer("num_hidden_layers", 48, high=1024)
    # A 48-block tower without the key is of the releases that took the output four blocks from the end.
    select = top.integer("select_layer", -4 if stored == 48 and not last else -1, low=-stored, high=stored)
    return _checked_vision(
        v,
        VisionConfig(
            hidden_size=v.integer("hidden_size", 3200, high=1 << 17),
            num_layers=_running(top, "select_layer", select, stored),
            stored_layers=stored,
            num_heads=v.integer("num_attention_heads", 25, high=4096),
            intermediate_size=v.integer("intermediate_size", 12800),
            image_size=v.square("image_size", 224, high=_MAX_SIDE),
            patch_size=v.square("patch_size", 14, high=1024),
            norm=v.choice("norm_type", "rms_norm", ("rms_norm", "layer_norm")),
            norm_eps=v.number("layer_norm_eps", 1e-6, high=1.0),
            qkv_bias=v.boolean("qkv_bias", False),
            qk_norm=v.boolean("qk_normalization", True),
        ),
    )


def _vision_hf(v: Fields, top: Fields) -> VisionConfig:
    v.choice("model_type", "internvl_vision", ("internvl_vision",))
    v.choice("hidden_act", "gelu", ("gelu",))
    v.integer("num_channels", 3, low=3, high=3)
    if not v.boolean("use_mean_pooling", True):
        raise v.refuse("use_mean_pooling", "true: a tower with a final norm is not supported")
    if not v.boolean("use_absolute_position_embeddings", True):
        raise v.refuse("use_absolute_position_embeddings", "true")
    top.choice("projector_hidden_act", "gelu", ("gelu",))
    top.choice("vision_feature_select_strategy", "default", ("default",))
    stored = v.integer("num_hidden_layers", 24, high=1024)
    select = top.integer("vision_feature_layer", -1, low=-stored, high=stored)
    return _checked_vision(
        v,
        VisionConfig(
            hidden_size=v.integer("hidden_size", 1024, high=1 << 17),
            num_layers=_running(top, "vision_feature_layer", select, stored),
            stored_layers=stored,
            num_heads=v.integer("num_attention_heads", 16, high=4096),
            intermediate_size=v.integer("intermediate_size", 4096),
            image_size=v.square("image_size", 448, high=_MAX_SIDE),
            patch_size=v.square("patch_size", 14, high=1024),
            norm=v.choice("norm_type", "layer_norm", ("rms_norm", "layer_norm")),
            norm_eps=v.number("layer_norm_eps", 1e-6, high=1.0),
            qkv_bias=v.boolean("attention_bias", False),
            qk_norm=v.boolean("use_qk_norm", False),
        ),
    )


def _running(top: Fields, key: str, select: int, stored: int) -> int:
    """Blocks to run for hidden state ``select`` of ``stored + 1`` (state 0 is the embedding, -1 the last output)."""
    layers = select if select >= 0 else stored + 1 + select
    if layers == 0:
        raise top.refuse(key, f"a hidden state after at least one of {stored} layers", select)
    return layers


def _checked_vision(v: Fields, config: VisionConfig) -> VisionConfig:
    if config.hidden_size % config.num_heads:
        raise v.refuse("num_attention_heads", f"a divisor of hidden_size {config.hidden_size}", config.num_heads)
    if config.image_size % config.patch_size:
        raise v.refuse("image_size", f"a multiple of patch_size {config.patch_size}", config.image_size)
    return config


def _factor(top: Fields, vision: VisionConfig, tiling: TilingConfig) -> int:
    ratio = top.number("downsample_ratio", 0.5, above=0.01, high=1.0)
    factor = round(1 / ratio)
    if abs(1 / ratio - factor) > 1e-6 or factor > 64:
        raise top.refuse("downsample_ratio", "1 divided by an integer from 1 to 64", ratio)
    for key, side in (("vision_config.image_size", vision.image_size), ("size of a tile", tiling.size)):
        if side % (vision.patch_size * factor):
            raise CheckpointError(
                f"config.json: {key} is {side}; allowed: a multiple of {vision.patch_size * factor}, patch_size "
                f"{vision.patch_size} times the pixel-shuffle factor {factor} of downsample_ratio {ratio:g}"
            )
    return factor


def _tiling(top: Fields) -> TilingConfig:
    image_size = top.section("vision_config").square("image_size", 224, high=_MAX_SIDE)
    low = top.integer("min_dynamic_patch", 1, high=_MAX_TILES)
    return TilingConfig(
        size=top.integer("force_image_size", image_size, high=_MAX_SIDE),
        dynamic=top.boolean("dynamic_image_size", False),
        min_tiles=low,
        max_tiles=top.integer("max_dynamic_patch", max(6, low), low=low, high=_MAX_TILES),
        thumbnail=top.boolean("use_thumbnail", False),
        pad_to_square=top.boolean("pad2square", False),
    )


def _tiling_alone(directory: Path, vision: VisionConfig, rule: str) -> TilingConfig:
    """A tower's repository says how pixels are normalised, but not of tiles: a picture is one."""
    p, default = _optional(directory, "preprocessor_config.json"), TilingConfig()
    mean, std = p.triple("image_mean", default.mean, above=-1e6), p.triple("image_std", default.std, above=0.0)
    return TilingConfig(size=vision.image_size, max_tiles=1, rule=rule, mean=mean, std=std)


def _tiling_hf(directory: Path, vision: VisionConfig) -> TilingConfig:
    """transformers' processor always cuts into tiles and adds a thumbnail; sizes and colours are the image
    processor's.
    """
    p = _optional(directory, "preprocessor_config.json")
    if not p.data:  # transformers 5 keeps every processor in one file
        p = _optional(directory, "processor_config.json").section("image_processor")
    size = p.get("size")
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if height is not None and height != width:
        raise p.refuse("size", "a square")
    low = p.integer("min_patches", 1, high=_MAX_TILES)
    default = TilingConfig()
    return TilingConfig(
        size=Fields({"height": height}, p.source, p.path + "size.").integer(
            "height", vision.image_size, high=_MAX_SIDE
        ),
        dynamic=True,
        min_tiles=low,
        max_tiles=p.integer("max_patches", max(12, low), low=low, high=_MAX_TILES),
        thumbnail=True,
        rule="hf",
        mean=p.triple("image_mean", default.mean, above=-1e6),
        std=p.triple("image_std", default.std, above=0.0),
    )


def _optional(directory: Path, name: str) -> Fields:
    return Fields(read_object(directory / name) if (directory / name).is_file() else {}, name)


def _chat(directory: Path, top: Fields, text: Fields, layout: str, architecture: str) -> ChatConfig:
    generation, tokenizer = (
        _optional(directory, "generation_config.json"),
        _optional(directory, "tokenizer_config.json"),
    )
    eos: dict[int, None] = {}  # a set that keeps the order
    for fields in (generation, text, top):
        eos.update(dict.fromkeys(fields.integers("eos_token_id") or ()))
    if architecture in _CLASS_EOS and not eos and "eos_token_id" not in text.data:
        eos[_CLASS_EOS[architecture]] = None
    pads = [i for fields in (generation, text, top) for i in fields.integers("pad_token_id", low=-1) or ()]
    pad = next((i for i in pads if i >= 0), None)  # -1 stands for none
    default = ChatConfig()
    return ChatConfig(
        template=top.text("template") if layout == "original" else None,
        system_message=top.text("system_message"),
        chat_template=_chat_template(directory, tokenizer),
        image_token=_token(tokenizer, "context_image_token") or default.image_token,
        image_start=_token(tokenizer, "start_image_token") or default.image_start,
        image_end=_token(tokenizer, "end_image_token") or default.image_end,
        eos_token_ids=tuple(eos),
        pad_token_id=pad,
        image_token_id=top.integer("image_token_id", 151667, low=0, high=(1 << 31) - 1) if layout == "hf" else None,
    )


def _token(tokenizer: Fields, key: str) -> str | None:
    """A named special token: a string or an object with ``content``, at the top or among ``extra_special_tokens``."""
    extra = tokenizer.data.get("extra_special_tokens")
    for fields in (
        tokenizer,
        Fields(extra if isinstance(extra, dict) else {}, tokenizer.source, "extra_special_tokens."),
    ):
        if isinstance(fields.data.get(key), dict):
            return fields.section(key).text("content")
        if value := fields.text(key):
            return value
    return None


def _chat_template(directory: Path, tokenizer: Fields) -> str | None:
    """Jinja text by transformers' order of precedence: its own file, the processor's file, the tokenizer's key."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return read_text(file, _MAX_TEMPLATE)
    if template := _optional(directory, "chat_template.json").text("chat_template"):
        return template
    value: Any = tokenizer.data.get("chat_template")
    if isinstance(value, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in value if isinstance(t, dict)}
        value = named.get("default")
    if not isinstance(value, str | None):
        raise tokenizer.refuse("chat_template", "a string, or a list of objects with name and template")
    return value


def _dtype(top: Fields, stored: Mapping[str, Source]) -> str:
    """Of most stored bytes; without weights, what the config says."""
    said = top.get("dtype") or top.get("torch_dtype")
    if stored:
        held: Counter[str] = Counter()
        for tensor in stored.values():
            held[tensor.dtype] += math.prod(tensor.shape)
        return FLOATS.get(max(held, key=lambda code: held[code]), "bfloat16")
    if not isinstance(said, str | None) or (said or "float32") not in FLOATS.values():
        raise top.refuse("torch_dtype" if "torch_dtype" in top.data else "dtype", ", ".join(FLOATS.values()))
    return said or "float32"
