"""How models write tool calls: one file per syntax, found by its name. A dialect says

SIGNS                     what a chat template of this syntax holds; () is never chosen by its template
parse(scan)               reads an answer: text, reasoning, calls                                     (chat/scan.py)
write(calls)              calls as the model writes them, in pieces: Own is the model's words, the rest markup
MARKERS (optional)        control tokens that the parser has to see; a tokenizer hides them from readers
THINK (optional)          what opens and closes reasoning, if not <think> and </think>; None: `parse` knows by itself
ALWAYS (optional)         the syntax frames every answer, so that it is parsed even where nothing can be called
STYLE (optional)          how arguments are written that are no JSON object                           (chat/arguments.py)
TEXT (optional)           what opens an answer in words, in a syntax that frames every answer
MUSING (optional)         what opens and closes a piece of reasoning that may stand before a call in such a syntax
new_id() (optional)       an id for a call, where the chat template is particular about them
prompt_id(id, name, i)    (optional) the id that a prompt has for the conversation's i-th call, in such a template

The grammar of an answer that has to call is read off what `write` writes (chat/grammar.py). A dialect is a module; there is nothing to inherit. What its `parse` makes of what its `write` writes is the same calls.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from myna.chat.scan import NOTHING, THINK, Begun, Bound, Reader, Said, Scanner, Steps, Thought, Wrote
from myna.chat.stream import new_id, only_text
from myna.chat.values import decode
from myna.records import ChatError, Json, Style, ToolCall

FALLBACK = "generic"


class Own(str):
    """The model's own words within what a dialect writes: a name, arguments."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called. `parameters`: the JSON Schema of its arguments, an object's."""

    name: str
    parameters: Json
    description: str = ""
    strict: bool = False


def dialects() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect's module, with what it leaves out filled in."""

    name: str
    signs: tuple[str, ...]
    parse: Callable[[Scanner], Steps[None]]
    write: Callable[[Sequence[ToolCall]], Iterable[str]]
    markers: frozenset[str]
    think: tuple[str, str] | None
    always: bool
    style: Style | None
    text: str
    musing: tuple[str, str] | None
    new_id: Callable[[], str]
    prompt_id: Callable[[str, str, int], str]

    def reader(
        self,
        tools: Mapping[str, Json] = NOTHING,
        *,
        inside: bool = False,
        bound: Bound = "",
    ) -> Reader:
        """A parser for one answer. Where nothing can be called, all but reasoning is text. `inside`, `bound`: see Scanner."""
        scanner = Scanner(tools, think=self.think, markers=self.markers, inside=inside, bound=bound)
        return Reader(self.parse if tools or self.always else only_text, scanner)


def dialect(name: str) -> Dialect:
    """The dialect of that name. ChatError says which there are."""
    known = dialects()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Closest: {close[0]}." if close else ""
        raise ChatError(f"there is no dialect {name[:60]!r}.{hint} There are: {', '.join(known)}.")
    module = importlib.import_module(f"{__name__}.{name}")
    return Dialect(
        name,
        module.SIGNS,
        module.parse,
        module.write,
        frozenset(getattr(module, "MARKERS", ())),
        getattr(module, "THINK", THINK),
        getattr(module, "ALWAYS", False),
        getattr(module, "STYLE", None),
        getattr(module, "TEXT", ""),
        getattr(module, "MUSING", None),
        getattr(module, "new_id", new_id),
        getattr(module, "prompt_id", lambda id, name, i: id),
    )


def choose(template: str, example: str | None, call: ToolCall) -> Dialect:
    """The dialect of a chat template, by its source and by how it wrote `call` (None if it would not).

    What it wrote decides: a dialect is right if it reads the call back, and more so if it would write it just so. Of several
    the one with the most signs in the source is taken, as is the one with the most signs where the template writes no calls.
    """
    every = [dialect(name) for name in dialects()]
    likely = [d for d in every if d.signs and all(sign in template for sign in d.signs)]
    likely.sort(key=lambda d: (len(d.signs), sum(map(len, d.signs))), reverse=True)
    fallback = dialect(FALLBACK)
    if example is not None:
        others = [d for d in every if d not in likely and d is not fallback]
        right = [d for d in likely if reads(d, example, call)]
        right += [d for d in (*others, fallback) if "".join(d.write([call])) in example and reads(d, example, call)]
        likely = [*right, *(d for d in (fallback, *others) if reads(d, example, call)), *likely]
    return likely[0] if likely else fallback


def reads(dialect: Dialect, text: str, call: ToolCall) -> bool:
    """Whether `text` is just this call to the dialect, and nothing is said beside it."""
    events = dialect.reader({call.name: {}}).push(text, last=True)
    names = [event.name for event in events if isinstance(event, Begun)]
    arguments = "".join(event.arguments for event in events if isinstance(event, Wrote))
    said = any(isinstance(event, Said | Thought) for event in events)
    return names == [call.name] and not said and decode(arguments) == decode(call.arguments)
