"""Publishing a model directory: it appears whole or not at all, whatever happens on the way.

NAME.partial/   built here, locked while its builder lives; what a dead builder left is cleared by the next
NAME/           appears by one rename; never written to again
NAME.old/       only where the system cannot swap two directories in one step; `settle` puts it back after a crash
"""

import ctypes
import datetime
import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from myna import __version__
from myna.modeldir.directory import ModelDir
from myna.modeldir.files import inside, read_json
from myna.records import ModelDirError

PARTIAL, OLD = ".partial", ".old"
LINEAGE = "lineage.json"


def publish(
    path: str | Path,
    build: Callable[[Path], None],
    lineage: dict[str, Any],
    *,
    replace: bool = False,
    check: Callable[[Path], object] = ModelDir.open,
) -> Path:
    """Build a model directory beside its place, check it, and rename it into place. Returns the place.

    build     writes the files into the empty directory it is given
    lineage   what is known of its making: command, source, parent, licence, provenance, and under "files" the sha256
              of files that were already hashed; the date, our version and the other files' hashes are added
    replace   whether an existing directory may be replaced; without it that is an error
    check     raises what is wrong with the built directory

    Killed at any moment, the place holds what it held before or the new directory. Raises ModelDirError.
    """
    path = Path(path).absolute()
    settle(path)
    if path.exists() and not replace:
        raise ModelDirError(f"{path} exists. Remove it (rm -r {path}), choose another name, or ask to replace it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path) as partial:
        build(partial)
        _write_lineage(partial, lineage)
        check(partial)
        _sync(partial)
        if path.exists():
            _swap(partial, path)
        else:
            partial.rename(path)
        _sync_directory(path.parent)
    shutil.rmtree(partial, ignore_errors=True)  # after a swap: what was replaced
    return path


def settle(path: Path) -> None:
    """Finish what a crash interrupted: bring back NAME.old when NAME is gone. Leaves a living publisher alone."""
    old = path.with_name(path.name + OLD)
    if not old.is_dir() or _is_held(path.with_name(path.name + PARTIAL)) or _is_held(path):
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        old.rename(path)


def verify(path: str | Path) -> None:
    """Hash every file that lineage.json records (about a second per gigabyte). ModelDirError names the first that
    is missing or changed."""
    path = Path(path)
    files = read_json(path, LINEAGE, required=True).get("files", {})
    for name, facts in files.items():
        file = inside(path, name)
        if not file.is_file():
            raise ModelDirError(f"{path} lacks {name}, which {LINEAGE} records. Pull the model again.")
        if (found := sha256(file)) != facts.get("sha256"):
            raise ModelDirError(
                f"{file}: sha256 is {found}; {LINEAGE} says {facts.get('sha256')}. Pull the model again."
            )


def sha256(path: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """Hexadecimal SHA-256 of a file; `advance` is told how many bytes were read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """NAME.partial, empty and locked. The lock dies with the process, so a stale directory is told from a live one."""
    partial = path.with_name(path.name + PARTIAL)
    partial.mkdir(exist_ok=True)
    held = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(held).st_ino == partial.stat().st_ino  # not renamed away since we opened it
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            raise ModelDirError(f"another process is writing {path}. Wait for it, or choose another name.")
        _clear(partial)
        yield partial
    finally:
        os.close(held)


def _is_held(directory: Path) -> bool:
    """Whether a living process is publishing it. The lock goes with the directory when it is renamed."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _write_lineage(directory: Path, lineage: dict[str, Any]) -> None:
    known = lineage.get("files", {})
    files = {}
    for file in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != LINEAGE):
        name = str(file.relative_to(directory))
        files[name] = {"bytes": file.stat().st_size, "sha256": known.get(name) or sha256(file)}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(directory / LINEAGE, {**lineage, "files": files, "date": date, "myna": __version__})


def _sync(directory: Path) -> None:
    """Bring every file and directory below to the disk, so that the rename cannot get there before them."""
    for root, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(root))


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(new: Path, path: Path) -> None:
    """Put `new` at `path` and what was there at `new`."""
    if _exchange(new, path):
        return
    old = path.with_name(path.name + OLD)
    path.rename(old)
    new.rename(path)  # a crash before this line leaves NAME.old alone: `settle` brings it back
    old.rename(new)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two directories in one step; False where the system or file system cannot.

    renameat2(RENAME_EXCHANGE) is Linux's, renamex_np(RENAME_SWAP) macOS's name for it; both flags are 2.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(a), os.fsencode(b)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(*paths, 2)
        else:
            here = -100  # AT_FDCWD
            failed = libc.renameat2(here, paths[0], here, paths[1], 2)
    except AttributeError:
        return False
    if not failed:
        return True
    if (code := ctypes.get_errno()) in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(b))
