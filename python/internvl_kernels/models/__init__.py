"""InternViT, projector and language models, written on ops alone."""

from .kv_cache import KVCache, Span
from .language import LanguageModel
from .projector import Projector
from .vision import VisionTower, interpolate_positions

__all__ = ["KVCache", "LanguageModel", "Projector", "Span", "VisionTower", "interpolate_positions"]
