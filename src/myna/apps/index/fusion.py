"""One order out of two: what the words say (BM25) and what the vectors say (cosine), weighted as fitted on questions.

score = (1 - weight) * bm25 / best bm25 + weight * cosine / best cosine

The best are those of the query, so both terms are at most 1. Fusion by ranks with equal weights (RRF, Cormack et al. 2009) is
not offered: where one arm is weak it pulls the other down (docs/log.md has figures), and whether one is weak only questions tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from myna.records.language import counted

STEPS = 20  # weights tried: 0, 1/20, ..., 1
FEWEST = 20  # questions; from fewer no weight is fitted
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Pool:
    """What both arms found for one question, chunk -> score, and the chunks that are right. `dense` knows every chunk of `lexical`
    that has a vector."""

    lexical: Mapping[int, float]
    dense: Mapping[int, float]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Fitted:
    """A weight and how it was come by: `questions` with mean reciprocal ranks by words, by vectors, and fused."""

    weight: float
    questions: int
    lexical: float
    dense: float
    fused: float
    asked: str = "given"  # where the questions are from: "given", or "made" from the corpus
    arms: tuple[str, str] = ("words", "vectors")  # what was weighed: the second beside the first

    def __str__(self) -> str:
        first, second = self.arms
        figures = f"{self.questions} {self.asked} questions: {first} {self.lexical:.3f}, {second} {self.dense:.3f}, together {self.fused:.3f}"
        if self.questions < FEWEST:
            return f"{first} alone: {counted(self.questions, 'question is', 'questions are')} too few to fit on, {FEWEST} are needed"
        if not self.weight:
            return f"{first} alone: {second} did not help on {figures}"
        return f"weight of {second} {self.weight:.2f}, fitted on {figures}"


def how(vectors: bool, fitted: Fitted | None) -> str:
    """How a search ranks, with and without vectors, in a reader's words."""
    if not vectors:
        return "words alone"
    return str(fitted) if fitted else "words alone: the weight of the vectors is not fitted; run `myna index tune`"


def fuse(pool: Pool, weight: float) -> dict[int, float]:
    """chunk -> score, of every chunk that either arm found. With a weight of 0 chunks without a common word are left out."""
    lexical, dense = _scaled(pool.lexical), _scaled(pool.dense)
    if not weight:
        return lexical or dense  # vectors alone beat nothing
    if weight == 1:
        return dense or lexical
    both = lexical.keys() | dense.keys()
    return {
        one: round((1 - weight) * lexical.get(one, 0.0) + weight * dense.get(one, 0.0), DIGITS) for one in sorted(both)
    }


def _scaled(scores: Mapping[int, float]) -> dict[int, float]:
    best = max(scores.values(), default=0.0)
    return {one: round(score / best, DIGITS) if best > 0 else 0.0 for one, score in scores.items()}


def fit(pools: Sequence[Pool], asked: str = "given", arms: tuple[str, str] = ("words", "vectors")) -> Fitted:
    """The weight with the best mean reciprocal rank, each averaged with its neighbours': a peak of one step is luck. Words alone
    unless something is better than they are by more than the standard error of the difference (paired, over questions)."""
    ranks = [[reciprocal_rank(pool, step / STEPS) for pool in pools] for step in range(STEPS + 1)]
    means = [sum(row) / max(len(row), 1) for row in ranks]
    best = max(range(STEPS + 1), key=lambda i: (round(_smooth(means, i), DIGITS), -i))
    if len(pools) < FEWEST or means[best] - means[0] <= _standard_error(ranks[best], ranks[0]):
        best = 0
    return Fitted(best / STEPS, len(pools), means[0], means[-1], means[best], asked, arms)


def reciprocal_rank(pool: Pool, weight: float) -> float:
    """1 / the rank of the first right chunk, 0 where none was found. Ties count against us: wrong ones stand first."""
    scores = fuse(pool, weight)
    right = max((scores[one] for one in pool.right if one in scores), default=None)
    if right is None:
        return 0.0
    return 1 / (1 + sum(1 for one, score in scores.items() if score >= right and one not in pool.right))


def _smooth(values: Sequence[float], i: int) -> float:
    near = values[max(i - 1, 0) : i + 2]
    return sum(near) / len(near)


def _standard_error(a: Sequence[float], b: Sequence[float]) -> float:
    n = len(a)
    gains = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(gains) / n
    return (sum((gain - mean) ** 2 for gain in gains) / max(n - 1, 1) / n) ** 0.5
