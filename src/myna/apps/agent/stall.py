"""Whether an agent goes round in circles: the same calls with the same results, a pattern of them, nothing said, or nothing right."""

from collections.abc import Sequence

from myna.apps.tools.arguments import parse
from myna.apps.tools.tool import canonical
from myna.records import Message, ToolCall

PERIODS = 4  # steps that a pattern may have
IDLE = ("unknown", "invalid", "refused")  # of calls that never ran

Step = tuple[tuple[str, ...], ...]


def stalled(messages: Sequence[Message], times: int) -> str | None:
    """Why it should end, or None. The last steps, since somebody spoke: `times` repetitions of one or of a pattern of up to PERIODS;
    or twice `times` in which no call was one that could be run. A refused call is of those alone: an order that a stranger's text gave
    three times shall not end the user's task."""
    steps = _steps(messages, keep=PERIODS * times)
    for period in range(1, PERIODS + 1):
        last = steps[-period * times :]
        repeated = len(last) == period * times and all(last[i] == last[i % period] for i in range(len(last)))
        if repeated and not all(_idle(step, "refused") for step in last):
            return _shown(last[0], period, times)
    idle = steps[-2 * times :]
    if len(idle) == 2 * times and all(_idle(step, *IDLE) for step in idle):
        return f"of its last {len(idle)} steps none made a call that could be run"
    return None


def _steps(messages: Sequence[Message], keep: int) -> list[Step]:
    """What each of the last steps was: its calls and their results."""
    found: list[Step] = []
    results: dict[str, Message] = {}
    for message in reversed(messages):
        if message.role == "tool":
            results[message.tool_call_id or ""] = message
        elif message.role == "assistant":
            found.append(tuple(_call(call, results) for call in message.tool_calls))
        elif message.meta.get("empty"):
            found.append(())
        elif message.role == "user":
            break
        if len(found) == keep:
            break
    return found[::-1]


def _call(call: ToolCall, results: dict[str, Message]) -> tuple[str, ...]:
    result = results.get(call.id, Message("tool"))
    return call.name, _spelled(call.arguments), str(result.meta.get("status")), result.text


def _spelled(arguments: str) -> str:
    """In the one spelling of equal values."""
    try:
        return canonical(parse(arguments))
    except (ValueError, RecursionError):
        return arguments


def _idle(step: Step, *statuses: str) -> bool:
    return bool(step) and all(status in statuses for _, _, status, _ in step)


def _shown(step: Step, period: int, times: int) -> str:
    if not step:
        return f"{times} empty answers, one after the other"
    name = step[0][0][:64]
    if period == 1:
        return f"the call of {name} was made {times} times with the same arguments and the same result"
    return f"the same {period} steps were made {times} times, beginning with a call of {name}"
