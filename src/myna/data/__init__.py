"""From text and conversations to what a model trains on: read, look at, mix, tokenize, pack. No torch."""

from myna.data.convert import FORMATS
from myna.data.examples import (
    OVERLONG,
    Cuts,
    Fit,
    Overlong,
    end_of_text,
    of_conversations,
    of_documents,
    of_judged,
    of_preferences,
)
from myna.data.feed import Examples, Feed, Listed
from myna.data.formats import Record, with_best
from myna.data.sources import OnBad, Place, Source, Sourced
from myna.data.tokens import IGNORED, PADDING, Batch, Example, Row, Tokenized, collate, length_of

__all__ = [
    "FORMATS",
    "IGNORED",
    "OVERLONG",
    "PADDING",
    "Batch",
    "Cuts",
    "Example",
    "Examples",
    "Feed",
    "Fit",
    "Listed",
    "OnBad",
    "Overlong",
    "Place",
    "Record",
    "Row",
    "Source",
    "Sourced",
    "Tokenized",
    "collate",
    "end_of_text",
    "length_of",
    "of_conversations",
    "of_documents",
    "of_judged",
    "of_preferences",
    "with_best",
]
