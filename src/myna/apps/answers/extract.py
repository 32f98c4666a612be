"""Fields out of a document, each with the words that it rests on and where they stand.

    class Invoice(BaseModel):
        number: str
        total: float | None

    found = await extract(provider, read_file(Path("invoice.pdf")), Invoice)
    found.value                   Invoice(number="R-12", total=80.5), or None where the document does not give what it needs
    found.fields[0]               Field("number", "R-12", start=120, end=136, page=1, text="Invoice no. R-12", doubt="")

A value is believed as far as its words go: they stand in the document exactly, and they have the value's numbers and words. What
does not is marked (`doubt`), never dropped in silence and never passed off as found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from myna.apps.answers.schema import QUOTE, VALUE, Leaf, evident, leaves, plain
from myna.apps.index.chunks import chunks
from myna.apps.index.reading import Document
from myna.provider import Provider, complete, powers
from myna.records import Conversation, Form, Json, Message, RequestError, Sampling
from myna.records.fence import RULE, fenced

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOM = 12_000  # characters of a document that are read at once
WINDOWS = 4  # of it; what is behind them is not read, and said
CALLS = 2  # of each window: the first, and one more where the answer was not in the form
PIECE = 1_200  # characters; a window ends where one does
CLAMP = 2_000  # characters of a rejected answer that go back
DRAW = Sampling(temperature=0.0, max_tokens=1_000)


@dataclass(frozen=True, slots=True)
class Field:
    """A value and its words: `text` is the document's text from `start` to `end`. Without words `start` is None and `doubt` says so.

    doubt   why nobody should rely on it; "" where the words have the value
    """

    path: str
    value: Any
    start: int | None = None
    end: int | None = None
    page: int | None = None
    text: str = ""
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Extracted:
    """`value` is an instance of the model, or a dict where a schema was given; None where what was found is none, and `problems` says
    what is missing or wrong. `found` are the values as they are, in any case. `left_out` characters of the document were not read."""

    sha256: str
    value: Any
    found: Json
    fields: tuple[Field, ...]
    problems: tuple[str, ...]
    left_out: int = 0
    calls: int = 0


async def extract(
    provider: Provider,
    document: Document,
    what: "type[BaseModel] | Json",
    *,
    room: int = ROOM,
    windows: int = WINDOWS,
    sampling: Sampling = Sampling(),
) -> Extracted:
    """At most `windows` times CALLS calls.

    what   a Pydantic model, or a JSON Schema of an object

    A document that is longer than `room` characters is read in windows; a field has the first value with evidence, lists are joined.
    Raises RequestError where the schema is none that can be filled, and what the provider raises.
    """
    schema = what if isinstance(what, dict) else what.model_json_schema()
    asked, how = evident(schema), sampling.resolve(DRAW)
    validated = _validator(asked)
    if "schema" in powers.of(provider).forms:
        how = replace(how, form=Form("schema", orjson.dumps(asked).decode(), param="schema"))
    parts, left = _parts(document, room, windows)
    calls, merged, problems = 0, dict[str, Any](), list[str]()
    for start, end in parts:
        talk = prompt(schema, document.parsed.visible(start, end))
        answer, made, problem = await _answer(provider, talk, how, validated)
        calls += made
        problems += [problem] if problem else []
        merged = _merged(merged, answer)
    fields = tuple(_field(document, leaf) for leaf in leaves(merged) if leaf.value is not None)
    value, wrong = _valued(what, schema, plain(merged))
    return Extracted(document.sha256, value, plain(merged), fields, (*problems, *wrong), left, calls)


def prompt(schema: Json, text: str) -> Conversation:
    """What the model is asked of a part of the document. It is shown the user's own schema: with evidence beside each leaf that is
    three times as long."""
    system = (
        f"You fill in fields from a document. {RULE} This JSON Schema says which:\n{orjson.dumps(schema).decode()}\nAnswer with JSON alone, of "
        f'this shape, but instead of each value write {{"{QUOTE}": the words of the document that give it, copied exactly, "{VALUE}": the '
        f'value}}. For example {{"total": {{"{QUOTE}": "Sum: EUR 12.50", "{VALUE}": 12.5}}}}. If the document does not give a field, '
        f'write {{"{QUOTE}": null, "{VALUE}": null}}. Never guess.'
    )
    return Conversation.of(("system", system), ("user", fenced(text, "document")))


def _parts(document: Document, room: int, windows: int) -> tuple[list[tuple[int, int]], int]:
    """Ranges of the text, cut where passages end, and how many visible characters are behind them."""
    parsed = document.parsed
    found: list[tuple[int, int]] = []
    for one in chunks(parsed, min(room, PIECE)):
        if found and one.end - found[-1][0] <= room:
            found[-1] = found[-1][0], one.end
        else:
            found.append((one.start, one.end))
    kept = found[:windows] or [(0, 0)]
    return kept, sum(len(parsed.visible(a, b)) for a, b in found[windows:])


async def _answer(
    provider: Provider, talk: Conversation, how: Sampling, validated: Any
) -> tuple[Json, int, str | None]:
    """(answer, calls, problem). One that is not in the form goes back once, as data."""
    asked, before, problem = talk, None, None
    for call in range(1, CALLS + 1):
        said = (await complete(provider, asked, how)).text
        answer, problem = _read(said, validated)
        if problem is None:
            return answer, call, None
        if said == before:
            return {}, call, problem
        before = said
        wrong = fenced({"answer": said[:CLAMP], "wrong": problem[:CLAMP]}, "rejected")
        again = f"An answer to this was rejected. {RULE}\n\n{wrong}\n\nAnswer again, so that this is not wrong with it."
        asked = talk + Message("user", again)
    return {}, CALLS, problem


def _validator(schema: Json) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as e:
        raise RequestError(f"the schema cannot be used: {e}", param="schema") from None


def _read(said: str, validated: Any) -> tuple[Json, str | None]:
    bare = said.strip()
    if bare.startswith("```") and bare.endswith("```") and "\n" in bare:
        bare = bare[bare.index("\n") : -3]
    try:
        answer = orjson.loads(bare)
    except orjson.JSONDecodeError as e:
        return {}, f"the answer is not JSON: {e}"
    error = next(validated.iter_errors(answer), None)
    if error is not None:
        return {}, f"{'.'.join(map(str, error.instance_path)) or 'the answer'}: {error.message}"
    return answer, None


def _merged(before: Any, more: Any) -> Any:
    """Of two windows: objects by their fields, lists one after the other without repetition, of values the first with words."""
    if isinstance(before, dict) and isinstance(more, dict) and VALUE not in before:
        return before | {name: _merged(before[name], one) if name in before else one for name, one in more.items()}
    if isinstance(before, list) and isinstance(more, list):
        known = [plain(one) for one in before]
        return before + [one for one in more if plain(one) not in known]
    if isinstance(before, dict) and isinstance(more, dict):
        return max((before, more), key=lambda one: (one[VALUE] is not None) + bool(one[QUOTE]))
    return more if before is None else before


def _field(document: Document, leaf: Leaf) -> Field:
    from myna.apps.hallucination.quotes import locate

    text = document.parsed.text
    quote = locate(leaf.quote, [text]) if leaf.quote else None
    if quote is None or not document.parsed.visible(quote.start, quote.end).strip():
        doubt = "no words were given for it" if leaf.quote is None else "its words are not in the document"
        return Field(leaf.path, leaf.value, doubt=doubt)
    page = document.parsed.page_at(quote.start)
    found = Field(leaf.path, leaf.value, quote.start, quote.end, page.number if page else None, quote.text)
    return replace(found, doubt=doubted(leaf.value, quote.text))


def doubted(value: Any, words: str) -> str:
    """What of a value its words do not have; "" where they have all of it. Of true and false words say nothing that can be looked at."""
    from myna.apps.hallucination.same import words as parts

    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return "" if any(_equal(value, one) for one in parts(words)) else f"its words do not have {value}"
    missing = set(parts(str(value))) - set(parts(words))
    return f"its words do not have {', '.join(sorted(missing)[:5])}" if missing else ""


def _equal(value: float, word: str) -> bool:
    try:
        return float(word) == abs(value)
    except ValueError:
        return False


def _valued(what: "type[BaseModel] | Json", schema: Json, found: Json) -> tuple[Any, Sequence[str]]:
    """The instance, or what keeps it from being one."""
    given = _given(found)
    if isinstance(what, dict):
        wrong = [
            f"{'.'.join(map(str, e.instance_path)) or 'it'}: {e.message}" for e in _validator(schema).iter_errors(given)
        ]
        return (None if wrong else given), wrong
    from pydantic import ValidationError

    try:
        return what.model_validate(given), ()
    except ValidationError as e:
        return None, [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in e.errors()]


def _given(found: Any) -> Any:
    """Without what the document does not give: a field that may be absent is, and one that may not is a problem that names it."""
    if isinstance(found, dict):
        return {name: _given(one) for name, one in found.items() if one is not None}
    return [_given(one) for one in found if one is not None] if isinstance(found, list) else found
