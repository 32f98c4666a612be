"""Tool calls as text, for models that have none of their own: Thought, Action, Action Input, Observation (ReAct, Yao et al. 2023).

The conversation is the same one as with native calls. It is written as text when it is sent, and what comes back is read as calls.
"""

import json
import re
from dataclasses import replace

from myna.records import Conversation, Message, Sampling, ToolCall

STOP = ("\nObservation:",)  # what the model must not make up
RULES = """You can use these tools, one JSON schema of arguments each:
{tools}

To use a tool, answer in exactly this form, and stop:
Thought: why you need it
Action: the tool's name
Action Input: its arguments as one JSON object

You are then told the result after "Observation:". When you know the answer, write:
Final Answer: the answer"""
ACTION = re.compile(r"^[ \t]*Action[ \t]*[:：][ \t]*`?([^\n`]*?)`?[ \t]*$", re.MULTILINE)
INPUT = re.compile(r"\s*Action[ \t_]*Input[ \t]*[:：][ \t]*(?:```(?:json)?)?\s*", re.IGNORECASE)
FINAL = re.compile(r"^[ \t]*Final Answer[ \t]*[:：]", re.MULTILINE)
THOUGHT = re.compile(r"\A\s*Thought[ \t]*[:：][ \t]*")


def written(talk: Conversation) -> Conversation:
    """The conversation as a model without tools is sent it: none in `tools`, no calls, no results but as text."""
    if not talk.tools:
        return talk
    tools = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in talk.tools)
    rules = RULES.format(tools=tools)
    messages: list[Message] = []
    for message in talk.messages:
        if message.role == "assistant" and message.tool_calls:
            messages.append(Message("assistant", _said(message)))
        elif message.role == "tool":
            _append(messages, f"Observation: {message.text}")
        elif message.role == "assistant":
            messages.append(Message("assistant", f"Final Answer: {message.text}"))
        elif message.role == "user":
            _append(messages, message.text)
        else:
            messages.append(message)
    if messages and messages[0].role == "system":
        messages[0] = Message("system", f"{messages[0].text}\n\n{rules}")
    else:
        messages.insert(0, Message("system", rules))
    return replace(talk, messages=tuple(messages), tools=())


def sampled(sampling: Sampling) -> Sampling:
    """Stopped before it makes up a result."""
    return replace(sampling, stop=(*(sampling.stop or ()), *STOP))


def read(message: Message, number: int) -> Message:
    """The turn as calls, or as an answer. `number` makes the calls' ids. What is neither is an answer."""
    text = _before_observation(message.text)
    final = FINAL.search(text)
    calls = _calls(text[: final.start()] if final else text, number)
    if calls:
        thought = THOUGHT.sub("", text[: _first(text)]).strip()
        return Message("assistant", thought, message.reasoning_content, tuple(calls))
    if final:
        return Message("assistant", text[final.end() :].strip(), message.reasoning_content)
    return Message("assistant", THOUGHT.sub("", text).strip(), message.reasoning_content)


def _calls(text: str, number: int) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for action in ACTION.finditer(text):
        given = INPUT.match(text, action.end())
        arguments = _object(text[given.end() :]) if given else "{}"
        calls.append(ToolCall(f"react_{number}_{len(calls)}", action[1].strip(), arguments))
    return calls


def _object(text: str) -> str:
    """The JSON value that the text begins with; where it begins with none, its first paragraph, as the model wrote it."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        return text[:end]
    except (ValueError, RecursionError):
        return text.split("\n\n")[0].split("\nAction:")[0].strip().removesuffix("```").strip() or "{}"


def _first(text: str) -> int:
    found = ACTION.search(text)
    return found.start() if found else len(text)


def _before_observation(text: str) -> str:
    """Not every endpoint stops where it is told to; a result that the model made up is none."""
    return text.split(STOP[0])[0]


def _said(message: Message) -> str:
    parts = [f"Thought: {message.text}"] if message.text else []
    parts += [f"Action: {call.name}\nAction Input: {call.arguments}" for call in message.tool_calls]
    return "\n".join(parts)


def _append(messages: list[Message], text: str) -> None:
    """Turns of user and model alternate: several results, or a result and a question, are one message."""
    if messages and messages[-1].role == "user":
        messages[-1] = Message("user", f"{messages[-1].text}\n\n{text}")
    else:
        messages.append(Message("user", text))
