"""Small files that are whole: as they were, or as they shall be, whatever fails and whoever else writes."""

import fcntl
import os
import time
from pathlib import Path

import orjson

from myna.records.conversation import Json
from myna.records.errors import DataError


def write_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write beside it and rename. Raises DataError where it cannot be written; what was there still is then."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as e:
        raise DataError(f"{path} cannot be written: {e.strerror or e}. Make room for it, or name another.") from None
    finally:
        partial.unlink(missing_ok=True)


def add(path: Path, name: str, value: object, *, cache: bool = False) -> None:
    """Put a value under a name into a JSON object in a file, beside what others put there at the same time. The folder is made.
    Raises DataError where it cannot be written, or holds something else, unless it is a `cache`: that is made anew."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as e:
        raise DataError(f"{path} cannot be written: {e.strerror or e}.") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # for as long as this takes; let go of at close, and at death
        known = _object(path)
        if known is None and not cache:
            raise DataError(f"{path} is damaged: it holds no JSON object. Move it away, and it is made anew.")
        write_whole(path, orjson.dumps({**(known or {}), name: value}, option=orjson.OPT_INDENT_2))
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}.") from None
    finally:
        os.close(folder)


def _object(path: Path) -> Json | None:
    """What the file holds; nothing where there is none, None where that is no object."""
    try:
        value = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
