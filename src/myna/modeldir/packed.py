"""Tensors made from a model's weights, kept on disk so that the next start maps them instead of making them again.

    MODEL/packed/PRECISION.safetensors     or, where that cannot be written, $MYNA_HOME/packed/MODEL-HASH/...

One file a precision. Removing any of them, or the folder, costs one slow start. A file is used only if its key, names,
shapes and checksums are as they must be; otherwise the tensors are made anew and the file is replaced. It goes with the
model when `myna pull --replace` puts another in its place.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from myna.modeldir.cache import cache_dir
from myna.modeldir.files import PACKED, inside
from myna.modeldir.publish import PARTIAL
from myna.modeldir.safetensors import read_metadata, read_safetensors, write_safetensors
from myna.modeldir.stored import Source
from myna.records import ModelDirError

log = logging.getLogger(__name__)

DTYPES = {"U8": np.uint8, "F32": np.float32}
SPARE = 1 << 30  # bytes that must be left on the disk; a cache is not worth filling it

T = TypeVar("T")
R = TypeVar("R")
Shape = tuple[int, ...]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the packed tensors of one model and precision are kept, and the key that tells whether they still fit."""

    name: str
    folders: tuple[Path, ...]
    key: str

    @classmethod
    def of(cls, path: Path, sources: tuple[Source, ...], precision: str, maker: str) -> "Packed":
        """`sources`: the files the weights were read from (Weights.sources); `maker`: all else the tensors depend on.

        The key holds each file's size, inode and times of change, not its bytes: to hash a gigabyte takes a second, and
        the file system's time of change (ctime) cannot be set, so a file written, replaced or restored differs in it.
        A copied model is packed once more: seconds.
        """
        facts = json.dumps([sources, maker])
        return cls(precision, folders(path), hashlib.blake2b(facts.encode(), digest_size=20).hexdigest())

    def read(self, wanted: Mapping[str, tuple[str, Shape]]) -> dict[str, np.ndarray] | None:
        """The kept tensors, mapped; whoever writes to them changes only his own memory. None if there are none like
        `wanted`: name -> (kind, shape).

        Every byte is compared with its checksum: 0.2 s a gigabyte and core, and it brings the file into memory, which
        the first answer would wait for anyway.
        """
        for folder in self.folders:
            try:
                file = inside(folder, self._file)
                if file.is_file():
                    return _read(file, self.key, wanted)
            except (OSError, ModelDirError, ValueError) as e:
                log.debug("%s is not used: %s", folder / self._file, e)
        return None

    def write(self, tensors: Arrays) -> None:
        """Keep these, in the first folder that can be written. A failure is a warning: the tensors are in memory."""
        problem: Exception | None = None
        for folder in self.folders:
            try:
                folder.mkdir(parents=folder == self.folders[-1], exist_ok=True)
                return self._write(folder, tensors)
            except (OSError, ModelDirError) as e:
                problem = problem or e
        log.warning("packed weights cannot be kept, so every start packs them again: %s", problem)

    @property
    def _file(self) -> str:
        return f"{self.name}.safetensors"

    def _write(self, folder: Path, tensors: Arrays) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        if (free := shutil.disk_usage(folder).free) < size + SPARE:
            raise ModelDirError(f"{folder}: {size / 1e9:.1f} GB to write, {free / 1e9:.1f} GB of the disk are free.")
        partial = inside(folder, self._file + PARTIAL)
        handle = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if _is_mine(handle, partial):
                self._fill(handle, partial, tensors)
                self._remove_stale(folder)
        finally:
            os.close(handle)

    def _fill(self, handle: int, partial: Path, tensors: Arrays) -> None:
        try:
            os.ftruncate(handle, 0)  # what a dead writer left
            with open(handle, "wb", closefd=False) as file:
                # Packed weights first: their lengths are multiples of a cache line, so each begins with one.
                ordered = dict(sorted(tensors.items(), key=lambda item: item[1].dtype != np.uint8))
                write_safetensors(file, ordered, self._facts(ordered))
            os.fsync(handle)
            partial.rename(partial.with_name(self._file))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _facts(self, tensors: Arrays) -> dict[str, str]:
        sums = zip(tensors, _each(_checksum, list(tensors.values())), strict=True)
        return {"key": self.key, **{f"crc32 {name}": found for name, found in sums}}

    def _remove_stale(self, folder: Path) -> None:
        """Remove what was packed in other precisions from weights, or by code, that are no more."""
        for file in folder.glob("*.safetensors"):
            with suppress(OSError, ModelDirError):
                if read_metadata(file).get("key", self.key) != self.key:  # a file of another's making has none
                    file.unlink()


def folders(path: Path) -> tuple[Path, ...]:
    """Where a model directory's packed tensors may be: inside it (not through a link), or in the user's cache."""
    real = path.resolve()
    mark = hashlib.blake2b(os.fsencode(real), digest_size=6).hexdigest()
    mine = cache_dir() / PACKED / f"{real.name}-{mark}"
    return (mine,) if (real / PACKED).is_symlink() else (real / PACKED, mine)


def packed_bytes(path: Path) -> dict[str, int]:
    """Precision -> bytes on disk of what is kept of a model directory."""
    files = [file for folder in reversed(folders(path)) for file in folder.glob("*.safetensors") if file.is_file()]
    return {file.stem: file.stat().st_size for file in sorted(files)}


def _read(file: Path, key: str, wanted: Mapping[str, tuple[str, Shape]]) -> dict[str, np.ndarray]:
    facts, found = read_metadata(file), read_safetensors(file, private=True)
    if facts.get("key") != key:
        raise ModelDirError("made from other weights, or by another version")
    if {name: (stored.kind, stored.shape) for name, stored in found.items()} != dict(wanted):
        raise ModelDirError("holds other tensors")

    if any(_each(lambda stored: _checksum(stored.raw) != facts.get(f"crc32 {stored.name}"), list(found.values()))):
        raise ModelDirError("damaged: a checksum does not agree")
    return {
        name: stored.raw.reshape(-1).view(DTYPES[stored.kind]).reshape(stored.shape) for name, stored in found.items()
    }


def _checksum(tensor: np.ndarray) -> str:
    return f"{zlib.crc32(tensor.reshape(-1).view(np.uint8).data):08x}"


def _each(work: Callable[[T], R], items: list[T]) -> list[R]:
    """work(item) of every item, on every core: zlib frees the interpreter."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(work, items))


def _is_mine(handle: int, partial: Path) -> bool:
    """Lock a file being written; False when another process writes it, or has just finished and renamed it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(handle).st_ino == partial.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
