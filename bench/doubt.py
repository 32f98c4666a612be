"""Which signal knows a wrong answer? Agreement, semantic entropy and log-probabilities beside each other, on questions with answers.

python bench/doubt.py ask DATA SET OUT [--limit N] [--n N] MODEL       one JSON line a question into OUT; goes on where it stopped
python bench/doubt.py report FILE ...                                  tables, with 95 % bootstrap intervals over questions
python bench/doubt.py verify DATA SET OUT [--limit N] MODEL            chain of verification: drafts, and what became of them
python bench/doubt.py quote DATA SET OUT [--limit N] MODEL             evidence first, with the right passage, one in three, and a wrong one

DATA holds xquad/, cmrc2018/ and triviaqa/. A SET is trivia-en, xquad-en, xquad-zh or cmrc-zh, with "-text" after it where the passage
is shown. A MODEL is what `myna sql --model` takes; it is taken to be our engine's where it is http://127.0.0.1.
"""

import asyncio
import gzip
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from myna.apps.hallucination import quotes
from myna.apps.hallucination.curve import aurc, auroc
from myna.apps.hallucination.samples import SIGNALS, Samples, once, question, sample
from myna.apps.hallucination.threshold import fit, rows_needed
from myna.apps.hallucination.verification import verify
from myna.checks.same import right
from myna.provider import Provider
from myna.provider.connect import connect
from myna.provider.powers import OURS
from myna.records import DataError, MynaError

Row = dict[str, Any]
RISK = 0.2
FILES = {"xquad-en": "xquad/en_dev", "xquad-zh": "xquad/zh_dev", "cmrc-zh": "cmrc2018/dev", "trivia-en": "triviaqa/dev"}


def questions(data: Path, name: str, limit: int) -> list[Row]:
    """The first `limit` questions of a set in an order that a fixed seed shuffled: id, question, answers, context."""
    file = FILES[name.removesuffix("-text")]
    with gzip.open(data / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if file.startswith("triviaqa"):
        asked = [row["context"].removeprefix("Question: ").removesuffix("\nAnswer:") for row in rows]
        found = [
            {"id": str(i), "question": q, "answers": [row["answer"], *row["aliases"]], "context": ""}
            for i, (q, row) in enumerate(zip(asked, rows, strict=True))
        ]
    else:
        found = [
            {"id": qa["id"], "question": qa["question"], "answers": qa["answers"], "context": row["context"]}
            for row in rows
            for qa in row["qas"]
        ]
    found.sort(key=lambda row: row["id"])
    random.Random(0).shuffle(found)
    return found[:limit]


async def ask(provider: Provider, row: Row, shown: str | None, n: int) -> Row:
    """Once greedily, and n samples, with every signal of both."""
    what = question(row["question"], shown)
    single, found = await once(provider, what), await sample(provider, what, n)
    alone = Samples((single,), ((0,),) if single.outcome == "answer" else (), 1, 1)
    return {
        "single": {"answer": single.text, "right": right(single.text, row["answers"])},
        "majority": {"answer": found.answer, "right": right(found.answer or "", row["answers"])},
        "signals": {name: found.confidence(name) for name in SIGNALS},
        "greedy": {name: alone.confidence(name) for name in ("mean", "least", "entropy")},
        "samples": [one.text for one in found.samples],
        "outcomes": dict(found.outcomes),
        "calls": found.calls,
    }


async def chain(provider: Provider, row: Row, shown: str | None, n: int) -> Row:
    found = await verify(provider, row["question"], shown)
    return {
        "draft": {"answer": found.draft, "right": right(found.draft, row["answers"])},
        "revised": {"answer": found.answer, "right": right(found.answer, row["answers"])},
        "outcome": found.outcome,
        "checks": found.checks,
        "calls": found.calls,
    }


async def quote(provider: Provider, row: Row, shown: str | None, n: int) -> Row:
    """With its passage, with it between two others, and with those two alone."""
    out: Row = {}
    a, b = row["others"]
    for name, evidence in (("given", [row["context"]]), ("noise", [a, row["context"], b]), ("absent", [a, b])):
        found = await quotes.answer(provider, row["question"], evidence)
        out[name] = {
            "answer": found.answer,
            "right": right(found.answer or "", row["answers"]),
            "outcome": found.outcome,
            "refused": len(found.refused),
            "calls": found.calls,
            "held": any(any(one in q.text for q in found.quotes) for one in row["answers"]),
        }
    return out


async def run(
    do: Callable[..., Any], provider: Provider, rows: list[Row], out: Path, shown: Callable[[Row], str | None], n: int
) -> None:
    done = {json.loads(line)["id"] for line in out.open()} if out.exists() else set()
    contexts = sorted({row["context"] for row in rows})
    chance = random.Random(1)
    with out.open("a") as file:
        for row in rows:
            row["others"] = [one for one in chance.sample(contexts, min(3, len(contexts))) if one != row["context"]][:2]
            if row["id"] in done:
                continue
            found = await do(provider, row, shown(row), n)
            kept = {"id": row["id"], "question": row["question"], "answers": row["answers"]}
            print(json.dumps({**kept, **found}, ensure_ascii=False), file=file, flush=True)


def interval(rows: Sequence[Row], of: Callable[[Sequence[Row]], float | None], draws: int = 2_000) -> str:
    """The value, and its 95 % interval over questions drawn with replacement."""
    chance = random.Random(0)
    drawn = [of(chance.choices(rows, k=len(rows))) for _ in range(draws)]
    known = sorted(one for one in drawn if one is not None)
    value = of(rows)
    if value is None or not known:
        return "-"
    return f"{value:.3f} [{known[int(0.025 * len(known))]:.3f}, {known[int(0.975 * len(known)) - 1]:.3f}]"


def share(who: str) -> Callable[[Sequence[Row]], float]:
    return lambda rows: sum(row[who]["right"] for row in rows) / len(rows)


def area(of: Callable[..., float | None], where: str, signal: str, who: str) -> Callable[[Sequence[Row]], float | None]:
    """A figure of a signal as a confidence of `who`'s answers; an unknown one is the lowest."""

    def value(rows: Sequence[Row]) -> float | None:
        given = [row[where][signal] for row in rows]
        return of([-1e9 if one is None else one for one in given], [row[who]["right"] for row in rows])

    return value


def applied(rows: Sequence[Row], signal: str) -> str:
    """A threshold from the first half of the rows, and what it does on the second."""
    half = len(rows) // 2
    sure = [row["signals"][signal] for row in rows]
    good = [row["majority"]["right"] for row in rows]
    always = 1 - sum(good[half:]) / len(good[half:])
    try:
        found = fit(sure[:half], good[:half], risk=RISK, signal=signal)
    except DataError as e:
        return str(e)
    kept = [label for c, label in zip(sure[half:], good[half:], strict=True) if found.answers(c)]
    wrong = len(kept) - sum(kept)
    return (
        f"risk at most {found.bound:.3f} on {found.covered} of {half}; on the other {len(rows) - half}: answers {len(kept)}, "
        f"{wrong} wrong ({wrong / max(len(kept), 1):.3f}); always answering {always:.3f}"
    )


def report(path: Path) -> None:
    rows = [json.loads(line) for line in path.open()]
    print(f"\n{path.stem}: {len(rows)} questions")
    if "draft" in rows[0]:
        both = Counter((row["draft"]["right"], row["revised"]["right"]) for row in rows)
        print(f"  draft {interval(rows, share('draft'))}  revised {interval(rows, share('revised'))}")
        gain = interval(rows, lambda r: share("revised")(r) - share("draft")(r))
        print(f"  difference {gain}; mended {both[False, True]}, broken {both[True, False]}")
        print(f"  outcomes {dict(Counter(row['outcome'] for row in rows))}; calls {sum(row['calls'] for row in rows)}")
        return
    if "given" in rows[0]:
        for name in ("given", "noise", "absent"):
            outcomes = dict(Counter(row[name]["outcome"] for row in rows))
            held = sum(row[name]["held"] for row in rows)
            none = interval(rows, lambda r, name=name: sum(one[name]["outcome"] == "none" for one in r) / len(r))
            print(
                f"  {name:7} right {interval(rows, share(name))}; none {none}; {outcomes}; answer in the quote {held}"
            )
        return
    print(f"  right: single {interval(rows, share('single'))}  majority {interval(rows, share('majority'))}")
    print(f"  difference {interval(rows, lambda r: share('majority')(r) - share('single')(r))}")
    print(f"  outcomes {dict(sum((Counter(row['outcomes']) for row in rows), Counter()))}")
    for where, who in (("signals", "majority"), ("greedy", "single")):
        for name in rows[0][where]:
            figures = [interval(rows, area(of, where, name, who)) for of in (auroc, aurc)]
            print(f"  {who:9} {name:10} AUROC {figures[0]}  AURC {figures[1]}")
    for name in SIGNALS if len(rows) >= 2 * rows_needed(RISK) else ():
        print(f"  {name:10} {applied(rows, name)}")


def main(arguments: list[str]) -> None:
    verbs = {"ask": ask, "verify": chain, "quote": quote}
    if arguments[:1] == ["report"] and arguments[1:]:
        for name in arguments[1:]:
            report(Path(name))
        return
    if len(arguments) < 5 or arguments[0] not in verbs:
        sys.exit(__doc__)
    verb, data, name, out, *rest = arguments
    given = dict(zip(rest[:-1:2], rest[1::2], strict=True))
    limit, n = int(given.get("--limit", 60)), int(given.get("--n", 8))
    provider = connect(rest[-1])
    if rest[-1].startswith("http://127.0.0.1"):
        provider.powers = OURS  # type: ignore[attr-defined]
    rows = questions(Path(data), name, limit)
    shown = (lambda row: row["context"]) if name.endswith("-text") else (lambda row: None)
    asyncio.run(run(verbs[verb], provider, rows, Path(out), shown, n))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (MynaError, OSError) as e:
        sys.exit(f"doubt.py: {e}")
