"""What a child process is asked for: a schema or a structural tag as a grammar, and whether a finished answer has its form,
or whether that can be told."""

from functools import lru_cache
from typing import Any

from jsonschema_rs import CanonicalSchema
from llguidance import LLMatcher

from myna.forms import readers
from myna.forms.arguments import arguments
from myna.forms.deep import deeply
from myna.forms.lower import Lowering
from myna.forms.rules import Rules, TooLarge
from myna.forms.schema import Reader, Schema, SchemaError
from myna.forms.tags import Tags
from myna.records import Style

TRIED = 16 << 20  # stack that a grammar is tried on; the server has several times as much


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Never raises: an error is an answer, in `error`."""
    try:
        if question["do"] == "try":
            return deeply(lambda: _try(question["grammar"]), TRIED)
        kind, source = question["kind"], question["source"]
        if question["do"] == "reads":
            return {"reads": readers.reads(kind, source)}
        if question["do"] == "check":
            return {"problem": _check(kind, source, question["text"])}
        if question["do"] == "arguments":
            return _arguments(source, question)
        return _lower(kind, source, question["strict"], question["special"])
    except (SchemaError, TooLarge) as e:
        return {"error": str(e)}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as e:  # of ours or of a library; the form is refused, and the parent logs it
        return {"error": f"it could not be read ({type(e).__name__})", "bug": repr(e)}


def _try(grammar: str) -> dict[str, Any]:
    """To have survived is the answer; the parent, which has the vocabulary, learns of errors."""
    LLMatcher.validate_grammar(grammar)
    return {}


@lru_cache(64)  # for the checks that follow
def _read(kind: str, source: str) -> Schema | Tags:
    return Tags(source) if kind == "tags" else Schema(source)


def _lower(kind: str, source: str, strict: bool, special: dict[str, int]) -> dict[str, Any]:
    rules, form = Rules(), _read(kind, source)
    if isinstance(form, Tags):
        start, left = form.rules(rules, special, strict=strict)
    else:
        start, left = form.rules(rules, strict=strict)
    if (lark := rules.lark(start)) is None:
        raise SchemaError("no value is allowed by it")
    return {"lark": lark, "left": left}


def _arguments(source: str, question: dict[str, Any]) -> dict[str, Any]:
    rules, schema, style = Rules(), Schema(source), Style(**question["style"])

    def write(low: Lowering, _: CanonicalSchema) -> str:
        return arguments(low, schema, style, question["kinds"], question["special"])

    start, _ = schema.rules(rules, strict=True, write=write)
    return {"lark": rules.lark(start)}


def _check(kind: str, source: str, text: str) -> str | None:
    if kind in ("regex", "grammar"):
        return readers.problem(kind, source, text)
    form = _read(kind, source)
    if isinstance(form, Tags):
        return form.check(text)
    try:
        value: Any = Reader().decode(text)
    except (ValueError, RecursionError) as e:
        return f"it is not JSON: {e}"
    return form.check(value)
