"""<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|>: Kimi K2. The id has the name in it."""

import re
from collections.abc import Iterator, Sequence

from myna.chat.calls import arguments, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

BEGIN, ARGUMENTS, END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
SIGNS = (BEGIN,)
MARKERS = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", BEGIN, ARGUMENTS, END)
THINK = ("<think>", "</think>")
_ID = re.compile(r"(?:functions\.)?(.+?)(?::\d+)?")


def prompt_id(id: str, name: str, i: int) -> str:
    return id if re.fullmatch(rf"functions\.{re.escape(name)}:\d+", id) else f"functions.{name}:{i}"


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS)):
        if mark != BEGIN:
            continue
        id, mark = yield from scan.before(ARGUMENTS, END)
        found = _ID.fullmatch(id.strip())
        if mark != ARGUMENTS or not found:
            scan.back(id + mark)  # no call: text, but for its markers
            continue
        scan.begin(found[1], id.strip())
        whole = yield from arguments(scan)
        scan.end(whole)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield "<|tool_calls_section_begin|>"
    for i, call in enumerate(calls):
        yield BEGIN
        yield Own(f"functions.{call.name}:{i}")
        yield ARGUMENTS
        yield Own(call.arguments)
        yield END
    yield "<|tool_calls_section_end|>"
