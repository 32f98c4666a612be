"""From text and conversations to what a model trains on: read, look at, mix, tokenize, pack. No torch."""

from myna.data.feed import Examples, Feed, Listed
from myna.data.tokens import IGNORED, PADDING, Batch, Example, Row, Tokenized, collate, length_of

__all__ = [
    "IGNORED",
    "PADDING",
    "Batch",
    "Example",
    "Examples",
    "Feed",
    "Listed",
    "Row",
    "Tokenized",
    "collate",
    "length_of",
]
