"""Structural tags: free text, in which after each of some triggers a schema holds (vLLM's and SGLang's `structural_tag`).

{"type": "structural_tag", "triggers": ["<f="],
 "structures": [{"begin": "<f=name>", "schema": {...}, "end": "</f>"}]}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from myna.forms.rules import Rules, quoted
from myna.forms.schema import Reader, Schema, SchemaError

MOST = 256  # structures


@dataclass(frozen=True)
class Structure:
    """What begins with `begin`, which begins with `trigger`, holds JSON of the schema, then `end`."""

    trigger: str
    begin: str
    schema: Schema
    end: str


class Tags:
    """Raises SchemaError where the source is no structural tag."""

    def __init__(self, source: str):
        try:
            found = json.loads(source)
        except (ValueError, RecursionError) as e:
            raise SchemaError(f"it is not JSON: {e}") from None
        if not isinstance(found, dict) or "structures" not in found or "triggers" not in found:
            raise SchemaError("it needs `structures` and `triggers`; other kinds of structural tags are not supported")
        self.triggers = _texts(found["triggers"])
        rows = found["structures"]
        if not isinstance(rows, list) or not 1 <= len(rows) <= MOST:
            raise SchemaError(f"`structures` must be a list of 1 to {MOST} objects")
        self.structures = [self._structure(row, i) for i, row in enumerate(rows)]

    def _structure(self, row: Any, i: int) -> Structure:
        if not isinstance(row, dict) or not isinstance(row.get("begin"), str) or not isinstance(row.get("end"), str):
            raise SchemaError(f"structures.{i} needs the texts `begin` and `end`, and a `schema`")
        triggers = [trigger for trigger in self.triggers if row["begin"].startswith(trigger)]
        if not triggers:
            raise SchemaError(f"structures.{i} begins with none of the triggers")
        try:
            return Structure(
                max(triggers, key=len), row["begin"], Schema(json.dumps(row.get("schema", {}))), row["end"]
            )
        except SchemaError as e:
            raise SchemaError(f"structures.{i}.schema: {e}") from None

    def rules(self, rules: Rules, special: Mapping[str, int], *, strict: bool) -> tuple[str, list[str]]:
        """(the rule of whole answers, what is left to `check`). `special`: control tokens, which no text can spell."""
        anything = r"/(.|\n)*/"
        none = " & ".join([anything, *(f"~{_around(t)}" for t in self.triggers if t not in special)])
        plain, left = rules.terminal(none), []
        text = rules.either([[], [plain]], "text")
        tags = rules.new("tags")
        rules.add(tags)
        for structure in self.structures:
            trigger = structure.trigger
            inner, more = structure.schema.rules(rules, strict=strict)
            left += more
            if trigger in special:
                head = [text, f"<[{special[trigger]}]>"]
            else:  # the text up to the trigger and the trigger are one terminal, which ends where the first trigger does
                once = " & ".join(f"~{_around(t, after='+')}" for t in self.triggers if t not in special)
                head = [rules.terminal(f"{_around(trigger, after='{0}')} & {once}")]
            begin = structure.begin.removeprefix(trigger)
            rules.add(tags, tags, *head, quoted(begin) if begin else "", inner, *_spelled(structure.end, special))
        return rules.either([[tags, text]], "answer"), left

    def check(self, text: str) -> str | None:
        """Why a finished answer does not have this form."""
        at = 0
        while (found := min(((i, t) for t in self.triggers if (i := text.find(t, at)) >= 0), default=None)) is not None:
            start = found[0]
            problem, at = self._follow(text, start)
            if problem:
                return problem
        return None

    def _follow(self, text: str, start: int) -> tuple[str | None, int]:
        problem: str | None = f"at {start}: no structure begins so"
        for structure in self.structures:
            if text.startswith(structure.begin, start):
                inside = start + len(structure.begin)
                try:
                    value, end = Reader().raw_decode(text, inside)
                except (ValueError, RecursionError):
                    problem = f"at {inside}: no JSON"
                    continue
                problem = structure.schema.check(value)
                if problem is None and text.startswith(structure.end, end):
                    return None, end + len(structure.end)
                problem = problem or f"at {end}: {structure.end!r} is missing"
        return problem, start


def _texts(found: Any) -> list[str]:
    if not isinstance(found, list) or not found or not all(isinstance(text, str) and text for text in found):
        raise SchemaError("`triggers` must be a list of texts, none of them empty")
    return found


def _around(text: str, after: str = "*") -> str:
    """Texts that hold this one, with more behind it or not."""
    return f"/(.|\\n)*{re.escape(text).replace('/', chr(92) + '/')}(.|\\n){after}/"


def _spelled(text: str, special: Mapping[str, int]) -> list[str]:
    if text in special:
        return [f"<[{special[text]}]>"]
    return [quoted(text)] if text else []
