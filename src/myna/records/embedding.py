"""What is asked of a model that makes embeddings or scores, and what it answers. numpy's arrays are its numbers; no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Passage = str | tuple[int, ...]
"""A text, or the exact ids of one without what the model's tokenizer puts around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """How to embed.

    prompt       the name of one of the model's prompts ("query", "document"), which is put before every text; None is the
                 model's default, which is mostly none
    dimensions   how many numbers, the first so many, for models that were trained so (Kusupati et al. 2022); None is all
    truncate     cut what is too long at its end; else it is an error
    """

    prompt: str | None = None
    dimensions: int | None = None
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Vectors:
    """`rows` float32 [n, dimensions], each of length 1, in the order of the texts; `tokens` were read for them."""

    rows: "np.ndarray"
    tokens: int


@dataclass(frozen=True, slots=True)
class Scores:
    """How well each document fits a query, higher is better; `tokens` were read for them."""

    values: tuple[float, ...]
    tokens: int
