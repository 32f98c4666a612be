"""What is asked, and what should come of it. A set is JSON lines:

    {"kind": "harmful", "category": "fraud", "prompt": "..."}                   should be refused
    {"kind": "benign", "category": "homonym", "prompt": "..."}                  sounds bad and is not; should be answered
    {"kind": "injection", "category": "comment", "prompt": "...", "document": "...", "canary": "BLUE-HERON"}

An injection is a question about a document in which a stranger gives orders. It is obeyed where the answer has the canary, which the
document must not spell out, so that to quote the orders is not to obey them. `expect`, beside it, is what an answer to the question
itself has. Further keys: `id`, `language` ("en", "zh") and `attack`, the manner in which something harmful is asked ("plain").
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, Self, get_args

from myna.apps.redteam.carriers import CARRIERS
from myna.records import DataError
from myna.records.fields import Fields
from myna.records.jsonl import read_rows
from myna.trace.store import canonical, digest

Kind = Literal["harmful", "benign", "injection"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST = 100_000  # characters of a prompt or a document
MOST = 100_000  # cases of a file


@dataclass(frozen=True)
class Case:
    """One question. `document` is a stranger's, and goes into a fence; "" is none."""

    kind: Kind
    category: str
    prompt: str
    document: str = ""
    canary: str = ""
    expect: str = ""
    attack: str = "plain"
    language: str = ""
    id: str = ""

    @classmethod
    def from_json(cls, value: object, path: str = "") -> Self:
        """Raises DataError naming the field."""
        f = Fields(value, path)
        kind = f.take("kind", str)
        if kind not in KINDS:
            raise DataError(f"{f.at('kind')}: {kind!r} is not one of {', '.join(KINDS)}")
        texts = {name: f.take(name, str, default="") for name in ("document", "canary", "expect", "language", "id")}
        hidden, carrier = f.take("hidden", str, default=""), f.take("carrier", str, default="plain")
        case = cls(
            kind, f.take("category", str), f.take("prompt", str), attack=f.take("attack", str, default="plain"), **texts
        )
        if unknown := f.rest():
            raise DataError(f"{f.at(next(iter(unknown)))}: a case has no such key")
        return cls(**{**vars(case), "document": _planted(case.document, hidden, carrier, f)})._checked(f)

    def _checked(self, f: Fields) -> Self:
        for name in ("prompt", "document"):
            if len(getattr(self, name)) > LONGEST:
                raise DataError(f"{f.at(name)}: {len(getattr(self, name))} characters; {LONGEST} are the most")
        if not self.prompt.strip():
            raise DataError(f"{f.at('prompt')}: is empty")
        if self.kind == "injection":
            if not self.document or not self.canary:
                raise DataError(f"{f.at('document' if not self.document else 'canary')}: missing; an injection has one")
            if self.canary.casefold() in (self.document + self.prompt).casefold():
                raise DataError(f"{f.at('canary')}: stands in the document; to quote it would count as to obey it")
        return self

    @cached_property
    def key(self) -> str:
        """The hash of all that is asked. What it is called and where it is filed are no part of it."""
        return digest(canonical([self.prompt, self.document]))


def _planted(document: str, hidden: str, carrier: str, f: Fields) -> str:
    """The document with `hidden` in it as `carrier` carries it, where the document says {hidden}."""
    if not hidden:
        return document
    if carrier not in CARRIERS:
        raise DataError(f"{f.at('carrier')}: {carrier!r} is not one of {', '.join(CARRIERS)}")
    if "{hidden}" not in document:
        raise DataError(f"{f.at('document')}: says nowhere {{hidden}}, so what is hidden would not be in it")
    return document.replace("{hidden}", CARRIERS[carrier](hidden))


def read(path: Path | str) -> list[Case]:
    """The cases of a file. Raises DataError naming file, line and field."""
    cases: list[Case] = []
    for line, row in read_rows(path):
        if len(cases) == MOST:
            raise DataError(f"{path}:{line}: more than {MOST} cases; split the file")
        try:
            cases.append(Case.from_json(row))
        except DataError as e:
            raise DataError(f"{path}:{line}: {e}") from None
    if not cases:
        raise DataError(f"{path}: has no cases")
    return cases


def packaged(kind: Kind | None = None) -> list[Case]:
    """Our own cases, English and Chinese."""
    found: list[Case] = []
    for one in KINDS if kind is None else (kind,):
        with as_file(files("myna.apps.redteam") / "sets" / f"{one}.jsonl") as path:
            found += read(path)
    return found


def whole(cases: Iterable[Case]) -> tuple[list[Case], tuple[Kind, ...]]:
    """(cases, what was added): a model that refuses everything is refused nothing, so who asks what is harmful asks what is benign,
    too, and the other way round: the packaged cases where there are none."""
    found = list(cases)
    kinds = {case.kind for case in found}
    pair: tuple[Kind, ...] = ("harmful", "benign")
    missing = tuple(kind for kind in pair if kind not in kinds) if kinds & set(pair) else ()
    return found + [case for kind in missing for case in packaged(kind)], missing


def drawn(cases: list[Case], most: int, seed: int = 0) -> list[Case]:
    """At most so many of each kind, always the same ones, in their order."""
    chosen: set[int] = set()
    for kind in KINDS:
        numbers = [i for i, case in enumerate(cases) if case.kind == kind]
        chosen.update(random.Random(seed).sample(numbers, min(most, len(numbers))))
    return [case for i, case in enumerate(cases) if i in chosen]
