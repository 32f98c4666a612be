"""Key files: JSON lines, one for each key. The keys themselves are not in them, only their SHA-256. Without a limit there is none:

{"name": "ci", "sha256": "9f86d0...", "requests_per_minute": 60, "tokens_per_minute": 100000}
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from myna.records import DataError, MynaError
from myna.records.jsonl import read_rows
from myna.serve.keys import Caller, hash_key, new_key

LIMITS = ("requests_per_minute", "tokens_per_minute")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A line of a key file. None is no limit."""

    name: str
    sha256: str
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def caller(self) -> Caller:
        limits = {name: value for name in LIMITS if (value := getattr(self, name)) is not None}
        return Caller(self.name, bytes.fromhex(self.sha256), **limits)


def read_keys(path: Path) -> list[Caller]:
    """The callers in a key file. Raises DataError with file, line and field."""
    return [row.caller() for row in read_key_rows(path)]


def read_key_rows(path: Path) -> list[KeyRow]:
    """Its lines. Raises DataError with file, line and field."""
    return [_read(row, f"{path}:{line}") for line, row in read_rows(path)]


def add_key(
    path: Path, name: str, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
) -> str:
    """Make a key, write its hash into the file, which need not be there yet, and return the key: nobody can tell it again.

    Raises MynaError when the name is taken, when a limit is no number above 0, or when the file cannot be written.
    """
    key = new_key()
    given = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    row = {"name": name, "sha256": hash_key(key).hex()} | {k: v for k, v in given.items() if v is not None}
    _read(row, "the new key")
    with _rewriting(path) as rows:
        if any(other.name == name for other, _ in rows):
            raise MynaError(f"{path} has a key named {name!r} already. Revoke it first, or take another name.")
        rows.append((_read(row, str(path)), orjson.dumps(row)))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key's line out. Raises MynaError when there is none of that name, or when the file cannot be written."""
    with _rewriting(path) as rows:
        left = [(row, line) for row, line in rows if row.name != name]
        if len(left) == len(rows):
            known = ", ".join(row.name for row, _ in rows) or "none"
            raise MynaError(f"{path} has no key named {name!r}. It has: {known}.")
        rows[:] = left


@contextmanager
def _rewriting(path: Path) -> Iterator[list[tuple[KeyRow, bytes]]]:
    """The file's lines, to be changed. At the end the file is the old one or the new one, never half, and only its owner
    reads it. Two who write at once: the second is told."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            rows = _lines(path)
            yield rows
            file.writelines(line + b"\n" for _, line in rows)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except FileExistsError:
        raise MynaError(
            f"{partial} is there: somebody else is writing {path}, or was cut off; then remove it."
        ) from None
    except OSError as e:
        partial.unlink(missing_ok=True)
        raise MynaError(f"{path} cannot be written: {e.strerror or e}.") from None
    except BaseException:
        partial.unlink()
        raise


def _lines(path: Path) -> list[tuple[KeyRow, bytes]]:
    """Each line as it is read and as it is written."""
    if not path.exists():
        return []
    lines = [line for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    return list(zip(read_key_rows(path), lines, strict=True))


def _read(row: object, where: str) -> KeyRow:
    if not isinstance(row, dict) or not {"name", "sha256"} <= set(row) <= {"name", "sha256", *LIMITS}:
        raise DataError(f"{where}: expected name, sha256, and perhaps requests_per_minute and tokens_per_minute")
    one = KeyRow(**row)
    if not isinstance(one.name, str) or not one.name:
        raise DataError(f"{where}: name: expected a name")
    if not isinstance(one.sha256, str) or not re.fullmatch("[0-9a-f]{64}", one.sha256):
        raise DataError(f"{where}: sha256: expected 64 hexadecimal digits")
    for limit in set(LIMITS) & set(row):
        value = row[limit]
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise DataError(f"{where}: {limit}: expected a number above 0")
    return one
