"""What happened, as spans: a run is a span without a parent, and whatever happens inside of it are spans below it.

    trace = Trace("trace.sqlite")
    with trace.span("flow", "answer", question="...") as span:      # a run, if no span is open here
        with trace.span("step", "rewrite"):                         # below it
            ...

A span is in the file as soon as it begins; one that never ended was killed. Nothing is sent anywhere.
"""

import asyncio
import logging
import math
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import orjson

from myna.records import Conversation, Document, Message, MynaError, Reply, RequestError, Sampling, Usage
from myna.trace.prices import Prices
from myna.trace.request import write_reply, write_request
from myna.trace.store import Store, TraceError, keep
from myna.trace.where import trace_file

log = logging.getLogger(__name__)
Outcome = Literal["ok", "error", "cancelled"]
LONGEST = 20_000  # characters of an error's text, and of a fact's
_HERE: ContextVar["Span | None"] = ContextVar("span", default=None)


class Trace:
    """A trace file, written to by any number of threads and processes.

    prices   what calls cost; those that a model has no price for cost an unknown amount
    """

    def __init__(self, path: Path | str, prices: Prices = Prices()):
        self.store = Store(path)
        self.prices = prices

    @contextmanager
    def span(self, kind: str, name: str, **facts: Any) -> Iterator["Span"]:
        """A span for the time of the block, below the span that is open in this context."""
        span = self.begin(kind, name, **facts)
        token = _HERE.set(span)
        try:
            yield span
        except BaseException as e:
            span.fail(e)
            if span.id == span.run and isinstance(e, MynaError):
                self._tell_where(span.run, e)
            raise
        finally:
            _HERE.reset(token)
            span.end()

    def _tell_where(self, run: int, error: MynaError) -> None:
        """A note on an error that ends a run in which a model said something: how to see it."""
        with suppress(TraceError):
            query = "SELECT 1 FROM calls JOIN spans ON spans.id = span WHERE run = ? AND reply IS NOT NULL LIMIT 1"
            if self.store.rows(query, run):
                named = "" if self.store.path == trace_file() else f" --trace {shlex.quote(str(self.store.path))}"
                error.add_note(f"(what came until then: myna trace show {run}{named})")

    def begin(self, kind: str, name: str, **facts: Any) -> "Span":
        """A span that whoever asked for it ends. It is not the one that others go below. Raises TraceError."""
        parent = _HERE.get()
        parent = parent if parent is not None and parent.trace is self else None
        with self.store.write() as db:
            (latest,) = db.execute("SELECT ifnull(max(id), 0) + 1 FROM spans").fetchone()
            run = parent.run if parent else latest
            above, noted = parent.id if parent else None, _json(facts)
            row = (latest, run, above, kind, clean(name), time.time(), noted)
            db.execute(
                "INSERT INTO spans (id, run, parent, kind, name, began, facts) VALUES (?, ?, ?, ?, ?, ?, ?)", row
            )
        return Span(self, latest, run)

    def feedback(self, span: int, kind: str, value: object, *, consent: bool) -> int:
        """What a person says of a span: its number. `consent`: whether it may become training data.

        thumb: 1 or -1; edit: the text as it should have been; choice: the number of the candidate that is best; note: text.
        Raises RequestError where the value is none of its kind or there is no such span.
        """
        if kind not in KINDS:
            raise RequestError(f"{kind!r} is no feedback; these are: {', '.join(KINDS)}.", param="kind")
        fits, rule = KINDS[kind]
        if not fits(value):
            raise RequestError(f"{value!r} is no {kind}; {rule}.", param="value")
        with self.store.write() as db:
            if not db.execute("SELECT 1 FROM spans WHERE id = ?", (span,)).fetchone():
                raise RequestError(
                    f"there is no span {span} in {self.store.path}; see `myna trace list`.", param="span"
                )
            row = (span, kind, orjson.dumps(value).decode(), int(consent), time.time())
            done = db.execute("INSERT INTO feedback (span, kind, value, consent, at) VALUES (?, ?, ?, ?, ?)", row)
            return int(done.lastrowid or 0)

    def close(self) -> None:
        self.store.close()


class Span:
    """Something that happens, from its beginning to its end. Its number is `id`; `run` is that of the run it belongs to.

    What cannot be written at its end is told in the log, once, and the span stays open: an answer that was paid for is not lost
    because the disk is full.
    """

    def __init__(self, trace: Trace, id: int, run: int):
        self.trace, self.id, self.run = trace, id, run
        self._outcome: Outcome = "ok"
        self._error: str | None = None
        self._ended = False

    def note(self, **facts: Any) -> None:
        """Add facts; one that has the name of another replaces it."""
        with self.trace.store.write() as db:
            row = (_json(facts), self.id)
            db.execute("UPDATE spans SET facts = json_patch(facts, ?) WHERE id = ?", row)

    def ask(self, model: str, what: Conversation | Document, sampling: Sampling, prompt: str | None = None) -> None:
        """This span is a call: exactly what is asked of which model. `prompt`: the version of the prompt file it comes from."""
        with self.trace.store.write() as db:
            request = write_request(db, what, sampling)
            db.execute(
                "INSERT INTO calls (span, model, prompt, request) VALUES (?, ?, ?, ?)",
                (self.id, model, prompt, request),
            )

    def reply(self, model: str, reply: Reply, usage: Usage | None) -> None:
        """What came back. `usage` is None where nobody said what it took: then the cost is unknown, too."""
        cost = None if usage is None else self.trace.prices.cost(model, usage)
        counts = (None,) * 3 if usage is None else (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        with self._kindly() as db:
            hash = write_reply(db, reply)
            set = "reply = ?, prompt_tokens = ?, completion_tokens = ?, cached_tokens = ?, cost = ?"
            db.execute(f"UPDATE calls SET {set} WHERE span = ?", (hash, *counts, cost, self.id))

    def check(self, name: str, ok: bool, score: float, reason: str = "") -> None:
        """What a check said of what happened here."""
        score = score if math.isfinite(score) else 0.0
        with self._kindly() as db:
            db.execute(
                "INSERT INTO checks VALUES (?, ?, ?, ?, ?)", (self.id, name, int(ok), score, clean(reason[:LONGEST]))
            )

    def keep(self, name: str, value: object) -> str:
        """Store a value by its content and note its hash under `name`; the hash."""
        with self.trace.store.write() as db:
            hash = keep(db, value)
        self.note(**{name: hash})
        return hash

    def fail(self, error: BaseException) -> None:
        """It ends with this error."""
        stopped = isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)
        self._outcome = "cancelled" if stopped else "error"
        self._error = None if stopped else clean(f"{type(error).__name__}: {error}"[:LONGEST])

    def end(self) -> None:
        """It is over. Only the first end counts."""
        if self._ended:
            return
        self._ended = True
        with self._kindly() as db:
            row = (time.time(), self._outcome, self._error, self.id)
            db.execute("UPDATE spans SET ended = ?, outcome = ?, error = ? WHERE id = ?", row)

    @contextmanager
    def _kindly(self) -> Iterator[Any]:
        """A write whose failure is told and goes no further."""
        try:
            with self.trace.store.write() as db:
                yield db
        except TraceError as e:
            log.warning("span %d is not recorded as it should be: %s", self.id, e)


def here() -> Span | None:
    """The span that is open in this context."""
    return _HERE.get()


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "thumb": (lambda value: value in (1, -1) and not isinstance(value, bool), "a thumb is 1 or -1"),
    "edit": (
        lambda value: isinstance(value, str) and bool(value.strip()),
        "an edit is the text as it should have been",
    ),
    "choice": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "a choice is a candidate's number, from 0",
    ),
    "note": (lambda value: isinstance(value, str), "a note is text"),
}


def clean(text: str) -> str:
    """A lone surrogate, which UTF-8 cannot write, as a question mark."""
    return text.encode(errors="replace").decode()


def _json(facts: dict[str, Any]) -> str:
    """Facts as JSON; what is no JSON as its text, and long texts cut, which is said."""
    return orjson.dumps({name: _short(value) for name, value in facts.items()}, default=str).decode()


def _short(value: object) -> object:
    if isinstance(value, Message | Conversation | Document):
        value = value.to_json()
    if isinstance(value, str) and len(value) > LONGEST:
        value = value[:LONGEST] + f" ... [{len(value) - LONGEST} characters are not kept]"
    return clean(value) if isinstance(value, str) else value
