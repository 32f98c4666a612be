"""What will be sent, before it is sent: the exact messages, the tokens of each part, and what had to be cut so that it fits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from myna.apps.prompt.file import Example, Prompt
from myna.apps.prompt.render import render
from myna.records import Conversation, Form, RequestError, Sampling

Count = Callable[[str], int]
CUT = "\n[... {} is left out here: it did not fit]"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a prompt and its tokens; `left_out` of it were cut, in tokens."""

    name: str
    tokens: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Explained:
    """What `ask` sends. `exact` says whether tokens were counted by the model's own tokenizer, or are an upper bound: bytes."""

    conversation: Conversation
    sampling: Sampling
    parts: tuple[Part, ...]
    tokens: int
    room: int | None
    exact: bool
    examples: tuple[int, ...]


def explain(
    prompt: Prompt, given: Mapping[str, Any], *, room: int | None = None, count: Count | None = None
) -> Explained:
    """The messages for these inputs, in at most `room` tokens.

    count   tokens of a text; without it its bytes, which are never fewer

    What does not fit is cut where the file allows it: inputs with a priority, the lowest first, lists from their end, texts at
    their end, and a mark says so. Raises RequestError for inputs that are wrong (see Prompt.check) and where it cannot fit.
    """
    prompt.check(given)
    chosen = choose(prompt, given)
    examples = tuple(prompt.examples[n] for n in chosen)
    counted = count or (lambda text: len(text.encode()))
    kept, left_out = _fit(prompt, dict(given), examples, room, counted)
    messages = render(prompt, kept, examples)
    tokens = _total(messages, counted)
    fixed = tokens - sum(_size(value, counted) for value in kept.values())
    parts = [Part("the prompt itself" + (f" with {len(examples)} examples" if examples else ""), fixed)]
    parts += [Part(name, _size(value, counted), left_out.get(name, 0)) for name, value in kept.items()]
    talk = Conversation(messages, meta={"prompt": prompt.version})
    return Explained(talk, sampling_of(prompt), tuple(parts), tokens, room, count is not None, chosen)


def sampling_of(prompt: Prompt) -> Sampling:
    """How the file wants to be sampled, in the form of its output."""
    if prompt.output is None:
        return prompt.sampling
    return replace(prompt.sampling, form=Form("schema", orjson.dumps(prompt.output).decode(), param="output"))


def choose(prompt: Prompt, given: Mapping[str, Any]) -> tuple[int, ...]:
    """Which examples are shown, in the file's order. Nearest: by pairs of neighbouring characters, and characters beyond
    ASCII, in common (Jaccard), which needs no words and so no language; one that is equal to the input is left out, since it would be the answer."""
    shots = prompt.shots
    if shots.choose == "fixed" or not prompt.examples:
        return tuple(range(min(shots.count, len(prompt.examples))))
    asked = _pairs(given.get(shots.by))
    scores = {}
    for number, example in enumerate(prompt.examples):
        pairs = _pairs(example.inputs.get(shots.by))
        if example.inputs.get(shots.by) != given.get(shots.by):
            scores[number] = len(pairs & asked) / (len(pairs | asked) or 1)
    best = sorted(scores, key=lambda number: (-scores[number], number))[: shots.count]
    return tuple(sorted(best))


def _fit(
    prompt: Prompt, given: dict[str, Any], examples: tuple[Example, ...], room: int | None, count: Count
) -> tuple[dict[str, Any], dict[str, int]]:
    """The inputs as they are sent, and of each how many tokens were left out."""
    left_out: dict[str, int] = {}
    if room is None:
        return given, left_out
    cuttable = sorted(
        (one.priority, name) for name, one in prompt.inputs.items() if one.priority is not None and given.get(name)
    )
    while (over := _total(render(prompt, given, examples), count) - room) > 0:
        if not cuttable:
            advice = "a `priority` on an input lets it be cut" if not left_out else "nothing more may be cut"
            raise RequestError(
                f"{prompt.name} is {over + room:,} tokens long and {room:,} are free: {advice}, or use a model with a longer context.",
                param="inputs", code="context_length_exceeded",
            )  # fmt: skip
        _, name = cuttable.pop(0)
        before = _size(given[name], count)
        given = given | {name: _cut(prompt, given, name, examples, room, count)}
        left_out[name] = before - _size(given[name], count)
    return given, left_out


def _cut(
    prompt: Prompt, given: dict[str, Any], name: str, examples: tuple[Example, ...], room: int, count: Count
) -> Any:
    """As much of an input's beginning as fits, found by halving; nothing of it if that is what it takes."""
    value = given[name]
    low, high = 0, len(value) if isinstance(value, str | list) else 1

    def some(kept: int) -> Any:
        if isinstance(value, list):
            return value[:kept]
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return (text[:kept] if isinstance(value, str) else "") + CUT.format(f"{len(text) - kept:,} characters")

    while low < high:
        middle = (low + high + 1) // 2
        if _total(render(prompt, given | {name: some(middle)}, examples), count) <= room:
            low = middle
        else:
            high = middle - 1
    return some(low)


def _total(messages: tuple[Any, ...], count: Count) -> int:
    return sum(count(message.text) for message in messages)


def _size(value: object, count: Count) -> int:
    if value is None:
        return 0
    return count(value if isinstance(value, str) else orjson.dumps(value).decode())


def _pairs(value: object) -> set[str]:
    text = "".join((value if isinstance(value, str) else orjson.dumps(value).decode()).casefold().split())
    return {text[i : i + 2] for i in range(len(text) - 1)} | {c for c in text if not c.isascii()} or {text}
