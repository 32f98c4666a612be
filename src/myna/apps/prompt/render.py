"""Templates become messages. They run in Jinja2's immutable sandbox, and an input that a template asks for must be declared."""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import orjson

from myna.apps.prompt.file import Example, Prompt
from myna.records import DataError, Message, RequestError
from myna.records.fence import RULE, fenced

LONGEST = 64 << 20  # characters of one turn


def check_slots(prompt: Prompt) -> None:
    """Raises DataError for a slot that no input fills, an input that no slot uses, and a template that does not parse."""
    from jinja2 import TemplateSyntaxError, meta

    used = set()
    for role, template in prompt.turns:
        try:
            used |= meta.find_undeclared_variables(_jinja().parse(template))
        except TemplateSyntaxError as e:
            raise DataError(f"the {role} turn, line {e.lineno}: {e.message}") from None
    if missing := sorted(used - prompt.inputs.keys()):
        raise DataError(f"{{{{ {missing[0]} }}}}: no such input is declared; declare it under inputs")
    if idle := sorted(prompt.inputs.keys() - used):
        raise DataError(f"inputs.{idle[0]}: no turn uses it")


def render(prompt: Prompt, given: Mapping[str, Any], examples: tuple[Example, ...] = ()) -> tuple[Message, ...]:
    """The messages: system, examples as turns of their own, then the rest. Raises RequestError for what the inputs do to it."""
    values = _values(prompt, given)
    messages = [Message(role, _turn(template, values)) for role, template in prompt.turns]  # type: ignore[arg-type]
    shown = [message for example in examples for message in _shown(prompt, example)]
    if any(one.untrusted for one in prompt.inputs.values()):
        if messages[0].role == "system":
            messages[0] = Message("system", f"{messages[0].text}\n\n{RULE}")
        else:
            messages.insert(0, Message("system", RULE))
    first = 1 if messages[0].role == "system" else 0
    return (*messages[:first], *shown, *messages[first:])


def _shown(prompt: Prompt, example: Example) -> list[Message]:
    values = _values(prompt, example.inputs)
    turns = [Message(role, _turn(text, values)) for role, text in prompt.turns if role != "system"]  # type: ignore[arg-type]
    answer = example.output if isinstance(example.output, str) else orjson.dumps(example.output).decode()
    return [*turns, Message("assistant", answer)]


def _values(prompt: Prompt, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the slots are filled with: what a stranger wrote inside its fence, as one text."""
    values: dict[str, Any] = dict.fromkeys(prompt.inputs)
    for name, value in given.items():
        values[name] = fenced(value, name) if prompt.inputs[name].untrusted and value is not None else value
    return values


def _turn(template: str, values: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        text = _template(template).render(values)
    except TemplateError as e:
        raise RequestError(f"the prompt cannot be filled in: {e}", param="inputs") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as e:
        raise RequestError(f"the prompt cannot be filled in: {type(e).__name__}: {e}", param="inputs") from None
    if len(text) > LONGEST:
        raise RequestError(f"a turn of {len(text):,} characters is too long.", param="inputs")
    return text


@lru_cache(maxsize=256)
def _template(source: str) -> Any:
    return _jinja().from_string(source)


@cache
def _jinja() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    made.globals.clear()  # no range(10 ** 9), no cycler: a prompt is text with slots
    return made
