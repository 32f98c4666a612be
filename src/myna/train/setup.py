"""From a config to a run that can begin: the trainee, the examples it learns from, what is known of them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from myna.data import Examples
from myna.train.config import Config
from myna.train.parallel import World
from myna.train.trainee import Trainee


@dataclass
class Setup:
    """What a method is prepared from. `known` gathers what data.json will say."""

    config: Config
    trainee: Trainee
    world: World
    known: dict[str, Any] = field(default_factory=dict)

    def documents(self) -> tuple[Examples, Examples | None]:
        """Texts to continue, for training and evaluation."""
        raise NotImplementedError

    def conversations(self) -> tuple[Examples, Examples | None]:
        raise NotImplementedError

    @cached_property
    def token_bytes(self) -> Tensor:
        """How many bytes of text each token is [vocab]; a control token is none."""
        tokenizer = self.trainee.chat.tokenizer
        sizes = [len(tokenizer.visible(id)) for id in range(self.trainee.decoder.spec.vocab)]
        return torch.tensor(sizes, device=self.trainee.device)

    def continue_prompts(self, step: int) -> list[str]:
        return []

    def answer_prompts(self, step: int) -> list[str]:
        return []
