"""Objects as rules: named members in the order in which the schema declares them, then any others."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol

from jsonschema_rs import CanonicalSchema, canonical, canonicalize, is_valid

from myna.forms.rules import quoted, written

if TYPE_CHECKING:
    from myna.forms.lower import Lowering

MOST_PATTERNS = 4  # of names, that may overlap: 16 kinds of names
MOST_COUNTED = 64  # members, where their number is limited


Symbols = tuple[str, ...]


class Style(Protocol):
    """How members are written. comma: between two; end: after the last."""

    comma: Symbols
    end: Symbols

    def named(self, name: str, schema: CanonicalSchema | None) -> Symbols:
        """The member of this name."""

    def free(
        self,
        names: canonical.StringView | None,
        matched: list[str],
        unmatched: list[str],
        taken: list[str],
        schema: CanonicalSchema | None,
    ) -> Symbols | None:
        """Members of all names of this form that match these expressions and not those, and none that is taken. None:
        nobody can write them."""


class Json:
    """Members as JSON has them."""

    def __init__(self, low: "Lowering"):
        self._low = low
        self.comma: Symbols = (low.comma,)
        self.end: Symbols = (low.blank,)
        self._colon = (low.blank, '":"', low.blank)

    def named(self, name: str, schema: CanonicalSchema | None) -> Symbols:
        return (quoted(written(name)), *self._colon, self._low.value(schema))

    def free(
        self,
        names: canonical.StringView | None,
        matched: list[str],
        unmatched: list[str],
        taken: list[str],
        schema: CanonicalSchema | None,
    ) -> Symbols:
        matched = [*matched, *(names.patterns if names else ())]
        return (self._low.text(names, matched, taken, unmatched), *self._colon, self._low.value(schema))


def object_(low: "Lowering", view: canonical.ObjectView) -> str:
    """The rule of the objects that a view allows."""
    return low.rules.either([['"{"', low.blank, members(low, view, Json(low)), '"}"']], "object")


def members(low: "Lowering", view: canonical.ObjectView, style: Style) -> str:
    """The rule of an object's members."""
    return _Object(low, view, style).members()


class _Object:
    def __init__(self, low: "Lowering", view: canonical.ObjectView, style: Style):
        self.low, self.rules, self.view, self.style = low, low.rules, view, style
        self.properties, self.required = (
            view.properties,
            dict.fromkeys(view.required),
        )  # a view builds them anew each time
        if view.violations:
            low.give_up("not oneOf if", "that some member breaks a rule cannot be enforced")
        self.least, self.most = view.min_properties or 0, view.max_properties
        self.names = self._names()
        self.others = [*self._others()]
        self._check_counts()
        self._known: dict[tuple[int, int], str] = {}

    def members(self) -> str:
        """The rule of what stands between the braces."""
        for index in range(len(self.names), -1, -1):  # from the end: an object may have thousands of names
            for count in range(self._last(), -1, -1):
                self._known[index, count] = self._tail(index, count)
        return self._known[0, 0]

    def _names(self) -> list[tuple[str, Symbols, bool]]:
        """Names written out, with their member and whether they must be there, in order."""
        view, patterns, found = self.view, self.view.pattern_properties, []
        all_names: Any = view.property_names.to_json_schema() if view.property_names else None
        known = [*self.properties, *self.required, *self._closed()]
        for name in self.low.order(known):
            if all_names is None or is_valid(all_names, name):
                found.append((name, self.style.named(name, self._value_of(name, patterns)), name in self.required))
            elif name in self.required:
                found.append((name, (self.rules.new("never"),), True))
        return found

    def _closed(self) -> list[str]:
        """All names there may be, where the schema lists them."""
        found: list[str] = []
        for names in _alternatives(self.view.property_names):
            if isinstance(names, canonical.ConstView):
                found.append(str(names.value))
            elif isinstance(names, canonical.EnumView):
                found += map(str, names.values)
        return found

    def _value_of(self, name: str, patterns: Mapping[str, CanonicalSchema]) -> CanonicalSchema | None:
        matching = [schema for pattern, schema in patterns.items() if is_valid({"pattern": pattern}, name)]
        if name in self.properties:
            return _joined([self.properties[name], *matching])
        return _joined(matching) if matching else self.view.additional_properties

    def _others(self) -> Iterable[Symbols]:
        """The members of all other names."""
        for names in _alternatives(self.view.property_names):
            if isinstance(names, canonical.ConstView | canonical.EnumView | canonical.FalseView):
                continue  # those have been written out
            if isinstance(names, canonical.StringView):
                if names.formats or names.excluded_formats:
                    self.low.give_up("propertyNames format", "the format of names cannot be enforced")
                yield from self._kinds(names)
                continue
            if not isinstance(names, canonical.MultiTypeView | canonical.TrueView):
                self.low.give_up("propertyNames", "these names cannot be enforced")
            yield from self._kinds(None)

    def _kinds(self, names: canonical.StringView | None) -> Iterable[Symbols]:
        """Names of this form, one kind for each set of patterns that they may match."""
        view, taken = self.view, [name for name, _, _ in self.names]
        patterns = [*view.pattern_properties]
        if len(patterns) > MOST_PATTERNS:
            self.low.give_up("patternProperties", f"more than {MOST_PATTERNS} patterns of names cannot be enforced")
            patterns = patterns[:MOST_PATTERNS]
        for count in range(len(patterns) + 1):
            for matched in combinations(patterns, count):
                value = (
                    _joined([view.pattern_properties[p] for p in matched]) if matched else view.additional_properties
                )
                unmatched = [p for p in patterns if p not in matched]
                if value is None or not isinstance(value.view(), canonical.FalseView):
                    member = self.style.free(names, [*matched], unmatched, taken, value)
                    yield from () if member is None else (member,)

    def _check_counts(self) -> None:
        """Names nobody wrote out may come twice, and would be counted twice; and states are kept few."""
        if not self.others and self.most is not None and self.most >= len(self.names):
            self.most = None
        if self.others and self.least > len([1 for _, _, needed in self.names if needed]) + 1:
            self.low.give_up("minProperties", "that so many free names differ cannot be enforced")
            self.least = 0
        if max(self.least, self.most or 0) > MOST_COUNTED:
            self.low.give_up("minProperties maxProperties", f"more than {MOST_COUNTED} members cannot be counted")
            self.least, self.most = min(self.least, MOST_COUNTED), None

    def _tail(self, index: int, count: int) -> str:
        """The rule of all that may follow the members before `index`, of which `count` are there (as far as it matters)."""
        rule = self._known[index, count] = self.rules.new("members")
        full = self.most is not None and count >= self.most
        comma, after = self.style.comma if count else (), self._counted(count)
        if index < len(self.names):
            _, member, needed = self.names[index]
            if not full:
                self.rules.add(rule, *comma, *member, self._known[index + 1, after])
            if not needed:
                self.rules.add(rule, self._known[index + 1, count])
            return rule
        if count >= self.least:
            self.rules.add(rule, *(self.style.end if count else ()))
        for member in self.others if not full else ():
            following = rule if after == count else self._known[index, after]
            self.rules.add(rule, *comma, *member, following)
        return rule

    def _counted(self, count: int) -> int:
        return min(count + 1, self._last())

    def _last(self) -> int:
        """The count from which on it does not matter any more; 1 at least, for the comma."""
        return max(self.least, 1) if self.most is None else max(self.most, 1)


def _joined(schemas: list[CanonicalSchema]) -> CanonicalSchema:
    whole, *rest = schemas
    for schema in rest:
        whole = whole.intersect(schema)
    return whole


def _alternatives(names: CanonicalSchema | None) -> Iterable[canonical.CanonicalViewType]:
    """What the names may be, one form after the other."""
    if names is None:
        return [canonicalize(True).view()]
    view = names.view()
    return [branch.view() for branch in view.branches] if isinstance(view, canonical.AnyOfView) else [view]
