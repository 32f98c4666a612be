"""Files and batches on disk. Whatever the moment of a kill -9, what is there afterwards is whole.

    DATA/files/ID          a file's bytes          DATA/files/ID.json      what it is; written last, so it says "whole"
    DATA/batches/ID.json   a batch                 DATA/batches/ID.out, ID.err   its answers so far, a line each

An id is ours to make and is checked before it becomes a path, so nobody names a file outside of the folder.
"""

import errno
import fcntl
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from myna.records import Json, MynaError, RequestError, Unavailable
from myna.serve.limits import Limits

log = logging.getLogger("myna.serve")
ROOM_AFTER = 30  # seconds after which a full disk is tried again
_ID = re.compile(r"(file-|batch_)[0-9a-f]{32}")
_ONE_WRITE = threading.Lock()  # a line that was cut off is taken back before the next one is written
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})


@dataclass(slots=True)
class File:
    """An uploaded file, or a batch's answers. `owner` is the name of the key it came with; nobody else sees it."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    owner: str = ""


@dataclass(slots=True)
class Batch:
    """A batch, as OpenAI's object has it. Times are seconds since 1970. The ids of its result files are decided when it is
    made, so that finishing twice makes one file."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    owner: str = ""
    metadata: dict[str, str] | None = None
    status: str = "validating"
    output_id: str = ""
    error_id: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[Json] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)  # status -> when it was reached

    def reach(self, status: str) -> None:
        self.status = status
        self.times[status] = int(time.time())


R = TypeVar("R", File, Batch)
FILE, BATCH = TypeAdapter(File), TypeAdapter(Batch)


@contextmanager
def needing_room() -> Iterator[None]:
    """What is done on the disk, where a full disk (or a quota that is used up) is an Unavailable: a 507 on the wire."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = "The server's disk is full: nothing more can be kept until there is room on it."
        raise Unavailable(message, retry_after=ROOM_AFTER, code="disk_full") from e


class Store:
    """Everything blocks on the disk: call it from a thread. Raises RequestError for what is not there.

    A record that cannot be read is as one that is not there; the log names it once.
    """

    def __init__(self, root: Path, limits: Limits):
        self._files, self._batches, self._limits = root / "files", root / "batches", limits
        self._unreadable: set[Path] = set()
        self._saving = threading.Lock()
        try:
            for folder in (self._files, self._batches):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._clear()
        except BlockingIOError:
            raise MynaError(f"{root} is in use by another server. Choose another folder: --data") from None
        except OSError as e:
            raise MynaError(f"{root} cannot hold files: {e.strerror or e}. Choose another folder: --data") from None

    def close(self) -> None:
        """Let another server have the folder."""
        os.close(self._lock)

    def _clear(self) -> None:
        """Remove uploads that were cut off. With a batch that nobody can read nothing goes: it may be its results."""
        results = {id for b in self.batches() if b.status not in ENDED for id in (b.output_id, b.error_id)}
        if self._unreadable:
            return
        for left in self._files.iterdir():
            if left.suffix != ".json" and left.name not in results and not self.has(left.name):
                left.unlink()

    # Files.

    def begin(self) -> tuple[str, Path]:
        """An id, and where to write the bytes of a file that is being uploaded."""
        id = f"file-{secrets.token_hex(16)}"
        return id, self._files / id

    def room(self) -> int:
        """Bytes that may still be stored."""
        return self._limits.max_files - sum(entry.stat().st_size for entry in os.scandir(self._files))

    def add(self, id: str, filename: str, purpose: str, owner: str) -> File:
        """The bytes at its path are whole: from now on it is a file."""
        path = self._files / id
        with open(path, "rb") as written:
            os.fsync(written.fileno())
        file = File(id, path.stat().st_size, int(time.time()), filename, purpose, owner)
        _write(path.with_name(f"{id}.json"), file)
        return file

    def discard(self, id: str) -> None:
        """Forget an upload that came to nothing."""
        (self._files / id).unlink(missing_ok=True)

    def file(self, id: str, owner: str) -> File:
        return _owned(self._read(self._files, id, FILE, "file-"), id, owner)

    def content(self, id: str, owner: str) -> Path:
        """Where a file's bytes are."""
        return self._files / self.file(id, owner).id

    def delete(self, id: str, owner: str) -> None:
        self.file(id, owner)
        used = next((b for b in self.batches() if id == b.input_file_id and b.status not in ENDED), None)
        if used is not None:
            raise RequestError(f"{id} is the input of {used.id}, which still runs. Cancel that first.", param="file_id")
        (self._files / f"{id}.json").unlink()
        (self._files / id).unlink(missing_ok=True)

    def files(self, owner: str) -> list[File]:
        """Newest first."""
        found = [self._read(self._files, path.stem, FILE, "file-") for path in self._files.glob("file-*.json")]
        return sorted((f for f in found if f and f.owner == owner), key=lambda f: (f.created_at, f.id), reverse=True)

    # Batches.

    def save(self, batch: Batch) -> None:
        """As it is now: of two that save it at once, the later one has the last word."""
        with self._saving:
            _write(self._batches / f"{batch.id}.json", batch)

    def batch(self, id: str, owner: str) -> Batch:
        return _owned(self._read(self._batches, id, BATCH, "batch_"), id, owner)

    def batches(self) -> list[Batch]:
        """All, oldest first."""
        found = [self._read(self._batches, path.stem, BATCH, "batch_") for path in self._batches.glob("batch_*.json")]
        return sorted((b for b in found if b), key=lambda b: (b.created_at, b.id))

    def results(self, batch: Batch) -> tuple[Path, Path]:
        """Where its answers and its errors are gathered."""
        return self._batches / f"{batch.id}.out", self._batches / f"{batch.id}.err"

    def answered(self, batch: Batch) -> tuple[set[str], set[str]]:
        """The custom ids of the lines that were answered, and of those that failed. A line that a kill cut off is removed."""
        return tuple(_recover(path) for path in self.results(batch))  # type: ignore[return-value]

    def finish(self, batch: Batch) -> None:
        """Make files of the results. Doing it again, after a kill in the middle, does the rest."""
        made = zip(self.results(batch), (batch.output_id, batch.error_id), ("output", "error"), strict=True)
        for path, id, kind in made:
            if path.exists() and path.stat().st_size:
                path.rename(self._files / id)
            path.unlink(missing_ok=True)
            if (self._files / id).exists() and not (self._files / f"{id}.json").exists():
                self.add(id, f"{batch.id}_{kind}.jsonl", "batch_output", batch.owner)

    def has(self, id: str) -> bool:
        return (self._files / f"{id}.json").exists()

    def _read(self, folder: Path, id: str, reader: TypeAdapter[R], prefix: str) -> R | None:
        if not (_ID.fullmatch(id) and id.startswith(prefix)):
            return None
        path = folder / f"{id}.json"
        try:
            found = reader.validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            return None
        except ValidationError as e:
            if path not in self._unreadable:
                self._unreadable.add(path)
                log.error("%s cannot be read and is left out: %s", path, e.errors()[0]["msg"])
            return None
        return found if found.id == id else None


def append(path: Path, line: bytes) -> None:
    """The whole line, on the disk when this returns; or nothing of it, and OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        with _ONE_WRITE:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):  # the disk took what it had room for
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(offset, length, line) of every line that is not blank."""
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                yield offset, len(line), line
            offset += len(line)


def _recover(path: Path) -> set[str]:
    ids: set[str] = set()
    if not path.exists():
        return ids
    whole = 0
    for offset, length, line in read_lines(path):
        if not line.endswith(b"\n"):
            break
        ids.add(orjson.loads(line)["custom_id"])
        whole = offset + length
    os.truncate(path, whole)
    return ids


def _write(path: Path, record: File | Batch) -> None:
    """Replace a record: the old one or the new one, never half."""
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "wb") as file:
            file.write(orjson.dumps(asdict(record)))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _owned(record: R | None, id: str, owner: str) -> R:
    if record is None or record.owner != owner:
        raise RequestError(f"There is no {id[:80]!r} here.", param="id", code="not_found")
    return record
