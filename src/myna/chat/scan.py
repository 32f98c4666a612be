"""Reading what a model writes while it writes it.

A parser here is plain code over a Scanner: a generator that yields where it needs more text than has come. It decides by
characters alone and never by where a piece ended, so however the text is cut, its events, joined, are the same.
"""

import re
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from myna.chat.values import Value, decode
from myna.records import Json

THINK = ("<think>", "</think>")
NOTHING: Mapping[str, Json] = {}
T = TypeVar("T")
Bound = Literal["", "calls", "all"]
"""What of an answer is a call that was cut, though none can be read: nothing; what a marker announced; all of it."""
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


AGAIN, FREE = 4, 1000  # how often the characters of an answer may be read again, on average, and how many besides


class Scanner:
    """The text that has come, how far it was read, and what was made of it (`events`).

    tools     the tools that may be called: name -> JSON Schema of its parameters
    think     what opens and closes reasoning; None where the parser tells it apart by itself
    markers   control tokens, which are never shown
    inside    the text begins inside of reasoning
    bound     what is not shown, as it can only be a call that was cut

    What was read is taken back where it turns out to be no call. A hostile answer has that happen at every line, so there is a
    limit: what an answer costs is linear in its length.
    """

    def __init__(
        self,
        tools: Mapping[str, Json] = NOTHING,
        *,
        think: tuple[str, str] | None = THINK,
        markers: Collection[str] = (),
        inside: bool = False,
        bound: Bound = "",
    ):
        self.tools, self.markers = tools, markers
        self.ended = False  # nothing more comes
        self.events: list[Event] = []
        self.calling = False  # a call has begun and is not over
        self.fresh = True  # nothing but blanks since the line began
        self._text, self._at = "", 0  # a stretch of the answer, and where in it reading goes on
        self._before = 0  # characters of the answer before this stretch
        self._earlier: list[str] = []  # the stretches before it, back to the first of `_notes`
        self._notes: list[int] = []  # places in the answer
        self._again = 0  # characters that were taken back
        self._think, self._inside = think, inside
        self._bound = bound
        self._blanks: list[str] = []  # white space that may turn out to stand beside a call
        self._line_ends = 0  # of reasoning, that may turn out to be its last
        self._said = self._after_call = False
        self._cut = False  # what is said is a call that was cut

    def feed(self, text: str, last: bool) -> None:
        """More of the answer has come."""
        if self._notes:
            self._earlier.append(self._text[: self._at])
        self._before += self._at
        self._text, self._at, self.ended = self._text[self._at :] + text, 0, last

    @property
    def waits(self) -> bool:
        """Whether everything that has come was read."""
        return self._at == len(self._text)

    @property
    def tired(self) -> bool:
        """Whether so much was taken back that calls without a marker are not looked for any more, nor those whose marker is
        of no help."""
        return self._again > AGAIN * (FREE + self._place)

    @property
    def _place(self) -> int:
        """How many characters of the answer were read."""
        return self._before + self._at

    # What a parser makes of it.

    def say(self, text: str) -> None:
        """Show text. Where calls are possible, white space waits until it is known not to stand beside one."""
        if not text:
            return
        line = text.rpartition("\n")[2]
        self.fresh = not line.strip() and (self.fresh or "\n" in text)
        if self.tools:
            body = text.rstrip()
            text, blank = "".join([*self._take_blanks(), body]) if body else "", text[len(body) :]
            self._blanks += [blank] if blank else []
            if self._after_call and not self._said:
                text = text.lstrip()
        self._show(text)

    def announced(self) -> None:
        """Where calls are bound, no text follows a call or a marker of one."""
        self._cut = self._bound != ""

    def stray(self, text: str) -> None:
        """Show text that stands where the syntax has none. Where calls are bound, it is a call that was cut."""
        if not self._bound:
            self.say(text)

    def _show(self, text: str) -> None:
        if not text or self._cut or self._bound == "all":
            return
        self.events.append(Said(text))
        self._said, self._after_call = True, False

    def _take_blanks(self) -> list[str]:
        blanks, self._blanks = self._blanks, []
        return blanks

    def think(self, text: str) -> None:
        if text:
            self.events.append(Thought(text))

    def begin(self, name: str, id: str = "") -> None:
        """A call begins. What was read cannot be taken back any more."""
        self._earlier.clear()
        self._notes.clear()
        self._blanks.clear()
        self.calling = self._after_call = self.fresh = True
        self.announced()
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
        if (blank := "".join(self._take_blanks())) and not self._after_call:
            self._show(blank)

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
            word = self._to(words, self.say)
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
            word = self._to(marks, take)
            if word or not (yield from self.more()):
                return word

    def _to(self, words: tuple[str, ...], take: Callable[[str], None]) -> str:
        """Hand what is known to stand before the first of `words` to `take`, and read that word, if it has come."""
        at, word = first(self._text, words, self.ended, self._at)
        tail = self._text[max(self._at, len(self._text) - _longest(words)) :]
        held = 0 if word or self.ended else overlaps(tail, words)
        take(self.eat(at - held - self._at))
        self.eat(len(word))
        return word

    def before(self, *marks: str) -> Steps[tuple[str, str]]:
        """(what stands before the first of `marks`, that mark or "")."""
        parts: list[str] = []
        mark = yield from self.upto(*marks, take=parts.append)
        return "".join(parts), mark

    def peek(self) -> Steps[str]:
        """The next character, left where it is; "" at the end."""
        while self.waits and (yield from self.more()):
            pass
        return self._text[self._at : self._at + 1]

    def blank(self) -> Steps[None]:
        """Read white space."""
        while (yield from self.peek()).isspace():
            self.eat(_size(_BLANK.match(self._text, self._at)))

    def take(self, *words: str) -> Steps[str]:
        """Read the one of `words` that comes next, the longest of several, and return it; "" if none does."""
        longest = _longest(words)
        while len(self._text) - self._at < longest:
            rest = self._text[self._at :]
            if not any(len(word) > len(rest) and word.startswith(rest) for word in words):
                break
            if not (yield from self.more()):
                break
        found = max((word for word in words if self._text.startswith(word, self._at)), key=len, default="")
        return self.eat(len(found))

    def word(self) -> Steps[str]:
        """Read a name: letters, digits, and what stands between them in the names of functions; "" if none comes next."""
        parts: list[str] = []
        while (yield from self.peek()) and (size := _size(_WORD.match(self._text, self._at))):
            parts.append(self.eat(size))
        return "".join(parts)

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
            take(self.eat(reader.read(self._text, self._at)))
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
        start, self._at = self._at, self._at + size
        return self._text[start : self._at]

    def back(self, text: str) -> None:
        """Put back what was read last."""
        self._go(self._place - len(text), text)

    def note(self) -> None:
        """Remember this place: either a call begins, or `rewind` goes back to it."""
        self._notes.append(self._place)

    def rewind(self) -> None:
        """Back to the last noted place, as if nothing had been read since."""
        assert self._notes, "a call has begun since; what was read cannot be taken back"
        self._go(self._notes.pop(), None)
        self._forget()

    def drop(self) -> None:
        """The last noted place is not needed."""
        if self._notes:
            self._notes.pop()
            self._forget()

    def _forget(self) -> None:
        if not self._notes:
            self._earlier.clear()

    def _go(self, place: int, text: str | None) -> None:
        """Go back to an earlier place of the answer. `text`: what stands from there to here, where no place was noted."""
        self._again += self._place - place
        if place < self._before:
            seen = text[: self._before - place] if text is not None and not self._notes else "".join(self._earlier)
            self._text = seen[place - self._before :] + self._text
            self._earlier = [seen[: place - self._before]] if self._notes else []
            self._before = place
        self._at = place - self._before

    def _reason(self) -> Steps[None]:
        """Read reasoning up to its closing marker. The line ends around a block are the marker's: templates write
        "<think>\\n...\\n</think>\\n\\n" and put them back."""
        assert self._think
        self._inside, self._line_ends = True, 0
        yield from self._read_line_ends()
        closed = yield from self.upto(self._think[1], take=self._think_on)
        self._inside, self.fresh = not closed, True
        if closed:
            yield from self._read_line_ends()

    def _think_on(self, text: str) -> None:
        """Line ends wait until it is known that they are not the last."""
        body = text.rstrip("\n")
        if body:
            self.think("\n" * self._line_ends + body)
            self._line_ends = 0
        self._line_ends += len(text) - len(body)

    def _read_line_ends(self) -> Steps[None]:
        while (yield from self.peek()) == "\n":
            self.eat(_size(_LINE_ENDS.match(self._text, self._at)))


class Reader:
    """A parser at work: `push` text, get the events it amounts to."""

    def __init__(self, parse: Callable[[Scanner], Steps[None]], scanner: Scanner):
        self._scanner = scanner
        self._steps = parse(scanner)

    def push(self, text: str, last: bool = False) -> list[Event]:
        scanner = self._scanner
        scanner.feed(text, last)
        if not scanner.waits or last:
            next(self._steps, None)
        if last:
            scanner.close()
        events, scanner.events = scanner.events, []
        return events


_WORD = re.compile(r"[\w.\-]+")
_BLANK = re.compile(r"\s*")
_LINE_ENDS = re.compile(r"\n*")


def _size(found: re.Match[str] | None) -> int:
    return found.end() - found.start() if found else 0


def _longest(words: tuple[str, ...]) -> int:
    return max(map(len, words), default=0)


@lru_cache(256)
def _any(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words, the longest first. One search for all: each character is looked at once."""
    return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or r"(?!)")


def first(text: str, words: tuple[str, ...], ended: bool, start: int = 0) -> tuple[int, str]:
    """(where the first of `words` begins, that word, the longest of several); (length of the text, "") if none does, or if
    it may yet turn out to be a longer one."""
    found = _any(words).search(text, start)
    if not found:
        return len(text), ""
    if not ended and len(text) - found.start() < _longest(words):
        tail = text[found.start() :]
        if any(len(other) > len(tail) and other.startswith(tail) for other in words):
            return len(text), ""
    return found.start(), found[0]


def overlaps(text: str, words: tuple[str, ...]) -> int:
    """Length of the longest tail of `text` that may become one of `words`."""
    return max((overlap(text, word) for word in words), default=0)


def overlap(text: str, word: str) -> int:
    """Length of the longest tail of `text` that is a proper prefix of `word`."""
    for size in range(min(len(word) - 1, len(text)), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
