"""Reading and writing records as JSON lines, gzipped when the name ends in .gz. Streams, whatever the file's size."""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import IO, Protocol, Self, TypeVar, cast

import orjson

from myna.records.conversation import Json
from myna.records.errors import DataError


class Record(Protocol):
    """Conversation, Document, or anything else that knows its JSON form."""

    @classmethod
    def from_json(cls, value: object, path: str = "") -> Self: ...

    def to_json(self) -> Json: ...


R = TypeVar("R", bound=Record)
MAX_LINE = (
    256 << 20
)  # bytes; a file without line ends would else be read whole, and a small gzip file holds a large one

LISTED = 10_000  # names in a folder among which one like a missing one is looked for


def read(path: str | Path, record: type[R]) -> Iterator[R]:
    """The file's records, one by one. Blank lines are skipped.

    Raises DataError at the first bad row ("rows.jsonl:17: messages.3.role: ..."), or if the file cannot be read.
    """
    for line, row in read_rows(path):
        try:
            yield record.from_json(row)
        except DataError as e:
            raise DataError(f"{path}:{line}: {e}") from None


def read_rows(path: str | Path) -> Iterator[tuple[int, object]]:
    """(line number, parsed JSON value) for every line that is not blank."""
    for line, text in read_lines(path):
        try:
            yield line, orjson.loads(text)
        except orjson.JSONDecodeError as e:
            raise DataError(f"{path}:{line}: not JSON: {e}") from None


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """(line number, the line without white space around it) for every line that is not blank.

    Raises DataError if the file cannot be read, or for a line of more than MAX_LINE bytes."""
    line = 0
    try:
        with _open(Path(path), "rb") as file:
            while text := file.readline(MAX_LINE + 1):
                line += 1
                if line == 1 and text.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(
                        f"{path}:1: not UTF-8 at byte 0: it is UTF-16. Convert the file: iconv -f UTF-16 -t UTF-8"
                    )
                if len(text) > MAX_LINE:
                    raise DataError(f"{path}:{line}: a line of more than {MAX_LINE >> 20} MiB; a row is one line")
                if text := text.removeprefix(b"\xef\xbb\xbf").strip() if line == 1 else text.strip():
                    yield line, text
    except (FileNotFoundError, IsADirectoryError, PermissionError) as e:
        raise DataError(unopened(path, e)) from None
    except (OSError, EOFError, zlib.error) as e:  # a cut gzip file is an EOFError, a corrupt one an OSError or zlib's
        raise DataError(f"{path}:{line + 1}: cannot read: {e}") from None


def unopened(path: str | Path, problem: OSError) -> str:
    """Why a file could not be opened, and what to do."""
    path = Path(path)
    match problem:
        case IsADirectoryError():
            return f"{path} is a folder; name a file in it."
        case PermissionError():
            return f"{path} may not be read by you; ask its owner, or `chmod +r` it."
        case FileNotFoundError() if not path.parent.is_dir():
            return f"there is no file {path}, and no folder {path.parent}."
        case FileNotFoundError():
            listed = path.parent.iterdir() if os.access(path.parent, os.R_OK) else ()
            names = [one.name for one in islice(listed, LISTED)]
            near = get_close_matches(path.name, names, n=1, cutoff=0.8)
            hint = f"did you mean {path.parent / near[0]}?" if near else f"`ls {path.parent}` shows what there is."
            return f"there is no file {path}; {hint}"
    return f"{path} cannot be opened: {problem.strerror or problem}"


def write(path: str | Path, records: Iterable[Record]) -> int:
    """Write the records; see `write_rows`."""
    return write_rows(path, (record.to_json() for record in records))


def write_rows(path: str | Path, rows: Iterable[object]) -> int:
    """Write JSON values, a line each, and return how many. The file appears whole or not at all: a crash leaves only NAME.partial.

    Raises DataError if the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with _open(partial, "wb", gz=path.suffix == ".gz") as file:
            for row in rows:
                count += 1
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as e:
        raise DataError(f"{path}: cannot write: {e.strerror or e}") from None
    return count


def _open(path: Path, mode: str, gz: bool | None = None) -> IO[bytes]:
    is_gz = path.suffix == ".gz" if gz is None else gz
    return cast(IO[bytes], gzip.open(path, mode) if is_gz else open(path, mode))
