"""Self-instruct (Wang et al. 2022, arXiv:2212.10560): a teacher writes tasks like a few it is shown, then answers them.

A task is kept if it is new, and, where a check is named, if two answers drawn apart agree as the check says: the teacher's
first answer is then the target, the second what is learned. Nobody else knows what is right here.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from myna.checks import named, verdict
from myna.data.dedup import Signature, signature
from myna.data.overlap import MOST, Watch
from myna.data.sources import Place, Sourced
from myna.data.turns import asked
from myna.provider import Provider, complete
from myna.records import Candidate, Conversation, DataError, Json, Message, Sampling, Unjudged, jsonl
from myna.train.journal import Journal, digest

SHOWN = 6  # tasks in a prompt; at most OWN of them the teacher's own, so that it does not drift (the paper: 8 and 2)
OWN = 2
ASKED = 8  # new tasks asked for at once
AT_ONCE = 8  # prompts that are asked together
BARREN = 10  # rounds without anything new, after which the teacher has no more to give
LIMITS = 8, 2000  # characters of a task
_ITEM = re.compile(r"^\s{0,8}\d{1,3}\s?[.):、]\s{0,8}(\S.*)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How many rows, and how they are drawn. `near` is how like another task a new one may be (Jaccard of 5-grams)."""

    rows: int
    check: str = ""
    temperature: float = 1.0
    max_tokens: int = 512
    near: float = 0.7
    seed: int = 0


@dataclass(slots=True)
class Made:
    """What became of everything the teacher wrote. `malformed` lines are no task; `copies` are like a seed or an earlier one."""

    asked: int = 0
    written: int = 0
    malformed: int = 0
    copies: int = 0
    held_out: int = 0
    cut: int = 0
    disagreed: int = 0
    kept: int = 0

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass
class _Pool:
    """Tasks so far: seeds, then the teacher's own; and what tells whether another is like one of them."""

    seeds: list[str]
    own: list[str] = field(default_factory=list)
    _signatures: list[Signature] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._signatures = [signature(task) for task in (*self.seeds, *self.own)]

    def has(self, task: str, near: float) -> bool:
        """Is one of them as alike as this (dedup.py)?"""
        alike = np.mean(np.stack(self._signatures) == signature(task), axis=1)
        return bool(alike.max() >= near)

    def add(self, task: str) -> None:
        self.own.append(task)
        self._signatures.append(signature(task))

    def shown(self, seed: int, number: int) -> list[str]:
        drawn = np.random.default_rng([seed, number])
        own = min(OWN, len(self.own))
        picked = [*drawn.choice(len(self.seeds), min(SHOWN - own, len(self.seeds)), replace=False)]
        mine = [self.own[i] for i in drawn.choice(len(self.own), own, replace=False)] if own else []
        return [*(self.seeds[i] for i in picked), *mine]


async def synthesize(
    teacher: Provider,
    seeds: Sequence[Conversation],
    out: Path,
    wish: Wish,
    *,
    evals: Iterable[Sourced[Conversation]] = (),
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Write `wish.rows` conversations of a task and its answer to `out`, fewer if the teacher repeats itself. Killed, it goes on
    where it was. `seen` hears how many rows there are."""
    tasks = [asked(one).messages[-1].text for one in seeds]
    if not tasks:
        raise DataError("no seeds: name a file with a few tasks such as you want")
    watch = Watch.over(Sourced(place, asked(one)) for place, one in evals)
    journal = Journal(out, {"teacher": teacher.name, "seeds": digest(seeds), **asdict(wish)})
    made, pool = _recall(journal.rows, tasks)
    barren, number = 0, AT_ONCE * len(journal.rows)
    while made.kept < wish.rows and barren < BARREN:
        texts = await _ask(teacher, wish, pool, range(number, number + AT_ONCE))
        fresh, before = [_fresh(text, pool, wish, watch, made) for text in texts], made.kept
        answered = await asyncio.gather(*(_answer(teacher, wish, task, made) for some in fresh for task in some))
        rows = [row for row in answered if row is not None]
        number += AT_ONCE
        made.asked += AT_ONCE
        made.kept += len(rows)
        journal.add([_note(texts, rows, {"made": made.to_json(), "tasks": pool.own})])
        barren = 0 if made.kept > before else barren + 1
        seen(min(made.kept, wish.rows), wish.rows)
    found = [_row(c, teacher.name, wish) for note in journal.rows for c in note.candidates][: wish.rows]
    if not found:
        raise DataError(f"{teacher.name} wrote nothing that could be kept: {made.to_json()}")
    made.kept = jsonl.write(out, found)
    journal.close()
    return made


def tasks_in(text: str) -> tuple[list[str], int]:
    """The tasks of a numbered list, and how many lines are none. A task may go on in the lines after its number."""
    found: list[str] = []
    stray = 0
    for line in text.splitlines():
        if item := _ITEM.match(line):
            found.append(item[1].strip())
        elif found and line.strip():
            found[-1] += "\n" + line.strip()
        else:
            stray += bool(line.strip())
    return found, stray


async def _ask(teacher: Provider, wish: Wish, pool: _Pool, numbers: Iterable[int]) -> list[str]:
    async def one(number: int) -> str:
        shown = "\n".join(f"{i}. {' '.join(task.split())}" for i, task in enumerate(pool.shown(wish.seed, number), 1))
        said = (
            f"Here are some tasks:\n\n{shown}\n\nWrite {ASKED} new ones of the same kind, each different from all others, as a "
            f"numbered list. Write the tasks alone, without answers."
        )
        sampling = Sampling(temperature=wish.temperature, max_tokens=wish.max_tokens, seed=_seed(wish, number))
        (candidate, *_) = (await complete(teacher, Conversation.ask(said), sampling)).candidates
        # What was cut has no end: its last line is dropped.
        return candidate.text.rpartition("\n")[0] if candidate.finish_reason == "length" else candidate.text

    return list(await asyncio.gather(*(one(number) for number in numbers)))


def _fresh(text: str, pool: _Pool, wish: Wish, watch: Watch, made: Made) -> list[str]:
    """The tasks of a list that are new, which the pool knows from now on."""
    found, stray = tasks_in(text)
    made.malformed += stray
    made.written += len(found)
    fresh = []
    for task in found:
        if not LIMITS[0] <= len(task) <= LIMITS[1]:
            made.malformed += 1
        elif pool.has(task, wish.near):
            made.copies += 1
        elif any(f.same or f.share >= MOST for f in watch.look(Place("teacher", 0), Conversation.ask(task))):
            made.held_out += 1
        else:
            pool.add(task)
            fresh.append(task)
    return fresh


async def _answer(teacher: Provider, wish: Wish, task: str, made: Made) -> Conversation | None:
    """The task with its answer, if it can be kept."""
    draws = 2 if wish.check else 1
    sampling = Sampling(n=draws, temperature=wish.temperature, max_tokens=wish.max_tokens, seed=wish.seed)
    prompt = Conversation.ask(task)
    answers = (await complete(teacher, prompt, sampling)).candidates
    if any(answer.finish_reason == "length" or not answer.text.strip() for answer in answers):
        made.cut += 1
        return None
    if wish.check:
        prompt = replace(prompt, target=answers[0].text)
        try:
            agreed = (await verdict(named(wish.check), prompt, answers[-1])).ok
        except (DataError, Unjudged):  # such as a target without a number
            agreed = False
        if not agreed:
            made.disagreed += 1
            return None
    return prompt + replace(answers[-1].messages[-1], tokens=answers[-1].tokens)


def _note(texts: Sequence[str], kept: Sequence[Conversation], meta: Json) -> Conversation:
    """A line of the journal: what the teacher wrote in a round, the rows that came of it, and all that the next round knows."""
    rows = tuple(Candidate(row.messages, meta={"target": row.target}) for row in kept)
    return Conversation(tuple(Message("user", text) for text in texts), candidates=rows, meta=meta)


def _row(candidate: Candidate, teacher: str, wish: Wish) -> Conversation:
    meta = {"teacher": teacher, "seed": wish.seed} | ({"check": wish.check} if wish.check else {})
    return Conversation(candidate.messages, target=candidate.meta["target"], meta=meta)


def _recall(rows: Sequence[Conversation], seeds: list[str]) -> tuple[Made, _Pool]:
    """Where it was: what the last note says."""
    if not rows:
        return Made(), _Pool(seeds)
    last = rows[-1].meta
    return Made(**last["made"]), _Pool(seeds, list(last["tasks"]))


def _seed(wish: Wish, number: int) -> int:
    return wish.seed * 1_000_003 + number
