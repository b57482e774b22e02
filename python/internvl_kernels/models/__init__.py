"""InternViT, projector and language models, written on ops alone."""

from ._weights import storage
from .decode_step import DecodeSteps
from .features import POOLS, WHOLE, Features
from .kv_cache import KVCache, Span
from .language import LanguageModel
from .position_tables import interpolate_positions
from .positions import Positions
from .prefill import Piece, Prompt, forward_pieces, logits, prefill
from .projector import Projector
from .vision import VisionTower
from .vision_cuda import CudaTower
from .visual import encode_tiles

__all__ = [
    "POOLS",
    "WHOLE",
    "CudaTower",
    "DecodeSteps",
    "Features",
    "KVCache",
    "LanguageModel",
    "Piece",
    "Positions",
    "Projector",
    "Prompt",
    "Span",
    "VisionTower",
    "encode_tiles",
    "forward_pieces",
    "interpolate_positions",
    "logits",
    "prefill",
    "storage",
]
