"""Whether evaluation rows stand in the training data: 13-grams of words, of characters where a script has no blanks
(after Brown et al. 2020, arXiv:2005.14165, appendix C)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from myna.data.dedup import content, fingerprint
from myna.data.formats import Record
from myna.data.ngrams import Hashes, ngrams, ngrams_of, units
from myna.data.sources import Place, Sourced
from myna.records import Document, Json

N = 13  # units
LEAST = 8  # a shorter text is too common to tell: "what is the capital of"
MOST = 0.8  # of a row's n-grams in one other: it stands there, up to a word
FIRST = 20  # findings named
AT_ONCE = 1 << 15  # units of training rows that are compared together


@dataclass(frozen=True, slots=True)
class Finding:
    """A training row and an evaluation row share so much of the n-grams of the shorter; `same`: they are the very same row."""

    train: str
    eval: str
    share: float
    same: bool = False


@dataclass(frozen=True, slots=True)
class Overlap:
    """What training and evaluation share. `touched`: evaluation rows with any n-gram in the training data; `inside`: that
    share MOST with one training row, and so stand in it, or it in them; `same`: that are a training row. `too_short`: rows too short to tell by n-grams."""

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


class Row(NamedTuple):
    """A training row to be compared."""

    place: Place
    units: Hashes
    fingerprint: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Hashes to be looked for: sorted, and a bit for each of their beginnings, which most others fail to have."""

    hashes: Hashes
    begins: npt.NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, hashes: Hashes) -> "Table":
        bits = max(10, len(hashes).bit_length() + 4)  # one of 16 to 32 is set
        begins, shift = np.zeros(1 << bits, np.bool_), np.uint64(64 - bits)
        begins[hashes >> shift] = True
        return cls(np.unique(hashes), begins, shift)

    def places(self, numbers: Hashes) -> npt.NDArray[np.intp]:
        """Which of the numbers are in it."""
        maybe = np.flatnonzero(self.begins[numbers >> self.shift])
        at = np.minimum(np.searchsorted(self.hashes, numbers[maybe]), len(self.hashes) - 1)
        return maybe[self.hashes[at] == numbers[maybe]]


@dataclass
class Watch:
    """The evaluation rows. `add` every training row, or `look` at it, then ask for the `overlap`."""

    _places: list[Place] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)  # distinct n-grams of each row
    _owners: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # n-gram -> rows
    _tables: dict[int, Table] = field(default_factory=dict)  # n -> n-grams
    _same: dict[bytes, int] = field(default_factory=dict)
    _best: dict[int, Finding] = field(default_factory=dict)
    _train_rows: int = 0
    _waiting: list[Row] = field(default_factory=list)
    _units: int = 0  # of those that wait

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
        watch._tables = {n: Table.of(np.concatenate(grams)) for n, grams in by_size.items() if n >= LEAST}
        return watch

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: Place, record: Record) -> None:
        """A training row, compared together with others: one alone is mostly numpy's overhead."""
        self._waiting.append(_row(place, record))
        self._units += len(self._waiting[-1].units)
        if self._units >= AT_ONCE:
            self._compare_waiting()

    def look(self, place: Place, record: Record) -> list[Finding]:
        """What this training row shares with evaluation rows."""
        return self._compare([_row(place, record)])

    def _compare_waiting(self) -> None:
        rows, self._waiting, self._units = self._waiting, [], 0
        self._compare(rows)

    def _compare(self, rows: Sequence[Row]) -> list[Finding]:
        self._train_rows += len(rows)
        shared = self._shared(rows)
        found = []
        for number, row in enumerate(rows):
            same = self._same.get(row.fingerprint)
            counts = shared.get(number, {}) | ({} if same is None else {same: self._sizes[same]})
            for other, count in sorted(counts.items()):
                size = min(self._sizes[other], max(1, len(row.units) - N + 1))
                share = min(1.0, count / size) if size else 1.0
                finding = Finding(str(row.place), str(self._places[other]), share, same=other == same)
                best = self._best.get(other)
                if best is None or (finding.same, share) > (best.same, best.share):
                    self._best[other] = finding
                found.append(finding)
        return found

    def _shared(self, rows: Sequence[Row]) -> dict[int, dict[int, int]]:
        """Number of a training row -> evaluation row -> how many different n-grams both have."""
        shared = defaultdict[int, dict[int, int]](lambda: defaultdict(int))
        if not rows:
            return shared
        owner = np.repeat(np.arange(len(rows)), [len(row.units) for row in rows])
        for n, grams in ngrams_of(np.concatenate([row.units for row in rows]), self._tables):
            at = self._tables[n].places(grams)
            at = at[owner[at] == owner[at + n - 1]]  # within one row
            for number, gram in set(zip(owner[at].tolist(), grams[at].tolist(), strict=True)):
                for other in self._owners[gram]:
                    shared[number][other] += 1
        return shared

    def overlap(self) -> Overlap:
        self._compare_waiting()
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


def _row(place: Place, record: Record) -> Row:
    return Row(place, units(said(record)), fingerprint(content(record)))
