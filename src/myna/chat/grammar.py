"""What an answer must be that may not call just as it likes: a Lark grammar, in llguidance's dialect, of calls as the model
writes them.

The grammar is read off the dialect's own `write`: calls with stand-ins for the name and the arguments show what stands around
them. A dialect that does not write arguments as JSON is constrained to JSON in a code fence, which every parser reads.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping

from myna.chat.calls import NAMES, quoted
from myna.chat.dialects import FALLBACK, Dialect, dialect
from myna.records import ChatError, Form, RequestError, ToolCall, ToolChoice

NAME, ARGUMENTS = "NAMESTANDSHERE", "ARGUMENTSSTANDHERE"
_NUMBER = re.compile(r"(\d+)")


def calls_form(
    speaks: Dialect,
    tools: Mapping[str, str],
    choice: ToolChoice,
    control: Mapping[str, int],
    stop_ids: Collection[int],
) -> Form:
    """The form of an answer that follows `choice`: calls, and where the model decides, text that holds none.

    tools     name -> a Lark grammar of the arguments
    control   the control tokens, which a grammar cannot spell: text -> id
    """
    called = {choice.name: tools[choice.name]} if choice.mode == "named" else dict(sorted(tools.items()))
    writer = _Writer(called, choice.parallel and choice.mode != "named", control, frozenset(stop_ids))
    shapes = [_shape(speaks)]
    if speaks.name != FALLBACK:
        # What many models write although they were taught otherwise: bound to <tool_call>, Qwen2.5-Coder does not know when
        # to stop.
        shapes.append(_Shape(dialect(FALLBACK)))
    arguments = [f"arguments_{k}: %lark {{\n{lark}\n}}" for k, lark in enumerate(called.values())]
    if choice.mode == "auto" and not shapes[0].before:
        raise RequestError(
            f"A call of {speaks.name} begins with the name alone, which cannot be told from text: with tool_choice 'auto' "
            "its arguments cannot be strict. Leave `strict` out, or set tool_choice to 'required'.",
            param="tools",
            code="unsupported_parameter",
        )
    starts = [rule for i, shape in enumerate(shapes) for rule in writer.answer(shape, i)]
    text = [f"TEXT: {_text(shapes, called)}"] if choice.mode == "auto" else []
    start = " | ".join([*(f"answer_{i}" for i in range(len(shapes))), *(["TEXT"] if text else [])])
    return Form("grammar", "\n".join([f"start: {start}", *text, *starts, *arguments]))


class _Shape:
    """What a dialect writes around calls: before the first name, between name and arguments, between calls, at the end."""

    def __init__(self, dialect: Dialect):
        call = ToolCall("", NAME, ARGUMENTS)
        pieces = re.split(f"{NAME}|{re.escape(ARGUMENTS)}", "".join(dialect.write([call, call])))
        self.before, self.middle, self.between, second, self.after = pieces
        self.numbered = self.middle != second
        self.markers = dialect.markers


def _shape(speaks: Dialect) -> _Shape:
    try:
        return _Shape(speaks)
    except ChatError:  # its arguments are no JSON
        return _Shape(dialect(FALLBACK))


class _Writer:
    """Writes the rules of calls in one shape."""

    def __init__(self, tools: Mapping[str, str], several: bool, control: Mapping[str, int], stop_ids: frozenset[int]):
        self._tools, self._several = tools, several
        self._control, self._stop_ids = control, stop_ids

    def answer(self, shape: _Shape, i: int) -> Iterator[str]:
        before, between, after = (self._literals(text, shape) for text in (shape.before, shape.between, shape.after))
        stops = {f"<[{id}]>" for id in self._stop_ids}
        several = self._several and not stops & set(between)
        more = f"({' '.join([*between, f'call_{i}'])})*" if several else ""
        # A stop token ends the answer by itself; a grammar that is over allows it.
        yield f"answer_{i}: {' '.join([*before, f'call_{i}', more, *(a for a in after if a not in stops)])}"
        yield f"call_{i}: " + " | ".join(f"call_{i}_{k}" for k in range(len(self._tools)))
        for k, name in enumerate(self._tools):
            middle = self._literals(quoted(name)[1:-1] + shape.middle, shape)
            yield f"call_{i}_{k}: {' '.join(middle)} arguments_{k}"

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


def _text(shapes: list[_Shape], tools: Mapping[str, str]) -> str:
    """Text that cannot be taken for a call: it begins with nothing that calls begin with, and names no tool as a call does.
    That it is told by its first character keeps the lexer, which takes the longest match, from swallowing a call."""
    first = re.escape("".join(sorted({shape.before[0] for shape in shapes if shape.before} | set("`{["))))
    keys, names = "|".join((*NAMES, "function")), "|".join(re.escape(quoted(name)[1:-1]) for name in tools)
    markers = [re.escape(marker) for shape in shapes for marker in shape.markers]
    named = rf'"({keys})"[ \n]*:[ \n]*"({names})"|({names})\('
    banned = "|".join([named, *sorted(set(markers))]).replace("/", r"\/")
    return f"/[^{first}](.|\\n)*/ & ~/(.|\\n)*({banned})(.|\\n)*/"
