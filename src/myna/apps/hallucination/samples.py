"""Self-consistency: the same question several times, and how many of the answers agree (Wang et al. 2023).

found = await sample(provider, question("What is the capital of Australia?"), n=5)
found.answer        what most of them say          found.agreement     the share of all n that say it
found.groups        which of them say the same     found.semantic      semantic entropy of that
found.calls         one on our engine, which makes n answers of one prompt at once; never more than calls_at_most(n)
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from myna.apps.hallucination import bounded
from myna.apps.hallucination.signals import Signals, semantic_entropy, signals, weighted_semantic_entropy
from myna.checks.same import LONGEST, groups
from myna.provider import Provider, powers
from myna.records import Conversation, Reply, RequestError, Sampling
from myna.records.fence import RULE, fenced

# Farquhar et al. 2024 draw at temperature 1 with nucleus 0.9 and the 50 likeliest; penalties would bend the distribution.
DRAW = Sampling(temperature=1.0, top_p=0.9, top_k=50, min_p=0.0, repetition_penalty=1.0, max_tokens=64, logprobs=10)
MOST = 32  # samples of one question
Outcome = Literal["answer", "empty", "cut", "endless"]
# What a confidence can be made of; see `Samples.confidence`.
SIGNALS = ("agreement", "semantic", "weighted", "mean", "least", "entropy")
Grouping = Callable[[Sequence[str]], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer. Those that are "empty", "cut" by max_tokens, or "endless" (given up on, or broken off) agree with nothing; they are
    counted all the same."""

    text: str
    outcome: Outcome
    signals: Signals


@dataclass(frozen=True)
class Samples:
    """`asked` samples of one question, of which the endpoint gave `samples`; `groups` are their numbers, the largest first."""

    samples: tuple[Sample, ...]
    groups: tuple[tuple[int, ...], ...]
    asked: int
    calls: int

    @property
    def spoken(self) -> Sample | None:
        """Of those who say what most say the likeliest, or the first where nobody knows; None where nobody answered."""
        if not self.groups:
            return None
        known = [(one.signals.mean, -i) for i in self.groups[0] if (one := self.samples[i]).signals.mean is not None]
        return self.samples[-max(known)[1] if len(known) == len(self.groups[0]) else self.groups[0][0]]

    @property
    def answer(self) -> str | None:
        """What most say."""
        return self.spoken.text if self.spoken else None

    @property
    def agreement(self) -> float:
        """The share of all samples that were asked for which say `answer`, from 0 to 1."""
        return len(self.groups[0]) / self.asked if self.groups else 0.0

    @property
    def semantic(self) -> float | None:
        """Semantic entropy in nats over the answers; those that are none are each a meaning of their own."""
        alone = self.asked - sum(map(len, self.groups))
        return semantic_entropy([*map(len, self.groups), *[1] * alone])

    @property
    def weighted(self) -> float | None:
        """Semantic entropy by probability; None where log-probabilities are missing, or a sample is no answer."""
        if sum(map(len, self.groups)) < self.asked:
            return None
        return weighted_semantic_entropy(self.groups, [one.signals.mean for one in self.samples])

    @cached_property
    def outcomes(self) -> Counter[str]:
        """How many samples ended how; "missing" are those that the endpoint did not give."""
        counted = Counter[str](one.outcome for one in self.samples)
        return counted + Counter(missing=self.asked - len(self.samples))

    def confidence(self, signal: str) -> float | None:
        """One of SIGNALS of `answer`, turned so that higher is surer; None where it is not known. Raises RequestError for no signal."""
        if signal not in SIGNALS:
            raise RequestError(f"{signal!r} is no signal; these are: {', '.join(SIGNALS)}.", param="signal")
        if self.spoken is None:
            return None
        of = self.spoken.signals
        match signal:
            case "agreement":
                return self.agreement
            case "mean":
                return of.mean
            case "least":
                return of.least
        found = of.entropy if signal == "entropy" else self.semantic if signal == "semantic" else self.weighted
        return None if found is None else 0.0 - found


def question(text: str, context: str | None = None) -> Conversation:
    """A question that is to be answered in a few words, from a text where there is one."""
    system = "Answer with the answer alone, in as few words as possible, in the language of the question."
    if context is None:
        return Conversation.of(("system", system), ("user", text))
    system = f"{system} The answer stands in the text. {RULE}"
    return Conversation.of(("system", system), ("user", f"{fenced(context, 'text')}\n\n{text}"))


def calls_at_most(n: int) -> int:
    """How many model calls `sample` makes at most: one for all, and where the endpoint gives one answer at a time, one for each."""
    return n + 1


async def sample(
    provider: Provider,
    what: Conversation,
    n: int = 5,
    sampling: Sampling = Sampling(),
    *,
    seed: int = 0,
    group: Grouping = groups,
    most: int = LONGEST,
) -> Samples:
    """`n` answers, and which of them say the same. `sampling` goes before DRAW; `most`: characters of an answer.

    An endpoint that gives fewer candidates than it was asked for is asked again for the others, with another seed; one that refuses `n`
    is asked one by one, and so is one of which that is known. Raises RequestError where n is not from 1 to MOST, and what the provider raises.
    """
    if not 1 <= n <= MOST:
        raise RequestError(f"n is {n}; it must be from 1 to {MOST}.", param="n")
    how = sampling.resolve(DRAW)
    found: list[Sample] = []
    known = powers.of(provider)
    calls, together = 0, 1 if known.tried and not known.several else n
    with bounded.step("samples", what.messages[-1].text[:80], n=n):
        while len(found) < n and calls < calls_at_most(n):
            wanted = min(together, n - len(found))
            drawn = replace(how, n=wanted, seed=seed + calls)
            calls += 1
            try:
                reply = await bounded.ask(provider, what, drawn, most)
            except RequestError as e:
                if wanted == 1 or e.param not in ("n", None):
                    raise
                together = 1
                continue
            found += _read(reply, most)[:wanted]
    kept = [i for i, one in enumerate(found) if one.outcome == "answer"]
    said = group([found[i].text for i in kept])
    return Samples(tuple(found), tuple(tuple(kept[i] for i in one) for one in said), n, calls)


async def once(provider: Provider, what: Conversation, sampling: Sampling = Sampling(), most: int = LONGEST) -> Sample:
    """The likeliest answer (temperature 0), with its signals. One call. Raises what the provider raises."""
    how = sampling.resolve(replace(DRAW, temperature=0.0))
    read = _read(await bounded.ask(provider, what, how, most), most)
    return read[0] if read else Sample("", "empty", signals(()))


def _read(reply: Reply, most: int) -> list[Sample]:
    sampled = reply.sampled or ((),) * len(reply.candidates)
    found = []
    for candidate, tokens in zip(reply.candidates, sampled, strict=True):
        text = candidate.text.strip()
        outcome: Outcome = "answer"
        if not text:
            outcome = "empty"
        elif len(text) > most or candidate.finish_reason is None:
            outcome = "endless"
        elif candidate.finish_reason == "length":
            outcome = "cut"
        found.append(Sample(text[:most], outcome, signals(tokens)))
    return found


Meaning = Callable[[str, str], Awaitable[bool]]


async def by_meaning(answers: Sequence[str], entails: Meaning) -> tuple[tuple[int, ...], ...]:
    """Groups of answers each of which entails the other (Farquhar et al. 2024), with at most n(n - 1) calls of `entails`: an answer is
    compared with the first of each group, and joins the first group that it fits. Same words need no call."""
    found: list[list[int]] = [list(one) for one in groups(answers)]
    firsts: list[list[int]] = []
    for group in found:
        for other in firsts:
            a, b = answers[group[0]], answers[other[0]]
            if await entails(a, b) and await entails(b, a):
                other += group
                break
        else:
            firsts.append(list(group))
    return tuple(sorted((tuple(sorted(one)) for one in firsts), key=lambda one: (-len(one), one[0])))
