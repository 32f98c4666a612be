"""Runs as a user starts them, on real text, for tests that ask whether something is really learned."""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
from made import tokenizer

from myna.chat import Chat
from myna.model import Decoder, load_model
from myna.modeldir import ModelDir
from myna.records import Conversation, Sampling, jsonl
from myna.train.rollout import Rolled, roll_out
from myna.train.run import begin, configure

SHAKESPEARE = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt.gz"
SEEDS = (0, 1, 2)


def play() -> str:
    """Tiny Shakespeare, 1.1 MB. Skips where it is not."""
    if not SHAKESPEARE.exists():
        pytest.skip(f"{SHAKESPEARE} is not here")
    return gzip.decompress(SHAKESPEARE.read_bytes()).decode()


def shakespeare(at: Path, vocab: int = 512, held: int = 60_000) -> str:
    """Flags of a run that reads Tiny Shakespeare but its last `held` characters, and is evaluated on those."""
    text = play()
    parts = {"read": text[:-held], "held": text[-held:]}
    for name, part in parts.items():
        rows = [part[i : i + 1000] for i in range(0, len(part), 1000)]
        (at / f"{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    tokenizer(at / "words", [parts["read"]], vocab)
    return f"--model.tokenizer {at / 'words'} --data.train {at / 'read.jsonl'} --data.eval {at / 'held.jsonl'} --data.context 128"


def learn(method: str, out: Path, flags: str) -> Path:
    """The run directory of a run to its end."""
    return begin(configure(method, None, [*flags.split(), "--run.out", str(out)])).run


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def evaluated(run: Path, figure: str = "bits_per_byte") -> float:
    """At the last evaluation."""
    return float([line["eval"] for line in logged(run) if "eval" in line][-1][figure])


def tell(*values: object) -> None:
    """A line of a table, as soon as it is known."""
    print(*(f"{value:.4f}" if isinstance(value, float) else value for value in values), sep=" | ", flush=True)


def write(file: Path, rows: Iterable[Conversation]) -> Path:
    jsonl.write(file, [*rows])
    return file


@dataclass(frozen=True)
class Speaker:
    """A model that a run has left, to be asked."""

    decoder: Decoder
    chat: Chat

    @classmethod
    def of(cls, run: Path) -> Self:
        return cls(load_model(ModelDir.open(run / "model"), "float32"), Chat.load(run / "model"))

    def prompt(self, asked: Conversation) -> Sequence[int]:
        """The ids up to where the assistant speaks; an answer that is there already is left out."""
        return self.chat.render(
            replace(asked, messages=asked.messages[:-1]) if asked.messages[-1].role == "assistant" else asked
        ).ids

    def answers(
        self, asked: Sequence[Conversation], *, n: int = 1, temperature: float = 0.0, tokens: int, seed: int = 0
    ) -> list[list[Rolled]]:
        sampling = Sampling(n=n, temperature=temperature, max_tokens=tokens)
        return roll_out(
            self.decoder, [self.prompt(one) for one in asked], sampling, seed=seed, stop_ids=self.chat.stop_ids
        )

    def said(self, answer: Rolled) -> str:
        return self.chat.tokenizer.decode(answer.ids)
