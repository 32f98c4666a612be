"""[TOOL_CALLS]: before version 11 a list of JSON calls, since then [TOOL_CALLS]name[ARGS]{...} for each.

Its templates take ids of exactly nine letters and digits.
"""

import hashlib
import re
import secrets
import string
from collections.abc import Iterator, Sequence

from myna.chat.calls import arguments, block, quoted, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

CALLS, ARGS, ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
SIGNS = (CALLS,)
MARKERS = (CALLS, ARGS, ID)
THINK = ("[THINK]", "[/THINK]")


def new_id() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


def prompt_id(id: str, name: str, i: int) -> str:
    """An id of another form becomes one of this, the same each time."""
    if re.fullmatch("[a-zA-Z0-9]{9}", id):
        return id
    number, letters = int.from_bytes(hashlib.sha256(id.encode()).digest()), string.ascii_letters + string.digits
    return "".join(letters[number // len(letters) ** k % len(letters)] for k in range(9))


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS)):
        if mark != CALLS:
            continue
        yield from scan.blank()
        if (yield from scan.peek()) in ("[", "{"):
            yield from block(scan)
        elif name := (yield from scan.word()):
            yield from _call(scan, name)


def _call(scan: Scanner, name: str) -> Steps[None]:
    yield from scan.blank()
    id = (yield from scan.word()) if (yield from scan.take(ID)) else ""
    marked = yield from scan.take(ARGS)
    yield from scan.blank()
    if not marked and (yield from scan.peek()) != "{":
        scan.say(f"{name} ")
        return
    scan.begin(name, id)
    whole = yield from arguments(scan)
    scan.end(whole)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield CALLS
    for i, call in enumerate(calls):
        yield ", " if i else "["
        yield Own(f'{{"name": {quoted(call.name)}, "arguments": {call.arguments}}}')
    yield "]"
