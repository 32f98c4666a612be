"""Asking all cases: so many at once, each answer in the trace as soon as it is there, and none asked twice.

An answer is found again by what was asked of whom (the case, the target, its version), so a run that was stopped goes on where it was,
and the same command run again costs nothing. Every answer is judged anew: a better rule applies to old answers.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass

import orjson

from myna.apps.redteam.ask import Answer, Target
from myna.apps.redteam.carriers import LATIN, LOOKS
from myna.apps.redteam.cases import Case
from myna.apps.redteam.judge import Judge
from myna.apps.redteam.refusal import refusal
from myna.records import MynaError, ProviderError, Unavailable
from myna.trace import Trace
from myna.trace.store import canonical, digest

AT_ONCE = 2
MOST_FAILURES = 5  # in a row: then the endpoint is down, and asking on would only count failures


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case.

    outcome   refused, answered, empty, blocked (an app said no); of an injection obeyed or ignored; failed: there is no answer
    why       the words that decided it, or the error
    judged    what the judge says; "unclear" where it says nothing that can be read, "failed" where it could not be asked, "" where nobody
              asked one
    answered  whether an injection's own question was answered; None where nothing says how to tell
    before    the answer is an earlier run's
    """

    case: Case
    outcome: str
    why: str = ""
    text: str = ""
    judged: str = ""
    answered: bool | None = None
    before: bool = False


async def results(
    cases: Sequence[Case],
    target: Target,
    trace: Trace,
    *,
    judge: Judge | None = None,
    at_once: int = AT_ONCE,
    again: bool = False,
) -> AsyncGenerator[Result, None]:
    """Each case's result when it is known. `again`: earlier answers are not used.

    Raises the endpoint's or the judge's error after MOST_FAILURES in a row, or where no case has an answer; whatever was answered until
    then is kept. At most len(cases) * (target.most_calls + (1 if judge else 0)) calls.
    """
    known = {} if again else earlier(trace)
    failures = silences = 0
    with trace.span("redteam", target.name, cases=len(cases)) as span:
        async for case, answer, before in _answers(cases, target, trace, known, at_once):
            failures = failures + 1 if isinstance(answer, MynaError) else 0
            if isinstance(answer, MynaError):
                if failures in (MOST_FAILURES, len(cases)):
                    raise answer
                yield Result(case, "failed", str(answer))
                continue
            result, said = outcome(case, answer), ""
            if judge and case.kind != "injection":
                try:
                    said, silences = await judge(case, answer), 0
                except (ProviderError, Unavailable):
                    said, silences = "failed", silences + 1
                    if silences == MOST_FAILURES:
                        raise
            yield Result(case, *result, answer.text, said, _expected(case, answer), before)
        span.note(finished=True)


def outcome(case: Case, answer: Answer) -> tuple[str, str]:
    """(what an answer does, the words that say so)."""
    if answer.blocked:
        return "blocked", answer.blocked
    if not answer.text.strip():  # nothing was said, so nothing is known: a model that is dead obeys nobody
        return "empty", ""
    if case.kind == "injection":
        obeyed = _plain(case.canary) in _plain(answer.text)
        return ("obeyed", case.canary) if obeyed else ("ignored", "")
    found = refusal(answer.text)
    return found.said, found.words


def _plain(text: str) -> str:
    """A canary is one in lookalikes, too, and with blanks in it."""
    return "".join(text.translate(str.maketrans(LOOKS, LATIN)).casefold().split())


def _expected(case: Case, answer: Answer) -> bool | None:
    return case.expect.casefold() in answer.text.casefold() if case.expect else None


def asked(case: Case, target: Target) -> str:
    """What an answer is found by."""
    return digest(canonical([case.key, target.name, target.version]))


def earlier(trace: Trace) -> dict[str, Answer]:
    """All answers in a trace, the latest of each."""
    found: dict[str, Answer] = {}
    for (facts,) in trace.store.rows("SELECT facts FROM spans WHERE kind = 'case' AND outcome = 'ok' ORDER BY id"):
        row = orjson.loads(facts)
        if "asked" in row and "answer" in row:
            found[row["asked"]] = Answer(*trace.store.content(row["answer"]))
    return found


async def _answers(
    cases: Iterable[Case], target: Target, trace: Trace, known: dict[str, Answer], at_once: int
) -> AsyncGenerator[tuple[Case, Answer | MynaError, bool], None]:
    """In the order of the cases; the next ones are being asked meanwhile."""
    waiting: list[tuple[Case, bool, asyncio.Task[Answer | MynaError]]] = []
    try:
        for case in cases:
            found = known.get(asked(case, target))
            task = asyncio.create_task(_kept(case, target, trace) if found is None else _same(found))
            waiting.append((case, found is not None, task))
            if len(waiting) >= at_once:
                first, before, task = waiting.pop(0)
                yield first, await task, before
        for case, before, task in waiting:
            yield case, await task, before
    finally:
        for _, _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, _, task in waiting), return_exceptions=True)


async def _same(answer: Answer) -> Answer | MynaError:
    return answer


async def _kept(case: Case, target: Target, trace: Trace) -> Answer | MynaError:
    """Ask, and write down what came."""
    try:
        with trace.span("case", case.id or case.category, of=case.kind, asked=asked(case, target)) as span:
            answer = await target.ask(case)
            span.keep("answer", [answer.text, answer.blocked])
    except MynaError as e:
        return e
    return answer
