"""A prompt with its inputs becomes messages: what a stranger wrote in its fence, examples as turns."""

from collections.abc import Mapping
from typing import Any

import orjson

from myna.apps.prompt.file import Example, Prompt
from myna.apps.prompt.template import filled
from myna.records import Message
from myna.records.fence import RULE, fenced


def render(prompt: Prompt, given: Mapping[str, Any], examples: tuple[Example, ...] = ()) -> tuple[Message, ...]:
    """The messages: system, examples as turns of their own, then the rest. Raises RequestError for what the inputs do to it."""
    values = _values(prompt, given)
    messages = [Message(role, filled(template, values)) for role, template in prompt.turns]  # type: ignore[arg-type]
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
    turns = [Message(role, filled(text, values)) for role, text in prompt.turns if role != "system"]  # type: ignore[arg-type]
    answer = example.output if isinstance(example.output, str) else orjson.dumps(example.output).decode()
    return [*turns, Message("assistant", answer)]


def _values(prompt: Prompt, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the slots are filled with: what a stranger wrote inside its fence, as one text."""
    values: dict[str, Any] = dict.fromkeys(prompt.inputs)
    for name, value in given.items():
        values[name] = fenced(value, name) if prompt.inputs[name].untrusted and value is not None else value
    return values
