"""What the demo model is asked, and the byte-level tokenizer made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SYSTEM = "You read numbers."
QUESTIONS = (
    "What number is written in the picture?",  # the usual one: half of all training prompts
    "Which number is written here?",
    "Read the number in the picture.",
    "What number do you see?",
    "Please read the digits.",
    "Which digits are in this image?",
    "What does it say?",
)

# The family's additions come after the language model's own tokens, in this order.
SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>",
)  # fmt: skip
ROWS = 352  # rows of the embedding: 256 bytes, merges, specials

# Words keep a leading space, every digit stands alone: the pre-tokenizer of the Qwen models.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE with merges learnt from the prompts; every text has tokens, the demo's own words have few."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - len(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Every word often enough that none is left in pieces.
    text = [f"system\n{SYSTEM}", "user\n", "assistant\n", *QUESTIONS] * 4
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
    return tokenizer
