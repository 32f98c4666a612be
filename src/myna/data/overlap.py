"""Whether evaluation rows stand in the training data: 13-grams of words, of characters where a script has no blanks
(after Brown et al. 2020, arXiv:2005.14165, appendix C)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from myna.data.dedup import content, fingerprint
from myna.data.formats import Record
from myna.data.ngrams import Hashes, ngrams, units
from myna.data.sources import Place, Sourced
from myna.records import Document, Json

N = 13  # units
LEAST = 8  # a shorter text is too common to tell: "what is the capital of"
MOST = 0.8  # of a row's n-grams in one training row: it stands there, up to a word
FIRST = 20  # findings named


@dataclass(frozen=True, slots=True)
class Finding:
    """A training row has this share of an evaluation row's n-grams; `same`: it is that very row."""

    train: str
    eval: str
    share: float
    same: bool = False


@dataclass(frozen=True, slots=True)
class Overlap:
    """What training and evaluation share. `touched`: evaluation rows with any n-gram in the training data; `inside`: with
    MOST of them in one training row; `same`: that are a training row. `too_short`: rows too short to tell by n-grams."""

    eval_rows: int
    too_short: int
    touched: int
    inside: int
    same: int
    train_rows: int
    findings: tuple[Finding, ...]

    @property
    def share(self) -> float:
        return self.touched / max(self.eval_rows, 1)

    def to_json(self) -> Json:
        names = ("eval_rows", "too_short", "touched", "inside", "same", "train_rows")
        findings = [[f.train, f.eval, round(f.share, 4), f.same] for f in self.findings]
        return {name: getattr(self, name) for name in names} | {"findings": findings}

    @classmethod
    def from_json(cls, row: Json) -> "Overlap":
        return cls(**{**row, "findings": tuple(Finding(*finding) for finding in row["findings"])})


@dataclass
class Watch:
    """The evaluation rows; `look` at every training row, then ask for the `overlap`."""

    _places: list[Place] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)  # distinct n-grams of each row
    _owners: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # n-gram -> rows
    _tables: dict[int, Hashes] = field(default_factory=dict)  # n -> n-grams, sorted
    _same: dict[bytes, int] = field(default_factory=dict)
    _best: dict[int, Finding] = field(default_factory=dict)
    _train_rows: int = 0

    @classmethod
    def over(cls, records: Iterable[Sourced[Record]]) -> "Watch":
        watch, by_size = cls(), defaultdict[int, list[Hashes]](list)
        for place, record in records:
            row, numbers = len(watch._places), units(said(record))
            n = min(N, len(numbers))
            grams = np.unique(ngrams(numbers, n)) if n >= LEAST else np.zeros(0, np.uint64)
            watch._places.append(place)
            watch._sizes.append(len(grams))
            watch._same.setdefault(fingerprint(content(record)), row)
            by_size[n].append(grams)
            for gram in grams.tolist():
                watch._owners[gram].append(row)
        watch._tables = {n: np.unique(np.concatenate(grams)) for n, grams in by_size.items() if n >= LEAST}
        return watch

    def __len__(self) -> int:
        return len(self._places)

    def look(self, place: Place, record: Record) -> list[Finding]:
        """What this training row shares with evaluation rows."""
        self._train_rows += 1
        numbers, shared = units(said(record)), dict[int, int]()
        for n, table in self._tables.items():
            for gram in _common(table, np.unique(ngrams(numbers, n))).tolist():
                for row in self._owners[gram]:
                    shared[row] = shared.get(row, 0) + 1
        same = self._same.get(fingerprint(content(record)))
        if same is not None:
            shared[same] = self._sizes[same]
        found = []
        for row, count in shared.items():
            share = count / self._sizes[row] if self._sizes[row] else 1.0
            finding = Finding(str(place), str(self._places[row]), share, same=row == same)
            if row not in self._best or (finding.same, share) > (self._best[row].same, self._best[row].share):
                self._best[row] = finding
            found.append(finding)
        return found

    def overlap(self) -> Overlap:
        best = sorted(self._best.values(), key=lambda f: (-f.same, -f.share))
        return Overlap(
            eval_rows=len(self._places),
            too_short=sum(not size for size in self._sizes),
            touched=len(best),
            inside=sum(f.share >= MOST for f in best),
            same=sum(f.same for f in best),
            train_rows=self._train_rows,
            findings=tuple(best[:FIRST]),
        )


def said(record: Record) -> str:
    """What a row is about: its text, or what user and assistant say. A system prompt is shared by whole sets."""
    if isinstance(record, Document):
        return record.text
    candidates = (message for candidate in record.candidates for message in candidate.messages)
    return "\n".join(m.text for m in (*record.messages, *candidates) if m.role in ("user", "assistant"))


def _common(table: Hashes, grams: Hashes) -> Hashes:
    at = np.minimum(np.searchsorted(table, grams), len(table) - 1)
    return grams[table[at] == grams]
