"""Checks by name, with their arguments, as a prompt file, a command line and a training configuration write them:

    number                          one that takes none
    length: {most: 200}             one with arguments
    [number, length: {most: 200}]   several: all must pass

Arguments are the keyword-only parameters of the function that makes a check, and are held to their types. What it takes by position
(a provider, a guard of SQL, a queue of reviews) is not a user's to write: whoever makes the check gives it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any, Self, get_type_hints

from myna.checks.check import AnyCheck, all_of
from myna.records import DataError

# Name -> the module that has it.
PLAIN = {"exact": "match", "number": "match", "contains": "match"}
MADE = {
    **dict.fromkeys(("length", "includes", "excludes", "regex", "language"), "text"),
    **dict.fromkeys(("grounding", "entailment"), "grounding"),
    **dict.fromkeys(("judge", "preferred"), "judge"),
    **{name: name for name in ("schema", "pii", "moderation", "citation", "sql")},
    "human": "reviews",
}


@dataclass(frozen=True)
class Named:
    """A check's name and its arguments, which fit it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, path: str = "check") -> Self:
        """From "length" or {"length": {"most": 200}}. Raises DataError naming the check or the argument."""
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            raise DataError(f"{path}: a check is a name, or one name with its arguments: {{length: {{most: 200}}}}")
        ((name, arguments),) = value.items()
        if name not in PLAIN and name not in MADE:
            raise DataError(
                f"{path}: {name!r} is not a check; these are: {', '.join(sorted({**PLAIN, **MADE}))}{_near(name, [*PLAIN, *MADE])}"
            )
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, dict):
            raise DataError(f"{path}.{name}: arguments have names: {{{name}: {{NAME: VALUE}}}}")
        if name in PLAIN:
            if arguments:
                raise DataError(f"{path}.{name}: takes no arguments")
            return cls(name)
        _fit(name, arguments, f"{path}.{name}")
        named = cls(name, arguments)
        if not named.needs:
            named.make()  # so that an expression that is none is found here
        return named

    @property
    def needs(self) -> tuple[str, ...]:
        """What whoever makes it must give."""
        return () if self.name in PLAIN else _needed(self.name)

    def make(self, **given: object) -> AnyCheck:
        """The check. Raises DataError where it needs what is not given."""
        if self.name in PLAIN:
            check: AnyCheck = getattr(import_module(f"myna.checks.{PLAIN[self.name]}"), self.name)
            return check
        if missing := [name for name in self.needs if given.get(name) is None]:
            raise DataError(f"the check {self.name} needs a {missing[0].replace('_', ' ')}, which is not given here")
        made: AnyCheck = _maker(self.name)(*(given[name] for name in self.needs), **self.arguments)
        return made


def named(spec: object, **given: object) -> AnyCheck:
    """The check, or all of the checks, that a text or a value of the form above names. Raises DataError."""
    if isinstance(spec, str) and spec not in PLAIN and spec not in MADE:
        import yaml

        try:
            spec = yaml.safe_load(spec)
        except yaml.YAMLError as e:
            raise DataError(f"{str(spec)[:80]!r} names no check: {getattr(e, 'problem', None) or e}") from None
    if isinstance(spec, list):
        some = [Named.from_json(one, f"checks.{n}") for n, one in enumerate(spec)]
        return all_of({name: one.make(**given) for name, one in distinct(some).items()})
    return Named.from_json(spec).make(**given)


def distinct(checks: Sequence[Named]) -> dict[str, Named]:
    """Each by a name of its own: judge, judge 2."""
    found: dict[str, Named] = {}
    for one in checks:
        number = sum(other.name == one.name for other in found.values()) + 1
        found[one.name if number == 1 else f"{one.name} {number}"] = one
    return found


@cache
def _maker(name: str) -> Callable[..., AnyCheck]:
    made: Callable[..., AnyCheck] = getattr(import_module(f"myna.checks.{MADE[name]}"), name)
    return made


def _needed(name: str) -> tuple[str, ...]:
    parameters = inspect.signature(_maker(name)).parameters.values()
    return tuple(one.name for one in parameters if one.kind is not one.KEYWORD_ONLY)


def _fit(name: str, arguments: Mapping[str, Any], path: str) -> None:
    """Raises DataError for an argument that the check does not have, that is missing, or that is of another type."""
    parameters = inspect.signature(_maker(name)).parameters.values()
    known = {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY}
    for given in arguments:
        if given not in known:
            raise DataError(f"{path}.{given}: it has {', '.join(known) or 'no arguments'}{_near(given, [*known])}")
    for one in known.values():
        if one.default is one.empty and one.name not in arguments:
            raise DataError(f"{path}.{one.name}: missing")
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hints = get_type_hints(_maker(name))
    for given, value in arguments.items():
        try:
            TypeAdapter(hints[given], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as e:
            raise DataError(f"{path}.{given}: {e.errors()[0]['msg']}, found {str(value)[:60]!r}") from None


def _near(name: object, known: list[str]) -> str:
    """The name that was probably meant: like it, and with the same first letter (`mean` is not human, `rouge` is no regex)."""
    begun = [one for one in known if one[:1] == str(name)[:1].lower()]
    close = get_close_matches(str(name), begun, n=1, cutoff=0.65)
    return f". Did you mean {close[0]}?" if close else "."
