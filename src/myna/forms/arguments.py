"""A tool's arguments as rules, where a model does not write them as one JSON object: a Style says what stands around names
and values. Only what reads back as the same value is derived; where that cannot be said exactly, CannotEnforce.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from jsonschema_rs import CanonicalSchema, canonical

from myna.forms.formats import FORMATS
from myna.forms.lower import DEEPEST, CannotEnforce, Lowering
from myna.forms.lower_objects import Symbols, members
from myna.forms.pattern import bare, without
from myna.forms.rules import quoted, written
from myna.forms.schema import Schema
from myna.records import Style

Value = Callable[[str, CanonicalSchema | None], Symbols]
"""What is written for the value of the argument of a name, and after it. "" is the name of any that is not declared."""

NAME = re.compile(r"[\w.-]+")  # what chat's Scanner.word reads
FREE = "/[A-Za-z_][A-Za-z0-9_]*/"  # names that a schema allows and does not write out
ANYTHING = r"(.|\n)*"
# What a reader takes for a value of these types, where a text may be that as well as a string. Of numbers, lists and objects
# the first character decides: a lexer takes the longest match, and would not come back to a number that a text goes on from.
BLANKS = r"[\s\x1c-\x1f]*"
TAKEN_FOR = {
    "null": rf"~/{BLANKS}null{BLANKS}/",
    "boolean": rf"~/{BLANKS}(true|false){BLANKS}/",
    "number": rf"~/{BLANKS}[-0-9NI](.|\n)*/",
    "array": rf"~/{BLANKS}\[(.|\n)*/",
    "object": rf"~/{BLANKS}\{{(.|\n)*/",
}
SINGLE_QUOTED = r"""/'([^'\\\x00-\x1f\x7f]|\\['"\\nrt])*'/"""


def arguments(
    low: Lowering,
    schema: Schema,
    style: Style,
    kinds: Mapping[str, Collection[str]],
    special: Mapping[str, int],
) -> str:
    """The rule of a tool's arguments.

    kinds     the types that the reader takes an argument to have, where they are known: it decides by them what a text is
    special   control tokens, which no text can spell
    """
    if style.values == "python":
        value = _python(low)
    else:
        text = _Text(low, schema, style, kinds, special)
        value = text.value if style.values == "text" else text.quoted
    one_by_one = _OneByOne(low, style, value, special)
    rule = low.rules.new("arguments")
    for view in _objects(low, schema.canonical):
        low.rules.add(rule, members(low, view, one_by_one) if view else one_by_one.anything())
    return rule


class _OneByOne:
    """Members as a style has them; a Style of lower_objects."""

    def __init__(self, low: Lowering, style: Style, value: Value, special: Mapping[str, int]):
        self._low, self._style, self._value, self._special = low, style, value, special
        self.comma = spelled(style.comma, special)
        self.end: Symbols = ()

    def anything(self) -> str:
        """The rule of members of any names."""
        member = self.free(None, [], [], [], None) or ()
        some = self._low.rules.either([member], "some")
        self._low.rules.add(some, some, *self.comma, *member)
        return self._low.rules.either([[], [some]], "any")

    def named(self, name: str, schema: CanonicalSchema | None) -> Symbols:
        if not NAME.fullmatch(name):
            raise CannotEnforce(("properties",), f"{name!r} cannot be written as a name in this syntax")
        head = self._style.before + name + self._style.between
        return (*spelled(head, self._special), *self._value(name, schema))

    def free(
        self,
        names: canonical.StringView | None,
        matched: list[str],
        unmatched: list[str],
        taken: list[str],
        schema: CanonicalSchema | None,
    ) -> Symbols | None:
        if names is not None or matched:
            return None
        banned = [f"~/{text}/" for text in self._low.patterns(unmatched, bare, "")]
        banned += [f"~/({'|'.join(map(re.escape, taken))})/"] if taken else []
        name = self._low.rules.terminal(" & ".join([FREE, *banned]))
        before, between = (spelled(text, self._special) for text in (self._style.before, self._style.between))
        return (*before, name, *between, *self._value("", schema))


def _python(low: Lowering) -> Value:
    """Values as Python has them, or JSON: the reader takes both, mixed as well."""
    for kind, words in (("boolean", ('"True"', '"False"')), ("null", ('"None"',)), ("string", (SINGLE_QUOTED,))):
        for word in words:
            low.rules.add(low.leaf({"type": kind}), word)
    low.spelled = lambda value: dict.fromkeys((written(value), repr(value) if _has_words(value) else written(value)))
    return lambda _, schema: (low.value(schema),)


def _has_words(value: Any) -> bool:
    return value is None or isinstance(value, bool | str)


class _Text:
    """Values as bare text up to what closes them. Where a value may only be a string it is one, as it stands; else it is JSON, or
    a string where it is no JSON."""

    def __init__(
        self,
        low: Lowering,
        whole: Schema,
        style: Style,
        kinds: Mapping[str, Collection[str]],
        special: Mapping[str, int],
    ):
        self._low, self._whole, self._kinds = low, whole, kinds
        self._after = spelled(style.after, special)
        self._quote = spelled(style.quote, special)
        closes = style.quote or style.after.strip()
        self._never = f"~/{ANYTHING}{re.escape(closes).replace('/', chr(92) + '/')}{ANYTHING}/"

    def value(self, name: str, schema: CanonicalSchema | None) -> Symbols:
        kinds = self._kinds.get(name)
        if kinds is None or "string" not in kinds or schema is None:
            return (self._low.value(schema), *self._after)
        rules, others = self._low.rules, [kind for kind in TAKEN_FOR if kind in kinds]
        rule = rules.new("value")
        for text in self._strings(schema):
            rules.add(rule, *self._closed(" & ".join([text, *(TAKEN_FOR[kind] for kind in others)]), self._after))
        for kind in others:
            part = self._part(schema, kind)
            if kind in ("null", "boolean"):
                for word in _words(part):
                    rules.add(rule, *self._closed(quoted(word), self._after))
            else:
                rules.add(rule, self._low.value(part), *self._after)
        return (rule,)

    def quoted(self, name: str, schema: CanonicalSchema | None) -> Symbols:
        """A value whose strings stand between quotes that they cannot hold; lists and objects are left to JSON in a fence."""
        kinds = self._kinds.get(name)
        if schema is None or not kinds or {"array", "object"} & {*kinds}:
            raise CannotEnforce(("properties",), "lists and objects are not enforced in this syntax")
        rules, rule = self._low.rules, self._low.rules.new("value")
        for text in self._strings(schema) if "string" in kinds else ():
            rules.add(rule, *self._quote, *self._closed(text, self._quote))
        for kind in [kind for kind in TAKEN_FOR if kind in kinds]:
            rules.add(rule, self._low.value(self._part(schema, kind)))
        return (rule,)

    def _closed(self, text: str, closes: Symbols) -> Symbols:
        """A text and what closes it: one terminal where that is no control token, which ends where it first can."""
        inner, (first, *rest) = self._low.rules.terminal(f"{text} & {self._never}"), closes
        if first.startswith('"'):
            return (self._low.rules.terminal(f"{inner} {first}"), *rest)
        return (inner, first, *rest)

    def _part(self, schema: CanonicalSchema, kind: str) -> CanonicalSchema:
        return self._low.resolved(schema).intersect(self._whole.of_type(kind))

    def _strings(self, schema: CanonicalSchema) -> list[str]:
        """Expressions of the strings that a schema allows, as they are."""
        part = self._part(schema, "string")
        match view := part.view():
            case canonical.StringView():
                return [self._string(view)]
            case canonical.MultiTypeView():
                return [f"/{bare(without(()))}*/"]
            case canonical.ConstView():
                return [quoted(str(view.value))]
            case canonical.EnumView():
                return [quoted(str(value)) for value in view.values]
            case canonical.TypedGroupView():
                return self._strings(view.body)
            case canonical.AnyOfView():
                return [text for branch in view.branches for text in self._strings(branch)]
            case canonical.FalseView():
                return []
        raise CannotEnforce(("allOf", "oneOf", "not", "if"), "strings of this form cannot be written without quotes")

    def _string(self, view: canonical.StringView) -> str:
        """The expression of strings as they are."""
        formats = [FORMATS[name] for name in view.formats if name in FORMATS]
        unsaid = len(formats) < len(view.formats) or any(f.native for f in formats) or view.excluded_formats
        if unsaid or view.content_media_types or view.content_encodings:
            raise CannotEnforce(("format",), "strings of this format cannot be written without quotes")
        most = "" if view.max_length is None else view.max_length
        parts = [f"/{bare(without(()))}{{{view.min_length or 0},{most}}}/"]
        patterns, low = [*view.patterns, *(pattern for f in formats for pattern in f.patterns)], self._low
        parts += [f"/{text}/" for text in low.patterns(patterns, bare, "")]
        parts += [f"~/{text}/" for text in low.patterns(view.excluded_patterns, bare, "")]
        parts += [f"~{quoted(text)}" for text in view.excluded]
        return " & ".join(parts)


def _words(part: CanonicalSchema) -> list[str]:
    """null, true, false: those that a schema of these alone allows."""
    match view := part.view():
        case canonical.ConstView():
            return [written(view.value)]
        case canonical.EnumView():
            return [written(value) for value in view.values]
        case canonical.MultiTypeView():
            return ["null"] if "null" in view.types else ["true", "false"]
        case canonical.FalseView():
            return []
    raise CannotEnforce(("allOf", "oneOf", "not", "if"), "such values cannot be written without quotes")


def _objects(low: Lowering, schema: CanonicalSchema, depth: int = 0) -> Iterator[canonical.ObjectView | None]:
    """The objects that a schema allows; None: all objects."""
    match view := schema.view():
        case canonical.ObjectView():
            yield view
        case canonical.TypedGroupView():
            yield from _objects(low, view.body, depth)
        case canonical.AnyOfView() if depth < DEEPEST:
            for branch in view.branches:
                yield from _objects(low, branch, depth + 1)
        case canonical.ReferenceView() if depth < DEEPEST and (target := schema.definition(view.uri)) is not None:
            yield from _objects(low, target, depth + 1)
        case canonical.MultiTypeView() if "object" in view.types:
            yield None
        case _:
            raise CannotEnforce(("allOf", "oneOf", "not", "if"), "such arguments cannot be written one by one")


def spelled(text: str, special: Mapping[str, int]) -> Symbols:
    """A text as terminals, control tokens by their ids."""
    markers = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    pieces = re.split(f"({markers})", text) if markers else [text]
    return tuple(f"<[{special[piece]}]>" if piece in special else quoted(piece) for piece in pieces if piece)
