"""What persists: model directories. Read, check, publish, pull. No torch."""

from myna.modeldir.adapter import AdapterDir, LowRank, publish_adapter
from myna.modeldir.cache import Listed, cache_dir, find, list_models
from myna.modeldir.catalogue import CATALOGUE, DEFAULT
from myna.modeldir.directory import ModelDir, read_template
from myna.modeldir.facts import Facts, facts
from myna.modeldir.packed import Packed, packed_bytes
from myna.modeldir.pooling import Pooling, read_pooling
from myna.modeldir.publish import publish, verify
from myna.modeldir.pull import pull
from myna.modeldir.stored import Stored, Weights

__all__ = [
    "CATALOGUE",
    "DEFAULT",
    "AdapterDir",
    "Facts",
    "Listed",
    "LowRank",
    "ModelDir",
    "Packed",
    "Pooling",
    "Stored",
    "Weights",
    "cache_dir",
    "facts",
    "find",
    "list_models",
    "packed_bytes",
    "publish",
    "publish_adapter",
    "pull",
    "read_pooling",
    "read_template",
    "verify",
]
