"""A context-free grammar while it is put together, and how llguidance reads it."""

import json
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

MOST = 30_000  # alternatives; a schema that needs more is refused
LONGEST = 5.0  # seconds from the first rule to the last


class TooLarge(Exception):
    """The grammar outgrew its limit."""


class Rules:
    """Rules by name, each a list of alternatives, each a sequence of rule names and terminals.

    A rule's name may be followed by how often it comes, "items7{1,5}". A terminal is what Lark takes for one: a quoted text, /an expression/, the name of a `terminal`, or %json and a schema.
    """

    def __init__(self) -> None:
        self._rules: dict[str, list[tuple[str, ...]]] = {}
        self._terminals: dict[str, str] = {}
        self._size = 0
        self._end = time.monotonic() + LONGEST

    def new(self, hint: str = "r") -> str:
        """A rule without alternatives: until it gets some, nothing is derived from it."""
        name = f"{hint}{len(self._rules)}"
        self._rules[name] = []
        return name

    def add(self, rule: str, *symbols: str) -> None:
        """One more alternative. "" is nothing at all, and adds nothing."""
        self._size += 1
        if self._size > MOST:
            raise TooLarge(f"it would take more than {MOST} rules")
        if time.monotonic() > self._end:
            raise TooLarge(f"it takes longer than {LONGEST:g} seconds")
        self._rules[rule].append(tuple(symbol for symbol in symbols if symbol))

    def either(self, options: Iterable[Sequence[str]], hint: str = "r") -> str:
        """A rule of these alternatives."""
        rule = self.new(hint)
        for symbols in options:
            self.add(rule, *symbols)
        return rule

    def terminal(self, expression: str) -> str:
        """The name of a terminal: expressions joined by & and ~."""
        return self._terminals.setdefault(expression, f"T{len(self._terminals)}")

    def lark(self, start: str) -> str | None:
        """The grammar's text; None where nothing is derived from `start`.

        Alternatives that never come to an end are left out: an answer that began one could not be finished.
        """
        productive = self._productive()
        if start not in productive:
            return None
        reached = self._reached(start, productive)
        lines = [f"start: {start}"]
        for name in reached:
            options = [" ".join(option) or '""' for option in self._rules[name] if self._ends(option, productive)]
            lines.append(f"{name}: " + " | ".join(dict.fromkeys(options)))
        lines += [f"{name}: {expression}" for expression, name in self._terminals.items()]
        return "\n".join(lines)

    def _ends(self, option: tuple[str, ...], productive: set[str]) -> bool:
        return all(rule not in self._rules or rule in productive for rule in map(_rule, option))

    def _productive(self) -> set[str]:
        """Rules from which a text is derived. Each is looked at again only when one it waits for turned out to be."""
        waiting: dict[str, list[tuple[str, int]]] = {}
        missing: dict[tuple[str, int], int] = {}
        found: list[str] = []
        for name, options in self._rules.items():
            for i, option in enumerate(options):
                needs = {rule for rule in map(_rule, option) if rule in self._rules}
                missing[name, i] = len(needs)
                for symbol in needs:
                    waiting.setdefault(symbol, []).append((name, i))
                if not needs:
                    found.append(name)
        productive: set[str] = set()
        while found:
            name = found.pop()
            if name in productive:
                continue
            productive.add(name)
            for place in waiting.get(name, ()):
                missing[place] -= 1
                if missing[place] == 0:
                    found.append(place[0])
        return productive

    def _reached(self, start: str, productive: set[str]) -> list[str]:
        reached, todo = {start: None}, [start]
        while todo:
            for option in self._rules[todo.pop()]:
                for rule in map(_rule, option) if self._ends(option, productive) else ():
                    if rule in self._rules and rule not in reached:
                        reached[rule] = None
                        todo.append(rule)
        return [*reached]


def written(value: Any) -> str:
    """A value that is one token of JSON, as it is written: an integer without a fraction."""
    if isinstance(value, Decimal | float) and value == int(value):
        value = int(value)
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


def quoted(text: str) -> str:
    """A text as a terminal."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _rule(symbol: str) -> str:
    """The rule that a symbol names, if it names any."""
    return symbol.partition("{")[0]
