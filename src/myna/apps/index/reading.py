"""A file to a Parsed, in a child process with limits (apps/index/worker.py), which is replaced when a document brought it down."""

import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from myna.apps.index.dates import day_of
from myna.apps.index.parsed import Parsed
from myna.apps.index.worker import from_json
from myna.records import DocumentError
from myna.records.jsonl import unopened

ODD = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffd]")
START = 60.0  # seconds for a child to come up, which counts for no document
REPLY = 512 << 20  # bytes of an answer: more than the longest text takes


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may take."""

    seconds: float = 60.0
    memory: int = 2 << 30  # bytes of address space, of the process that reads
    size: int = 256 << 20  # bytes of the file


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read. `sha256` is of its bytes, in hex: with a range of `parsed.text` it makes a citation. `modified`: the day
    on which the file was last changed, "" where that is not known."""

    path: Path
    sha256: str
    size: int
    parsed: Parsed
    modified: str = ""

    @property
    def name(self) -> str:
        """What an index knows it by."""
        return shown(str(self.path))


def shown(name: str) -> str:
    """A file's name as it can be printed and stored: bytes that are no text, controls and U+FFFD become U+FFFD and their number.
    Different names stay different."""
    return ODD.sub(lambda odd: f"\ufffd{ord(odd[0]):02x}", name)


def read_file(path: Path, limits: Limits | None = None) -> Document:
    """One document. Raises DocumentError, which names the file and the reason."""
    with Reader(limits or Limits()) as reader:
        return reader.read(path)


class Reader:
    """Reads documents one after the other; a context manager, which ends its child. Not for several threads at once."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._child: _Child | None = None

    def read(self, path: Path) -> Document:
        """Raises DocumentError."""
        data, modified = load(path, self.limits.size)
        return Document(path, hashlib.sha256(data).hexdigest(), len(data), self.parse(data, str(path)), modified)

    def parse(self, data: bytes, name: str) -> Parsed:
        """`name` decides what the bytes may be, with what they begin with. Raises DocumentError."""
        child = self._child = self._child or _Child(self.limits.memory)
        reply = child.ask(data, name, self.limits.seconds)
        if "unreadable" not in reply and "read" not in reply:
            self.close()  # what it did to itself is not known
        if "read" not in reply:
            raise DocumentError(f"{name}: {reply.get('unreadable') or reply.get('failed')}")
        try:
            return from_json(reply["read"])
        except (ValueError, TypeError, KeyError) as problem:
            self.close()
            raise DocumentError(f"{name}: its reader gave what is no document: {problem}") from None

    def close(self) -> None:
        if self._child:
            self._child.kill()
        self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Loaded(NamedTuple):
    """A file's bytes, and the day on which it was last changed."""

    data: bytes
    modified: str


def load(path: Path, most: int) -> Loaded:
    """A regular file, of at most so many bytes. Raises DocumentError; devices and pipes are not opened for reading."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if stat.S_ISDIR(about.st_mode):
                raise IsADirectoryError
            if not stat.S_ISREG(about.st_mode):
                raise DocumentError(f"{path}: it is no regular file")
            data = file.read(most + 1) if about.st_size <= most else b""
            if about.st_size > most or len(data) > most:
                raise DocumentError(
                    f"{path}: it has more than {most >> 20} MiB; `myna index add --size` (Limits.size) raises that"
                )
            return Loaded(data, day_of(about.st_mtime))
    except FileNotFoundError as problem:
        raise DocumentError(unopened(path, problem)) from None
    except IsADirectoryError:
        raise DocumentError(f"{path}: it is a folder; name the documents in it, such as {path}/*.pdf") from None
    except OSError as problem:
        raise DocumentError(f"{path}: {problem.strerror or problem}") from None


class _Child:
    def __init__(self, memory: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", f"from myna.apps.index.worker import main; main({int(memory)})"],
            process_group=0,  # a Ctrl-C is for us; with it goes what the child started (tesseract)
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the child finds what this process finds
        )
        self._memory = memory
        self._say(b"", b"", START)

    def ask(self, data: bytes, name: str, seconds: float) -> dict[str, Any]:
        """What the child answers, or {"failed": why} when it gave no answer."""
        line, late = self._say(orjson.dumps({"name": _plain(name), "size": len(data)}) + b"\n", data, seconds)
        if line.endswith(b"\n"):
            reply: dict[str, Any] = orjson.loads(line)
            return reply
        if late:
            return {
                "failed": f"reading it takes longer than {seconds:g} seconds; `myna index add --seconds` (Limits.seconds) raises that"
            }
        if len(line) >= REPLY:
            return {"failed": f"what it holds is longer than {REPLY >> 20} MiB"}
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"failed": f"its reader died of it ({how}); it was allowed {self._memory >> 20} MiB"}

    def _say(self, words: bytes, data: bytes, seconds: float) -> tuple[bytes, bool]:
        """The line that the child says next, less than one where it died; and whether it was killed for being slow."""
        process, late = self._process, threading.Event()

        def stop() -> None:
            late.set()
            self._end()

        timer = threading.Timer(seconds, stop)
        assert process.stdin
        assert process.stdout
        timer.start()
        try:
            with suppress(OSError):  # it died: why is seen from its answer
                process.stdin.write(words)
                process.stdin.write(data)
                process.stdin.flush()
            return process.stdout.readline(REPLY), late.is_set()
        finally:
            timer.cancel()

    def _end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        self._end()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


def _plain(name: str) -> str:
    """A file's name without bytes that are no text: it goes into JSON."""
    return name.encode("utf-8", "replace").decode()
