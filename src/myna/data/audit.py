"""What is known of the data before the first step: counts, cuts, copies, flaws, and one example as the model sees it."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from myna.chat import Tokenizer
from myna.data import overlap
from myna.data.dedup import Finder, content
from myna.data.examples import Cuts
from myna.data.formats import Record
from myna.data.overlap import Overlap
from myna.data.sources import Place, Sourced
from myna.data.tokens import Example, length_of
from myna.records import DataError, Json

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

FIRST = 5  # places named of each kind of finding
FIRST_BAD = 20  # and of rows that cannot be used
SHOWN = 1500  # characters of the sample
WIDE = 10_000  # columns: wider than any table of these
Copies = tuple[tuple[str, str], ...]  # (row, the row it repeats)


@dataclass(frozen=True, slots=True)
class Audit:
    """What one source gives. Tokens and examples are those of one pass over it.

    bad            rows left out because they cannot be used: how many, and the first ones' errors
    untaught       rows of which no token is learned, the first of them
    endless        rows in which no supervised token ends the answer: a model of such rows never stops
    doubled_bos    sequences with two tokens in a row that begin a text
    unread         files in the folders that may hold rows, in layouts that are not read
    rounds         how often the source is seen in an epoch
    """

    name: str
    rows: int
    examples: int
    sequences: int
    tokens: int
    supervised: int
    longest: int
    median: int
    cuts: Cuts
    bad: int = 0
    first_bad: tuple[str, ...] = ()
    untaught: int = 0
    first_untaught: str = ""
    endless: int = 0
    doubled_bos: int = 0
    exact: int = 0
    first_exact: Copies = ()
    near: int = 0
    first_near: Copies = ()
    overlap: Overlap | None = None
    unread: tuple[str, ...] = ()
    weight: float | None = None
    rounds: float = 1.0
    sample: tuple[tuple[str, bool], ...] = ()

    @property
    def share(self) -> float:
        """How much of the tokens is learned."""
        return self.supervised / max(self.tokens, 1)

    def to_json(self) -> Json:
        return asdict(replace(self, overlap=None)) | {"overlap": self.overlap and self.overlap.to_json()}

    @classmethod
    def from_json(cls, row: Json) -> "Audit":
        copies = {name: tuple((a, b) for a, b in row[name]) for name in ("first_exact", "first_near")}
        return cls(
            **row
            | copies
            | {
                "cuts": Cuts(**row["cuts"]),
                "first_bad": tuple(row["first_bad"]),
                "unread": tuple(row.get("unread", ())),
                "overlap": Overlap.from_json(row["overlap"]) if row["overlap"] else None,
                "sample": tuple((text, learned) for text, learned in row["sample"]),
            }
        )

    def check(self) -> None:
        """Raises DataError if training on this would train nothing, or on what it is evaluated with."""
        if not self.examples:
            why = f": {self.first_bad[0]}" if self.first_bad else "" if self.rows else ": there are no rows"
            raise DataError(f"{self.name}: nothing to learn from{why}")
        for fault in self.faults():
            raise DataError(fault)

    def faults(self) -> list[str]:
        """What training refuses, beside rows that cannot be used."""
        found = []
        if self.untaught:
            found.append(f"{self.first_untaught}: no token of this row is learned ({self.untaught} such rows)")
        if self.doubled_bos:
            found.append(
                f"{self.name}: {self.doubled_bos} sequences begin twice: the chat template and the tokenizer both write bos"
            )
        if self.overlap and self.overlap.same:
            first = self.overlap.findings[0]
            found.append(
                f"{first.train} is also {first.eval}, which evaluates it ({self.overlap.same} such rows). "
                "Take them out with `myna data dedup TRAIN --against EVAL`."
            )
        return found

    def notes(self) -> list[str]:
        """What is worth a look, a sentence each."""
        found = []
        cuts = self.cuts
        if self.bad:
            found.append(f"{self.bad} rows left out: {'; '.join(self.first_bad[:2])}")
        if self.unread:
            found.append(
                f"{len(self.unread)} files are not read, first {self.unread[0]}; to learn from one, name it or make .jsonl of it"
            )
        if cuts.dropped or cuts.truncated or cuts.split:
            found.append(
                f"too long: {cuts.split} rows split, {cuts.truncated} cut short, {cuts.dropped} left out; "
                f"{cuts.lost_tokens} tokens lost"
            )
        if self.exact:
            found.append(f"{self.exact} rows repeat another, first {self.first_exact[0][0]} = {self.first_exact[0][1]}")
        if self.near:
            found.append(
                f"{self.near} rows nearly repeat another, first {self.first_near[0][0]} ~ {self.first_near[0][1]}"
            )
        if self.endless:
            found.append(f"{self.endless} rows teach no end of an answer; a model of such rows does not stop")
        if self.overlap and self.overlap.touched:
            o = self.overlap
            found.append(
                f"{o.touched} of {o.eval_rows} evaluation rows ({o.share:.1%}) share {overlap.N}-grams with this, {o.inside} of "
                f"them most of theirs, first {o.findings[0].eval} with {o.findings[0].train}"
            )
        if self.weight is not None:
            found.append(f"weight {self.weight:g}: seen {self.rounds:.2f} times in an epoch")
        return found

    def __str__(self) -> str:
        shown = "".join(f"[{text}]" if learned else text for text, learned in self.sample)
        return "\n".join((_line(self), *(f"  {note}" for note in self.notes()), *(["", shown] if shown else [])))

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.measure import Measurement  # here: what only a terminal needs
        from rich.text import Text

        shown = _table(self)
        fits = Measurement.get(console, options.update(max_width=WIDE), shown).maximum <= options.max_width
        yield shown if fits else Text(_safe(_line(self)))
        yield from (Text(_safe(f"  {note}"), "yellow") for note in self.notes())
        if self.sample:
            yield Text("\nA row as the model sees it; it learns what is green:", "bold")
            yield Text.assemble(*((_safe(text), "green" if learned else "dim") for text, learned in self.sample))


def _table(a: Audit) -> "Table":
    """What _line says, where there is room."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, header_style="bold")
    for name in ("source", "rows", "examples", "tokens", "learned", "share", "median", "longest", "copies", "near"):
        shown.add_column(name, justify="left" if name == "source" else "right", no_wrap=True)
    counts = (a.rows, a.examples, a.tokens, a.supervised)
    rest = (f"{a.share:.1%}", f"{a.median:,}", f"{a.longest:,}", f"{a.exact:,}", f"{a.near:,}")
    shown.add_row(Text(_safe(a.name)), *(f"{n:,}" for n in counts), *rest)
    return shown


def _line(a: Audit) -> str:
    return (
        f"{a.name}: {a.rows:,} rows, {a.examples:,} examples; trains on {a.supervised:,} of {a.tokens:,} tokens "
        f"({a.share:.0%}); median {a.median:,}, longest {a.longest:,}"
    )


def _safe(text: str) -> str:
    """Control characters would move the cursor of whoever looks at the data."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


@dataclass
class Observer:
    """Watches records and examples go by, and knows the audit at the end. `against`: the evaluation rows."""

    name: str
    tokenizer: Tokenizer
    ends: frozenset[int]
    against: overlap.Watch | None = None
    threshold: float | None = 0.8
    cuts: Cuts = field(default_factory=Cuts)
    bad: dict[Place, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._finder = Finder(self.threshold)
        self._places: list[Place] = []
        self._lengths = array("q")
        self._counts = dict.fromkeys(("sequences", "supervised", "untaught", "endless", "doubled_bos"), 0)
        self._first_untaught = ""
        self._sample: tuple[tuple[str, bool], ...] = ()

    def note_bad(self, place: Place, error: DataError) -> None:
        """A reader's `bad`: the row is left out, and counted."""
        self.bad[place] = str(error)

    def records(self, records: Iterable[Sourced[Any]]) -> Iterator[Sourced[Any]]:
        for place, record in records:
            self._see(place, record)
            yield Sourced(place, record)

    def examples(self, examples: Iterable[Sourced[Example]]) -> Iterator[Sourced[Example]]:
        """They may come before their records do."""
        row, ended, taught = None, True, True
        for place, example in examples:
            if place != row:
                self._close(row, ended, taught)
                row, ended, taught = place, False, False
            ended |= all(self._ends(sequence.ids[sequence.weights != 0]) for sequence in example)
            taught |= all(sequence.supervised for sequence in example)
            self._measure(example)
            yield Sourced(place, example)
        self._close(row, ended, taught)

    def audit(self) -> Audit:
        found = self._finder.twins()
        lengths = np.array(self._lengths, np.int64)
        bad = [self.bad[place] for place in sorted(self.bad)]
        return Audit(
            name=self.name,
            rows=len(set(self._places) | self.bad.keys()),
            examples=len(lengths),
            tokens=int(lengths.sum()),
            longest=int(lengths.max(initial=0)),
            median=int(np.median(lengths)) if len(lengths) else 0,
            cuts=replace(self.cuts),
            bad=len(bad),
            first_bad=tuple(bad[:FIRST_BAD]),
            first_untaught=self._first_untaught,
            exact=len(found.exact),
            first_exact=self._copies(found.exact),
            near=len(found.near),
            first_near=self._copies(found.near),
            overlap=self.against.overlap() if self.against else None,
            unread=self.unread,
            sample=self._sample,
            **self._counts,
        )

    def _see(self, place: Place, record: Record) -> None:
        self._places.append(place)
        self._finder.add(content(record))
        if self.against:
            self.against.add(place, record)

    def _measure(self, example: Example) -> None:
        self._lengths.append(length_of(example))
        self._counts["sequences"] += len(example)
        bos = self.tokenizer.bos_id
        for sequence in example:
            self._counts["supervised"] += sequence.supervised
            if bos is not None and ((sequence.ids[1:] == bos) & (sequence.ids[:-1] == bos)).any():
                self._counts["doubled_bos"] += 1
        if not self._sample:
            self._sample = tuple(spans(example, self.tokenizer))

    def _close(self, row: Place | None, ended: bool, taught: bool) -> None:
        self._counts["endless"] += not ended
        if not taught:
            self._counts["untaught"] += 1
            self._first_untaught = self._first_untaught or str(row)

    def _ends(self, learned: np.ndarray) -> bool:
        return not self.ends or bool(np.isin(learned, [*self.ends]).any())

    def _copies(self, found: dict[int, int]) -> Copies:
        return tuple((str(self._places[copy]), str(self._places[first])) for copy, first in [*found.items()][:FIRST])


def spans(example: Example, tokenizer: Tokenizer, limit: int = SHOWN) -> Iterator[tuple[str, bool]]:
    """(text, is it learned) of an example, at most `limit` characters; what is cut off is told."""
    for sequence in example:
        borders = np.flatnonzero(np.diff(sequence.weights != 0)) + 1
        for ids, weights in zip(np.split(sequence.ids, borders), np.split(sequence.weights, borders), strict=True):
            text = b"".join(map(tokenizer.piece, ids.tolist())).decode(errors="replace")
            yield (
                text[:limit] + (f"... ({len(text) - limit} characters more)" if len(text) > limit else ""),
                bool(weights.any()),
            )
            limit -= min(len(text), limit)
            if not limit:
                return
