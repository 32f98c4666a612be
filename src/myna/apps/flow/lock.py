"""One process runs a run: a lock file beside the journal, which the system lets go of whenever and however the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from myna.apps.flow.errors import JournalError


def lock_path(journal: Path, run: int) -> Path:
    return journal.with_name(f"{journal.name}.run{run}.lock")


@contextmanager
def locked(journal: Path, run: int) -> Iterator[None]:
    """Raises JournalError where another process, or another task of this one, has it."""
    path = lock_path(journal, run)
    held = _take(path)
    if held is None:
        raise JournalError(f"run {run} is running in another process; wait for it, or end it.")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: whoever opened it meanwhile sees in _take that it is gone
        os.close(held)


def running(journal: Path, run: int) -> bool:
    """Whether a process has the run just now."""
    path = lock_path(journal, run)
    if not path.exists() or (held := _take(path)) is None:
        return path.exists()
    with suppress(OSError):
        path.unlink()
    os.close(held)
    return False


def _take(path: Path) -> int | None:
    """The file, open and locked; None where somebody else has it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise JournalError(f"{path} cannot be made: {e.strerror}.") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                return file
        except BlockingIOError:
            os.close(file)
            return None
        except FileNotFoundError:
            pass  # taken away by who held it before; make it anew
        os.close(file)
