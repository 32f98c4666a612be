"""What the model answers while it is trained, for people to read: nothing shows sooner that a loss curve lies."""

from myna.chat import Rendered
from myna.data import Record, Source
from myna.records import Conversation, Sampling
from myna.train.rollout import roll_out
from myna.train.trainee import Trainee

MOST = 12  # prompts
TOKENS = 96


class Samples:
    """Answers to the first MOST conversations or texts of a file, drawn from (seed, step)."""

    def __init__(self, trainee: Trainee, file: str, seed: int):
        self.trainee, self.seed = trainee, seed
        source = Source.of(file) if file else Source(())
        self.prompts = [record for _, (_, record) in zip(range(MOST), source.records(), strict=False)]
        self.rendered = [self._render(prompt) for prompt in self.prompts]

    def __call__(self, step: int) -> list[str]:
        """Markdown, one piece for each prompt; nothing without prompts."""
        if not self.prompts:
            return []
        chat, room = self.trainee.chat, self.trainee.decoder.max_len - max(len(r.ids) for r in self.rendered)
        sampling = Sampling(temperature=0.8, max_tokens=min(TOKENS, room))
        ids = [rendered.ids for rendered in self.rendered]
        rolled = roll_out(self.trainee.decoder, ids, sampling, seed=self.seed + step, stop_ids=chat.stop_ids)
        texts = [chat.tokenizer.decode(answer.ids) for (answer,) in rolled]
        return [f"### {_asked(prompt)}\n\n{text}" for prompt, text in zip(self.prompts, texts, strict=True)]

    def _render(self, prompt: Record) -> Rendered:
        chat = self.trainee.chat
        return chat.render(prompt) if isinstance(prompt, Conversation) else chat.prompt(prompt)


def _asked(prompt: Record) -> str:
    text = prompt.messages[-1].text if isinstance(prompt, Conversation) else prompt.text
    return " ".join(text.split())[-200:]
