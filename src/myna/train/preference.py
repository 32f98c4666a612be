"""What the methods that learn from judged answers share: how likely the model finds an answer, and which of two it prefers.

The two answers of a pair are one example, (chosen, rejected), so they are neighbours in a batch: sequences 2i and 2i + 1.
"""

from torch import Tensor

from myna.data import IGNORED
from myna.model import Decoder
from myna.train.loss import log_probs, sequence_sums
from myna.train.method import Tensors

Stats = dict[str, tuple[Tensor | float, float]]


def answer_log_probs(decoder: Decoder, batch: Tensors) -> tuple[Tensor, Tensor]:
    """log p(answer | prompt) [sequences], summed over the tokens that count, and how many those are [sequences]."""
    hidden = decoder(batch.ids, batch.positions, batch.memory)
    each = log_probs(decoder, hidden, batch.targets)
    counted = (batch.targets != IGNORED).float()
    return tuple(sequence_sums(values, batch.docs, batch.sequences) for values in (each, counted))  # type: ignore[return-value]


def sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of the chosen answers [pairs], and of the rejected."""
    return values[0::2], values[1::2]


def preferred(margin: Tensor) -> Stats:
    """By how much the chosen are preferred to the rejected, and how often; margin [pairs]."""
    return {"margin": (margin.sum(), len(margin)), "accuracy": ((margin > 0).sum(), len(margin))}
