"""What a method is prepared from: the trainee, the examples that files hold for it, and what is known of them."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from myna.data import Examples, Kind, Recipe, Source, load
from myna.data.prepare import weighted
from myna.records import Conversation, DataError
from myna.train.config import Config
from myna.train.parallel import World
from myna.train.progress import show
from myna.train.samples import Samples
from myna.train.trainee import Trainee

TOKENS = "tokens"  # in the run directory: shards of what was tokenized


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
        self.known = {"files": _files(data.train + data.eval), "audits": loaded.to_json()}
        if self.world.is_main:
            show(loaded.audits)
        return loaded.train, loaded.eval

    def prompts(self) -> tuple[list[Conversation], list[Conversation]]:
        """Conversations that are to be answered, for training and evaluation."""
        data = self.config.data
        found = [[one.value for one in Source.of(*paths).conversations()] for paths in (data.train, data.eval)]
        if not found[0]:
            raise DataError(f"data.train: {' '.join(data.train) or 'nothing'} holds no conversations")
        self.known = {"files": _files(data.train + data.eval), "prompts": [len(some) for some in found]}
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


def _files(paths: tuple[str, ...]) -> dict[str, str]:
    """File -> hash of its bytes."""
    found = {}
    for file in Source.of(*(weighted(path)[0] for path in paths)).files():
        with file.open("rb") as data:
            found[str(file)] = hashlib.file_digest(data, "blake2b").hexdigest()[:32]
    return found
