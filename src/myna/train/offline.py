"""What methods share whose examples are known before the first step: all but those that learn from their own answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from myna.data import Examples, Feed, Row
from myna.train.config import Config
from myna.train.method import Outcome, Tensors


@dataclass(frozen=True)
class Offline:
    """A Method over a feed. `compute` is its loss; `figures` follow from an evaluation's means; `answer` writes samples; `renew`
    tells rows what depends on the weights as they are."""

    feed: Feed
    steps: int
    evals: list[Row]
    compute: Callable[[Tensors], Outcome]
    figures: Callable[[dict[str, float]], Mapping[str, float]] = lambda means: {}
    answer: Callable[[int], list[str]] = field(default=lambda step: [])
    renew: Callable[[list[Row]], list[Row]] = field(default=lambda rows: rows)

    @property
    def context(self) -> int:
        return self.feed.context

    def rows(self, step: int) -> list[Row]:
        return self.renew(self.feed.step(step))

    def origins(self, step: int) -> list[str]:
        place = getattr(self.feed.examples, "place", str)
        rows = range(step * self.feed.rows, (step + 1) * self.feed.rows)
        return [str(place(index)) for row in rows for index in self.feed.members(row)]

    def eval_rows(self) -> list[Row]:
        return self.renew(self.evals) if self.evals else []

    def loss(self, batch: Tensors) -> Outcome:
        return self.compute(batch)

    def report(self, means: dict[str, float]) -> dict[str, float]:
        return dict(self.figures(means))

    def samples(self, step: int) -> list[str]:
        return self.answer(step)


def offline(
    config: Config,
    train: Examples,
    evals: Examples | None,
    compute: Callable[[Tensors], Outcome],
    figures: Callable[[dict[str, float]], Mapping[str, float]] = lambda means: {},
    answer: Callable[[int], list[str]] = lambda step: [],
    renew: Callable[[list[Row]], list[Row]] = lambda rows: rows,
) -> Offline:
    """The method over these examples, as long as the config says."""
    context, run = config.data.context, config.run
    feed = Feed(train, context=context, rows=run.rows, seed=run.seed)
    held_out = Feed(evals, context=context, rows=1, seed=0) if evals is not None and len(evals.lengths) else None
    rows = [held_out.row(n) for n in range(held_out.epoch_rows())] if held_out else []
    return Offline(feed, run.steps or feed.steps(run.epochs), rows, compute, figures, answer, renew)
