"""What ends a step or a flow, by name; and the words of an exception, whatever they are."""

import traceback
from pathlib import Path
from types import TracebackType
from typing import Literal

from myna.records import MynaError

Failure = Literal[
    "error", "check", "timeout", "value", "budget", "not done", "unjudged", "stopped", "interrupted", "answered"
]
Reason = Literal["unknown", "changed", "journal"]
LONGEST = 2000  # characters of an error's words that are kept


class FlowError(MynaError):
    """A flow or a step is written or used in a way that cannot work."""


class JournalError(FlowError):
    """A journal cannot be read or written: damaged, full, locked, of a later version, or another process runs this run."""


class NotDone(FlowError):
    """Raised by a step that writes, where it knows that nothing was written: it may be tried again."""


class StepFailed(FlowError):
    """A step failed. `path` is where; `kind` why: error (it raised), check, timeout, value (its output cannot be kept),
    unjudged (a check came to no verdict), not done."""

    def __init__(self, message: str, *, path: str, kind: Failure):
        super().__init__(message)
        self.path, self.kind = path, kind


class Halt(BaseException):
    """The run cannot go on without a person. No Exception: a flow that catches those shall not walk past it.

    unknown   a write may or may not have happened
    changed   code or inputs of a finished step are not what they were
    journal   what happens could no longer be written down
    """

    def __init__(self, reason: Reason, path: str, message: str):
        super().__init__(message)
        self.reason, self.path = reason, path


def words(error: BaseException) -> str:
    """`error` as text that can be stored and printed: bounded, and without half characters. One whose text cannot be made at
    all is called by its type."""
    try:
        text = str(error)
    except Exception as e:
        text = f"(its text cannot be shown: {type(e).__name__})"
    longest = (
        2 * LONGEST if isinstance(error, MynaError) else LONGEST
    )  # one of ours may be made of the words of another
    left_out = f" ... [{len(text) - longest} characters more]" if len(text) > longest else ""
    text = text[:longest].encode("utf-8", "backslashreplace").decode() + left_out
    return text if isinstance(error, MynaError) else f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException, file: str) -> str:
    """The last line of `file` that the error came through ("flow.py:31"), or nothing."""
    found = [frame.lineno for frame in traceback.extract_tb(_traceback(error)) if frame.filename == file]
    return f"{Path(file).name}:{found[-1]}" if found else ""


def every(error: BaseException) -> list[BaseException]:
    """An error, those in its group, those of other branches, and those that it came from."""
    found, left = [], [error]
    while left:
        one = left.pop()
        if one in found:
            continue
        found.append(one)
        left += [*getattr(one, "exceptions", ()), *getattr(one, "beside", ())]
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
    return found


def _traceback(error: BaseException) -> TracebackType | None:
    return error.__traceback__
