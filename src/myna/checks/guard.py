"""What is done where a check says no: one place, for prompts, flows and agents.

    ask        the model is asked again, told what was wrong; the default
    fix        the check mends the text (masks, cuts, takes a fence off), and all checks look once more
    filter     what the verdict's spans mark is taken out, with a mark in its place, and all checks look once more
    refuse     nobody sees it
    escalate   a person decides: it may stand, it may not, or as it should have been

Of several noes the strictest counts: refuse, escalate, ask, then fix and filter. Where a check comes to no verdict, the answer does not
pass: a person is asked if that is the check's policy, else it is refused; asking the model again would not help the judge.

Rounds are bounded, and the same wrong answer twice ends them. What a model said goes back to it as fenced data, clamped, under words
that are always ours: a rejected answer is a stranger's text like any other.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from myna.checks.check import AnyCheck, Span, Verdict, verdict
from myna.checks.reviews import Ask, Asked, answer_of
from myna.provider import Provider, complete
from myna.records import Candidate, Conversation, DataError, Message, MynaError, Reply, Sampling, Unjudged, Usage
from myna.records.fence import RULE, fenced
from myna.trace import here

Otherwise = Literal["ask", "fix", "filter", "refuse", "escalate"]
POLICIES: tuple[Otherwise, ...] = get_args(Otherwise)
CLAMP = 4000  # characters of a rejected answer, and of what was wrong with it, that go back
ROUNDS = 3
GAP = "[…]"
STRICTEST: tuple[Otherwise, ...] = ("refuse", "escalate", "ask", "filter", "fix")


@dataclass(frozen=True, slots=True)
class Guard:
    """A check by its name, and what is done where it says no. `seconds` is how long it may take."""

    name: str
    check: AnyCheck
    otherwise: Otherwise = "ask"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.otherwise not in POLICIES:
            raise DataError(f"{self.name}: {self.otherwise!r} is no policy; these are: {', '.join(POLICIES)}")
        if self.otherwise == "fix" and not hasattr(self.check, "mend"):
            raise DataError(f"{self.name}: this check cannot mend a text; take ask, filter, refuse or escalate")

    @property
    def calls(self) -> int:
        """How many calls of a model a verdict takes at most."""
        return int(getattr(self.check, "calls", 0))


@dataclass(frozen=True, slots=True)
class Judged:
    """What the checks said of a text; `unjudged` are those that came to no verdict, with the reason."""

    verdicts: Mapping[str, Verdict]
    unjudged: Mapping[str, str]

    @property
    def why(self) -> str:
        """What is wrong, in one line; "" where nothing is."""
        wrong = {name: one.reason for name, one in self.verdicts.items() if not one.ok}
        unknown = {name: f"no verdict: {reason}" for name, reason in self.unjudged.items()}
        return "; ".join(f"{name}: {reason}" if reason else name for name, reason in {**wrong, **unknown}.items())


@dataclass(frozen=True, slots=True)
class Attempt:
    """An answer, what it took, what was said of it, and what was done: "passed" or the policy that applied."""

    text: str
    usage: Usage
    judged: Judged
    done: str

    @property
    def why(self) -> str:
        return self.judged.why


@dataclass(frozen=True, slots=True)
class Passed:
    """The text that passed, the reply it comes from, and all attempts; the last is the one that passed."""

    text: str
    reply: Reply
    attempts: tuple[Attempt, ...]

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        return self.attempts[-1].judged.verdicts


class Refused(MynaError):
    """No answer passed. `attempts` are those there were; `answers` their texts, each with what was wrong."""

    def __init__(self, message: str, attempts: tuple[Attempt, ...]):
        super().__init__(message)
        self.attempts = attempts

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        return tuple((one.text, one.why) for one in self.attempts)


def most_calls(guards: Sequence[Guard], rounds: int = ROUNDS) -> int:
    """How many calls of a model `guarded` makes at most: of each round the answer, and what the checks ask; twice that where a policy
    changes the text, since they look at it again."""
    looks = 2 if any(guard.otherwise in ("fix", "filter", "escalate") for guard in guards) else 1
    return rounds * (1 + looks * sum(guard.calls for guard in guards))


async def guarded(
    provider: Provider,
    conversation: Conversation,
    sampling: Sampling,
    guards: Sequence[Guard],
    *,
    rounds: int = ROUNDS,
    person: Ask | None = None,
    name: str = "the answer",
) -> Passed:
    """Ask, and ask again where a guard says so, `rounds` times at most. `sampling` asks for one candidate.

    conversation   what the checks see; its meta is not sent
    person         who decides where a policy is to escalate

    Each attempt is a span of kind "attempt" below the span that is open, with its calls and its checks.
    Raises Refused, DataError where a policy needs a person and there is none, and what the provider raises.
    """
    if person is None and (asks := [guard.name for guard in guards if guard.otherwise == "escalate"]):
        raise DataError(f"{asks[0]}: its policy is to escalate, and nobody is there who could decide")
    if len({guard.name for guard in guards}) < len(guards):
        raise DataError(f"two checks have one name: {', '.join(guard.name for guard in guards)}")
    attempts: list[Attempt] = []
    talk = conversation
    for number in range(1, rounds + 1):
        with _span("attempt", str(number)):
            reply = await complete(provider, talk, sampling)
            text, attempt = await _settle(conversation, reply, guards, person)
        again = any((one.text, one.why) == (attempt.text, attempt.why) for one in attempts)
        attempts.append(attempt)
        if text is not None:
            return Passed(text, reply, tuple(attempts))
        if attempt.done != "ask":
            raise Refused(f"{name}: {attempt.done}: {attempt.why[:500]}", tuple(attempts))
        if again:
            raise Refused(f"{name}: the same wrong answer came twice: {attempt.why[:500]}", tuple(attempts))
        talk = told(conversation, attempt.text, attempt.why)
    raise Refused(
        f"{name}: none of {len(attempts)} answers passed; the last: {attempts[-1].why[:500]}", tuple(attempts)
    )


async def judge_all(conversation: Conversation, candidate: Candidate, guards: Sequence[Guard]) -> Judged:
    """What each guard's check says, recorded below the span that is open; one without a verdict is a span that ends with its error."""
    verdicts: dict[str, Verdict] = {}
    unjudged: dict[str, str] = {}
    for guard in guards:
        try:
            with _span("check", guard.name) if guard.calls else nullcontext():
                found = await verdict(guard.check, conversation, candidate, guard.seconds)
        except Unjudged as e:
            unjudged[guard.name] = str(e)
            if not guard.calls:
                _failed(guard.name, e)
            continue
        verdicts[guard.name] = found
        if (span := here()) is not None:
            span.check(guard.name, found.ok, found.score, found.reason)
    return Judged(verdicts, unjudged)


def told(talk: Conversation, text: str, why: str) -> Conversation:
    """The question once more, with what was wrong with the last answer. Earlier ones are not repeated, so it never grows."""
    data: dict[str, str] = {"answer": text[:CLAMP], "wrong": why[:CLAMP]}
    words = f"An answer to this was rejected. {RULE}\n\n{fenced(data, 'rejected')}\n\nAnswer again, so that this is not wrong with it."
    last = talk.messages[-1]
    return replace(talk, messages=(*talk.messages[:-1], replace(last, content=f"{last.text}\n\n{words}")))


def without(text: str, spans: Sequence[Span]) -> str:
    """The text with a mark in the place of each span; those that touch are one."""
    pieces, end = list[str](), -1
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.start > end:
            pieces += [text[max(end, 0) : span.start], GAP]
        end = max(end, span.end)
    return "".join([*pieces, text[max(end, 0) :]])


async def _settle(
    conversation: Conversation, reply: Reply, guards: Sequence[Guard], person: Ask | None
) -> tuple[str | None, Attempt]:
    """The text that may be seen, or None; and the attempt."""
    candidate = reply.candidates[0]
    judged = await judge_all(conversation, candidate, guards)
    policy = _policy(guards, judged)
    if policy == "passed":
        return candidate.text, Attempt(candidate.text, reply.usage, judged, "passed")
    if policy in ("ask", "refuse"):
        return None, Attempt(candidate.text, reply.usage, judged, policy)
    if policy == "escalate":
        assert person is not None
        try:
            text, rest = await _decided(conversation, candidate, guards, judged, person)
        except Unjudged as e:
            judged = Judged(judged.verdicts, {**judged.unjudged, "person": str(e)})
            text, rest = None, []
    else:
        text, rest = _mended(candidate.text, guards, judged), list(guards)
    if text is None:
        return None, Attempt(candidate.text, reply.usage, judged, "refuse")
    again = await judge_all(conversation, _with(candidate, text), rest)
    if again.why:
        return None, Attempt(candidate.text, reply.usage, again, "refuse")
    return text, Attempt(candidate.text, reply.usage, Judged({**judged.verdicts, **again.verdicts}, {}), policy)


def _policy(guards: Sequence[Guard], judged: Judged) -> str:
    applies = [
        guard.otherwise for guard in guards if guard.name in judged.verdicts and not judged.verdicts[guard.name].ok
    ]
    applies += [
        "escalate" if guard.otherwise == "escalate" else "refuse" for guard in guards if guard.name in judged.unjudged
    ]
    return next((policy for policy in STRICTEST if policy in applies), "passed")


def _mended(text: str, guards: Sequence[Guard], judged: Judged) -> str | None:
    """The text as those checks mend it that said no; None where nothing says what should go."""
    cut: list[Span] = []
    for guard in guards:
        found = judged.verdicts.get(guard.name)
        if found is None or found.ok or guard.otherwise != "filter":
            continue
        if not found.spans:
            return None
        cut += found.spans
    text = without(text, cut)  # before anything else moves the places
    for guard in guards:
        found = judged.verdicts.get(guard.name)
        if found is not None and not found.ok and guard.otherwise == "fix":
            mend: Any = guard.check
            text = mend.mend(text)
    return text


async def _decided(
    conversation: Conversation, candidate: Candidate, guards: Sequence[Guard], judged: Judged, person: Ask
) -> tuple[str | None, list[Guard]]:
    """What a person makes of it, and the checks that still have a say: theirs is the last word on those that were escalated.
    Raises Unjudged where nobody has answered yet."""
    span = here()
    asked = Asked(
        "May this answer stand?", replace(conversation, meta={}), candidate, judged.why, span.id if span else None
    )
    with _span("check", "person"):
        said = await answer_of(person, asked)
    rest = [guard for guard in guards if guard.otherwise != "escalate"]
    return {"approve": candidate.text, "edit": said.text, "reject": None}[said.said], rest


def _with(candidate: Candidate, text: str) -> Candidate:
    return Candidate((Message("assistant", text),), finish_reason=candidate.finish_reason)


def _span(kind: str, name: str) -> AbstractContextManager[object]:
    span = here()
    return nullcontext() if span is None else span.trace.span(kind, name)


def _failed(name: str, error: Exception) -> None:
    if (span := here()) is not None:
        mark = span.trace.begin("check", name)
        mark.fail(error)
        mark.end()
