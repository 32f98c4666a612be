"""Channels: gpt-oss. An answer is a row of messages, <|channel|>NAME<|message|>...<|end|>.

`analysis` is reasoning, `final` and `commentary` are text; a message to=functions.NAME is a call, and ends with <|call|>.
OpenAI, Harmony response format: https://cookbook.openai.com/articles/openai-harmony
"""

import re
from collections.abc import Callable, Iterator, Sequence

from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

CHANNEL, MESSAGE, START, CONSTRAIN = "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
SIGNS = (CHANNEL, MESSAGE, "<|start|>assistant")
MARKERS = (CHANNEL, MESSAGE, START, CONSTRAIN, *ENDS)
THINK = None
ALWAYS = True
TEXT = "<|channel|>final<|message|>"
MUSING = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_MARKER = re.compile(r"<\|\w+\|>")


def parse(scan: Scanner) -> Steps[None]:
    while (yield from scan.peek()):
        header, mark = yield from scan.before(MESSAGE, *ENDS)
        if mark != MESSAGE:  # no message at all: what is said is said
            scan.stray(_MARKER.sub("", header))
            continue
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient:
            yield from _call(scan, recipient[1])
        else:
            is_thought = channel is not None and channel[1] == "analysis"
            yield from _body(scan, scan.think if is_thought else scan.say)


def _body(scan: Scanner, take: Callable[[str], None]) -> Steps[None]:
    mark = MESSAGE
    while mark in (MESSAGE, CONSTRAIN):  # out of place
        mark = yield from scan.upto(*MARKERS, take=take)
    if mark in (START, CHANNEL):
        scan.back(mark)


def _call(scan: Scanner, name: str) -> Steps[None]:
    scan.begin(name)
    parts: list[str] = []

    def take(text: str) -> None:
        parts.append(text)
        scan.write(text)

    mark = yield from scan.upto(*ENDS, START, CHANNEL, take=take)
    if mark in (START, CHANNEL):
        scan.back(mark)
    if mark and not parts:
        scan.write("{}")
    scan.end(whole=bool(mark))


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield "<|start|>assistant" if i else ""
        yield "<|channel|>commentary to=functions."
        yield Own(call.name)
        yield " <|constrain|>json<|message|>"
        yield Own(call.arguments)
        yield "<|call|>"
