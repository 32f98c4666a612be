"""What an answer must be that may not call just as it likes: a Lark grammar, in llguidance's dialect, of calls as the model
writes them.

The grammar is read off the dialect's own `write`: calls with stand-ins for the name and the arguments show what stands around
them. JSON in a code fence, which parsers read in all syntaxes but those that frame every answer, is allowed beside it: many
models write that although they were taught otherwise (bound to <tool_call>, Qwen2.5-Coder does not know when to stop).
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from myna.chat.arguments import written
from myna.chat.calls import NAMES, quoted
from myna.chat.dialects import FALLBACK, Dialect, dialect
from myna.records import Form, ToolCall, ToolChoice

NAME, ARGUMENTS = "NAMESTANDSHERE", "ARGUMENTSSTANDHERE"
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
    shapes = _shapes(speaks)
    writer = _Writer(called, several, control, frozenset(stop_ids))
    rules = [*dict.fromkeys(rule for i, shape in enumerate(shapes) for rule in writer.answer(shape, i))]
    starts = [rule.partition(":")[0] for rule in rules if rule.startswith("answer_")]
    if choice.mode == "auto":
        starts.append("text")
        rules.append(writer.text(speaks, shapes))
    before = ""
    if speaks.musing:
        before = "(musing)* "
        rules.append(writer.musing(speaks, shapes[0]))
    return Form("grammar", "\n".join([f"start: {before}({' | '.join(starts)})", *rules]), param="tools")


def call_starts(speaks: Dialect) -> frozenset[str]:
    """Characters that only calls begin with, where the form leaves it to the model whether it calls or says something; none
    in a syntax that frames every answer."""
    return (
        frozenset()
        if speaks.text
        else frozenset(shape.before[0] for shape in _shapes(speaks) if shape.before) | {*"`{["}
    )


def _shapes(speaks: Dialect) -> "list[_Shape]":
    alone = speaks.name == FALLBACK or speaks.text
    return [_Shape(speaks)] if alone else [_Shape(speaks), _Shape(dialect(FALLBACK))]


class _Shape:
    """What a dialect writes around calls: before the first name, between name and arguments, between calls, at the end."""

    def __init__(self, dialect: Dialect):
        self.style = dialect.style
        arguments = ARGUMENTS if self.style is None else json.dumps({ARGUMENTS: ARGUMENTS})
        call = ToolCall("", NAME, arguments)
        stand_in = ARGUMENTS if self.style is None else "".join(written(self.style, call))
        pieces = re.split(f"{NAME}|{re.escape(stand_in)}", "".join(dialect.write([call, call])))
        self.before, self.middle, self.between, second, self.after = pieces
        self.numbered = self.middle != second
        self.markers = dialect.markers

    def arguments(self, tool: str, found: Arguments) -> str | None:
        """The grammar of a tool's arguments in this shape; None where it has none, or the name cannot be written."""
        if self.style is None:
            return found.json
        return found.own if re.fullmatch(r"[\w.-]+", tool) else None


class _Writer:
    """Writes the rules of calls in one shape."""

    def __init__(
        self, tools: Mapping[str, Arguments], several: bool, control: Mapping[str, int], stop_ids: frozenset[int]
    ):
        self._tools, self._several = tools, several
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
        # A stop token ends the answer by itself; a grammar that is over allows it.
        yield f"answer_{i}: {' '.join([*before, f'call_{i}', more, *(a for a in after if a not in stops)])}"
        yield f"call_{i}: " + " | ".join(f"call_{i}_{k}" for k, _, _ in calls)
        for k, name, lark in calls:
            middle = self._literals(quoted(name)[1:-1] + shape.middle, shape)
            inner = f"json_{k}" if shape.style is None else f"own_{k}"
            yield f"call_{i}_{k}: {' '.join(middle)} {inner}"
            yield f"{inner}: %lark {{\n{lark}\n}}"

    def text(self, speaks: Dialect, shapes: "list[_Shape]") -> str:
        """The rule of an answer in words that cannot be taken for a call: none names a tool as a call does, or has a marker.

        Where nothing opens it, it begins with nothing that calls begin with: told by its first character, it does not swallow
        a call (a lexer takes the longest match).
        """
        first = "".join(sorted(call_starts(speaks)))
        keys, names = "|".join((*NAMES, "function")), "|".join(re.escape(quoted(name)[1:-1]) for name in self._tools)
        named = rf'"({keys})"[ \n]*:[ \n]*"({names})"|({names})\('
        markers = {re.escape(marker) for shape in shapes for marker in shape.markers}
        if speaks.text and not speaks.markers:
            markers.add(re.escape(shapes[0].between))
        banned = "|".join([named, *sorted(markers)]).replace("/", r"\/")
        opens = "(.|\\n)*" if speaks.text else f"[^{re.escape(first)}](.|\\n)*"
        begin = " ".join(self._literals(speaks.text, shapes[0]))
        return f"text: {begin} TEXT\nTEXT: /{opens}/ & ~/(.|\\n)*({banned})(.|\\n)*/"

    def musing(self, speaks: Dialect, shape: "_Shape") -> str:
        """The rule of reasoning before the answer proper."""
        assert speaks.musing
        opens, (first, *rest) = (self._literals(text, shape) for text in speaks.musing)
        never = "|".join(re.escape(marker) for marker in shape.markers).replace("/", r"\/")
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
