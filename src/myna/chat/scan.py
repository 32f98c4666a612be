"""Reading what a model writes while it writes it.

A parser here is plain code over a Scanner: a generator that yields where it needs more text than has come. It decides by
characters alone and never by where a piece ended, so however the text is cut, its events, joined, are the same.
"""

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from myna.chat.values import Value, decode
from myna.records import Json

THINK = ("<think>", "</think>")
NOTHING: Mapping[str, Json] = {}
T = TypeVar("T")
Steps = Generator[None, None, T]  # yields for more text; returns T


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A call begins. `id` only where the syntax has one."""

    name: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Wrote:
    """A piece of the arguments of the call that has begun: JSON text."""

    arguments: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over. `whole`: it was written to its end; else it broke off, and its arguments are as far as they came."""

    whole: bool


Event = Said | Thought | Begun | Wrote | Ended


class Scanner:
    """The text that has come and was not yet read (`rest`), and what was made of it (`events`).

    tools     the tools that may be called: name -> JSON Schema of its parameters
    think     what opens and closes reasoning; None where the parser tells it apart by itself
    inside    the text begins inside of reasoning
    """

    def __init__(
        self,
        tools: Mapping[str, Json] = NOTHING,
        *,
        think: tuple[str, str] | None = THINK,
        inside: bool = False,
    ):
        self.tools = tools
        self.rest = ""
        self.ended = False  # nothing follows `rest`
        self.events: list[Event] = []
        self.calling = False  # a call has begun and is not over
        self.fresh = True  # nothing but blanks since the line began
        self._think, self._inside = think, inside
        self._log: str | None = None  # what was read since the first of `_notes`
        self._notes: list[int] = []
        self._blank = ""  # white space that may turn out to stand beside a call
        self._said = self._after_call = False

    # What a parser makes of it.

    def say(self, text: str) -> None:
        """Show text. Where calls are possible, white space waits until it is known not to stand beside one."""
        if not text:
            return
        line = text.rpartition("\n")[2]
        self.fresh = not line.strip() and (self.fresh or "\n" in text)
        if self.tools:
            text = self._blank + text
            body = text.rstrip()
            self._blank, text = text[len(body) :], body
            if self._after_call and not self._said:
                text = text.lstrip()
        if text:
            self.events.append(Said(text))
            self._said, self._after_call = True, False

    def think(self, text: str) -> None:
        if text:
            self.events.append(Thought(text))

    def begin(self, name: str, id: str = "") -> None:
        """A call begins. What was read cannot be taken back any more."""
        self._log, self._blank = None, ""
        self._notes.clear()
        self.calling = self._after_call = self.fresh = True
        self.events.append(Begun(name, id))

    def write(self, arguments: str) -> None:
        if arguments:
            self.events.append(Wrote(arguments))

    def end(self, whole: bool = True) -> None:
        self.calling = False
        self.events.append(Ended(whole))

    def close(self) -> None:
        """The answer is over: a call that is not breaks off; blanks that stood beside no call are shown."""
        if self.calling:
            self.end(whole=False)
        if self._blank and not self._after_call:
            self.events.append(Said(self._blank))
        self._blank = ""

    # Reading. Each of these waits until it can decide.

    def more(self) -> Steps[bool]:
        """Wait for more text. False if there is none."""
        if self.ended:
            return False
        yield
        return True

    def until(self, *marks: str) -> Steps[str]:
        """Show what stands before the first of `marks`, read that, and return it; "" at the end. Reasoning on the way is
        told apart, and marks inside of it are none."""
        if self._inside:
            yield from self._reason()
        words = (*marks, *(self._think or ())[:1])
        while True:
            at, word = first(self.rest, words, self.ended)
            self.say(self.eat(at if word or self.ended else at - overlaps(self.rest, words)))
            self.eat(len(word))
            if word in marks:
                return word
            if word:
                yield from self._reason()
            elif not (yield from self.more()):
                return ""

    def upto(self, *marks: str, take: Callable[[str], None]) -> Steps[str]:
        """Hand what stands before the first of `marks` to `take`, as it comes, read the mark, and return it; "" at the
        end."""
        while True:
            at, word = first(self.rest, marks, self.ended)
            take(self.eat(at if word or self.ended else at - overlaps(self.rest, marks)))
            self.eat(len(word))
            if word or not (yield from self.more()):
                return word

    def before(self, *marks: str) -> Steps[tuple[str, str]]:
        """(what stands before the first of `marks`, that mark or "")."""
        parts: list[str] = []
        mark = yield from self.upto(*marks, take=parts.append)
        return "".join(parts), mark

    def peek(self) -> Steps[str]:
        """The next character, left where it is; "" at the end."""
        while not self.rest and (yield from self.more()):
            pass
        return self.rest[:1]

    def blank(self) -> Steps[str]:
        """Read white space."""
        found = ""
        while (yield from self.peek()).isspace():
            found += self.eat(len(self.rest) - len(self.rest.lstrip()))
        return found

    def take(self, *words: str) -> Steps[str]:
        """Read the one of `words` that comes next, the longest of several, and return it; "" if none does."""
        while any(len(word) > len(self.rest) and word.startswith(self.rest) for word in words):
            if not (yield from self.more()):
                break
        found = max((word for word in words if self.rest.startswith(word)), key=len, default="")
        return self.eat(len(found))

    def word(self) -> Steps[str]:
        """Read a name: letters, digits, and what stands between them in the names of functions; "" if none comes next."""
        found = ""
        while (yield from self.peek()) and (size := _size(_WORD.match(self.rest))):
            found += self.eat(size)
        return found

    def value(self, reader: Value | None = None) -> Steps[tuple[str, bool]]:
        """One value, JSON's by default, as it is written, and whether it is whole."""
        parts: list[str] = []
        whole = yield from self.stream_value(parts.append, reader)
        return "".join(parts), whole

    def stream_value(self, take: Callable[[str], None], reader: Value | None = None) -> Steps[bool]:
        """Hand one value, JSON's by default, to `take`, character by character as written, sound or not. False if it breaks off: at the
        end, or where something stands outside of strings that is no JSON (the next marker)."""
        reader = reader or Value()
        while True:
            take(self.eat(reader.read(self.rest)))
            if reader.over:
                return not reader.broken
            if not (yield from self.more()):
                return reader.is_scalar

    def string(self) -> Steps[str | None]:
        """A JSON string, decoded; None if none comes next (something else may have been read)."""
        text, whole = yield from self.value()
        decoded = decode(text) if whole else None
        return decoded if isinstance(decoded, str) else None

    def eat(self, size: int) -> str:
        text, self.rest = self.rest[:size], self.rest[size:]
        if self._log is not None:
            self._log += text
        return text

    def back(self, text: str) -> None:
        """Put back what was read last."""
        self.rest = text + self.rest
        if self._log is not None:
            self._log = self._log[: len(self._log) - len(text)]

    def note(self) -> None:
        """Remember this place: either a call begins, or `rewind` goes back to it."""
        self._log = "" if self._log is None else self._log
        self._notes.append(len(self._log))

    def rewind(self) -> None:
        """Back to the last noted place, as if nothing had been read since."""
        assert self._log is not None, "a call has begun since; what was read cannot be taken back"
        place = self._notes.pop()
        self.rest = self._log[place:] + self.rest
        self._log = self._log[:place] if self._notes else None

    def drop(self) -> None:
        """The last noted place is not needed."""
        if self._notes:
            self._notes.pop()
            self._log = self._log if self._notes else None

    def _reason(self) -> Steps[None]:
        """Read reasoning up to its closing marker. The line ends around a block are the marker's: templates write
        "<think>\\n...\\n</think>\\n\\n" and put them back."""
        assert self._think
        close, self._inside = self._think[1], True
        yield from self._line_ends()
        while (at := self.rest.find(close)) < 0:
            tail = 0 if self.ended else overlap(self.rest, close)
            shown = self.rest[: len(self.rest) - tail].rstrip("\n")
            self.think(self.eat(len(shown)))
            if not (yield from self.more()):
                self.eat(len(self.rest))
                return
        self.think(self.eat(at).rstrip("\n"))
        self.eat(len(close))
        self._inside, self.fresh = False, True
        yield from self._line_ends()

    def _line_ends(self) -> Steps[None]:
        while (yield from self.peek()) == "\n":
            self.eat(len(self.rest) - len(self.rest.lstrip("\n")))


class Reader:
    """A parser at work: `push` text, get the events it amounts to."""

    def __init__(self, parse: Callable[[Scanner], Steps[None]], scanner: Scanner):
        self._scanner = scanner
        self._steps = parse(scanner)

    def push(self, text: str, last: bool = False) -> list[Event]:
        scanner = self._scanner
        scanner.rest += text
        scanner.ended = last
        if scanner.rest or last:
            next(self._steps, None)
        if last:
            scanner.close()
        events, scanner.events = scanner.events, []
        return events


_WORD = re.compile(r"[\w.\-]+")


def _size(found: re.Match[str] | None) -> int:
    return found.end() if found else 0


def first(text: str, words: tuple[str, ...], ended: bool) -> tuple[int, str]:
    """(where the first of `words` begins, that word, the longest of several); (length of the text, "") if none does, or if
    it may yet turn out to be a longer one."""
    found = [(at, -len(word), word) for word in words if (at := text.find(word)) >= 0]
    at, _, word = min(found, default=(len(text), 0, ""))
    tail = text[at:]
    if word and not ended and any(len(other) > len(tail) and other.startswith(tail) for other in words):
        return len(text), ""
    return at, word


def overlaps(text: str, words: tuple[str, ...]) -> int:
    """Length of the longest tail of `text` that may become one of `words`."""
    return max((overlap(text, word) for word in words), default=0)


def overlap(text: str, word: str) -> int:
    """Length of the longest tail of `text` that is a proper prefix of `word`."""
    for size in range(min(len(word) - 1, len(text)), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
