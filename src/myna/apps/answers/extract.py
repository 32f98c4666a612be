"""Fields out of a document, each with the words that it rests on and where they stand.

    class Invoice(BaseModel):
        number: str
        total: float | None

    found = await extract(provider, read_file(Path("invoice.pdf")), Invoice)
    found.value                   Invoice(number="R-12", total=80.5), or None where the document does not give what it needs
    found.fields[0]               Field("number", "R-12", start=120, end=136, page=1, text="Invoice no. R-12", doubt="")

A value is believed as far as its words go: they stand in the document exactly, and they have the value's numbers and words. Of what has no
such evidence nothing is filled in, and `doubt` says what was said and why it does not count; what has most of it is kept, and marked.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from myna.apps.answers.evidence import Doubt, doubted
from myna.apps.answers.schema import QUOTE, VALUE, Leaf, choices, evident, leaves, plain
from myna.apps.index.chunks import chunks
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import Document
from myna.checks.verbatim import Quote, locate
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
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A value and its words: `text` is the document's text from `start` to `end`. Without evidence `value` and `start` are None.

    doubt   why nobody should rely on it, or what was said that the document does not have; "" where the words have the value
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
    what is missing or wrong. `found` are the values for which there is evidence, in any case. `left_out` characters of the document were not read."""

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
    judged = partial(_field, document, choices(schema))
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
        merged = _merged(merged, answer, judged)
    fields = tuple(one for one in map(judged, leaves(merged)) if one.value is not None or one.doubt)
    believed = plain(merged, lambda leaf: judged(leaf).value)
    value, wrong = _valued(what, schema, believed)
    if problems and not merged:
        wrong = ()  # without an answer every field is missing
    return Extracted(document.sha256, value, believed, fields, (*problems, *wrong), left, calls)


def prompt(schema: Json, text: str) -> Conversation:
    """What the model is asked of a part of the document. It is shown the user's own schema: with evidence beside each leaf that is
    three times as long. The example has no words and no value: a small model gives those back as if the document had them."""
    system = (
        f"You fill in fields from a document. {RULE} This JSON Schema says which:\n{orjson.dumps(schema).decode()}\nAnswer with JSON alone, of "
        f'this shape, but instead of each value write {{"{QUOTE}": the words of the document that give it, copied exactly, "{VALUE}": the '
        f'value}}. So {{"NAME": 0}} becomes {{"NAME": {{"{QUOTE}": "...", "{VALUE}": 0}}}}. If the document does not give a field, '
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


def _merged(before: Any, more: Any, judged: Callable[[Leaf], Field]) -> Any:
    """Of two windows: objects by their fields, lists one after the other without repetition, of values the one with the best words, and of
    equal ones the first."""
    if isinstance(before, dict) and isinstance(more, dict) and VALUE not in before:
        return before | {
            name: _merged(before[name], one, judged) if name in before else one for name, one in more.items()
        }
    if isinstance(before, list) and isinstance(more, list):
        known = [plain(one) for one in before]
        return before + [one for one in more if plain(one) not in known]
    if isinstance(before, dict) and isinstance(more, dict):
        return max((before, more), key=lambda one: _worth(judged(next(leaves(one)))))
    return more if before is None else before


def _worth(field: Field) -> int:
    return (field.value is not None) + (field.start is not None) + (not field.doubt)


def _field(document: Document, choices: Collection[str], leaf: Leaf) -> Field:
    """The value as far as it is to be believed, and where it stands."""
    if leaf.value is None or (isinstance(leaf.value, str) and not leaf.value.strip()):
        return Field(leaf.path, None)
    quote = _seen(document.parsed, leaf.quote) if leaf.quote else None
    if quote:
        doubt = doubted(leaf.value, quote.text, choices)
    else:
        doubt = Doubt("no words were given for it" if leaf.quote is None else "its words are not in the document")
    if doubt and not doubt.kept and isinstance(leaf.value, str) and (own := _seen(document.parsed, leaf.value)):
        quote, doubt = own, Doubt(f"{doubt.why}; it stands here", kept=True)
    if doubt and not doubt.kept:
        return Field(leaf.path, None, doubt=f"{str(leaf.value)[:CLAMP]} was said; {doubt.why}")
    assert quote is not None
    page = document.parsed.page_at(quote.start)
    why = doubt.why if doubt else ""
    return Field(leaf.path, leaf.value, quote.start, quote.end, page.number if page else None, quote.text, why)


def _seen(parsed: Parsed, words: str) -> Quote | None:
    """Where words stand that a reader of the document sees."""
    found = locate(words, [parsed.text])
    if found is None or parsed.visible(found.start, found.end).strip():
        return found
    spans = list(parsed.spans())
    inside = locate(words, [parsed.text[a:b] for a, b in spans])
    return inside and replace(
        inside, source=0, start=inside.start + spans[inside.source][0], end=inside.end + spans[inside.source][0]
    )


def _valued(what: "type[BaseModel] | Json", schema: Json, found: Json) -> tuple[Any, Sequence[str]]:
    """The instance, or what keeps it from being one. What the document does not give is null where that is allowed, and is not there
    where it is not: then a field that must be there is a problem that names it."""
    given = _items(found)
    value, wrong = _made(what, schema, given)
    if wrong:
        nulls = {path for path, _ in wrong if _at(given, path) is None}
        value, wrong = _made(what, schema, _without(given, lambda path, one: one is None and path in nulls))
    if wrong:  # alternatives report elsewhere than where the null stands
        bare, still = _made(what, schema, _without(given, lambda path, one: one is None))
        value, wrong = (value, wrong) if still else (bare, still)
    return value, [f"{'.'.join(map(str, path)) or 'it'}: {message}" for path, message in wrong]


def _made(what: "type[BaseModel] | Json", schema: Json, given: Json) -> tuple[Any, list[tuple[Path, str]]]:
    if isinstance(what, dict):
        errors = [(tuple(e.instance_path), e.message) for e in _validator(schema).iter_errors(given)]
        return (None if errors else given), errors
    from pydantic import ValidationError

    try:
        return what.model_validate(given), []
    except ValidationError as e:
        return None, [(tuple(one["loc"]), one["msg"]) for one in e.errors()]


def _items(found: Any) -> Any:
    """Without items of lists in which nothing is left."""
    if isinstance(found, dict):
        return {name: _items(one) for name, one in found.items()}
    return [_items(one) for one in found if not _is_empty(one)] if isinstance(found, list) else found


def _is_empty(found: Any) -> bool:
    if isinstance(found, dict):
        return all(map(_is_empty, found.values()))
    return found is None


def _at(value: Any, path: Path) -> Any:
    """What stands there; the whole where there is no such place."""
    here = value
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return value
    return here


def _without(value: Any, out: Callable[[Path, Any], bool], path: Path = ()) -> Any:
    if isinstance(value, dict):
        return {name: _without(one, out, (*path, name)) for name, one in value.items() if not out((*path, name), one)}
    return [_without(one, out, (*path, i)) for i, one in enumerate(value)] if isinstance(value, list) else value
