"""Records from files and folders, one by one: our rows and everybody else's (convert.py), and plain text.

    .jsonl      a row a line                  .json       one list of rows, read whole
    .txt, .md   one document, or one for each piece between `split_on`          any of them also as .gz

A folder is all such files in it, by name, but its README.md, which is about them. Each record comes with its place, "train.jsonl:17", for whoever has to complain.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import orjson

from myna.data.convert import Format, convert, named, tell
from myna.data.formats import Record
from myna.modeldir.publish import sha256
from myna.records import Conversation, DataError, Document
from myna.records.jsonl import read_lines

R = TypeVar("R")
T = TypeVar("T", Conversation, Document)
SUFFIXES = (".jsonl", ".json", ".txt", ".md")
# What other tools keep rows or texts in; in a folder, files of these names are told of.
NOT_READ = (".csv", ".tsv", ".parquet", ".arrow", ".ndjson", ".jsonlines", ".zst", ".xz", ".bz2", ".zip", ".tar", ".pdf",
            ".html", ".xml", ".docx", ".xlsx")  # fmt: skip
CARD = "README.md"  # what hubs keep beside a set's rows, to say what they are
MAX_WHOLE = 1 << 30  # bytes of a file that is read whole: a list of rows, or a text that is one document
BLANK = "blank"  # split_on: documents stand between blank lines


class Place(NamedTuple):
    """Where a record was read: a file and a line in it, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Sourced(NamedTuple, Generic[R]):
    """Something read or made from a record, and the record's place."""

    place: Place
    value: R


OnBad = Callable[[Place, DataError], None]


def stop(place: Place, error: DataError) -> None:
    """The default for a bad row: raise its error. Another function may note it, and the row is left out."""
    raise error


@dataclass(frozen=True, slots=True)
class Source:
    """Files and folders, and how to read them. `format`: a name of convert.FORMATS; None: told from each file's first row.

    split_on   where a text is cut into documents: a line that says this, or "blank": empty lines
    """

    paths: tuple[Path, ...]
    format: str | None = None
    split_on: str | None = None

    @classmethod
    def of(cls, *paths: str | Path, format: str | None = None, split_on: str | None = None) -> "Source":
        return cls(tuple(map(Path, paths)), format, split_on)

    def files(self) -> list[Path]:
        """Every file, in order. Raises DataError for a path without any."""
        return [file for path in self.paths for file in _files(path)]

    def unread(self) -> list[Path]:
        """Files beside those that are read, in the folders, which may be rows too: whoever reads is to say so."""
        folders = (path for path in self.paths if path.is_dir())
        return [f for folder in folders for f in _shown(folder) if f.suffix.lower() in NOT_READ or f == folder / CARD]

    def hashes(self) -> dict[str, str]:
        """File -> sha256 of its bytes."""
        return {str(file): sha256(file) for file in self.files()}

    def documents(self, bad: OnBad = stop) -> Iterator[Sourced[Document]]:
        return _only(self.records(bad), Document, "text is", bad)

    def conversations(self, bad: OnBad = stop) -> Iterator[Sourced[Conversation]]:
        return _only(self.records(bad), Conversation, "conversations are", bad)

    def records(self, bad: OnBad = stop) -> Iterator[Sourced[Record]]:
        """Raises DataError naming file, line and field, or hands it to `bad` and goes on."""
        format = None if self.format is None else named(self.format)
        for file in self.files():
            if _kind(file) in (".txt", ".md"):
                for line, text in _texts(file, self.split_on):
                    yield Sourced(Place(str(file), line), Document(text))
            else:
                yield from _rows(file, format, bad)


def _rows(file: Path, format: Format | None, bad: OnBad) -> Iterator[Sourced[Record]]:
    for line, text in _listed(file) if _kind(file) == ".json" else read_lines(file):
        place = Place(str(file), line)
        try:
            row = _parsed(text)
            format = tell(row) if format is None else format
            records = convert(row, format)
        except orjson.JSONDecodeError as e:
            bad(place, DataError(f"{place}: {_not_utf8(text) or f'not JSON: {e}'}"))
        except DataError as e:
            by = f" (read as {format.name})" if format else ""
            bad(place, DataError(f"{place}: {e}{by}"))
        else:
            for record in records:
                yield Sourced(place, record)


def _not_utf8(text: bytes) -> str:
    """Why bytes are no text of ours, if they are none."""
    try:
        text.decode()
    except UnicodeDecodeError as e:
        wide = text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        how = "UTF-16" if wide else "GB18030 (or what it is in)"
        return f"not UTF-8 at byte {e.start}: {e.reason}. Convert the file: iconv -f {how} -t UTF-8"
    return ""


def _parsed(text: bytes) -> object:
    """Raises JSONDecodeError; DataError for a key that is there twice: parsers keep the last, and which was meant nobody knows."""
    row = orjson.loads(text)
    try:
        TWICE.decode(text.decode())
    except RecursionError:
        raise DataError("nested too deep") from None
    return row


def _once(pairs: list[tuple[str, object]]) -> None:
    keys = [key for key, _ in pairs]
    if len({*keys}) < len(keys):
        raise DataError(f"{next(key for key in keys if keys.count(key) > 1)[:80]}: is there twice")


TWICE = json.JSONDecoder(object_pairs_hook=_once)


def _listed(file: Path) -> Iterator[tuple[int, bytes]]:
    """The rows of one JSON list; `line` is the row's number in it."""
    try:
        rows = _parsed(_whole(file))
    except DataError as e:
        raise DataError(f"{file}: {e}") from None
    except orjson.JSONDecodeError as e:
        raise DataError(f"{file}: not JSON: {e}. Rows one a line belong in a .jsonl file.") from None
    if not isinstance(rows, list):
        raise DataError(f"{file}: expected a list of rows; rows one a line belong in a .jsonl file")
    for number, row in enumerate(rows, start=1):
        yield number, orjson.dumps(row)


def _texts(file: Path, split_on: str | None) -> Iterator[tuple[int, str]]:
    """(first line, text) of each document; those of white space alone are none."""
    if split_on is None:
        text = _decoded(_whole(file), Place(str(file), 1))
        if text.strip():
            yield 1, text
        return
    marker = "" if split_on == BLANK else split_on.strip()
    first, held = 1, list[str]()
    for line, raw in _lines(file):
        text = _decoded(raw, Place(str(file), line))
        if text.strip() != marker:
            held.append(text)
            continue
        if document := "".join(held).strip():
            yield first, document
        first, held = line + 1, []
    if document := "".join(held).strip():
        yield first, document


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as opened:
            yield from enumerate(iter(lambda: opened.readline(MAX_WHOLE), b""), start=1)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{file}: cannot read: {e}") from None


def _whole(file: Path) -> bytes:
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as opened:
            data = opened.read(MAX_WHOLE + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{file}: cannot read: {e}") from None
    if len(data) > MAX_WHOLE:
        how = "write its rows one a line, as .jsonl" if _kind(file) == ".json" else "cut it with --split-on"
        raise DataError(f"{file}: more than {MAX_WHOLE >> 30} GiB, and it would be read whole; {how}")
    return data


def _decoded(data: bytes, place: Place) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as e:
        line = place.line + data[: e.start].count(b"\n")
        raise DataError(f"{place.file}:{line}: {_not_utf8(data)}") from None


def _kind(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if _kind(path) not in SUFFIXES:
            raise DataError(f"{path}: what is in it? These are read: {', '.join(SUFFIXES)}, each also as .gz")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    found = [file for file in _shown(path) if _kind(file) in SUFFIXES and file != path / CARD]
    if not found:
        raise DataError(f"{path}: no {', '.join(SUFFIXES)} in this folder")
    return found


def _shown(folder: Path) -> list[Path]:
    """The files in it and below. What begins with a dot is somebody's cache or copy, such as .ipynb_checkpoints."""
    found = (file for file in folder.rglob("*") if not any(p.startswith(".") for p in file.relative_to(folder).parts))
    return sorted(file for file in found if file.is_file())


def _only(records: Iterable[Sourced[Record]], kind: type[T], wanted: str, bad: OnBad) -> Iterator[Sourced[T]]:
    for place, record in records:
        if isinstance(record, kind):
            yield Sourced(place, record)
        else:
            other = "text" if isinstance(record, Document) else "a conversation"
            bad(place, DataError(f"{place}: is {other}, and {wanted} wanted"))
