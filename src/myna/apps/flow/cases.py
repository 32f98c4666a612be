"""Cases: inputs of a flow, and what its steps should give for them. A JSON line each:

{"inputs": {"question": "..."}, "expect": {"intent": {"check": "exact", "target": "question"}, "answer": {"check": "contains", ...}}}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from myna.apps.flow.attempts import as_text
from myna.apps.flow.flow import Flow
from myna.apps.flow.journal import Journal, StepRow
from myna.checks import Verdict, blocking, named
from myna.records import Candidate, Conversation, DataError, Json, Message, MynaError, RequestError, Unjudged
from myna.records.fields import Fields
from myna.records.jsonl import read_rows


@dataclass(frozen=True, slots=True)
class Expected:
    """A check, as `myna.checks.named` writes it, of a step's output, with what it compares that with."""

    check: Any
    target: Any

    @classmethod
    def from_json(cls, value: object, path: str) -> "Expected":
        f = Fields(value, path)
        found = cls(f.take("check", str, dict, list), f.take("target", str, int, float, bool, list, dict, default=None))
        if unknown := f.rest():
            raise DataError(f"{f.at(next(iter(unknown)))}: what is expected has a check and a target")
        named(found.check)
        return found


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs as the flow takes them, and what is expected of steps: by name of every call of it, by path of one."""

    inputs: Mapping[str, Any]
    expect: Mapping[str, Expected] = field(default_factory=dict)


def read_cases(path: Path, flow: Flow[Any, Any]) -> list[Case]:
    """Raises DataError naming the file, the line and the field, before anything is run."""
    found = []
    for line, row in read_rows(path):
        try:
            f = Fields(row)
            inputs: Json = f.take("inputs", dict)
            expect = Fields(f.take("expect", dict, default={}), "expect").rest()
            if unknown := f.rest():
                raise DataError(f"{next(iter(unknown))}: a case has inputs and expect")
            expected = {name: Expected.from_json(one, f"expect.{name}") for name, one in expect.items()}
            found.append(Case(flow.shape.read_inputs(orjson.dumps(inputs)), expected))
        except (DataError, RequestError) as e:
            raise DataError(f"{path}:{line}: {e}") from None
    if not found:
        raise DataError(f"{path} has no cases.")
    return found


def judge(journal: Journal, run: int, case: Case) -> Iterator[str]:
    """Write down what the case's checks say of a run's steps; each that fails, in words."""
    for name, expected in case.expect.items():
        latest = {row.path: row for row in journal.steps(run) if name in (row.name, row.path)}
        made = [row for row in latest.values() if row.state == "done"]
        if not made:
            yield f"{name} gave nothing, where {_name(expected.check)} {expected.target!r} was expected"
        for row in made:
            try:
                verdict = _verdict(row, expected)
            except Unjudged as e:
                yield f"{row.path} cannot be judged: {e}"
                continue
            journal.judge(row.id, f"case: {_name(expected.check)}", verdict)
            if not verdict.ok:
                yield f"{row.path} is not as expected: {verdict.reason}"


def _verdict(row: StepRow, expected: Expected) -> Verdict:
    asked = Conversation((Message("user", as_text(row.inputs, single=True)),), id=row.path, target=expected.target)
    said = Candidate((Message("assistant", as_text(row.output or b"null")),))
    try:
        return blocking(named(expected.check))(asked, said)
    except Unjudged:
        raise
    except MynaError as e:
        raise DataError(f"expect.{row.name}: {e}") from None


def _name(check: Any) -> str:
    return check if isinstance(check, str) else orjson.dumps(check).decode()
