"""Valid arguments of every op at random sizes: the makers register themselves."""

from __future__ import annotations

from fuzz import op_choices as op_choices
from fuzz import op_products as op_products
from fuzz import op_sequences as op_sequences
from fuzz.op_maker import DTYPES, Maker, arguments

__all__ = ["DTYPES", "Maker", "arguments"]
