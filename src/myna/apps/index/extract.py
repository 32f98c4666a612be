"""One passage to the names and relations that a model reads in it: what is asked, and what of the answer is believed.

The passage is a stranger's text and the answer a stranger's too: a name that does not stand in the passage is none, whatever the
model says, and everything is bounded.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from myna.apps.index import names
from myna.apps.index.building import one_line
from myna.records import Conversation, Form, Sampling
from myna.records.fence import RULE, fenced

NAMES, FACTS = 12, 8  # of one passage, at most
NAME, HOW = 120, 120  # bytes of each, at most
VERSION = "1"  # of the prompt and the form
_TEXT = {"type": "string", "maxLength": 60}
_FACT = {
    "type": "object",
    "properties": {"from": _TEXT, "how": _TEXT, "to": _TEXT},
    "required": ["from", "how", "to"],
    "additionalProperties": False,
}
FORM = Form(
    "schema",
    orjson.dumps(
        {
            "type": "object",
            "properties": {
                "names": {"type": "array", "items": _TEXT, "maxItems": NAMES},
                "facts": {"type": "array", "items": _FACT, "maxItems": FACTS},
            },
            "required": ["names", "facts"],
            "additionalProperties": False,
        }
    ).decode(),
)
ASK = (
    f"{RULE}\n\nRead the passage that the user gives. List the names in it: people, places, organisations, works, events, things with "
    f"a name of their own, at most {NAMES}, written as they stand there. Then list at most {FACTS} facts that the passage states "
    "about two of these names: from one, how it is related in a few words, to the other. Keep the passage's language. Reply with "
    'JSON: {"names": ["..."], "facts": [{"from": "...", "how": "...", "to": "..."}]}'
)
DRAW = Sampling(temperature=0, max_tokens=480, form=FORM)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk to read, with where it stands."""

    chunk: int
    sha: str
    start: int
    text: str
    place: str


@dataclass(frozen=True, slots=True)
class Read:
    """What was read in one passage: names, each under its key; relations and equal names between keys. `left_out` names that stand
    nowhere in the passage, and relations of such."""

    names: tuple[tuple[str, str], ...]  # key, as it is written
    relations: tuple[tuple[str, str, str], ...]  # key, how, key
    same: tuple[tuple[str, str], ...]
    left_out: int = 0


def asking(passage: Passage) -> Conversation:
    """What the model is asked about one passage."""
    return Conversation.of(("system", ASK), ("user", fenced(f"[{passage.place}]\n{passage.text}", "passage")))


def parse(answer: str, passage: Passage) -> Read | None:
    """None where the answer is none of the form. Names and relations beyond the bounds, and those that the passage does not
    have, are left out and counted."""
    bare = answer.strip()
    if bare.startswith("```") and bare.endswith("```") and "\n" in bare:
        bare = bare[bare.index("\n") : -3]
    try:
        value = orjson.loads(bare)
        said, facts = (
            list(map(_text, value["names"])),
            [tuple(_text(one[k]) for k in ("from", "how", "to")) for one in value["facts"]],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    there = f"{passage.place}\n{passage.text}"
    found: dict[str, str] = {}
    said += [end for source, _, target in facts[:FACTS] for end in (source, target)]
    for name in said[: NAMES + 2 * FACTS]:
        short = one_line(name, NAME)
        if (key := names.key(short)) and names.stands_in(short, there):
            found.setdefault(key, short)
    relations = []
    for source, how, target in facts[:FACTS]:
        a, b, label = names.key(one_line(source, NAME)), names.key(one_line(target, NAME)), one_line(how, HOW)
        if a in found and b in found and a != b and label:
            relations.append((a, label, b))
    gone = {names.key(one_line(name, NAME)) for name in said} - found.keys()
    return Read(
        tuple(found.items()),
        tuple(dict.fromkeys(relations)),
        _equal(there, found),
        len(gone - {""}) + len(facts) - len(relations),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _equal(text: str, found: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Names that the text itself says to be one, by putting the second in brackets after the first."""
    pairs = []
    for before, inside in names.same(text):
        other = names.key(inside)
        ends = [key for key, name in found.items() if names.ends_with(before, name)]
        if other in found and ends and (one := max(ends, key=len)) != other:
            pairs.append((one, other))
    return tuple(dict.fromkeys(pairs))
