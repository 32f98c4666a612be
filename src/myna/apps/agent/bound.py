"""Every turn a call, and the answer is one too: for endpoints that hold a model to the form of calls.

Left to decide between words and a call, a small model shows a query instead of running it, and tells a result that it never saw. Here it
cannot: each turn is held to one call of a tool, or of `answer`. The conversation is the same one as with native calls.
"""

import json
import re
from dataclasses import replace

from myna.apps.tools.arguments import parse
from myna.records import Conversation, Json, Message, Sampling, ToolChoice

ANSWER = "answer"
TOOL: Json = {
    "type": "function",
    "function": {
        "name": ANSWER,
        "description": "Tell the user the answer, or that it cannot be had, and stop. 回答用户，然后结束。",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "What the user is told."}},
            "required": ["text"],
            "additionalProperties": False,
        },
    },
}
WRITTEN = "That is done. If nothing else was asked, call answer."
BEGUN = re.compile(
    r'\s*\{\s*"text"\s*:\s*"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)'
)  # what of an answer that was cut is whole
ESCAPE = re.compile(r'(\\["\\/bfnrtu])|\\')  # or a backslash that begins none, as in \(x\): it is meant itself


def written(talk: Conversation) -> Conversation:
    """The conversation with the tool that answers beside the others. After a write the model is told that it is done: held to calls, a
    small one makes it again, in other words, until the run is stalled."""
    last = talk.messages[-1]
    wrote = last.role == "tool" and last.meta.get("status") == "ok" and last.meta.get("effect") != "read"
    said = (Message("user", WRITTEN),) if wrote else ()
    return replace(talk, messages=(*talk.messages, *said), tools=(*talk.tools, TOOL))


def sampled(sampling: Sampling) -> Sampling:
    """One call, and nothing else."""
    return replace(sampling, tool_choice=ToolChoice("required", parallel=False))


def read(message: Message, number: int) -> Message:
    """The turn as calls, or as an answer. An endpoint that does not hold the model may give an answer beside calls, which is what the
    turn says beside them; or words alone, which are an answer."""
    said = [_text(call.arguments) for call in message.tool_calls if call.name == ANSWER]
    if not said:
        return message
    calls = tuple(call for call in message.tool_calls if call.name != ANSWER)
    text = "\n\n".join(filter(None, (message.text, *said)))
    return Message("assistant", text, message.reasoning_content, calls)


def _text(arguments: str) -> str:
    """What an answer says; of one that was cut, what is there; of one in another form, its arguments as they are."""
    try:
        text = parse(arguments).get("text")
        said = text if isinstance(text, str) else arguments
    except (ValueError, RecursionError):
        begun = BEGUN.match(arguments)
        whole = ESCAPE.sub(lambda one: one[1] or r"\\", begun[1]) if begun else ""
        said = json.loads(f'"{whole}"', strict=False) if begun else arguments
    return said.encode(errors="replace").decode()  # half of a surrogate pair is no text that can be kept or shown
