"""What the scripted server says to the clients: it reacts to what it is asked, as a model would."""

import json
from itertools import repeat
from typing import Any

from myna.provider import Scripted
from myna.records import Conversation, Document, Message, ToolCall

SLOWLY = "count slowly"
HELLO = "Hello from Myna. 你好!"
ADA = {"name": "Ada", "age": 36}


def talk() -> Scripted:
    provider = Scripted(delay=0.002, max_len=4096)

    def answer(what: Conversation | Document) -> Any:
        form = provider.requests[-1].sampling.form
        if isinstance(what, Document):
            return " and so on."
        last = what.messages[-1]
        if SLOWLY in last.text:
            return "one two three four " * 5000
        names = [tool["function"]["name"] for tool in what.tools]
        if last.role == "tool" or "sunny in" in last.text:  # smolagents tells results in a user's turn
            told = f"The tool says: {last.text}"
            return _call("final_answer", {"answer": told}) if "final_answer" in names else told
        if what.tools:
            return _call(names[0], _arguments(what.tools[0]["function"].get("parameters") or {}))
        return json.dumps(ADA) if form else HELLO

    provider._turns = repeat(answer)
    return provider


def _call(name: str, arguments: dict[str, Any]) -> Message:
    return Message("assistant", tool_calls=(ToolCall(f"call_{name}", name, json.dumps(arguments)),))


def _arguments(schema: dict[str, Any]) -> dict[str, Any]:
    known = ADA | {"city": "Paris"}
    return {name: known[name] for name in schema.get("properties", {}) if name in known}
