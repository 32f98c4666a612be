"""Asking: one call, and where the answer is not what the file demands, a bounded number of further ones, each told what was wrong.

What a model said goes back to it as fenced data, clamped, under words that are always ours: a rejected answer is a stranger's text
like any other.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jsonschema_rs
import orjson

from myna.apps.fence import RULE, fenced
from myna.apps.prompt.explain import Explained, explain
from myna.apps.prompt.file import Prompt
from myna.checks import Check, Verdict
from myna.provider import Provider, complete
from myna.provider.budget import Budget, Budgeted, Limits
from myna.provider.traced import Traced
from myna.records import Candidate, Conversation, Message, MynaError, Reply
from myna.trace import Prices, Trace

CLAMP = 4000  # characters of a rejected answer, and of what was wrong with it, that go back
ROUNDS = 3  # calls where the file does not say
ANSWER = 1024  # tokens kept free for the answer where the file does not say


class Refused(MynaError):
    """No answer passed. `answers` are those there were, with what was wrong with each."""

    def __init__(self, message: str, answers: tuple[tuple[str, str], ...]):
        super().__init__(message)
        self.answers = answers


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: `value` is the parsed JSON where the file has an output, else the text.

    verdicts    of the answer that passed, by the name of the check
    rejected    the answers before it, each with what was wrong
    """

    value: Any
    text: str
    reply: Reply
    verdicts: Mapping[str, Verdict]
    rejected: tuple[tuple[str, str], ...]
    explained: Explained

    @property
    def calls(self) -> int:
        return len(self.rejected) + 1


async def ask(
    prompt: Prompt,
    given: Mapping[str, Any],
    provider: Provider,
    *,
    checks: Mapping[str, Check] = {},
    trace: Trace | None = None,
    budget: Budget | None = None,
    prices: Prices = Prices(),
) -> Answer:
    """Fill in, ask, check; ask again where a check or the output's schema says no, at most `limits.calls` times in all.

    Raises RequestError before any call where the inputs are wrong; Refused where no answer passed, or the same one was wrong twice;
    BudgetExceeded; and what the provider raises. With a trace the run is recorded, and the prompt under its version.
    """
    explained = await asyncio.to_thread(explained_for, prompt, given, provider)
    budget = Budget(replace(prompt.limits, calls=prompt.limits.calls or ROUNDS), parent=budget)
    if trace is None:
        return await _rounds(prompt, explained, Budgeted(provider, budget, prices), checks, budget.limits)
    with trace.span("prompt", prompt.name, version=prompt.version) as span:
        span.keep("source", prompt.kept)
        asked = Budgeted(Traced(provider, trace), budget, trace.prices)
        answer = await _rounds(prompt, explained, asked, checks, budget.limits)
        for name, verdict in answer.verdicts.items():
            span.check(name, verdict.ok, verdict.score, verdict.reason)
        span.note(rejected=[why for _, why in answer.rejected])
        return answer


def explained_for(prompt: Prompt, given: Mapping[str, Any], provider: Provider) -> Explained:
    """What `ask` would send to this provider, in the room that it has beside an answer."""
    chat, longest = getattr(provider, "chat", None), getattr(provider, "max_len", None)
    room = None if longest is None else max(longest - (prompt.sampling.max_tokens or min(ANSWER, longest // 4)), 1)
    if chat is None:
        return explain(prompt, given, room=room)
    around = 8 * (len(prompt.turns) + 2 * len(prompt.examples) + 1)  # what a template puts around messages
    return explain(
        prompt, given, room=room and max(room - around, 1), count=lambda text: len(chat.tokenizer.encode(text))
    )


async def _rounds(
    prompt: Prompt, explained: Explained, provider: Provider, checks: Mapping[str, Check], limits: Limits
) -> Answer:
    rejected: list[tuple[str, str]] = []
    talk = explained.conversation
    for _ in range(limits.calls or ROUNDS):
        reply = await complete(provider, talk, explained.sampling)
        value, verdicts = await asyncio.to_thread(judged, prompt, talk, reply.candidates[0], checks)
        wrong = {name: verdict.reason for name, verdict in verdicts.items() if not verdict.ok}
        if not wrong:
            return Answer(value, reply.text, reply, verdicts, tuple(rejected), explained)
        why = "; ".join(f"{name}: {reason}" if reason else name for name, reason in wrong.items())
        if (reply.text, why) in rejected:
            raise Refused(
                f"{prompt.name}: the same wrong answer came twice: {why[:500]}", (*rejected, (reply.text, why))
            )
        rejected.append((reply.text, why))
        talk = _told(explained.conversation, reply.text, why)
    raise Refused(
        f"{prompt.name}: none of {len(rejected)} answers passed; the last: {rejected[-1][1][:500]}", tuple(rejected)
    )


def judged(
    prompt: Prompt, talk: Conversation, candidate: Candidate, checks: Mapping[str, Check]
) -> tuple[Any, dict[str, Verdict]]:
    """The value of an answer, and what the output's schema and each check say of it."""
    verdicts: dict[str, Verdict] = {}
    value: Any = candidate.text
    if candidate.finish_reason == "length":
        verdicts["whole"] = Verdict.of(False, "the answer was cut; it must be shorter")
    if prompt.output is not None:
        value, error = _parsed(candidate.text, prompt.output)
        verdicts["output"] = Verdict.of(error is None, error or "")
    verdicts |= {name: check(talk, candidate) for name, check in checks.items()}
    return value, verdicts


def _parsed(text: str, schema: dict[str, Any]) -> tuple[Any, str | None]:
    """The JSON of an answer, perhaps between fences, and what is wrong with it."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```") and "\n" in bare:
        bare = bare[bare.index("\n") : -3]
    try:
        value = orjson.loads(bare)
    except orjson.JSONDecodeError as e:
        return None, f"it is not JSON: {e}"
    error = next(jsonschema_rs.validator_for(schema, offline=True).iter_errors(value), None)
    if error is None:
        return value, None
    return value, f"{'.'.join(map(str, error.instance_path)) or 'it'}: {error.message}"


def _told(talk: Conversation, text: str, why: str) -> Conversation:
    """The question once more, with what was wrong with the last answer. Earlier ones are not repeated, so it never grows."""
    data: dict[Literal["answer", "wrong"], str] = {"answer": text[:CLAMP], "wrong": why[:CLAMP]}
    words = f"An answer to this was rejected. {RULE}\n\n{fenced(data, 'rejected')}\n\nAnswer again, so that this is not wrong with it."
    return replace(talk, messages=(*talk.messages[:-1], _with(talk.messages[-1], words)))


def _with(message: Message, words: str) -> Message:
    return replace(message, content=f"{message.text}\n\n{words}")
