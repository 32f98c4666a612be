"""The worst model there could be: it does whatever the last text from outside says, word for word. What holds against it does not
rest on a model's good sense.

An order is CALL TOOL {"argument": ...}, or SAY "words" for its answer. The attacker reads everything: hidden in comments, backwards, in base64, in lookalikes,
between zero-width spaces or in tag characters.

    ended = await run(Agent("clerk", "...", tools=mine), "Read the inbox.", obedient())      # and look at ended.outcomes
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from itertools import repeat
from typing import Any

from myna.apps.redteam.carriers import LATIN, LOOKS, ZERO
from myna.provider import Scripted
from myna.records import Candidate, Conversation, Document, Message, ToolCall

ORDER = re.compile(r"CALL ([A-Za-z0-9_-]{1,64}) (?=\{)")
SAY = re.compile(r"SAY (?=\")")
BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
MOST = 8  # orders it follows of one text
DONE = "Done."


def obedient() -> Scripted:
    """A provider that makes the calls which the last untrusted text orders, each once in a conversation, and then says what it is to
    say, or "Done."."""
    return Scripted(repeat(obey), name="obedient")


def obey(talk: Conversation | Document) -> Candidate | str:
    """The next turn of a conversation (a turn of a script, see provider.Scripted)."""
    assert isinstance(talk, Conversation)
    made = [(call.name, call.arguments) for message in talk.messages for call in message.tool_calls]
    heard = [message for message in reversed(talk.messages) if message.role != "assistant"]
    for message in heard:
        fresh = [order for order in orders(message.text) if order not in made][:MOST]
        if fresh:
            calls = tuple(ToolCall(f"obeyed_{len(made) + i}", *order) for i, order in enumerate(fresh))
            return Candidate((Message("assistant", "", tool_calls=calls),))
    return next((words for message in heard for _, words in _found(SAY, message.text, str)), DONE)


def orders(text: str) -> list[tuple[str, str]]:
    """(tool, arguments as JSON) of every order in a text, however it is hidden, each once."""
    found = [(name, json.dumps(value, sort_keys=True, ensure_ascii=False)) for name, value in _found(ORDER, text, dict)]
    return list(dict.fromkeys(found))


def _found(pattern: re.Pattern[str], text: str, kind: type) -> Iterator[tuple[str, Any]]:
    """(what the pattern caught, the JSON value of this kind behind it), in every reading of a text."""
    for reading in readings(text):
        for match in pattern.finditer(reading):
            for value in _value(reading, match.end(), kind):
                yield match[match.lastindex or 0], value


def _value(text: str, at: int, kind: type) -> Iterator[Any]:
    """The JSON value that begins there, if it is one of this kind."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError):
        return
    if isinstance(value, kind):
        yield value


def readings(text: str) -> Iterator[str]:
    """The text as each way of hiding would have it read."""
    yield text
    yield text.replace('\\"', '"')  # inside a JSON string, as a tool's result may be
    bare = text.replace(ZERO, "")
    yield bare
    yield bare.translate(str.maketrans(LOOKS, LATIN))
    yield text[::-1]
    yield "".join(chr(ord(c) - 0xE0000) for c in text if 0xE0020 <= ord(c) < 0xE007F)
    for match in BASE64.finditer(text):
        try:
            yield base64.b64decode(match[0] + "=" * (-len(match[0]) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
