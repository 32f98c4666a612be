"""What an answer must be that may not call just as it likes: a Lark grammar, in llguidance's dialect, of calls as the model
writes them.

The grammar is read off the dialect's own `write`: calls with stand-ins for the name and the arguments show what stands around
them. JSON in a code fence, which parsers read in all syntaxes but those that frame every answer, is allowed beside it: many
models write that although they were taught otherwise (bound to <tool_call>, Qwen2.5-Coder does not know when to stop).

Where the model may say something instead, the name of a tool decides: text is whatever does not write one as a call does, and
an answer that begins as a call of a tool goes on as that call. A lexer takes the longest match, and text would swallow a call's
beginning, so that is one terminal with the name, in which blanks are as free as parsers have them.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from myna.chat.arguments import written
from myna.chat.calls import NAMES, quoted
from myna.chat.dialects import FALLBACK, Dialect, dialect
from myna.records import Form, Style, ToolCall, ToolChoice

NAME, ARGUMENTS = "NAMESTANDSHERE", "ARGUMENTSSTANDHERE"
BLANKS = r"[\s\x1c-\x1f]*"  # what parsers pass over
FEW = r"( |\n[ \t]{0,24})?"  # what they have to where nothing but a call can follow; there a model must come to an end
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Arguments:
    """A Lark grammar of a tool's arguments as JSON, and one as the dialect writes them; None where that cannot be held to the
    schema exactly."""

    json: str
    own: str | None = None


def calls_form(
    speaks: Dialect,
    tools: Mapping[str, Arguments],
    choice: ToolChoice,
    control: Mapping[str, int],
    stop_ids: Collection[int],
) -> Form:
    """The form of an answer that follows `choice`: calls, and where the model decides, text that holds none.

    tools     name -> what its arguments may be
    control   the control tokens, which a grammar cannot spell: text -> id
    """
    called = {choice.name: tools[choice.name]} if choice.mode == "named" else dict(sorted(tools.items()))
    several = choice.parallel and choice.mode != "named"
    free = choice.mode == "auto" and not speaks.text
    shapes = [*_shapes(speaks), *(_LOOSE if free else ())]
    writer = _Writer(called, several, control, frozenset(stop_ids), free)
    rules = [*dict.fromkeys(rule for i, shape in enumerate(shapes) for rule in writer.answer(shape, i))]
    starts = [rule.partition(":")[0] for rule in rules if rule.startswith("answer_")]
    if choice.mode == "auto":
        starts.append("text")
        rules += writer.text(speaks, shapes)
    before = ""
    if speaks.musing:
        before = "(musing)* "
        rules.append(writer.musing(speaks, shapes[0]))
    return Form("grammar", "\n".join([f"start: {before}({' | '.join(starts)})", *rules]), param="tools")


@dataclass(frozen=True, slots=True)
class _Shape:
    """What stands around calls: before the first name, between name and arguments, between calls, at the end.

    numbered    the calls' numbers are written too
    """

    before: str
    middle: str
    between: str
    after: str
    numbered: bool = False
    style: Style | None = None
    markers: frozenset[str] = frozenset()

    def arguments(self, tool: str, found: Arguments) -> str | None:
        """The grammar of a tool's arguments in this shape; None where it has none, or the name cannot be written."""
        if self.style is None:
            return found.json
        return found.own if re.fullmatch(r"[\w.-]+", tool) else None

    def tail(self) -> str:
        """An expression of what stands between name and arguments."""
        parts = _NUMBER.split(self.middle) if self.numbered else [self.middle]
        return "".join("[0-9]{1,3}" if part.isdigit() else _spaced(part, FEW) for part in parts)


def _shapes(speaks: Dialect) -> list[_Shape]:
    alone = speaks.name == FALLBACK or speaks.text
    return [_shape(speaks)] if alone else [_shape(speaks), _shape(dialect(FALLBACK))]


def _shape(speaks: Dialect) -> _Shape:
    arguments = ARGUMENTS if speaks.style is None else json.dumps({ARGUMENTS: ARGUMENTS})
    call = ToolCall("", NAME, arguments)
    stand_in = ARGUMENTS if speaks.style is None else "".join(written(speaks.style, call))
    pieces = re.split(f"{NAME}|{re.escape(stand_in)}", "".join(speaks.write([call, call])))
    before, middle, between, second, after = pieces
    return _Shape(before, middle, between, after, middle != second, speaks.style, speaks.markers)


def _loose(opens: str, between: str, closes: str) -> _Shape:
    return _Shape(opens + '{"name": "', '", "arguments": ', "}" + between + '{"name": "', "}" + closes)


# As models write calls that were taught another way, where a fence is not all that announces one.
_LOOSE = (_loose("```json\n[", ", ", "]\n```"), _loose("", "\n", ""), _loose("[", ", ", "]"))


class _Writer:
    """Writes the rules of calls in one shape.

    free    the model may say something instead of a call
    """

    def __init__(
        self,
        tools: Mapping[str, Arguments],
        several: bool,
        control: Mapping[str, int],
        stop_ids: frozenset[int],
        free: bool,
    ):
        self._tools, self._several, self._free = tools, several, free
        self._control, self._stop_ids = control, stop_ids

    def answer(self, shape: _Shape, i: int) -> Iterator[str]:
        """The rules of an answer in this shape; none where no tool can be called in it."""
        calls = [
            (k, name, lark)
            for k, (name, found) in enumerate(self._tools.items())
            if (lark := shape.arguments(name, found)) is not None
        ]
        if not calls:
            return
        before, between, after = (self._literals(text, shape) for text in (shape.before, shape.between, shape.after))
        stops = {f"<[{id}]>" for id in self._stop_ids}
        several = self._several and not stops & set(between)
        more = f"({' '.join([*between, f'call_{i}'])})*" if several else ""
        first = [f"first_{i}"] if self._free else [*before, f"call_{i}"]
        # A stop token ends the answer by itself; a grammar that is over allows it.
        yield f"answer_{i}: {' '.join([*first, more, *(a for a in after if a not in stops)])}"
        yield f"call_{i}: " + " | ".join(f"call_{i}_{k}" for k, _, _ in calls)
        inner = "json" if shape.style is None else "own"
        for k, name, lark in calls:
            middle = self._literals(quoted(name)[1:-1] + shape.middle, shape)
            yield f"call_{i}_{k}: {' '.join(middle)} {inner}_{k}"
            yield f"{inner}_{k}: %lark {{\n{lark}\n}}"
        if self._free and before[0].startswith("<["):  # a control token is no text, so text may come before it
            yield f"first_{i}: TEXT? {' '.join(before)} call_{i}"
        elif self._free:
            yield f"first_{i}: " + " | ".join(f"OPEN_{i}_{k} {inner}_{k}" for k, _, _ in calls)
            yield f"HEAD_{i}: /{BLANKS}{_spaced(shape.before, BLANKS)}/"
            yield f"TAIL_{i}: /{shape.tail()}/"
            for k, name, _ in calls:
                yield f"OPEN_{i}_{k}: HEAD_{i} {quoted(quoted(name)[1:-1])} TAIL_{i}"

    def text(self, speaks: Dialect, shapes: "list[_Shape]") -> Iterator[str]:
        """The rules of an answer in words that cannot be taken for a call: none names a tool as a call does, or has a
        marker."""
        never = "|".join([*self._named(shapes), *sorted({re.escape(m) for shape in shapes for m in shape.markers})])
        if speaks.text and not speaks.markers:
            never += f"|{re.escape(shapes[0].between)}"
        begin = " ".join(self._literals(speaks.text, shapes[0]))
        yield f"text: {begin} TEXT"
        yield f"TEXT: /(.|\\n)+/ & ~/(.|\\n)*({_slashed(never)})(.|\\n)*/"

    def _named(self, shapes: "list[_Shape]") -> Iterator[str]:
        """Expressions of a tool's name where a parser would begin a call."""
        keys, names = "|".join((*NAMES, "function")), "|".join(re.escape(quoted(name)[1:-1]) for name in self._tools)
        yield rf'"({keys})"{BLANKS}:{BLANKS}"(({names})"|[^"]*\\[u/])'
        yield rf'"[^"]*\\u[^"]*"{BLANKS}:'  # a key with characters by their numbers may be any
        if any(shape.middle == "(" for shape in shapes):
            yield rf"({'|'.join(map(re.escape, self._tools))})(\.call)?\("

    def musing(self, speaks: Dialect, shape: "_Shape") -> str:
        """The rule of reasoning before the answer proper."""
        assert speaks.musing
        opens, (first, *rest) = (self._literals(text, shape) for text in speaks.musing)
        never = _slashed("|".join(re.escape(marker) for marker in shape.markers))
        end = first if first.startswith('"') else ""
        tail = " ".join(rest if end else [first, *rest])
        return f"musing: {' '.join(opens)} MUSING {tail}\nTHOUGHT: /(.|\\n)*/ & ~/(.|\\n)*({never})(.|\\n)*/\nMUSING: THOUGHT {end}"

    def _literals(self, text: str, shape: _Shape) -> list[str]:
        markers = [re.escape(marker) for marker in shape.markers if marker in self._control]
        pieces = re.split(f"({'|'.join(markers)})", text) if markers else [text]
        return [literal for piece in pieces if piece for literal in self._literal(piece, shape.numbered)]

    def _literal(self, piece: str, numbered: bool) -> Iterator[str]:
        if piece in self._control:
            yield f"<[{self._control[piece]}]>"
            return
        for part in _NUMBER.split(piece) if numbered else [piece]:
            if part:
                yield "/[0-9]{1,3}/" if numbered and part.isdigit() else json.dumps(part, ensure_ascii=False)


def _spaced(text: str, blanks: str) -> str:
    """An expression of a text that may have blanks around JSON's punctuation."""
    parts = re.split(r"\s*([{\[:,])\s*", text)
    return _slashed("".join(rf"{blanks}\{part}{blanks}" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


def _slashed(expression: str) -> str:
    """An expression as Lark has it between slashes."""
    return expression.replace("/", r"\/").replace("\\\n", r"\n")
