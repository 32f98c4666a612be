"""From sampled ids to what a reader sees, one token at a time: bytes, characters, reasoning, text and calls, stop strings.

Each stage is a small transducer over its whole input, so the outcome cannot depend on how the input was cut up; what a
stage holds back is the shortest tail that a later character could still turn into something else.
"""

import codecs
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from myna.chat.scan import THINK, Begun, Ended, Reader, Said, Scanner, Steps, Thought, Wrote, overlap
from myna.records import CallPiece

OPEN, CLOSE = THINK


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What became visible. `stopped`: a stop string was met, which is not shown, or all calls that were wanted were made;
    nothing follows."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    stopped: bool = False


class Characters:
    """Bytes to characters. Half a character waits for its rest; bytes that are no UTF-8 become U+FFFD, just as in
    `bytes.decode(errors="replace")` of the whole."""

    def __init__(self, strip_blank: bool = False):
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip_blank = strip_blank

    def push(self, data: bytes, last: bool = False) -> str:
        if self._strip_blank and data:
            data, self._strip_blank = data.removeprefix(b" "), False
        return self._decoder.decode(data, last)


class Stops:
    """Passes text on until a stop string is complete. The one completed first wins, of those the longest; this, unlike
    "the one that starts first", is the same for every way to cut up the text."""

    def __init__(self, stops: tuple[str, ...]):
        self._stops = stops
        self._held = ""
        self.met: str | None = None

    @property
    def stopped(self) -> bool:
        return self.met is not None

    def push(self, text: str, last: bool = False) -> str:
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        self._held = ""
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            end, start = min(found)
            self.met = text[start:end]
            return text[:start]
        keep = 0 if last else max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


class Calls:
    """Numbers an answer's calls, sees to it that each has an id, and knows whether all of them were written to their end.

    `taken` are ids that the conversation already uses: a result has to name one call.
    """

    def __init__(self, new_id: Callable[[], str] = new_id, taken: Iterable[str] = ()):
        self._new_id = new_id
        self._taken = set(taken)
        self.count = 0
        self.whole = True

    def piece(self, event: Begun | Wrote) -> CallPiece:
        if isinstance(event, Wrote):
            return CallPiece(self.count - 1, arguments=event.arguments)
        id = event.id if event.id and event.id not in self._taken else self._new_id()
        self._taken.add(id)
        self.count += 1
        return CallPiece(self.count - 1, id, event.name)


class TextStream:
    """One candidate's answer as it is sampled: `push` each id, then `finish`.

    visible    the bytes of an id, markers of calls included
    reader     tells text, reasoning and calls apart; by default there are no calls
    calls      gives calls their ids
    parallel   whether several calls are wanted; if not, the answer is over when the first one is

    Stop strings are looked for in the text and in the reasoning, each by itself; not in calls, which are data.
    """

    def __init__(
        self,
        visible: Callable[[int], bytes],
        stop: tuple[str, ...] = (),
        *,
        reader: Reader | None = None,
        calls: Calls | None = None,
        parallel: bool = True,
        strip_blank: bool = False,
    ):
        self._visible = visible
        self._characters = Characters(strip_blank)
        self._reader = reader or plain()
        self._calls = calls or Calls()
        self._parallel = parallel
        self._text, self._thought = Stops(stop), Stops(stop)
        self.stopped = False

    @property
    def met(self) -> str | None:
        """The stop string that ended the answer."""
        return self._thought.met if self._text.met is None else self._text.met

    @property
    def cut(self) -> bool:
        """Whether a stop string ended the answer."""
        return self.met is not None

    @property
    def called(self) -> bool:
        """Whether there are calls, all of them written to their end."""
        return self._calls.count > 0 and self._calls.whole

    def push(self, id: int) -> TextDelta:
        """What one more token makes visible."""
        return self._pass(self._characters.push(self._visible(id)))

    def finish(self) -> TextDelta:
        """What was held back, on the same path as everything before it."""
        return self._pass(self._characters.push(b"", last=True), last=True)

    def _pass(self, characters: str, last: bool = False) -> TextDelta:
        if self.stopped:
            return TextDelta(stopped=True)
        text = reasoning = ""
        pieces: list[CallPiece] = []
        for event in self._reader.push(characters, last):
            match event:
                case Said():
                    text += self._text.push(event.text)
                case Thought():
                    reasoning += self._thought.push(event.text)
                case Begun() | Wrote():
                    piece = self._calls.piece(event)
                    if isinstance(event, Wrote) and pieces and not pieces[-1].name:
                        piece = replace(piece, arguments=pieces.pop().arguments + piece.arguments)
                    pieces.append(piece)
                case Ended():
                    self._calls.whole &= event.whole
                    self.stopped = not self._parallel
            self.stopped |= self._text.stopped or self._thought.stopped
            if self.stopped:
                break
        if last or self.stopped:
            reasoning += self._thought.push("", last=True)
            text += self._text.push("", last=True)
        return TextDelta(text, reasoning, tuple(pieces), self.stopped)


def only_text(scan: Scanner) -> Steps[None]:
    """The parser of an answer that may call nothing."""
    yield from scan.until()


def plain(inside: bool = False) -> Reader:
    """Tells reasoning from text, and knows no calls."""
    return Reader(only_text, Scanner(inside=inside))
