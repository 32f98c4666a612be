"""What a method is prepared from: the trainee, the examples that files hold for it, and what is known of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from myna.chat import Passages
from myna.data import (
    Cuts,
    Example,
    Examples,
    Fit,
    Kind,
    Listed,
    Reader,
    Recipe,
    Source,
    Sourced,
    kind_of,
    labels_of,
    load,
    of_labelled,
    of_matched,
)  # fmt: skip
from myna.data.audit import Audit, Observer
from myna.data.prepare import named, unread, weighted
from myna.data.turns import asked
from myna.records import Conversation, DataError
from myna.train.config import Config
from myna.train.parallel import World
from myna.train.progress import show
from myna.train.rundir import TOKENS
from myna.train.samples import Samples
from myna.train.trainee import Trainee

Made = Iterator[Sourced[Example]]


@dataclass
class Setup:
    """`known` gathers what data.json will say: files with hashes, and an audit of each source."""

    config: Config
    trainee: Trainee
    world: World
    run: Path
    known: dict[str, Any] = field(default_factory=dict)

    def examples(self, kind: Kind) -> tuple[Examples, Examples | None]:
        """What data.train and data.eval hold, as documents, conversations, preferences or judged answers.

        Raises DataError for rows that cannot be used, and for data that would train nothing or holds an evaluation row.
        """
        data = self.config.data
        recipe = Recipe(kind, data.context, data.overlong)
        loaded = load(
            data.train, data.eval, self.trainee.chat, recipe, seed=self.config.run.seed, cache=self.run / TOKENS
        )
        self.known = {"files": self._files(), "audits": loaded.to_json()}
        if self.world.is_main:
            show(loaded.audits)
        return loaded.train, loaded.eval

    def labelled(self) -> tuple[Examples, Examples | None, list[str]]:
        """Texts with a `label` among the facts, and what the labels are called. Raises DataError as `examples` does."""
        labels = labels_of(Source.of(*self._named()).records())
        both = self._texts(Source.records, lambda rows, reader, cuts: of_labelled(rows, labels, reader, cuts))
        self.known["labels"] = labels
        return *both, labels

    def matched(self, prefixes: tuple[str, str]) -> tuple[Examples, Examples | None]:
        """(query, what it should find, what it should not...), with these words before queries and before the others."""
        return self._texts(Source.conversations, lambda rows, reader, cuts: of_matched(rows, prefixes, reader, cuts))

    def kind(self) -> Kind:
        """What data.train is for a method that learns both: texts are learned whole, of conversations what the assistant says."""
        source = Source.of(*(path for path, _ in named(self.config.data.train)))
        return "documents" if kind_of(source) == "documents" else "conversations"

    def prompts(self) -> tuple[list[Conversation], list[Conversation]]:
        """Conversations that are to be answered, for training and evaluation; an answer that one has already is left out."""
        train, evals = self._named(), self.config.data.eval
        found = [[_asked(one) for one in Source.of(*paths).conversations()] for paths in (train, evals)]
        if not found[0]:
            raise DataError(f"data.train: {' '.join(train)} holds no conversations")
        seen = {_said(one) for one in found[0]}
        if shared := [one.messages[-1].text[:60] for one in found[1] if _said(one) in seen]:
            raise DataError(
                f"data.eval: {shared[0]!r} is asked in data.train too, as are {len(shared) - 1} more of its rows"
            )
        self.known = {"files": self._files(), "prompts": [len(some) for some in found]}
        return found[0], found[1]

    @cached_property
    def token_bytes(self) -> Tensor:
        """How many bytes of text each token is [vocab]; a control token is none."""
        tokenizer = self.trainee.chat.tokenizer
        sizes = [len(tokenizer.visible(id)) for id in range(self.trainee.decoder.spec.vocab)]
        return torch.tensor(sizes, device=self.trainee.device)

    @cached_property
    def samples(self) -> Samples:
        """What the trainee answers to run.prompts."""
        return Samples(self.trainee, self.config.run.prompts, self.config.run.seed)

    def _named(self) -> tuple[str, ...]:
        """The files and folders of data.train, for methods that know no weights. DataError if there are none, or weights."""
        for path, weight in named(self.config.data.train):
            if weight is not None:
                raise DataError(f"data.train: {path} has a weight, and {self.config.method} learns from all rows alike")
        return self.config.data.train

    def _files(self) -> dict[str, str]:
        """File -> hash of its bytes, of all data."""
        data = self.config.data
        return Source.of(*(weighted(path)[0] for path in data.train + data.eval)).hashes()

    def _texts(
        self,
        read: Callable[[Source], Iterator[Sourced[Any]]],
        make: Callable[[Iterator[Sourced[Any]], Reader, Cuts], Made],
    ) -> tuple[Examples, Examples | None]:
        data, chat = self.config.data, self.trainee.chat
        fit = Fit(data.context, data.overlong)
        reader = Reader(chat, Passages.load(self.trainee.source, chat.tokenizer), fit)
        found: list[list[Sourced[Example]]] = []
        audits: list[Audit] = []
        for name, paths in (("train", self._named()), ("eval", data.eval)):
            source = Source.of(*paths)
            observer = Observer(name, chat.tokenizer, frozenset(), unread=unread(source))
            found.append([*observer.examples(make(observer.records(read(source)), reader, observer.cuts))])
            audits += [observer.audit()] if paths else []
        for audit in audits:
            audit.check()
        self.known = {"files": self._files(), "audits": [audit.to_json() for audit in audits]}
        if self.world.is_main:
            show(audits)
        train, evals = found
        seen = {_key(example) for _, example in train}
        if shared := [place for place, example in evals if _key(example) in seen]:
            raise DataError(f"{shared[0]}: this evaluation row is a training row too, as are {len(shared) - 1} more")
        return Listed([example for _, example in train]), Listed([example for _, example in evals]) if evals else None


def _asked(one: Sourced[Conversation]) -> Conversation:
    try:
        return asked(one.value)
    except DataError as e:
        raise DataError(f"{one.place}: {e}") from None


def _said(conversation: Conversation) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.text) for message in conversation.messages)


def _key(example: Example) -> tuple[bytes, ...]:
    return tuple(sequence.ids.tobytes() for sequence in example)
