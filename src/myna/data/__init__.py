"""From text and conversations to what a model trains on: read, look at, mix, tokenize, pack. No torch."""

from myna.data.audit import Audit
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
from myna.data.mixture import Mixture, Part
from myna.data.prepare import KINDS, Kind, Loaded, Prepared, Recipe, kind_of, load, look, prepare
from myna.data.shards import Shards
from myna.data.sources import OnBad, Place, Source, Sourced
from myna.data.texts import Reader, labels_of, of_labelled, of_matched
from myna.data.tokens import IGNORED, PADDING, Batch, Example, Row, Tokenized, collate, length_of

__all__ = [
    "FORMATS",
    "IGNORED",
    "KINDS",
    "OVERLONG",
    "PADDING",
    "Audit",
    "Batch",
    "Cuts",
    "Example",
    "Examples",
    "Feed",
    "Fit",
    "Kind",
    "Listed",
    "Loaded",
    "Mixture",
    "OnBad",
    "Overlong",
    "Part",
    "Place",
    "Prepared",
    "Reader",
    "Recipe",
    "Record",
    "Row",
    "Shards",
    "Source",
    "Sourced",
    "Tokenized",
    "collate",
    "end_of_text",
    "kind_of",
    "labels_of",
    "length_of",
    "load",
    "look",
    "of_conversations",
    "of_documents",
    "of_judged",
    "of_labelled",
    "of_matched",
    "of_preferences",
    "prepare",
    "with_best",
]
