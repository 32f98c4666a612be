"""From sampled ids to what a reader sees, one token at a time: bytes, characters, reasoning and text, stop strings.

Each stage is a small transducer over its whole input, so the outcome cannot depend on how the input was cut up; what a
stage holds back is the shortest tail that a later character could still turn into something else.
"""

import codecs
from collections.abc import Callable
from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What became visible. `stopped`: a stop string was met; nothing follows, and the stop string is not shown."""

    text: str = ""
    reasoning: str = ""
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


class Reasoning:
    """Characters to (is reasoning, text) pieces. The markers are never shown, nor are the line ends around a block:
    templates write "<think>\\n...\\n</think>\\n\\n" and put them back."""

    def __init__(self, inside: bool = False):
        self._inside = inside
        self._held = ""
        self._trim = inside  # line ends at the front of what comes next belong to the marker

    def push(self, text: str, last: bool = False) -> list[tuple[bool, str]]:
        if not self._inside and not self._held and not self._trim and "<" not in text:
            return [(False, text)] if text else []
        pieces: list[tuple[bool, str]] = []
        rest = self._held + text
        while True:
            rest = rest.lstrip("\n") if self._trim else rest
            self._trim = self._trim and not rest
            marker = CLOSE if self._inside else OPEN
            at = rest.find(marker)
            if at < 0:
                break
            pieces.append((self._inside, rest[:at].rstrip("\n") if self._inside else rest[:at]))
            rest = rest[at + len(marker) :]
            self._inside, self._trim = not self._inside, True
        self._held = "" if last else self._undecided(rest, marker)
        shown = rest[: len(rest) - len(self._held)]
        pieces.append((self._inside, shown.rstrip("\n") if last and self._inside else shown))
        return [piece for piece in pieces if piece[1]]

    def _undecided(self, text: str, marker: str) -> str:
        """The tail that may yet be a marker, with the line ends before it, which go if it is."""
        tail = text[len(text) - overlap(text, marker) :]
        if not self._inside:
            return tail
        return text[len(text[: len(text) - len(tail)].rstrip("\n")) :]


class Stops:
    """Passes text on until a stop string is complete. The one completed first wins, of those the longest; this, unlike
    "the one that starts first", is the same for every way to cut up the text."""

    def __init__(self, stops: tuple[str, ...]):
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, text: str, last: bool = False) -> str:
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        self._held = ""
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)[1]]
        keep = 0 if last else max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, word: str) -> int:
    """Length of the longest tail of `text` that is a proper prefix of `word`."""
    for size in range(min(len(word) - 1, len(text)), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0


class TextStream:
    """One candidate's answer as it is sampled: `push` each id, then `finish`.

    `visible` gives the bytes of an id. Stop strings are looked for in the text and in the reasoning, each by itself.
    """

    def __init__(
        self,
        visible: Callable[[int], bytes],
        stop: tuple[str, ...] = (),
        *,
        open_reasoning: bool = False,
        strip_blank: bool = False,
    ):
        self._visible = visible
        self._characters = Characters(strip_blank)
        self._reasoning = Reasoning(open_reasoning)
        self._text, self._thought = Stops(stop), Stops(stop)
        self.stopped = False

    def push(self, id: int) -> TextDelta:
        """What one more token makes visible."""
        return self._pass(self._characters.push(self._visible(id)))

    def finish(self) -> TextDelta:
        """What was held back, on the same path as everything before it."""
        return self._pass(self._characters.push(b"", last=True), last=True)

    def _pass(self, characters: str, last: bool = False) -> TextDelta:
        text = reasoning = ""
        if not self.stopped:
            for is_reasoning, piece in self._reasoning.push(characters, last):
                if is_reasoning:
                    reasoning += self._thought.push(piece)
                else:
                    text += self._text.push(piece)
                if self._thought.stopped or self._text.stopped:
                    self.stopped = last = True
                    break
            if last:
                reasoning += self._thought.push("", last=True)
                text += self._text.push("", last=True)
        return TextDelta(text, reasoning, self.stopped)
