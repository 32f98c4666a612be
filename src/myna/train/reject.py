"""Best of n and rejection sampling: answers are drawn, a check judges them, and those that pass are a file to fine-tune on.
Nothing is trained here (STaR, Zelikman et al. 2022; RFT, Yuan et al. 2023, arXiv:2308.01825).

What is kept passed the check twice: when it was drawn, and once more, read from the file by a fresh process.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from myna.checks import AnyCheck, blocking, named, verdict
from myna.data.dedup import content, fingerprint
from myna.data.overlap import MOST, Watch
from myna.data.sources import Sourced
from myna.data.turns import asked
from myna.provider import Provider, complete
from myna.records import Candidate, Conversation, DataError, Json, Sampling, Unjudged, jsonl
from myna.train.journal import Journal, digest

AT_ONCE = 16  # prompts that are asked together


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How answers are drawn, and which are kept: of each prompt the `best` that passes, or `all` that pass."""

    check: str
    n: int = 8
    keep: Literal["best", "all"] = "best"
    temperature: float = 1.0
    max_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of everything. `right` answers passed, about `unjudged` ones there is no verdict, `cut` ones reached max_tokens and
    are never kept; of `held_out` prompts an evaluation row knows, and they were not asked."""

    prompts: int = 0
    held_out: int = 0
    answers: int = 0
    right: int = 0
    unjudged: int = 0
    cut: int = 0
    solved: int = 0
    duplicates: int = 0
    kept: int = 0

    def to_json(self) -> Json:
        return asdict(self) | {"pass@1": self.right / max(self.answers - self.unjudged, 1)}


async def sample(
    provider: Provider,
    prompts: Sequence[Sourced[Conversation]],
    out: Path,
    draw: Draw,
    *,
    evals: Iterable[Sourced[Conversation]] = (),
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Kept:
    """Write what is kept to `out`, conversations with the tokens they were sampled as. Prompt i draws with a seed of (seed, i),
    so neither its neighbours nor an interruption change what it draws. `seen` hears how many prompts are done.

    Raises DataError for nothing to ask, for a prompt the check cannot judge, and for a check that changes its mind.
    """
    check = named(draw.check)
    watch = Watch.over(Sourced(place, asked(one)) for place, one in evals)
    asking = [asked(one) for place, one in prompts if not _known(watch, Sourced(place, asked(one)))]
    if not asking:
        raise DataError("there are no prompts to answer" + (", but those of evaluation rows" if prompts else ""))
    for prompt in asking:
        with suppress(Unjudged):
            await verdict(
                check, prompt, Candidate(())
            )  # before anything is drawn: it may lack what the check compares with
    journal = Journal(out, {"model": provider.name, "prompts": digest(asking), **asdict(draw)})
    while len(journal.rows) < len(asking):
        first = len(journal.rows)
        some = asking[first : first + AT_ONCE]
        drawn = await asyncio.gather(*(_draw(provider, draw, prompt, first + i) for i, prompt in enumerate(some)))
        journal.add([await _judged(check, prompt, candidates) for prompt, candidates in zip(some, drawn, strict=True)])
        seen(len(journal.rows), len(asking))
    kept = _write(journal.rows, provider.name, draw, out)
    journal.close()
    return replace(kept, prompts=len(asking), held_out=len(prompts) - len(asking))


def verify(file: Path, check: str) -> list[int]:
    """The rows of a file, counted from 1, whose last turn does not pass the check."""
    judge = blocking(named(check))
    rows = enumerate(jsonl.read(file, Conversation), start=1)
    return [n for n, row in rows if not judge(asked(row), Candidate(row.messages[-1:])).ok]


def _known(watch: Watch, prompt: Sourced[Conversation]) -> bool:
    return any(found.same or found.share >= MOST for found in watch.look(*prompt))


async def _draw(provider: Provider, draw: Draw, prompt: Conversation, number: int) -> tuple[Candidate, ...]:
    sampling = Sampling(
        n=draw.n, temperature=draw.temperature, top_k=0, top_p=1.0, min_p=0.0, max_tokens=draw.max_tokens,
        seed=_seed(draw, number), logprobs=0,
    )  # fmt: skip
    return (await complete(provider, prompt, sampling)).candidates


def _seed(draw: Draw, number: int) -> int:
    return draw.seed * 1_000_003 + number


async def _judged(check: AnyCheck, prompt: Conversation, candidates: Sequence[Candidate]) -> Conversation:
    found = []
    for candidate in candidates:
        try:
            said = await verdict(check, prompt, candidate)
        except Unjudged as e:
            found.append(replace(candidate, meta={**candidate.meta, "ok": False, "unjudged": True, "reason": str(e)}))
            continue
        meta = {**candidate.meta, "ok": said.ok, "reason": said.reason}
        found.append(replace(candidate, score=said.score, meta=meta))
    return replace(prompt, candidates=tuple(found))


def _write(answered: Sequence[Conversation], model: str, draw: Draw, out: Path) -> Kept:
    rows: list[Conversation] = []
    seen: set[bytes] = set()
    answers = right = unjudged = cut = solved = duplicates = 0
    for number, conversation in enumerate(answered):
        passed = [c for c in conversation.candidates if c.meta["ok"]]
        whole = [c for c in passed if c.finish_reason != "length" and c.text.strip()]
        answers += len(conversation.candidates)
        right += len(passed)
        unjudged += sum("unjudged" in c.meta for c in conversation.candidates)
        cut += sum(c.finish_reason == "length" for c in conversation.candidates)
        solved += bool(whole)
        whole.sort(key=lambda candidate: -(candidate.score or 0.0))  # of two alike the first drawn
        for candidate in whole[:1] if draw.keep == "best" else whole:
            origin = {"model": model, "seed": _seed(draw, number), "drawn": draw.n, "right": len(passed)}
            row = _row(conversation, candidate, {"sampled": origin, "check": draw.check})
            print_of = fingerprint(content(row))
            if print_of in seen:
                duplicates += 1
                continue
            seen.add(print_of)
            rows.append(row)
    jsonl.write(out, rows)
    _verify_afresh(out, draw.check)
    return Kept(
        answers=answers, right=right, unjudged=unjudged, cut=cut, solved=solved, duplicates=duplicates, kept=len(rows)
    )


def _row(conversation: Conversation, candidate: Candidate, meta: Json) -> Conversation:
    *before, last = candidate.messages
    answer = (*before, replace(last, tokens=candidate.tokens))
    messages = (*conversation.messages, *answer)
    return replace(conversation, messages=messages, candidates=(), meta={**conversation.meta, **meta})


def _verify_afresh(file: Path, check: str) -> None:
    """In a process that knows nothing but the file."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        failed = fresh.submit(verify, file, check).result()
    if failed:
        file.unlink()
        raise DataError(
            f"{check} passed {len(failed)} answers when they were drawn and not when they were read again (row {failed[0]}): "
            f"a check must not change its mind. Nothing was kept."
        )
