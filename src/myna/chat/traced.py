"""Text that remembers where it came from, so that only what the template itself wrote can be read as markup.

A chat template glues its own literals ("<|im_start|>") to what people typed. Afterwards the two look the same; that is
how a typed "<|im_end|>" becomes the real one. Here every string of a rendering is a `Traced`: a str, equal to the
plain string in every comparison, that carries its parts and the origin of each. Operations we know keep the
origins; any other yields a plain str, and a plain str is untrusted. Forgetting is therefore safe: it can cost the
template a control token, never give one to a user.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby
from operator import itemgetter
from string import Formatter
from typing import Any, NamedTuple, SupportsIndex


class Origin(NamedTuple):
    """Who wrote a piece of text: the template ("markup"), a message (its role and index), or we cannot say ("text")."""

    kind: str
    message: int | None = None


MARKUP = Origin("markup")
TEXT = Origin("text")
Part = tuple[str, Origin]
Place = tuple[int, int, Origin]  # start, end and origin of a part within its text
MANY = 10_000  # pieces of one string, beyond which its origins are given up rather than followed one by one


class Traced(str):
    """A str with `parts`: (text, origin) pieces whose texts concatenate to it. Neighbours differ in origin.

    An empty part is kept when it comes from a message: it marks where an empty message stands.
    """

    __slots__ = ("parts",)
    parts: tuple[Part, ...]

    def __new__(cls, text: str, origin: Origin = TEXT) -> "Traced":
        self = str.__new__(cls, str.__str__(text))
        self.parts = ((str.__str__(text), origin),)
        return self

    @classmethod
    def of(cls, parts: Iterable[Part]) -> "Traced":
        merged: list[Part] = []
        for origin, group in groupby(parts, key=itemgetter(1)):
            text = "".join([text for text, _ in group])
            if not text and origin.message is None:
                continue
            if merged and merged[-1][1] == origin:  # an empty part stood between
                text = merged.pop()[0] + text
            merged.append((text, origin))
        self = str.__new__(cls, "".join([text for text, _ in merged]))
        self.parts = tuple(merged)
        return self

    @property
    def places(self) -> list[Place]:
        """Where every part stands, in order."""
        ends = list(accumulate(len(text) for text, _ in self.parts))
        return [(end - len(text), end, origin) for end, (text, origin) in zip(ends, self.parts, strict=True)]

    def __str__(self) -> "Traced":
        return self

    def __add__(self, other: str) -> "Traced":
        return Traced.of((*self.parts, *parts_of(other))) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> "Traced":
        return Traced.of((*parts_of(other), *self.parts)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> "Traced":
        if len(self.parts) == 1:
            return Traced(super().__mul__(times), self.parts[0][1])
        return Traced.of(self.parts * times.__index__())

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> str:
        if self.replace("%%", "").count("%") != self.count("%s") or "%%" in self:
            return super().__mod__(values)  # widths, numbers, keys: the origins are given up
        given = values if isinstance(values, tuple) else (values,)
        pieces = self.split("%s")
        if len(pieces) != len(given) + 1:
            return super().__mod__(values)
        return Traced.of(part for pair in zip(pieces, (*given, ""), strict=True) for x in pair for part in parts_of(x))

    def __getitem__(self, key: SupportsIndex | slice) -> "Traced":
        if not isinstance(key, slice):
            i = range(len(self))[key]
            return self._cut(i, i + 1)
        start, stop, step = key.indices(len(self))
        if step != 1:
            return Traced(super().__getitem__(key), self._only_origin())
        return self._cut(start, max(start, stop))

    def __iter__(self) -> Iterator[str]:
        return (Traced(char, origin) for text, origin in self.parts for char in text)

    def strip(self, chars: str | None = None) -> "Traced":
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> "Traced":
        return self._cut(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None) -> "Traced":
        return self._cut(0, len(super().rstrip(chars)))

    def removeprefix(self, prefix: str) -> "Traced":
        return self._cut(len(prefix), len(self)) if self.startswith(prefix) else self

    def removesuffix(self, suffix: str) -> "Traced":
        return self._cut(0, len(self) - len(suffix)) if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._locate(super().split(sep, maxsplit), None if sep is None else len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._locate(super().rsplit(sep, maxsplit), None if sep is None else len(sep))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._locate(super().splitlines(keepends), 0 if keepends else None)

    def partition(self, sep: str) -> tuple[str, str, str]:
        a, b, c = self._locate(list(super().partition(sep)))
        return a, b, c

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        a, b, c = self._locate(list(super().rpartition(sep)))
        return a, b, c

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> "Traced":
        if not old:  # `new` between all characters, and whoever wrote it may not be who wrote them
            return Traced(super().replace(old, new, count))
        pieces = self.split(old, count)
        if len(pieces) > MANY:
            return Traced(super().replace(old, new, count))
        parts: list[Part] = []
        for i, piece in enumerate(pieces):
            parts += [*(parts_of(new) if i else ()), *parts_of(piece)]
        return Traced.of(parts)

    def join(self, items: Iterable[str]) -> "Traced":
        parts: list[Part] = []
        for i, item in enumerate(items):
            parts += [*(self.parts if i else ()), *parts_of(item)]
        return Traced.of(parts)

    def lower(self) -> "Traced":
        return self._each(str.lower)

    def upper(self) -> "Traced":
        return self._each(str.upper)

    def title(self) -> "Traced":
        return Traced(super().title(), self._only_origin())

    def capitalize(self) -> "Traced":
        return Traced(super().capitalize(), self._only_origin())

    def format(self, *args: object, **kwargs: object) -> "Traced":
        """`{}`, `{0}` and `{name}`; anything finer could reach attributes or pad without end, and is a ValueError."""
        parts: list[Part] = []
        counter = iter(range(len(args)))
        for literal, name, spec, conversion in Formatter().parse(str.__str__(self)):
            parts.append((literal, self._only_origin()))
            if spec or conversion or (name and not name.isidentifier() and not name.isdecimal()):
                raise ValueError(f"format field {{{name}}} is not supported; use {{}}, {{0}} or {{name}}")
            if name is not None:
                value = kwargs[name] if name.isidentifier() else args[int(name) if name else next(counter)]
                parts += parts_of(value)
        return Traced.of(parts)

    def _only_origin(self) -> Origin:
        return self.parts[0][1] if len(self.parts) == 1 else TEXT

    def _each(self, change: Callable[[str], str]) -> "Traced":
        return Traced.of((change(text), origin) for text, origin in self.parts)

    def _cut(self, start: int, stop: int) -> "Traced":
        """Characters start to stop, with their origins."""
        if start == 0 and stop == len(self):
            return self
        parts: list[Part] = []
        at = 0
        for text, origin in self.parts:
            low, high = max(start - at, 0), min(stop - at, len(text))
            if low <= high:
                parts.append((text[low:high], origin))
            at += len(text)
        return Traced.of(parts)

    def _locate(self, pieces: list[str], gap: int | None = 0) -> list[str]:
        """The same pieces with their origins. They follow each other in self, `gap` characters apart; None: apart by
        characters that are in no piece."""
        if len(self.parts) == 1:
            return [Traced(piece, self.parts[0][1]) for piece in pieces]
        if len(pieces) * len(self.parts) > MANY:
            return pieces
        found: list[str] = []
        at = 0
        for piece in pieces:
            start = at if gap is not None else self.index(piece, at)
            found.append(self._cut(start, start + len(piece)))
            at = start + len(piece) + (gap or 0)
        return found


def parts_of(value: object) -> tuple[Part, ...]:
    """The parts of a value as it is written into text. What is not Traced is untrusted."""
    return value.parts if isinstance(value, Traced) else ((str(value), TEXT),)
