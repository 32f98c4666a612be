"""Asking: one call, and where the answer is not what the file demands, a bounded number of further ones, each told what was wrong.

What is checked, and what is done where a check says no, is the file's to say (`checks`, and `output`); checks/guard.py does it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from myna.apps.prompt.explain import Explained, explain
from myna.apps.prompt.file import Prompt
from myna.checks import AnyCheck, Verdict
from myna.checks.guard import ROUNDS, Guard, Passed, Refused, guarded, most_calls
from myna.checks.names import distinct
from myna.checks.reviews import Ask
from myna.checks.schema import of_schema, parsed
from myna.provider import Provider
from myna.provider.budget import Budget, Budgeted
from myna.provider.traced import Traced
from myna.records import Candidate, Conversation, Reply, RequestError
from myna.trace import Prices, Trace

__all__ = ["Answer", "Refused", "ask", "explained_for"]

ANSWER = 1024  # tokens kept free for the answer where the file does not say


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: `value` is the parsed JSON where the file has an output, else the text; what the file hides is in neither, and
    in `reply` alone.

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
    checks: Mapping[str, AnyCheck] = {},
    person: Ask | None = None,
    trace: Trace | None = None,
    budget: Budget | None = None,
    prices: Prices = Prices(),
) -> Answer:
    """Fill in, ask, check; what is done where a check or the output's schema says no is the check's policy, to ask again if nothing
    is said, for at most `limits.calls` answers.

    checks   more of them than the file has
    person   who decides where a policy is to escalate

    Raises RequestError and DataError before any call where the inputs are wrong or a check cannot be made; Refused where no answer
    passed, or the same one was wrong twice; BudgetExceeded; and what the provider raises. With a trace the run is recorded, and the
    prompt under its version.
    """
    explained = await asyncio.to_thread(explained_for, prompt, given, provider)
    rounds, calls = _bounds(prompt, guards_of(prompt, provider, checks, person))
    budget = Budget(replace(prompt.limits, calls=calls), parent=budget)

    async def answered(provider: Provider) -> Answer:
        talk = replace(explained.conversation, meta={**explained.conversation.meta, "inputs": dict(given)})
        guards = guards_of(prompt, provider, checks, person)
        passed = await guarded(
            provider, talk, explained.sampling, guards, rounds=rounds, person=person, name=prompt.name
        )
        return _answer(prompt, explained, passed)

    if trace is None:
        return await answered(Budgeted(provider, budget, prices))
    with trace.span("prompt", prompt.name, version=prompt.version) as span:
        span.keep("source", prompt.kept)
        answer = await answered(Budgeted(Traced(provider, trace), budget, trace.prices))
        for name, verdict in answer.verdicts.items():
            span.check(name, verdict.ok, verdict.score, verdict.reason)
        span.note(rejected=[why for _, why in answer.rejected])
        return answer


def guards_of(
    prompt: Prompt, provider: Provider, checks: Mapping[str, AnyCheck] = {}, person: Ask | None = None
) -> list[Guard]:
    """All that an answer must pass: whole, what the file's output says, the file's checks, and these."""
    guards = [Guard("whole", whole)]
    if prompt.output is not None:
        guards.append(Guard("output", of_schema(prompt.output, "output")))
    for name, one in zip(distinct([one.check for one in prompt.checks]), prompt.checks, strict=True):
        guards.append(Guard(name, one.check.make(provider=provider, ask=person), one.otherwise))
    return guards + [Guard(name, check) for name, check in checks.items()]


def whole(conversation: Conversation, candidate: Candidate) -> Verdict:
    """The answer was not cut."""
    cut = candidate.finish_reason == "length"
    return Verdict.of(not cut, "the answer was cut; it must be shorter" if cut else "")


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


def _bounds(prompt: Prompt, guards: Sequence[Guard]) -> tuple[int, int]:
    """How many answers, and how many calls they and their checks may take. Where the file limits calls, as many answers as surely fit."""
    limit, each = prompt.limits.calls, most_calls(guards, 1)
    if limit is None:
        return ROUNDS, ROUNDS * each
    if limit < each:
        raise RequestError(
            f"{prompt.name}: limits.calls is {limit}, and one answer with its checks takes up to {each}",
            param="limits.calls",
        )
    return limit // each, limit


def _answer(prompt: Prompt, explained: Explained, passed: Passed) -> Answer:
    text: str = passed.text
    value: Any = text
    if prompt.output is not None:
        value, _, _ = parsed(text, of_schema(prompt.output).source)
    if prompt.hidden and isinstance(value, dict):
        value = {name: one for name, one in value.items() if name not in prompt.hidden}
        text = orjson.dumps(value).decode()
    verdicts = {name: one for name, one in passed.verdicts.items() if name != "whole"}
    rejected = tuple((one.text, one.why) for one in passed.attempts[:-1])
    return Answer(value, text, passed.reply, verdicts, rejected, explained)
