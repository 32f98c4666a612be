"""Short memory: what of a conversation still fits. The oldest turns are told in short, and that is an event and a span; the task, the
facts that were pinned, the plan and the last turns stay. A call and its result are never parted.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from myna.apps.agent.agent import Agent
from myna.apps.agent.plan import shown
from myna.apps.agent.session import Session
from myna.apps.tools.arguments import parse
from myna.provider import Provider, complete
from myna.provider.budget import prompt_at_most
from myna.records import Conversation, Json, Message, ProviderError, RequestError, Sampling, ToolCall, Unavailable
from myna.records.fence import RULE, fenced

ANSWER = 1024  # tokens kept free for an answer where nobody says how long it may be
TURN = (
    4096  # that a turn may have then, where there is a limit: all that is left to spend would be more than most windows
)
BYTES = 3  # of a token, where no tokenizer is here: English has 4, Chinese 3, JSON and code 3
LEAST = 200  # characters that are left of a text which is cut to fit
LINE = 160  # characters of a message in a list of what there was
ASK = "Below is what happened so far while you worked on a task. Write what is needed to go on: what was found (names, numbers, ids exactly as they are), what was done, what is left. At most 200 words, in the language of the task."


def room_of(agent: Agent, provider: Provider) -> int | None:
    """Tokens that a request may have beside its answer; None where nobody knows."""
    window = agent.window or getattr(provider, "max_len", None)
    return None if window is None else max(window - (agent.sampling.max_tokens or min(ANSWER, window // 4)), 1)


def tokens(provider: Provider, talk: Conversation) -> int:
    """Of a request: counted where the tokenizer is here, else by its bytes."""
    if getattr(provider, "chat", None) is not None:
        return prompt_at_most(provider, talk)
    written = [json.dumps(message.to_json(), ensure_ascii=False) for message in talk.messages]
    written += [json.dumps(one, ensure_ascii=False) for one in talk.tools]
    return sum(len(text.encode(errors="replace")) for text in written) // BYTES


def view(instructions: str, session: Session, tools: tuple[Json, ...]) -> Conversation:
    """What the model is sent of a session."""
    rule = RULE if tools or session.tainted else ""
    system = "\n\n".join(filter(None, (instructions, rule)))
    messages = [Message("system", system)] if system else []
    first = 1 if session.start else 0
    kept = [*session.messages[:first], *_told(session), *session.messages[session.start :]]
    return Conversation((*messages, *(_sendable(message) for message in kept)), tools=tools)


def _told(session: Session) -> list[Message]:
    """What stands for messages that are not sent, and what is not to be forgotten."""
    if not session.start:
        return []
    parts = [f"What happened since, in short: {fenced(session.summary, 'summary')}"]
    parts += ["Pinned:\n" + fenced("\n".join(session.facts), "facts")] if session.facts else []
    parts += ["Your plan:\n" + fenced(shown(session.plan), "plan")] if session.plan else []
    return [Message("user", "\n\n".join(parts))]


def _sendable(message: Message) -> Message:
    """With arguments that are JSON: an endpoint may refuse a conversation in which a model once wrote what is none."""
    if not message.tool_calls:
        return message
    calls = tuple(replace(call, arguments=_as_object(call.arguments)) for call in message.tool_calls)
    return message if calls == message.tool_calls else replace(message, tool_calls=calls, tokens=None)


def _as_object(arguments: str) -> str:
    try:
        parse(arguments)
        return arguments or "{}"
    except (ValueError, RecursionError):
        return json.dumps({"not_json": arguments[:LEAST]}, ensure_ascii=False)


async def compact(session: Session, provider: Provider, room: int) -> tuple[str, Literal["model", "list"], int] | None:
    """Tell the oldest messages in short, so that those after them take about half the room. (The text, who wrote it, how many
    messages), or None where none can be spared. Raises BudgetExceeded."""
    at = _boundary(session, provider, room // 2)
    if at is None:
        return None
    gone = session.messages[max(session.start, 1) : at]
    lines = [session.summary] if session.summary else []
    lines += [_line(message) for message in gone]
    text, by = await _short(provider, session.messages[0], lines, room)
    session.summary, session.start = text, at
    return text, by, len(gone)


def _boundary(session: Session, provider: Provider, most: int) -> int | None:
    """Where the messages begin that stay: at a turn of the model's or the user's, never at a result."""
    first = max(session.start, 1) + 1
    ends = [i for i in range(first, len(session.messages)) if session.messages[i].role != "tool"]
    for at in ends:
        if tokens(provider, Conversation(tuple(session.messages[at:]))) <= most:
            return at
    return ends[-1] if ends else None


async def _short(
    provider: Provider, task: Message, lines: list[str], room: int
) -> tuple[str, Literal["model", "list"]]:
    most = max(room * BYTES // 4, LEAST)  # characters: even where each takes a token, half of the room
    happened = cut("\n".join(lines), most)
    talk = Conversation.of(
        ("system", f"{ASK}\n\n{RULE}"),
        ("user", f"{fenced(cut(task.text, most // 2), 'task')}\n\n{fenced(happened, 'so_far')}"),
    )
    try:
        reply = await complete(provider, talk, Sampling(temperature=0.0, max_tokens=max(min(400, room // 4), 16)))
        if text := reply.text.strip():
            return text, "model"
    except (ProviderError, Unavailable, RequestError):
        pass  # it is told in `by`, and a list serves
    return cut("\n".join(lines), max(room * BYTES // 8, LEAST)), "list"


def _line(message: Message) -> str:
    calls = "; ".join(f"called {call.name} {call.arguments[:LINE]}" for call in message.tool_calls)
    who = f"result of {message.name}" if message.role == "tool" else message.role
    return f"- {who}: {' '.join(filter(None, (message.text[: 4 * LINE], calls)))}"


def clipped(talk: Conversation, provider: Provider, room: int) -> tuple[Conversation, int]:
    """The request with its longest texts cut, and how many characters that took, where even its last turn is too long. Its system
    prompt and its tools stay; so it may still be too long."""
    messages, before = list(talk.messages), _characters(talk.messages)
    while tokens(provider, replace(talk, messages=tuple(messages))) > room:
        longest = max(range(len(messages)), key=lambda i: _size(messages[i]))
        if _size(messages[longest]) <= LEAST:
            break
        messages[longest] = _halved(messages[longest])
    return replace(talk, messages=tuple(messages)), before - _characters(messages)


def _halved(message: Message) -> Message:
    most = max(_size(message) // 2, LEAST)
    calls = tuple(_cut_call(call, most) for call in message.tool_calls)
    return replace(message, content=cut(message.text, most), tool_calls=calls, tokens=None)


def _cut_call(call: ToolCall, most: int) -> ToolCall:
    if len(call.arguments) <= most:
        return call
    return replace(call, arguments=json.dumps({"cut": call.arguments[: most // 2]}, ensure_ascii=False))


def _size(message: Message) -> int:
    if message.role == "system":
        return 0
    return max([len(message.text), *(len(call.arguments) for call in message.tool_calls)])


def _characters(messages: Sequence[Message]) -> int:
    return sum(len(one.text) + sum(len(call.arguments) for call in one.tool_calls) for one in messages)


def cut(text: str, most: int) -> str:
    """Its beginning and its end, and between them how much is missing."""
    if len(text) <= most:
        return text
    mark = f"\n[cut: {len(text) - most:,} of {len(text):,} characters are not shown here]\n"
    kept = max(most - len(mark), 2)
    return text[: kept - kept // 3] + mark + text[-(kept // 3) :]
