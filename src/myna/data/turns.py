"""Whether a conversation can be learned from: whose turn it is, and whether anybody says anything."""

from collections.abc import Sequence
from dataclasses import replace

from myna.records import Conversation, DataError, Message

# Role -> whose turn may come next. A conversation opens with system, developer or user.
NEXT: dict[str, tuple[str, ...]] = {
    "": ("system", "developer", "user"),
    "system": ("developer", "user"),
    "developer": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "tool": ("assistant", "tool", "user"),
}


def check_answered(conversation: Conversation) -> None:
    """A conversation to fine-tune on: in order, and it ends with an answer. Raises DataError naming the field."""
    check_order(conversation.messages)
    if conversation.messages[-1].role != "assistant":
        has = (
            ", and its candidates are for `dpo` and its kin (`myna data convert --best` makes the best one the answer)"
        )
        raise DataError(
            f"messages.{len(conversation.messages) - 1}.role: the last turn is "
            f"{conversation.messages[-1].role!r}: there is no answer to learn{has if conversation.candidates else ''}"
        )
    if not any(m.weight != 0 for m in conversation.messages if m.role == "assistant"):
        raise DataError("messages: every answer has weight 0; there is nothing to learn")


def check_candidates(conversation: Conversation) -> None:
    """A prompt and answers with scores. Raises DataError naming the field."""
    if not conversation.candidates:
        raise DataError("candidates: missing; there is nothing to prefer")
    for i, candidate in enumerate(conversation.candidates):
        if candidate.score is None:
            raise DataError(f"candidates.{i}.score: missing")
        try:
            check_order((*conversation.messages, *candidate.messages))
        except DataError as e:
            raise DataError(f"candidates.{i}: {e}") from None
        if not candidate.messages or candidate.messages[-1].role != "assistant":
            raise DataError(f"candidates.{i}.messages: must end with an answer")


def check_order(messages: Sequence[Message]) -> None:
    """Raises DataError for a turn out of order, an empty answer, or a tool's result that no call waits for."""
    if not messages:
        raise DataError("messages: empty")
    before, called = "", set[str]()
    for i, message in enumerate(messages):
        after_calls = before == "assistant" and messages[i - 1].tool_calls
        allowed = ("tool",) if after_calls else NEXT[before]
        if message.role not in allowed:
            where = f"after {before!r}" if before else "first"
            calls = " that calls" if after_calls else ""
            raise DataError(f"messages.{i}.role: {message.role!r} {where}{calls}; expected {' or '.join(allowed)}")
        if message.role == "assistant" and not (
            message.text.strip() or message.tool_calls or message.reasoning_content
        ):
            raise DataError(f"messages.{i}.content: an empty reply")
        if message.role == "tool" and message.tool_call_id not in called:
            raise DataError(f"messages.{i}.tool_call_id: {message.tool_call_id!r}, and no earlier turn made that call")
        called |= {call.id for call in message.tool_calls}
        before = message.role


def asked(conversation: Conversation) -> Conversation:
    """What is to be answered: without the answer at its end, and without candidates. DataError if nobody asks anything."""
    messages = conversation.messages
    while messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages:
        raise DataError(f"{conversation.id or 'a conversation'}: nobody asks anything in it")
    return replace(conversation, messages=messages, candidates=())
