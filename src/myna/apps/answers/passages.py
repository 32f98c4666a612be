"""What a model is shown of the documents, and what it is asked."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from myna.apps.index.index import Hit
from myna.records import Conversation, Form
from myna.records.fence import RULE, fenced

ROOM = 3_000  # tokens of passages
MOST = 9  # passages: one digit each
NONE = "NONE"
NEWEST = "The dates are when the passages were written; where they contradict each other, the newest holds."
UNSUPPORTED = "—"
Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit under the number that a citation names it by."""

    number: int  # from 1
    hit: Hit

    @property
    def place(self) -> str:
        page = f", page {self.hit.page}" if self.hit.page else ""
        path = " > ".join(self.hit.path)
        date = f", {self.hit.dated}" if self.hit.dated else ""
        return f"{self.hit.names[0]}{page}" + (f", {path}" if path else "") + date


def bytes_by_three(text: str) -> int:
    """Tokens of a text, about: three bytes are one. Not counted by the model's own tokenizer, since a recorded answer has to choose the
    same passages when it is given again without the model."""
    return len(text.encode()) // 3 + 1


def chosen(hits: Sequence[Hit], room: int = ROOM, count: Count = bytes_by_three) -> tuple[tuple[Passage, ...], int]:
    """As many of the best as fit, and how many were left out. Text that is there already is not shown twice."""
    kept: list[Passage] = []
    seen: set[str] = set()
    left = 0
    for hit in hits:
        if (bare := " ".join(hit.text.split())) in seen:
            continue
        size = count(shown(Passage(len(kept) + 1, hit)))
        if size > room or len(kept) == MOST:
            left += 1
            continue
        seen.add(bare)
        room -= size
        kept.append(Passage(len(kept) + 1, hit))
    return tuple(kept), left


def prompt(question: str, passages: Sequence[Passage], style: str = "") -> Conversation:
    """What the model is asked: exactly this. `style` is ours or the user's own, how to answer."""
    system = (
        f"You answer questions from passages. {RULE} Use only what the passages say. After each sentence write the number of the passage that "
        f"says it, in brackets, such as [1]; after a sentence that no passage says write [{UNSUPPORTED}]. If the passages do not answer the "
        f"question, write {NONE} and nothing else. Answer briefly, in the language of the question."
    )
    if len({one.hit.dated.day for one in passages if one.hit.dated}) > 1:
        system = f"{system} {NEWEST}"
    texts = "\n\n".join(shown(one) for one in passages)
    return Conversation.of(("system", f"{system} {style}".rstrip()), ("user", f"{texts}\n\nQuestion: {question}"))


def form(passages: Sequence[Passage]) -> Form:
    """What an answer may be where forms are kept: NONE, or sentences that each end with numbers that were given."""
    numbers = "|".join(str(one.number) for one in passages)
    cited = rf"[^\[\]【】\n ][^\[\]【】\n]*(\[({numbers}|{UNSUPPORTED})\]){{1,3}}"
    return Form("regex", rf"{NONE}|{cited}([ \n]?{cited}){{0,4}}", param="citations")


def shown(passage: Passage) -> str:
    """A passage in its fence, under its number."""
    place = json.dumps(passage.place, ensure_ascii=False)
    return fenced(f"{place}\n{passage.hit.text}", f"[{passage.number}]")
