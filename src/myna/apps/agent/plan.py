"""A plan that the agent makes and keeps: items, each with how one sees that it is done. An item is done when its evidence stands, word
for word, in what a tool gave since the plan was made; a model's word that it did something is not enough, nor is the plan's own.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from myna.records import Json, ToolError
from myna.records.fields import Fields

State = Literal["open", "done", "dropped"]
MOST = 30  # items
LONGEST = 500  # characters of an item, of its check, of its evidence
LEAST = 2  # characters of evidence; a number may have one


@dataclass(slots=True)
class Item:
    """`check`: how one sees that it is done. `said`: the evidence, or why it was dropped."""

    what: str
    check: str
    state: State = "open"
    said: str = ""

    @classmethod
    def from_json(cls, value: object, path: str) -> "Item":
        f = Fields(value, path)
        state: State = f.take("state", str, default="open")
        known: State = state if state in get_args(State) else "open"
        return cls(f.take("what", str), f.take("check", str), known, f.take("said", str, default=""))

    def to_json(self) -> Json:
        return asdict(self)


def shown(plan: Sequence[Item]) -> str:
    marks = {"open": " ", "done": "x", "dropped": "-"}
    return "\n".join(
        f"{number}. [{marks[item.state]}] {item.what} (check: {item.check})" + (f": {item.said}" if item.said else "")
        for number, item in enumerate(plan, 1)
    )


def item(plan: list[Item], number: int) -> Item:
    """Raises ToolError, with words for the model."""
    if not 1 <= number <= len(plan):
        raise ToolError(f"There is no step {number}; the plan has {len(plan)}. make_plan makes one.")
    return plan[number - 1]


def shows(evidence: str, results: Iterable[str]) -> bool:
    """Whether the evidence is more than a letter and stands in one of the results, word for word and not inside of a word."""
    said = " ".join(evidence.split())
    if len(said) < LEAST and not said.isdigit():
        return False
    edges = (r"(?<!\w)" if said[0].isascii() else "", r"(?!\w)" if said[-1].isascii() else "")
    pattern = re.compile(edges[0] + re.escape(said) + edges[1])
    return any(pattern.search(" ".join(text.split())) for text in results)
