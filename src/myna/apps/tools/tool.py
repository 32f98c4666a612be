"""A tool: a name, a schema of arguments, what it does to the world, and the function that does it."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from myna.records import Json, MynaError

Effect = Literal["read", "write", "danger"]
"""What a call may change: nothing; something, here or elsewhere; anything at all (it always asks)."""


Run = Callable[[Json], Awaitable[str]]
Check = Callable[[Json], Awaitable[str | None]]

EFFECTS: tuple[str, ...] = get_args(Effect)
TIMEOUT = 30.0  # seconds
CAP = 20_000  # characters, about 5,000 tokens of English
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what OpenAI's API takes, and so every endpoint


class Untrusted(str):
    """A result that is a stranger's text, of a tool whose results are not always: it taints the context that it enters. `documents`:
    the sha256 of those of an index that it is from."""

    documents: frozenset[str]

    def __new__(cls, text: str, documents: Iterable[str] = ()) -> "Untrusted":
        made = super().__new__(cls, text)
        made.documents = frozenset(documents)
        return made


class Waits(Exception):
    """Raised by a tool's work that cannot go on before somebody approves something inside of it: the call waits, and is dispatched
    again."""


@dataclass(frozen=True, slots=True)
class Tool:
    """
    name         letters, digits, _ and -; at most 64
    description  what the model is told
    parameters   JSON Schema of the arguments, an object
    effect       read, write or danger
    run          the work: arguments -> text. Raises ToolError with words for the model. Called by the dispatcher alone.
    check        why arguments are not what `parameters` allows, or None where they are
    timeout      seconds one call may take
    cap          characters of a result that the model is shown
    untrusted    whether results are a stranger's text: they taint the context they enter. Where only some are, `run` returns
                 those as Untrusted
    source       where the tool comes from: a function, a document, a server; part of its definition
    egress       whether a call sends its arguments over a network. True: in a tainted context it asks, reads too. False: nothing of
                 them leaves this machine. None, not said: a read asks where an address is in its arguments
    """

    name: str
    description: str
    parameters: Json
    effect: Effect
    run: Run
    check: Check
    timeout: float = TIMEOUT
    cap: int = CAP
    untrusted: bool = False
    source: str = ""
    egress: bool | None = None

    def __post_init__(self) -> None:
        where = f"the tool {self.name!r}"
        if not NAME.fullmatch(self.name):
            raise MynaError(f"{where}: a name is 1 to 64 letters, digits, _ and -; say another with name=...")
        if self.effect not in EFFECTS:
            raise MynaError(f"{where}: its effect is {self.effect!r}; say one of {', '.join(EFFECTS)}")
        if not self.description.strip():
            raise MynaError(f"{where} has no description; the model would not know what it is for")
        if not (self.timeout > 0 and self.cap > 0):
            raise MynaError(f"{where}: timeout and cap are above 0, not {self.timeout:g} and {self.cap}")

    @property
    def definition(self) -> str:
        """sha256 of what was agreed to: name, description, parameters, effect, source and egress. Computed when asked, so it tells
        of a schema that was changed in place."""
        what = [self.name, self.description, self.parameters, self.effect, self.source, self.egress]
        return hashlib.sha256(canonical(what).encode()).hexdigest()

    @property
    def schema(self) -> Json:
        """The tool as a conversation carries it (`Conversation.tools`)."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


def canonical(value: Any) -> str:
    """One spelling of a JSON value: sorted names, no blanks. Equal text is equal value; 1 and 1.0 are told apart."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def tool(
    *bare: Callable[..., Any],
    effect: Effect | None = None,
    timeout: float = TIMEOUT,
    cap: int = CAP,
    untrusted: bool = False,
    egress: bool | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Tool]:
    """Make a typed function with a docstring a tool.

    The signature is the schema and the docstring the description; what it says of arguments (Google, NumPy, Sphinx or epydoc
    style) describes them. A function that is not async runs in a thread of its own. Whatever JSON can say may be returned.
    `egress` is True where it sends its arguments over a network, and False where it does
    not: see Tool.

    Raises MynaError where the effect, the docstring or a type is missing, or a described argument does not exist.
    """
    if bare or effect is None:
        said = getattr(bare[0], "__qualname__", repr(bare[0])) if bare else "a tool"
        raise MynaError(f'{said}: what may it change? Write @tool(effect="read"), "write" or "danger"')
    known = effect

    def make(function: Callable[..., Any]) -> Tool:
        from myna.apps.tools.function import Function  # pydantic's model machinery, when there is a tool to make

        own = Function.of(function)
        return Tool(
            name=name or function.__name__,
            description=own.description,
            parameters=own.parameters,
            effect=known,
            run=own.run,
            check=own.check,
            timeout=timeout,
            cap=cap,
            untrusted=untrusted,
            source=f"python {function.__module__}.{function.__qualname__}",
            egress=egress,
        )

    return make
