"""Chain of verification (Dhuliawala et al. 2023), factored: a draft, questions that would show it wrong, each answered by itself, and
the answer that is left.

    found = await verify(provider, "Name a politician born in Boston.")
    found.draft, found.checks, found.answer, found.outcome

The answers to the questions are given without the draft, so that they cannot repeat it. Whether all this helps a given model is to be
measured: it harmed the default one (docs/experiments.md).
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from myna.apps.hallucination import bounded
from myna.apps.hallucination.samples import question
from myna.checks.same import alike
from myna.provider import Provider
from myna.records import Conversation, Sampling
from myna.records.fence import RULE, fenced

QUESTIONS = 3
DRAW = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=96)
_NUMBER = re.compile(r"^[\s>*•·-]*(?:\d{1,3}[.)、:：]|[(（]\d{1,3}[)）]|Q\d{1,3}[.:：])?[\s*]*")


@dataclass(frozen=True, slots=True)
class Verified:
    """checks    questions with their answers
    outcome   changed: the answer says something else than the draft; kept: the same; unplanned: no question was asked; unrevised: nothing
              came of the revision, so the draft stands; empty: there was no draft
    """

    draft: str
    checks: tuple[tuple[str, str], ...]
    answer: str
    outcome: Literal["changed", "kept", "unplanned", "unrevised", "empty"]
    calls: int


def calls_at_most(questions: int = QUESTIONS) -> int:
    """Draft, plan and revision, and one call for each question."""
    return questions + 3


async def verify(
    provider: Provider,
    asked: str,
    context: str | None = None,
    *,
    questions: int = QUESTIONS,
    sampling: Sampling = Sampling(),
) -> Verified:
    """The answer to a question, from a text where there is one, after its draft was questioned; `calls_at_most(questions)` calls. Every
    step is a span where one is open. Raises what the provider raises."""
    how = sampling.resolve(DRAW)

    async def say(name: str, what: Conversation, tokens: int = 1) -> str:
        longer = replace(how, max_tokens=tokens * (how.max_tokens or 96))
        with bounded.step("step", name):
            return (await bounded.say(provider, what, longer)).strip()

    with bounded.step("verify", asked[:80]):
        draft = await say("draft", question(asked, context))
        if not draft:
            return Verified("", (), "", "empty", 1)
        planned = listed(await say("plan", plan(asked, draft, questions), 2), questions)
        if not planned:
            return Verified(draft, (), draft, "unplanned", 2)
        checks = tuple([(one, await say("check", question(one, context))) for one in planned])
        revised = await say("revise", revision(asked, draft, checks))
        calls = 3 + len(checks)
        if not revised:
            return Verified(draft, checks, draft, "unrevised", calls)
        return Verified(draft, checks, revised, "kept" if alike(draft, revised) else "changed", calls)


def plan(asked: str, draft: str, questions: int) -> Conversation:
    """What the model is asked for: questions that would show the draft wrong."""
    system = (
        f"You check facts. {RULE} For the question and the answer that was given, write at most {questions} short questions whose answers "
        "would show whether that answer is true. One a line, in the language of the question; each must be understood alone, so name what "
        "it is about. Write the questions and nothing else."
    )
    return Conversation.of(("system", system), ("user", f"{fenced(asked, 'question')}\n\n{fenced(draft, 'answer')}"))


def revision(asked: str, draft: str, checks: tuple[tuple[str, str], ...]) -> Conversation:
    """What the model is asked at the end."""
    system = (
        f"{RULE} You see a question, a draft of its answer, and facts that were looked up. Where the facts show that the draft is wrong, "
        "correct it; else repeat it. Answer with the answer alone, in as few words as possible, in the language of the question."
    )
    facts = "\n".join(f"{one}\n{said or '-'}\n" for one, said in checks)
    shown = f"{fenced(draft, 'draft')}\n\n{fenced(facts, 'facts')}\n\n{fenced(asked, 'question')}"
    return Conversation.of(("system", system), ("user", shown))


def listed(said: str, most: int) -> list[str]:
    """The questions in a reply, a line each, without numbers and without repetition; at most `most`."""
    lines = (_NUMBER.sub("", line, count=1).strip(" *\t") for line in said.splitlines())
    return list(dict.fromkeys(line for line in lines if line.endswith(("?", "？")) and len(line) > 2))[:most]
