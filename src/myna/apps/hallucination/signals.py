"""What an answer's own probabilities say of it. Where an endpoint gives none, there is no number: `why` says so.

Log-probabilities are natural logarithms of the model's own distribution, before temperature (records/reply.py), so a sample's signals do
not depend on how it was drawn. Low ones go with wrong answers (Kadavath et al. 2022), which is a tendency and no proof: measure it on
rows of your own (threshold.py) before you rely on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from myna.records import Sampled

ABOVE = 1e-3  # a log-probability above 0 by less is rounding; by more, it is none


@dataclass(frozen=True, slots=True)
class Signals:
    """Of one answer; None where it cannot be said, for the reason in `why`.

    mean      mean log-probability of its tokens: minus the logarithm of its perplexity
    least     the smallest of them
    total     their sum, the log-probability of the whole answer
    entropy   mean over its tokens of the next token's entropy in nats, as far as the reported alternatives tell (see `entropy`)
    """

    tokens: int
    mean: float | None = None
    least: float | None = None
    total: float | None = None
    entropy: float | None = None
    why: str = ""


def signals(sampled: Sequence[Sampled]) -> Signals:
    """Of an answer's tokens. One token without a usable log-probability, and the answer has none: a mean over the others would be made up."""
    n = len(sampled)
    if not n:
        return Signals(0, why="it has no tokens, or the endpoint reports none")
    logprobs = [token.logprob for token in sampled if token.logprob is not None]
    if not logprobs:
        return Signals(n, why="the endpoint gives no log-probabilities")
    if bad := n - sum(map(_usable, logprobs)):
        return Signals(n, why=f"{bad} of {n} tokens have no usable log-probability")
    spread = [entropy([one.logprob for one in token.top]) for token in sampled]
    known = [h for h in spread if h is not None]
    return Signals(
        n,
        mean=math.fsum(logprobs) / n,
        least=min(logprobs),
        total=math.fsum(logprobs),
        entropy=math.fsum(known) / n if len(known) == n else None,
        why="" if len(known) == n else f"{n - len(known)} of {n} tokens have no usable alternatives",
    )


def entropy(logprobs: Sequence[float | None]) -> float | None:
    """Entropy in nats of a distribution whose likeliest outcomes are given; the rest counts as one outcome, so it is never too large, and
    grows to the whole distribution's with the number of outcomes. None where nothing usable is given, or more than 1 in sum."""
    if not logprobs or not all(one is not None and _usable(one) for one in logprobs):
        return None
    given = [math.exp(one) for one in logprobs if one is not None]
    rest = 1 - math.fsum(given)
    if rest < -0.01 * len(given):
        return None
    return -math.fsum(p * math.log(p) for p in (*given, rest) if p > 0) + 0.0


def semantic_entropy(sizes: Sequence[int]) -> float | None:
    """Entropy in nats of which meaning is said, from how many samples said each: Farquhar et al. 2024 (Nature 630), the discrete estimate,
    which needs no log-probabilities. From 0, where all say the same, to log n. None of no samples."""
    n = sum(sizes)
    return -math.fsum(k / n * math.log(k / n) for k in sizes if k) + 0.0 if n else None


def weighted_semantic_entropy(groups: Sequence[Sequence[int]], means: Sequence[float | None]) -> float | None:
    """The same with each sample weighted by its probability, its length taken out of it (exp of the mean log-probability), and the weights
    of all samples together 1: Farquhar et al. 2024, equations 4 and 5. None where one of the samples has no probability."""
    weights: list[float] = []
    members = [means[i] for group in groups for i in group]
    if not members or any(one is None for one in members):
        return None
    highest = max(one for one in members if one is not None)
    for group in groups:
        weights.append(math.fsum(math.exp((means[i] or 0.0) - highest) for i in group))
    whole = math.fsum(weights)
    return -math.fsum(w / whole * math.log(w / whole) for w in weights if w) + 0.0


def _usable(logprob: float) -> bool:
    return math.isfinite(logprob) and logprob <= ABOVE
