"""What the model answers while it is trained, for people to read: nothing shows sooner that a loss curve lies.

samples/step-N.md is Markdown: who speaks in bold, what is said quoted, and a line between talks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from myna.chat import Rendered
from myna.data import Record, Source
from myna.data.turns import asked
from myna.records import Conversation, DataError, Sampling
from myna.train.rollout import Rolled, roll_out
from myna.train.trainee import Trainee

MOST = 12  # prompts
TOKENS = 96
SHOWN = 600  # characters of a prompt's turn


@dataclass(frozen=True, slots=True)
class Turn:
    """Who speaks, and what. The model's own turn is last, and `who` is one of ANSWERS with more words."""

    who: str
    text: str


ANSWERS = ("answer", "goes on")


class Samples:
    """Answers to the first MOST conversations or texts of a file, drawn from (seed, step).

    Raises DataError for a prompt that leaves no room for an answer."""

    def __init__(self, trainee: Trainee, file: str, seed: int):
        self.trainee, self.seed = trainee, seed
        source = Source.of(file) if file else Source(())
        self.prompts = [_asked(one.value) for one in islice(source.records(), MOST)]
        self.rendered = [self._render(prompt) for prompt in self.prompts]
        longest = max((len(rendered.ids) for rendered in self.rendered), default=0)
        self.room = min(TOKENS, trainee.decoder.max_len - longest) if self.prompts else TOKENS
        if self.room < 1:
            reach = trainee.decoder.max_len
            raise DataError(
                f"run.prompts: {file} has a prompt of {longest} tokens; the model reaches to {reach} in all"
            )

    def __call__(self, step: int) -> list[str]:
        """Markdown, one piece for each prompt; nothing without prompts."""
        if not self.prompts:
            return []
        sampling = Sampling(temperature=0.8, max_tokens=self.room)
        ids = [rendered.ids for rendered in self.rendered]
        stops = self.trainee.chat.stop_ids
        rolled = roll_out(self.trainee.decoder, ids, sampling, seed=self.seed + step, stop_ids=stops)
        talks = (
            (*_turns(prompt), self._answer(prompt, one)) for prompt, (one,) in zip(self.prompts, rolled, strict=True)
        )
        return [write(talk) for talk in talks]

    def _render(self, prompt: Record) -> Rendered:
        chat = self.trainee.chat
        return chat.render(prompt) if isinstance(prompt, Conversation) else chat.prompt(prompt)

    def _answer(self, prompt: Record, rolled: Rolled) -> Turn:
        who = ANSWERS[not isinstance(prompt, Conversation)]
        cut = f", cut at {self.room} tokens" if rolled.finish_reason == "length" else ""
        return Turn(who + cut, self.trainee.chat.tokenizer.decode(rolled.ids, starts=False))


def write(talk: Iterable[Turn]) -> str:
    """One talk."""
    return "\n\n".join(f"**{turn.who}**\n\n{_quoted(turn.text)}" for turn in talk)


def read(markdown: str) -> list[list[Turn]]:
    """The talks of a file. What was said is never taken for a speaker: all its lines are quoted."""
    talks: list[list[Turn]] = [[]]
    for line in markdown.split("\n"):
        if line == "---":
            talks.append([])
        elif line.startswith("**"):
            talks[-1].append(Turn(line.strip("*"), ""))
        elif line.startswith(">") and talks[-1]:
            last = talks[-1][-1]
            talks[-1][-1] = replace(last, text=last.text + "\n" * bool(last.text) + line[1:].removeprefix(" "))
    return [talk for talk in talks if talk]


def _asked(prompt: Record) -> Record:
    """A row of data as a question."""
    return asked(prompt) if isinstance(prompt, Conversation) else prompt


def _turns(prompt: Record) -> list[Turn]:
    if not isinstance(prompt, Conversation):
        return [Turn("text", _shortened(prompt.text))]
    return [Turn(message.role, _shortened(message.text)) for message in prompt.messages]


def _shortened(text: str) -> str:
    """Its end, which is what is answered."""
    left_out = len(text) - SHOWN
    return f"({left_out} characters before) ... {text[-SHOWN:]}" if left_out > 0 else text


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines() or [""])
