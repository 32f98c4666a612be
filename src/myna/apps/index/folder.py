"""A folder of documents: every file has an outcome, whatever becomes of the others."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import Limits, Reader, load, shown
from myna.records import DocumentError
from myna.records.language import counted

LISTED = 200  # lines of one kind in a printed report


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: read (`parsed`), the same bytes as a file before it (`same_as`), or left out (`skipped`: why)."""

    path: str  # within the folder, with "/", as it is there
    sha256: str = ""
    size: int = 0
    parsed: Parsed | None = None
    same_as: str = ""
    skipped: str = ""
    modified: str = ""  # the day on which the file was last changed

    @property
    def name(self) -> str:
        """The path as it can be printed."""
        return shown(self.path)


def read_folder(folder: Path, limits: Limits | None = None) -> Iterator[Outcome]:
    """The files of a folder and the folders in it, in the order of their names, one outcome each. Files and folders whose names
    begin with a dot are left out, and said; symbolic links are followed only to files within the folder. Raises DocumentError when
    `folder` is none."""
    if not folder.is_dir():
        raise DocumentError(f"{folder}: it is no folder")
    root = folder.resolve()
    first: dict[str, str] = {}  # sha256 -> the first file with it
    with Reader(limits or Limits()) as reader:
        for path, why in _files(root, root):
            name = path.relative_to(root).as_posix()
            yield Outcome(name, skipped=why) if why else _outcome(reader, path, name, first)


def _outcome(reader: Reader, path: Path, name: str, first: dict[str, str]) -> Outcome:
    try:
        data, modified = load(path, reader.limits.size)
        digest = hashlib.sha256(data).hexdigest()
        if same := first.get(digest):
            return Outcome(name, digest, len(data), same_as=same, modified=modified)
        parsed = reader.parse(data, name)
    except DocumentError as problem:
        return Outcome(name, skipped=_reason(problem, str(path), name))
    first[digest] = shown(name)
    return Outcome(name, digest, len(data), parsed, modified=modified)


def _reason(problem: DocumentError, *names: str) -> str:
    """The reason without the file's name, which stands beside it."""
    said = str(problem)
    for name in names:
        said = said.removeprefix(f"{name}: ")
    return said


def _files(folder: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """Files in order, each with why it is left out ("": it is read)."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as problem:
        yield folder, f"the folder cannot be listed: {problem.strerror}"
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            yield path, "its name begins with a dot"
        elif entry.is_symlink():
            yield path, _link(path, root)
        elif entry.is_dir(follow_symlinks=False):
            yield from _files(path, root)
        else:
            yield path, "" if entry.is_file(follow_symlinks=False) else "it is no regular file"


def _link(path: Path, root: Path) -> str:
    """Why a symbolic link is not followed."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link to nothing"
    if not target.is_relative_to(root):
        return "a link out of the folder"
    return "" if target.is_file() else "a link to a folder"


@dataclass(slots=True)
class Report:
    """What a folder held, in figures. Made of outcomes as they come; `lines()` prints it."""

    read: int = 0
    bytes: int = 0
    characters: int = 0
    pages: int = 0
    tables: int = 0
    sections: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    empty: dict[str, tuple[int, ...]] = field(default_factory=dict)  # path -> numbers of pages without text
    needs_ocr: dict[str, tuple[int, ...]] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)  # path -> the same as
    skipped: dict[str, str] = field(default_factory=dict)  # path -> why
    hidden: dict[str, int] = field(default_factory=dict)  # path -> characters nobody sees
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    textless: list[str] = field(default_factory=list)  # read, and there is no visible text

    def add(self, outcome: Outcome) -> None:
        if outcome.skipped:
            self.skipped[outcome.name] = outcome.skipped
        elif outcome.same_as:
            self.duplicates[outcome.name] = outcome.same_as
        elif outcome.parsed:
            self.add_parsed(outcome.name, outcome.size, outcome.parsed)

    def add_parsed(self, path: str, size: int, parsed: Parsed) -> None:
        self.read += 1
        self.bytes += size
        self.characters += len(parsed.text)
        self.pages += len(parsed.pages)
        self.tables += len(parsed.tables)
        self.sections += len(parsed.sections)
        self.kinds[parsed.kind] += 1
        if empty := parsed.empty_pages:
            self.empty[path] = empty
        if parsed.needs_ocr:
            self.needs_ocr[path] = parsed.needs_ocr
        if any(note.startswith("hidden text") for note in parsed.notes):
            self.hidden[path] = sum(end - start for start, end in parsed.hidden)
        if parsed.notes:
            self.notes[path] = parsed.notes
        if not parsed.visible().strip():
            self.textless.append(path)

    def lines(self) -> Iterator[str]:
        """The report for people: figures first, then what deserves a look, file by file."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kinds.items())) or "none"
        yield f"{counted(self.read, 'document')} read ({kinds}), {counted(self.bytes, 'byte')}"
        yield ", ".join(
            counted(number, what)
            for number, what in (
                (self.characters, "character"), (self.pages, "page"), (self.sections, "section"), (self.tables, "table"),
            )
        )  # fmt: skip
        scans = sum(map(len, self.needs_ocr.values()))
        yield (
            f"{counted(sum(map(len, self.empty.values())), 'empty page')}, {counted(scans, 'page needs', 'pages need')} OCR, "
            f"{counted(len(self.duplicates), 'duplicate')}, {counted(len(self.hidden), 'document')} with hidden text, "
            f"{counted(len(self.skipped), 'file')} skipped"
        )
        yield from _listed("Skipped", (f"{path}: {why}" for path, why in self.skipped.items()))
        yield from _listed("Duplicates", (f"{path} = {other}" for path, other in self.duplicates.items()))
        yield from _listed("Hidden text", (f"{path}: {n:,} characters" for path, n in self.hidden.items()))
        yield from _listed("Need OCR", (f"{path}: pages {_numbers(pages)}" for path, pages in self.needs_ocr.items()))
        yield from _listed("Empty pages", (f"{path}: {_numbers(pages)}" for path, pages in self.empty.items()))
        yield from _listed("No text", iter(self.textless))
        yield from _listed("Notes", (f"{path}: {note}" for path, notes in self.notes.items() for note in notes))


def report(outcomes: Iterable[Outcome]) -> Report:
    """The figures of a folder that is read for nothing else."""
    made = Report()
    for outcome in outcomes:
        made.add(outcome)
    return made


def _listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    if not lines:
        return
    yield ""
    yield f"{title}:"
    yield from (f"  {line}" for line in lines[:LISTED])
    if len(lines) > LISTED:
        yield f"  and {len(lines) - LISTED} more"


def _numbers(pages: tuple[int, ...]) -> str:
    """1-3, 7"""
    out: list[str] = []
    start = previous = None
    for page in [*pages, None]:
        if previous is not None and page != previous + 1:
            out.append(str(previous) if start == previous else f"{start}-{previous}")
            start = page
        start = page if start is None else start
        previous = page
    return ", ".join(out)
