"""Arrays as rules: a state for each count that matters (items so far, how many `contains` matches, values used up)."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jsonschema_rs import CanonicalSchema, canonical

from myna.forms.rules import quoted, written

if TYPE_CHECKING:
    from myna.forms.lower import Lowering

MOST_VALUES = 6  # values an item may have where no two may be equal: 64 sets of those used up
LONGEST = 64  # items up to which `contains` is counted beside their number
PLAIN = 32  # items up to which each gets a state


@dataclass(frozen=True)
class _At:
    """A place in an array: items so far (as far as it matters), items that matched `contains`, and values used up."""

    length: int = 0
    matched: int = 0
    used: frozenset[str] = frozenset()


def array(low: "Lowering", view: canonical.ArrayView) -> str:
    """The rule of the arrays that a view allows."""
    built = _Array(low, view)
    return low.rules.either([['"["', low.blank, built.items(), '"]"']], "array")


class _Array:
    def __init__(self, low: "Lowering", view: canonical.ArrayView):
        self.low, self.rules = low, low.rules
        self.prefix, self.rest = view.prefix_items, view.items
        self.least, self.most = view.min_items or 0, view.max_items
        self.contains = self._contains(view)
        self.distinct = self._distinct(view)
        self._known: dict[_At, str] = {}

    def items(self) -> str:
        """The rule of what stands between the brackets."""
        return self._tail(_At())

    def _contains(self, view: canonical.ArrayView) -> canonical.ContainsView | None:
        if len(view.contains) > 1:
            self.low.give_up("contains", "several `contains` at once cannot be enforced")
        found = view.contains[0] if view.contains else None
        if found and self._last() > LONGEST:
            self.low.give_up("contains", f"`contains` in arrays of {self._last()} items and more cannot be enforced")
            return None
        return found

    def _distinct(self, view: canonical.ArrayView) -> bool:
        """Whether used values have to be counted. Only few different values can be."""
        if view.distinctness == canonical.Distinctness.UNCONSTRAINED:
            return False
        if view.distinctness == canonical.Distinctness.SOME_REPEATED:
            self.low.give_up("uniqueItems not", "that some items are equal cannot be enforced")
            return False
        if self.most is not None and self.most < 2:
            return False
        kinds = [*self.prefix[: self.most], *([self.rest] if self.most is None or self.most > len(self.prefix) else [])]
        values = {text for kind in kinds for text in (_values(self.low, kind) or [""])}
        if "" in values or len(values) > MOST_VALUES:
            why = f"equal items can be told apart only among {MOST_VALUES} values"
            self.low.give_up("uniqueItems", why)
            return False
        return True

    def _tail(self, at: _At) -> str:
        """The rule of all that may follow from here on, up to the bracket."""
        if at in self._known:
            return self._known[at]
        if not self.contains and not self.distinct and at.length >= len(self.prefix) and self._is_long(at):
            rule = self._known[at] = self._repeated(at)
            return rule
        rule = self._known[at] = self.rules.new("items")
        needed = (self.contains.min_contains if self.contains.min_contains is not None else 1) if self.contains else 0
        if at.length >= self.least and at.matched >= needed:
            self.rules.add(rule, self.low.blank if at.length else "")
        if self.most is None or at.length < self.most:
            for item, after in self._items(at):
                self.rules.add(rule, self.low.comma if at.length else "", item, self._tail(after))
        return rule

    def _is_long(self, at: _At) -> bool:
        return self.most is None or self.most - at.length > PLAIN

    def _repeated(self, at: _At) -> str:
        """So many more of the same, without a state for each."""
        item, blank = self.low.value(self.rest), self.low.blank
        least, most = max(self.least - at.length, 0), None if self.most is None else self.most - at.length
        options = [[blank if at.length else ""]] if least == 0 else []
        first = [] if at.length else [item]
        if first:  # the first has no comma before it
            options += [[item, blank]] if least <= 1 else []
            least, most = least - 1, None if most is None else most - 1
        more = self.rules.either([[self.low.comma, item]], "more")
        options.append([*first, f"{more}{{{max(least, 1)},{'' if most is None else most}}}", blank])
        return self.rules.either(options, "items")

    def _items(self, at: _At) -> list[tuple[str, _At]]:
        """What the next item may be, and where that leads."""
        kind = self.prefix[at.length] if at.length < len(self.prefix) else self.rest
        following = replace(at, length=min(at.length + 1, self._last()))
        if self.distinct:
            texts = [text for text in _values(self.low, kind) or [] if text not in at.used]
            if self.contains:
                self.low.give_up("contains uniqueItems", "both together cannot be enforced")
            return [(quoted(text), replace(following, used=at.used | {text})) for text in texts]
        if self.contains:
            return self._matching(at, kind, following)
        return [(self.low.value(kind), following)]

    def _matching(self, at: _At, kind: CanonicalSchema | None, following: _At) -> list[tuple[str, _At]]:
        """Items that match `contains` and those that do not, as far as both still matter."""
        assert self.contains is not None
        least = self.contains.min_contains if self.contains.min_contains is not None else 1
        most = self.contains.max_contains
        if most is None and at.matched >= least:
            return [(self.low.value(kind), following)]
        both = self.contains.schema if kind is None else kind.intersect(self.contains.schema)
        options = []
        if most is None:  # any item may also be one that was not counted
            options.append((self.low.value(kind), following))
        else:
            try:
                other = self.contains.schema.negate()
                options.append((self.low.value(other if kind is None else kind.intersect(other)), following))
            except ValueError as e:
                self.low.give_up("maxContains contains", str(e))
                options.append((self.low.value(kind), following))
        if most is None or at.matched < most:
            options.append((self.low.value(both), replace(following, matched=at.matched + 1)))
        return options

    def _last(self) -> int:
        """The length from which on it does not matter any more; 1 at least, for the comma."""
        if self.most is not None:
            return self.most
        return max(len(self.prefix), self.least, 1)


def _values(low: "Lowering", schema: CanonicalSchema | None) -> list[str] | None:
    """The few values of a schema as JSON writes them; None where they are more, or no single tokens."""
    if schema is None:
        return None
    view = schema.view()
    values: list[Any]
    if isinstance(view, canonical.ConstView):
        values = [view.value]
    elif isinstance(view, canonical.EnumView):
        values = view.values
    elif isinstance(view, canonical.FalseView):
        values = []
    elif isinstance(view, canonical.MultiTypeView) and set(view.types) <= {"null", "boolean"}:
        values = [*([None] if "null" in view.types else []), *([False, True] if "boolean" in view.types else [])]
    elif isinstance(view, canonical.AnyOfView):
        parts = [_values(low, branch) for branch in view.branches]
        return None if None in parts else [text for part in parts for text in part or []]
    else:
        return None
    return None if any(isinstance(value, list | dict) for value in values) else [written(value) for value in values]
