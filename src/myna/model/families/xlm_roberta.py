"""RoBERTa in a hundred languages (Conneau et al. 2020): multilingual E5, BGE-M3 and their rerankers."""

from myna.model.families.roberta import BELOW as BELOW
from myna.model.families.roberta import HEADS as HEADS
from myna.model.families.roberta import NAMES as NAMES
from myna.model.families.roberta import rename as rename
from myna.model.families.roberta import spec as spec
