"""Values inside of what a model writes: where one ends, however it is cut, and what it says."""

import json
import re

MAX_DEPTH = 200  # of a value that we look into; Python's own parsers recurse
_OPENERS = re.compile(r"[\[{(]")


class Value:
    """Finds the end of a JSON value. A single quote, too, opens a string: no JSON, but models write it."""

    OPENERS, CLOSERS = "{[", "}]"
    FOREIGN = "<`"  # what cannot stand in the value outside of strings

    def __init__(self) -> None:
        self.over = self.broken = False
        self.depth = 0
        self.begun = False
        self._quote = ""
        self._escaped = False

    @property
    def is_scalar(self) -> bool:
        """A number or a word: what ends with the text."""
        return self.begun and not self.depth and not self._quote

    def read(self, text: str, start: int = 0) -> int:
        """How many characters of `text` from `start` on belong to the value."""
        for i in range(start, len(text)):
            char = text[i]
            if self._quote:
                self._in_string(char)
            elif char in self.FOREIGN or (not self.depth and self.ends(char)):
                self.over, self.broken = True, bool(self.depth) or not self.begun
                return i - start
            elif char in "\"'":
                self._quote = char
            else:
                self.depth += (char in self.OPENERS) - (char in self.CLOSERS)
                self.over = char in self.CLOSERS and self.closes()
            self.begun = True
            if self.over:
                return i + 1 - start
        return len(text) - start

    def ends(self, char: str) -> bool:
        """Whether the value is over before this character, outside of brackets."""
        return char in "}],;)" or (self.begun and char.isspace())

    def closes(self) -> bool:
        """Whether the value is over after this quote or bracket."""
        return not self.depth

    def _in_string(self, char: str) -> None:
        if self._escaped or char == "\\":
            self._escaped = not self._escaped
        elif char == self._quote:
            self._quote = ""
            self.over = self.closes()


class PythonValue(Value):
    """Finds the end of a Python value: a comma or a closing bracket outside of brackets and strings."""

    OPENERS, CLOSERS = "{[(", "}])"
    FOREIGN = ""

    def ends(self, char: str) -> bool:
        return char in ",)]}"

    def closes(self) -> bool:
        return False


def decode(text: str) -> object:
    """The value of JSON text; None if it is none, or nested too deeply."""
    if len(text) > MAX_DEPTH and len(_OPENERS.findall(text)) > MAX_DEPTH and depth(text) > MAX_DEPTH:
        return None
    try:
        value = json.loads(text)
        if isinstance(value, str):
            value.encode()
        return value
    except (ValueError, RecursionError):  # also where a string has half a surrogate pair, which is no text
        return None


def depth(text: str) -> int:
    """How deeply brackets nest in a text, at most: those in strings count as well."""
    deepest = now = 0
    for char in text:
        now += (char in "[{(") - (char in "]})")
        deepest = max(deepest, now)
    return deepest
