"""Is an answer to be believed? Evidence, agreement, the model's own doubt, and a threshold that was measured.

same.py        when two answers are the same, in English and Chinese
samples.py     self-consistency: n answers of one question, and how many agree
signals.py     what log-probabilities say; semantic entropy
quotes.py      evidence first: quotes that stand in the evidence exactly, then the answer
claims.py      a text, claim by claim, with its evidence or none
"""

from myna.apps.hallucination.claims import Claim, Row, split, table
from myna.apps.hallucination.quotes import Quote, Quoted, locate
from myna.apps.hallucination.samples import Sample, Samples, once, question, sample
from myna.apps.hallucination.signals import Signals, signals

__all__ = [
    "Claim",
    "Quote",
    "Quoted",
    "Row",
    "Sample",
    "Samples",
    "Signals",
    "locate",
    "once",
    "question",
    "sample",
    "signals",
    "split",
    "table",
]
