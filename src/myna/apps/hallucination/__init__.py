"""Is an answer to be believed? Evidence, agreement, the model's own doubt, and a threshold that was measured.

samples.py     self-consistency: n answers of one question, and how many agree
signals.py     what log-probabilities say; semantic entropy
quotes.py      evidence first: quotes that stand in the evidence exactly, then the answer
claims.py      a text, claim by claim, with its evidence or none
verification.py   a draft, questions to it, their answers, and what is left of it
curve.py       risk and coverage; how well a confidence tells right from wrong
threshold.py   when not to answer, for a wanted risk
labelled.py    questions with known answers, asked
draw.py        the curve as a picture
"""

from myna.apps.hallucination.claims import Claim, Row, split, table
from myna.apps.hallucination.quotes import Quoted
from myna.apps.hallucination.samples import Sample, Samples, once, question, sample
from myna.apps.hallucination.signals import Signals, signals
from myna.apps.hallucination.threshold import Threshold, fit
from myna.apps.hallucination.verification import Verified, verify
from myna.checks.verbatim import Quote, locate

__all__ = [
    "Claim",
    "Quote",
    "Quoted",
    "Row",
    "Sample",
    "Samples",
    "Signals",
    "Threshold",
    "Verified",
    "fit",
    "locate",
    "once",
    "question",
    "sample",
    "signals",
    "split",
    "table",
    "verify",
]
