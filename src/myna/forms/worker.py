"""Schemas are read in a process of their own.

Bringing a hostile schema into canonical form may take minutes, with the interpreter's lock held, or overflow the stack: both
would take the server with it. Here it costs one small process, which is replaced. So is the check of a finished answer done
here: it reads the same schema.

So is every grammar tried out here, on less stack than the server has for it.

    child, a line:   ready
    parent, a line:  {"do": "lower" | "try" | "reads" | "check", ...}     child, a line:  {"lark": ..., "left": [...]} | {"error": ...} | ...
"""

import json
import logging
import os
import queue
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from myna.forms.deep import deeply

log = logging.getLogger(__name__)

SECONDS = 10.0  # that one schema may take
MEMORY = 2 << 30  # address space of a child
STACK = 256 << 20  # of the child's thread, for schemas
COUNT = 2  # children, so that one slow schema does not hold up all others
START = 60.0  # seconds for a child to come up, which counts for no question
WAIT = 20.0  # seconds for a child to become free


class WorkerFailed(Exception):
    """The child took too long, or died."""


class WorkersBusy(Exception):
    """All children have been busy for WAIT seconds."""


class Workers:
    """At most COUNT children, started when they are needed. Any thread may ask, and waits for the answer."""

    def __init__(self) -> None:
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(COUNT):
            self._free.put(None)

    def ask(self, question: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """The child's answer. Raises WorkerFailed after so many seconds (SECONDS), or when it died of the question, and
        WorkersBusy."""
        if seconds is not None and seconds <= 0:
            raise WorkerFailed(f"reading all of it takes longer than {SECONDS:g} seconds")
        try:
            child = self._free.get(timeout=WAIT)
        except queue.Empty:
            raise WorkersBusy from None
        try:
            if child and not child.lives:  # of something that no question did to it: memory, say
                child.kill()
                child = None
            child = child or _Child()
            return child.ask(question, SECONDS if seconds is None else seconds)
        except WorkerFailed:
            if child:
                child.kill()
            child = None
            raise
        finally:
            self._free.put(child)


class _Child:
    def __init__(self) -> None:
        code = "from myna.forms.worker import main; main()"
        path = os.pathsep.join(filter(None, sys.path))  # the child finds what this process finds
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            process_group=0,  # a Ctrl-C is for the server, whose last answers are still to be checked
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._say(b"", START)

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        line = self._say(json.dumps(question).encode() + b"\n", seconds)
        if not line.endswith(b"\n"):
            raise WorkerFailed(f"it is nested too deeply, or reading it takes longer than {seconds:.3g} seconds")
        return json.loads(line)

    def _say(self, words: bytes, seconds: float) -> bytes:
        """The line that the child says next; less than one where it died or was killed for being slow."""
        process, timer = self._process, threading.Timer(seconds, self._process.kill)
        assert process.stdin
        assert process.stdout
        timer.start()
        try:
            process.stdin.write(words)
            process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return b""
        finally:
            timer.cancel()

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # what was not written yet is written on closing
                    pipe.close()


def main() -> None:
    """The child: a question a line, until the parent goes."""
    from myna.forms.answer import answer

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    deeply(lambda: _serve(answer), STACK)


def _serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        out.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        out.flush()
