"""A JSON Schema as a grammar of the texts it allows.

jsonschema-rs brings a schema into a canonical form, in which if/then/else, oneOf, not, dependent* and unevaluated* are
gone wherever that can be done exactly: what is left is alternatives of one type each. Those become rules here, with
llguidance's own reading of strings and numbers at the leaves.

What a grammar cannot say is given up: refused, or (not strict) allowed, and left to the check of the finished answer.
"""

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from jsonschema_rs import CanonicalSchema, canonical
from llguidance import LLMatcher

from myna.forms.formats import FORMATS, NOT_ENFORCED
from myna.forms.lower_arrays import array
from myna.forms.lower_objects import object_
from myna.forms.pattern import ANY, UnsupportedPattern, Writer, characters, literal, searched, spelled
from myna.forms.rules import Rules, quoted, written

WHITESPACE = r" |\n[ \t]{0,24}"  # between JSON's tokens: nothing, a blank, or a line end and indentation
DEEPEST = 120  # brackets, and schemas, inside one another: readers of JSON recurse, and so do we
EXACT_INTEGER = 2**53  # llguidance counts in float64


class CannotEnforce(Exception):
    """What a schema says and a grammar cannot: the keywords that may have said it."""

    def __init__(self, keywords: tuple[str, ...], why: str):
        super().__init__(why)
        self.keywords = keywords


class Lowering:
    """Rules for the values that schemas allow.

    strict   raise CannotEnforce; else allow what a grammar cannot forbid, and note it in `gave_up`
    order    names that an object declares beside those given, in the order to write them
    spelled  how a value that is one token may be written
    """

    def __init__(self, rules: Rules, order: Callable[[Iterable[str]], list[str]], *, strict: bool):
        self.rules = rules
        self.order = order
        self.strict = strict
        self.spelled: Callable[[Any], Iterable[str]] = lambda value: (written(value),)
        self.gave_up: list[CannotEnforce] = []
        self.blank = rules.either([[], [f"/{WHITESPACE}/"]], "blank")
        self.comma = rules.either([[self.blank, '","', self.blank]], "comma")
        self._known: dict[CanonicalSchema, str] = {}
        self._leaves: dict[str, str] = {}
        self._depth = 0

    def value(self, schema: CanonicalSchema | None) -> str:
        """The rule of a schema's values; None allows any."""
        if schema is None:
            return self.leaf({})
        if schema in self._known:
            return self._known[schema]
        rule = self._known[schema] = self.rules.new()
        self._depth += 1
        if self._depth > DEEPEST:
            raise CannotEnforce(("$ref",), f"schemas are nested more than {DEEPEST} deep")
        for symbols in self._options(schema):
            self.rules.add(rule, *symbols)
        self._depth -= 1
        return rule

    def leaf(self, schema: dict[str, Any]) -> str:
        """The rule of what llguidance itself makes of a schema."""
        text = json.dumps(schema | {"x-guidance": {"whitespace_pattern": WHITESPACE}})
        if text not in self._leaves:
            self._leaves[text] = self.rules.either([[f"%json {text}"]], "leaf")
        return self._leaves[text]

    def give_up(self, keywords: str, why: str) -> None:
        """This cannot be enforced: the end of it, or a note."""
        found = CannotEnforce(tuple(keywords.split()), why)
        if self.strict:
            raise found
        self.gave_up.append(found)

    def _options(self, schema: CanonicalSchema) -> Iterable[tuple[str, ...]]:
        """The alternatives of a schema's values."""
        match view := schema.view():
            case canonical.TrueView():
                yield (self.leaf({}),)
            case canonical.FalseView():
                return
            case canonical.MultiTypeView():
                yield from ((self.leaf({"type": name}),) for name in view.types)
            case canonical.TypedGroupView():
                yield from self._options(view.body)
            case canonical.ConstView() | canonical.EnumView():
                yield self.constants([view.value] if isinstance(view, canonical.ConstView) else view.values)
            case canonical.StringView():
                yield (self.string(view),)
            case canonical.IntegerView() | canonical.NumberView():
                yield (self._number(view),)
            case canonical.ArrayView():
                yield (array(self, view),)
            case canonical.ObjectView():
                yield (object_(self, view),)
            case canonical.AnyOfView():
                for branch in view.branches:
                    yield (self.value(branch),)
            case canonical.ReferenceView():
                target = schema.definition(view.uri)
                yield (self.value(target),)
            case canonical.AllOfView():
                yield (self._all_of(view.branches),)
            case canonical.OneOfView():
                yield from self._one_of(view.branches)
            case canonical.NotView():
                self.give_up("not oneOf if", "what is excluded is too much to write down")
                yield (self.leaf({}),)
            case _:
                self.give_up(
                    "$dynamicRef unevaluatedProperties unevaluatedItems $vocabulary", "it cannot be simplified"
                )
                yield (self.leaf({}),)

    def _all_of(self, branches: list[CanonicalSchema]) -> str:
        """Together where that can be said exactly; the definitions of references are looked into."""
        whole, *rest = (self.resolved(branch) for branch in branches)
        for branch in rest:
            whole = whole.intersect(branch)
        if isinstance(whole.view(), canonical.AllOfView | canonical.RawView):
            self.give_up("allOf $ref", "schemas that refer to themselves cannot be joined")
            return self.value(branches[0])
        return self.value(whole)

    def _one_of(self, branches: list[CanonicalSchema]) -> Iterable[tuple[str, ...]]:
        for i, branch in enumerate(branches):
            others, alone = [b for k, b in enumerate(branches) if k != i], self.resolved(branch)
            try:
                for other in others:
                    alone = alone.subtract(self.resolved(other))
            except ValueError as e:
                self.give_up("oneOf", str(e))
                alone = branch
            yield (self.value(alone),)

    def resolved(self, schema: CanonicalSchema) -> CanonicalSchema:
        """What a reference refers to; else the schema itself."""
        for _ in range(DEEPEST):
            view = schema.view()
            target = schema.definition(view.uri) if isinstance(view, canonical.ReferenceView) else None
            if target is None:
                break
            schema = target
        return schema

    def constants(self, values: list[Any]) -> tuple[str, ...]:
        """One of these values. Those that are one token of JSON share a terminal, so that thousands are no burden."""
        simple = [value for value in values if not isinstance(value, list | dict)]
        rule = self.rules.new("const")
        if simple:
            self.rules.add(
                rule, self.rules.terminal(" | ".join(quoted(text) for value in simple for text in self.spelled(value)))
            )
        for value in values:
            if isinstance(value, list):
                self.rules.add(rule, *self._listed('"["', [(self.constants([item])[0],) for item in value], '"]"'))
            elif isinstance(value, dict):
                names = sorted(value, key=self.order(value).index)
                members = [
                    (quoted(written(name)), self.blank, '":"', self.blank, self.constants([value[name]])[0])
                    for name in names
                ]
                self.rules.add(rule, *self._listed('"{"', members, '"}"'))
        return (rule,)

    def _listed(self, opening: str, items: Iterable[tuple[str, ...]], closing: str) -> Iterable[str]:
        inner = [symbol for item in items for symbol in (self.comma, *item)][1:]
        return (opening, self.blank, *inner, *([self.blank] if inner else []), closing)

    def string(self, view: canonical.StringView) -> str:
        """Strings. Where something is excluded, the whole is said of their text, so that it can be."""
        formats = [FORMATS[name] for name in view.formats if name in FORMATS]
        for name in view.formats:
            if name in NOT_ENFORCED:
                self.give_up("format", f"the format {name!r} cannot be enforced")
        if view.excluded_formats:
            self.give_up("not oneOf if", "a format cannot be excluded")
        if view.content_media_types or view.content_encodings:
            self.give_up("contentMediaType contentEncoding", "the content of strings cannot be enforced")
        patterns = [*map(spelled, view.patterns), *(pattern for f in formats for pattern in f.patterns)]
        if not view.excluded and not view.excluded_patterns and not any(map(_differs, patterns)):
            said: dict[str, Any] = {"type": "string"}
            said |= {} if view.min_length is None else {"minLength": view.min_length}
            said |= {} if view.max_length is None else {"maxLength": view.max_length}
            parts = [{"pattern": pattern} for pattern in patterns if self._is_read(pattern)]
            parts += [{"format": f.native} for f in formats if f.native]
            return self.leaf(said | ({"allOf": parts} if parts else {}))
        for f in formats:
            if f.native:
                self.give_up("format", "a format beside patterns and exclusions cannot be enforced")
        return self.rules.either([[self.text(view, patterns)]])

    def text(
        self,
        view: canonical.StringView | None,
        patterns: Iterable[str],
        excluded: Iterable[str] = (),
        unmatched: Iterable[str] = (),
    ) -> str:
        """The terminal of strings as they are written: of a length, matching, not matching, and none of `excluded`."""
        low, high = (view.min_length or 0, view.max_length) if view else (0, None)
        parts = [f'/"{ANY}{{{low},{"" if high is None else high}}}"/']
        parts += [f"/{text}/" for text in self.patterns(patterns)]
        parts += [f"~/{text}/" for text in self.patterns([*unmatched, *(view.excluded_patterns if view else ())])]
        excluded = [*excluded, *(view.excluded if view else ())]
        if excluded:
            parts.append(f'~/"({"|".join(map(literal, excluded))})"/')
        return self.rules.terminal(" & ".join(parts))

    def _is_read(self, pattern: str) -> bool:
        if problem := _unread(pattern):
            self.give_up("pattern", f"the pattern {pattern!r} cannot be enforced: {problem}")
        return not problem

    def patterns(self, patterns: Iterable[str], write: Writer = characters, quote: str = '"') -> Iterable[str]:
        """Expressions of the strings that match; those that cannot be read are given up."""
        for pattern in patterns:
            try:
                yield searched(pattern, write, quote)
            except UnsupportedPattern as e:
                self.give_up("pattern patternProperties", f"the pattern {pattern!r} cannot be excluded: {e}")

    def _number(self, view: canonical.IntegerView | canonical.NumberView) -> str:
        bounds = (view.minimum, view.maximum, *view.multiple_of, *view.not_multiple_of)
        fraction = getattr(view, "excludes_integers", False) or [*view.not_multiple_of] == [1]
        if fraction and bounds in ((None, None), (None, None, 1)):
            return self.rules.terminal(r"/-?(0|[1-9][0-9]*)\.[0-9]*[1-9][0-9]*/")
        if view.not_multiple_of or getattr(view, "excludes_integers", False):
            self.give_up("not oneOf if", "numbers cannot be excluded by a divisor")
        whole = isinstance(view, canonical.IntegerView)
        said: dict[str, Any] = {"type": "integer" if whole else "number"}
        for name, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if (bound := getattr(view, name)) is not None:
                strictly = not whole and getattr(view, f"exclusive_{name}")
                said[exclusive if strictly else name] = self._exact(bound, name)
        if len(view.multiple_of) == 1:
            said["multipleOf"] = self._exact(view.multiple_of[0], "multipleOf")
        elif view.multiple_of:
            said["allOf"] = [{"multipleOf": self._exact(number, "multipleOf")} for number in view.multiple_of]
        return self.leaf(said)

    def _exact(self, number: int | float | Decimal, keyword: str) -> int | float:
        """The number as float64 and integers can say it."""
        exact = Decimal(str(number))
        digits = len(exact.normalize().as_tuple().digits)
        if abs(exact) > EXACT_INTEGER or digits > (8 if keyword == "multipleOf" else 16) or 0 < abs(exact) < 1e-9:
            self.give_up(keyword, f"{number} has more digits than can be enforced")
        if number == (integer := int(number)):
            return integer
        return float(number)


@lru_cache(1024)
def _unread(pattern: str) -> str:
    """Why llguidance does not read a pattern; "" where it does."""
    schema = {"type": "string", "pattern": pattern}
    problem = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema))
    return problem.partition("error: ")[2].partition("\n")[0] or problem


def _differs(pattern: str) -> bool:
    """Whether a pattern may mean another thing to llguidance than to ECMA-262: what blanks and line ends are."""
    return "\\s" in pattern or "\\S" in pattern or "." in pattern.replace("\\.", "")
