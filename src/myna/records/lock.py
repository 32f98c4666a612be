"""One process at a time has a piece of work: a lock file, which the system lets go of whenever and however the process ends. A number of
a process would not do: numbers are used again."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from myna.records.errors import MynaError


@contextmanager
def locked(path: Path, what: str, error: type[MynaError]) -> Iterator[None]:
    """Have `path`, which is made and taken away. Raises `error` where another process, or another task of this one, has it; `what`
    says of what."""
    held = _take(path, error)
    if held is None:
        raise error(f"{what} is running in another process; wait for it, or end it.")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: whoever opened it meanwhile sees in _take that it is gone
        os.close(held)


def is_locked(path: Path, error: type[MynaError]) -> bool:
    """Whether a process has it just now."""
    if not path.exists() or (held := _take(path, error)) is None:
        return path.exists()
    with suppress(OSError):
        path.unlink()
    os.close(held)
    return False


def _take(path: Path, error: type[MynaError]) -> int | None:
    """The file, open and locked; None where somebody else has it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise error(f"{path} cannot be made: {e.strerror}.") from None
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
