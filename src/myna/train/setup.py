"""What a method is prepared from: the trainee, the examples that files hold for it, and what is known of them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from myna.data import (
    Cuts,
    Example,
    Examples,
    Fit,
    Listed,
    Source,
    Sourced,
    of_conversations,
    of_documents,
    of_judged,
    of_preferences,
)
from myna.records import Conversation, DataError
from myna.train.config import Config
from myna.train.parallel import World
from myna.train.samples import Samples
from myna.train.trainee import Trainee

Made = Iterator[Sourced[Example]]
Both = tuple[Examples, Examples | None]


@dataclass
class Setup:
    """`known` gathers what data.json will say."""

    config: Config
    trainee: Trainee
    world: World
    run: Path
    known: dict[str, Any] = field(default_factory=dict)

    def documents(self) -> Both:
        """Texts to continue, to train on and to be evaluated on. Raises DataError."""
        chat, context = self.trainee.chat, self.config.data.context
        return self._both(lambda source, cuts: of_documents(source.documents(), chat.tokenizer, context))

    def conversations(self) -> Both:
        """Conversations whose assistant is to be imitated."""
        return self._both(
            lambda source, cuts: of_conversations(source.conversations(), self.trainee.chat, self._fit, cuts)
        )

    def preferences(self) -> Both:
        """Pairs (chosen, rejected)."""
        return self._both(
            lambda source, cuts: of_preferences(source.conversations(), self.trainee.chat, self._fit, cuts)
        )

    def judged(self) -> Both:
        """Single answers with their `score` among the facts."""
        return self._both(lambda source, cuts: of_judged(source.conversations(), self.trainee.chat, self._fit, cuts))

    def prompts(self) -> tuple[list[Conversation], list[Conversation]]:
        """Conversations that are to be answered, for training and evaluation."""
        data = self.config.data
        found = [[one.value for one in _source(paths).conversations()] for paths in (data.train, data.eval)]
        if not found[0]:
            raise DataError(f"data.train: {' '.join(data.train) or 'nothing'} holds no conversations")
        self.known |= {"train": _files(data.train), "eval": _files(data.eval)}
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

    @property
    def _fit(self) -> Fit:
        return Fit(self.config.data.context, self.config.data.overlong)

    def _both(self, make: Callable[[Source, Cuts], Made]) -> Both:
        if not self.config.data.train:
            raise DataError("there is nothing to learn from: give --data.train FILES")
        train = self._listed("train", self.config.data.train, make)
        evals = self._listed("eval", self.config.data.eval, make) if self.config.data.eval else None
        return train, evals

    def _listed(self, name: str, paths: tuple[str, ...], make: Callable[[Source, Cuts], Made]) -> Listed:
        cuts = Cuts()
        examples = [made.value for made in make(_source(paths), cuts)]
        sequences = [sequence for example in examples for sequence in example]
        supervised = sum(sequence.supervised for sequence in sequences)
        if not supervised:
            raise DataError(f"data.{name}: nothing in {' '.join(paths)} is to be learned: {len(examples)} examples")
        self.known[name] = {
            "files": _files(paths),
            "examples": len(examples),
            "tokens": sum(map(len, sequences)),
            "supervised": supervised,
            "cuts": asdict(cuts),
        }
        return Listed(examples)


def _source(paths: tuple[str, ...]) -> Source:
    return Source.of(*paths)


def _files(paths: tuple[str, ...]) -> dict[str, str]:
    """File -> hash of its bytes."""
    found = {}
    for file in _source(paths).files():
        with file.open("rb") as data:
            found[str(file)] = hashlib.file_digest(data, "blake2b").hexdigest()[:32]
    return found
