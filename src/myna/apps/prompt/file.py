"""The file: a YAML head between two lines of ---, and turns, each after a line that says whose it is.

    ---
    inputs:
      text: string                          # the short form of {type: string}
      notes: {type: array, items: {type: string}, untrusted: true, optional: true, priority: 1}
    output: {type: object, properties: {...}, required: [...]}
    hidden: [reasoning]                     # of the output, what is thought before the answer and is no part of it
    sampling: {temperature: 0, max_tokens: 300}
    examples: examples.jsonl                # or a list; each {"inputs": {...}, "output": ...}
    shots: {count: 2, choose: nearest, by: text}
    checks: [pii, {length: {most: 200, otherwise: fix}}]      # docs/checks.md; `otherwise` is what is done where one says no
    limits: {calls: 3, tokens: 8000, seconds: 60}
    ---
    system:
    You translate into {{ language }}.

    user:
    {{ text }}

Without such lines all of it is the user's. An input is described by JSON Schema; beside it stand `untrusted` (a stranger's text: it is
fenced), `optional` (it may be left out, and is none then) and `priority` (it may be cut to fit, the lowest first).

The version of a prompt is the hash of its file and its examples; no upgrade of ours changes either.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, get_args, get_type_hints

import jsonschema_rs
import yaml

from myna.apps.prompt.template import check_slots
from myna.checks import Named
from myna.checks.guard import POLICIES, Guard, Otherwise
from myna.provider.budget import Limits, names
from myna.records import DataError, Json, RequestError, Sampling
from myna.records.fields import Fields, kind_of
from myna.records.jsonl import read_rows
from myna.trace.request import read_sampling
from myna.trace.store import canonical, digest

LARGEST = 1 << 20  # bytes of a prompt file
HEAD = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*\n?", re.DOTALL | re.MULTILINE)
TURN = re.compile(r"^(system|user|assistant):[ \t]*$", re.MULTILINE)
OURS = ("untrusted", "optional", "priority")  # of an input, beside its schema


@dataclass(frozen=True, slots=True)
class Input:
    """An input: its JSON Schema, whether a stranger wrote it, whether it may be left out, and how soon it is cut (None: never)."""

    schema: Json
    untrusted: bool = False
    optional: bool = False
    priority: int | None = None

    @classmethod
    def from_json(cls, value: object, path: str) -> Self:
        if isinstance(value, str):
            value = {"type": value}
        f = Fields(value, path)
        untrusted, optional = f.take("untrusted", bool, default=False), f.take("optional", bool, default=False)
        priority, schema = f.take("priority", int, default=None), f.rest()
        try:
            jsonschema_rs.validator_for(schema, offline=True)
        except (jsonschema_rs.ValidationError, ValueError) as e:
            raise DataError(f"{path}: is no JSON Schema: {_fault(e)}") from None
        return cls(schema, untrusted, optional, priority)


@dataclass(frozen=True, slots=True)
class Shots:
    """How many examples are shown, and which: the first, or those nearest in words to the input `by`."""

    count: int = 1_000_000
    choose: Literal["fixed", "nearest"] = "fixed"
    by: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs, and the answer that they should have."""

    inputs: Json
    output: Any

    @classmethod
    def from_json(cls, value: object, path: str) -> Self:
        f = Fields(value, path)
        example = cls(f.take("inputs", dict), f.take("output", str, dict, list, int, float, bool))
        if unknown := f.rest():
            raise DataError(f"{f.at(next(iter(unknown)))}: an example has inputs and output")
        return example


@dataclass(frozen=True)
class Checked:
    """A check of the answer, and what is done where it says no."""

    check: Named
    otherwise: Otherwise = "ask"

    @classmethod
    def from_json(cls, value: object, path: str) -> Self:
        otherwise: Any = "ask"
        if isinstance(value, dict) and len(value) == 1:
            ((name, arguments),) = value.items()
            if isinstance(arguments, dict) and "otherwise" in arguments:
                otherwise = arguments["otherwise"]
                value = {name: {key: one for key, one in arguments.items() if key != "otherwise"}}
        check = Named.from_json(value, path)
        if otherwise not in POLICIES:
            raise DataError(f"{path}.{check.name}.otherwise: {otherwise!r} is none of {', '.join(POLICIES)}")
        if not check.needs:
            Guard(check.name, check.make(), otherwise)
        return cls(check, otherwise)


@dataclass(frozen=True)
class Prompt:
    """What a file says. `turns` are (role, template); `source` is the file, byte for byte."""

    name: str
    source: str
    turns: tuple[tuple[str, str], ...]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    output: Json | None = None
    sampling: Sampling = Sampling()
    examples: tuple[Example, ...] = ()
    shots: Shots = Shots()
    limits: Limits = Limits()
    model: str | None = None
    checks: tuple[Checked, ...] = ()
    hidden: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Raises DataError naming the file and the key."""
        path = Path(path)
        try:
            if path.stat().st_size > LARGEST:
                raise DataError(f"{path}: a prompt of more than {LARGEST >> 20} MiB; give long texts as inputs")
            return cls.parse(path.read_text(encoding="utf-8-sig"), path.stem, path.parent)
        except OSError as e:
            raise DataError(f"{path}: cannot be read: {e.strerror}") from None
        except UnicodeDecodeError as e:
            raise DataError(f"{path}: is not UTF-8: {e}") from None
        except DataError as e:
            raise DataError(f"{path}: {str(e).removeprefix(f'{path}: ')}") from None

    @classmethod
    def parse(
        cls, source: str, name: str = "prompt", folder: Path = Path(), examples: Sequence[object] | None = None
    ) -> Self:
        """From a file's text. `folder` is where its examples' file would be; `examples` are used instead, where given."""
        head, turns = _head(source.replace("\r\n", "\n"))
        f = Fields(head)
        described = Fields(f.take("inputs", dict, default={}), "inputs").rest()
        inputs = {key: Input.from_json(value, f"inputs.{key}") for key, value in described.items()}
        prompt = cls(
            name, source, turns, inputs, _schema(f.take("output", dict, default=None)), _sampling(f), _examples(f, folder, examples),
            _shots(f, inputs), _limits(f), f.take("model", str, default=None), f.take_list("checks", Checked.from_json), tuple(f.take_list("hidden", word)),
        )  # fmt: skip
        if unknown := f.rest():
            key = next(iter(unknown))
            raise DataError(f"{key}: a prompt's head has no such key{_near(key, KEYS)}")
        check_slots(turns, inputs)
        for name in prompt.hidden:
            if name not in (there := (prompt.output or {}).get("properties", {})):
                raise DataError(f"hidden: the output has no {name!r}{_near(name, there) if there else ''}")
        for number, example in enumerate(prompt.examples):
            prompt.check(example.inputs, f"examples.{number}.inputs")
        return prompt

    @cached_property
    def version(self) -> str:
        """SHA-256 of the file and its examples. The trace keeps both under it."""
        return digest(canonical(self.kept))

    @property
    def kept(self) -> Json:
        """What the version is of."""
        examples = [{"inputs": one.inputs, "output": one.output} for one in self.examples]
        return {"name": self.name, "source": self.source, "examples": examples}

    def check(self, given: Mapping[str, Any], path: str = "inputs") -> None:
        """Raises RequestError for an input that is missing, that nobody declared, or that is not what its schema says."""
        for name in given:
            if name not in self.inputs:
                close = get_close_matches(name, self.inputs, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(self.inputs) or 'none'}"
                raise RequestError(f"{path}.{name}: {self.name} has no such input{hint}", param=f"{path}.{name}")
        for name, one in self.inputs.items():
            if given.get(name) is None:
                if one.optional:
                    continue
                raise RequestError(f"{path}.{name}: missing", param=f"{path}.{name}")
            error = next(jsonschema_rs.validator_for(one.schema, offline=True).iter_errors(given[name]), None)
            if error is not None:
                raise RequestError(f"{path}.{name}: {error.message[:300]}", param=f"{path}.{name}")


DECIDED = ("form", "n", "tool_choice")  # of how to sample, elsewhere
KEYS = ("inputs", "output", "sampling", "examples", "shots", "checks", "limits", "model", "hidden")


def _head(source: str) -> tuple[Json, tuple[tuple[str, str], ...]]:
    found = HEAD.match(source)
    try:
        head = (yaml.safe_load(found[1]) if found else None) or {}
    except yaml.YAMLError as e:
        raise DataError(f"the head is not YAML: {_place(e)}") from None
    if not isinstance(head, dict):
        raise DataError(f"the head is {kind_of(head)}; it has keys: {', '.join(KEYS)}")
    body = source[found.end() :] if found else source
    if not body.strip():
        raise DataError("there is no text to send")
    parts = TURN.split(body)
    if len(parts) == 1:
        return head, (("user", body.strip()),)
    if parts[0].strip():
        raise DataError(
            f"text before the first turn: {parts[0].strip()[:60]!r}; begin with a line `system:` or `user:`"
        )
    turns = tuple((role, text.strip()) for role, text in zip(parts[1::2], parts[2::2], strict=True))
    if turns[-1][0] == "system" or any(role == "system" for role, _ in turns[1:]):
        raise DataError("a system turn comes first, and a user turn after it")
    return head, turns


def word(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}: expected a name")
    return value


def _place(error: yaml.YAMLError) -> str:
    """What is wrong and where, on one line; the head begins on the file's second."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        return f"line {mark.line + 2}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _fault(error: Exception) -> str:
    """The first line: what follows it repeats the schema of schemas."""
    return (
        str(error)
        .split("\n")[0]
        .replace("is not valid under any of the schemas listed in the 'anyOf' keyword", "is not allowed there")
    )


def _schema(schema: Json | None) -> Json | None:
    if schema is not None:
        try:
            jsonschema_rs.validator_for(schema, offline=True)
        except (jsonschema_rs.ValidationError, ValueError) as e:
            raise DataError(f"output: is no JSON Schema: {_fault(e)}") from None
    return schema


def _sampling(f: Fields) -> Sampling:
    g = Fields(f.take("sampling", dict, default={}), "sampling")
    hints = {name: get_args(hint) for name, hint in get_type_hints(Sampling).items() if name not in DECIDED}
    row = {name: g.take(name, *_types(kinds), default=None) for name, kinds in hints.items()}
    if unknown := g.rest():
        name = next(iter(unknown))
        if name in DECIDED:
            raise DataError(f"{g.at(name)}: is decided elsewhere; `output` says what an answer must be")
        raise DataError(f"{g.at(name)}: there is no such setting{_near(name, hints)}")
    if not all(isinstance(one, str) for one in row["stop"] or ()):
        raise DataError("sampling.stop: a list of texts is needed")
    try:
        return read_sampling({name: value for name, value in row.items() if value is not None}).check()
    except RequestError as e:
        raise DataError(f"sampling.{e}") from None
    except (TypeError, ValueError):
        raise DataError("sampling.logit_bias: a list of [token id, number] is needed") from None


def _types(kinds: Sequence[type]) -> tuple[type, ...]:
    """As YAML has them."""
    if float in kinds:
        return int, float
    return tuple({one if one in (int, bool) else list for one in kinds if one is not NoneType})


def _near(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"


def _examples(f: Fields, folder: Path, known: Sequence[object] | None) -> tuple[Example, ...]:
    given = f.take("examples", str, list, default=[])
    given = given if known is None else [*known]
    if isinstance(given, list):
        return tuple(Example.from_json(one, f"examples.{n}") for n, one in enumerate(given))
    place = folder / given
    if Path(given).is_absolute() or not place.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"examples: {given} is not in the prompt's own folder")
    return tuple(Example.from_json(row, f"{given}:{line}") for line, row in read_rows(place))


def _shots(f: Fields, inputs: Mapping[str, Input]) -> Shots:
    g = Fields(f.take("shots", dict, default={}), "shots")
    shots = Shots(
        g.take("count", int, default=1_000_000), g.take("choose", str, default="fixed"), g.take("by", str, default="")
    )
    if unknown := g.rest():
        raise DataError(f"{g.at(next(iter(unknown)))}: shots have count, choose and by")
    if shots.choose not in ("fixed", "nearest") or shots.count < 0:
        raise DataError("shots: choose is fixed or nearest, and count is 0 or more")
    if shots.choose == "nearest" and shots.by not in inputs:
        raise DataError(f"shots.by: nearest to which input? {', '.join(inputs) or 'there is none'}")
    return shots


def _limits(f: Fields) -> Limits:
    g = Fields(f.take("limits", dict, default={}), "limits")
    try:
        limits = Limits(**{name: g.take(name, int, float, default=None) for name in names()})
    except RequestError as e:
        raise DataError(f"limits.{e}") from None
    if unknown := g.rest():
        raise DataError(f"{g.at(next(iter(unknown)))}: limits are {', '.join(names())}")
    return limits
