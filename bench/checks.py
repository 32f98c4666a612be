"""Checks beside what people and other tools say.

    python bench/checks.py pii SET.jsonl [PEER.jsonl]                          rows {"text", "spans": [[start, end, kind]]}
    python bench/checks.py lists xstest/dev.jsonl.gz:prompt xquad/zh_dev.jsonl.gz:context ...
    python bench/checks.py judge human_votes/tulu1_pairwise.jsonl.gz --model http://127.0.0.1:8000/v1#MODEL --count 40

pii     precision, recall and F1 by kind; a span counts where it covers half of what it and the right one cover together. PEER holds
        [[start, end, kind, score]] of another tool, a line a row; of it the best threshold is taken, kind by kind
lists   how many texts of each file our moderation lists flag, and by which phrases; FILE.jsonl.gz:FIELD (chosen.value: a field of a
        field), FILE.txt.gz: each line
judge   pairs on which all people agreed: how often the model's two orders agree, and how often it agrees with people; then single
        answers that people called acceptable or not, half of each
"""

import argparse
import asyncio
import gzip
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from myna.checks import Verdict
from myna.checks.calibration import calibrate
from myna.checks.judge import Judge, better, judge
from myna.checks.moderation import lists_of
from myna.checks.pii import find_pii
from myna.checks.score import Scores
from myna.provider.connect import connected
from myna.provider.powers import OURS
from myna.records import Candidate, Conversation, Message
from myna.records.jsonl import read_rows

NAMES = {
    "email": "EMAIL_ADDRESS", "phone": "PHONE_NUMBER", "credit_card": "CREDIT_CARD", "iban": "IBAN_CODE", "ip": "IP_ADDRESS", "us_ssn": "US_SSN",
}  # fmt: skip
THRESHOLDS = (0, 0.3, 0.4, 0.5, 0.6, 0.8)
WHICH = "Which one does what is asked, correctly and helpfully?"
GOOD = "Is the answer acceptable: does it do what was asked, correctly?"


def read(file: str) -> Iterator[Any]:
    return (row for _, row in read_rows(file))


def pii(file: str, peer: str | None) -> None:
    rows = [*read(file)]
    ours = [[(span.start, span.end, NAMES.get(span.label), 1.0) for span in find_pii(row["text"])] for row in rows]
    others = [*read(peer)] if peer else None
    for kind in NAMES.values():
        line = f"{kind:15} {figures(rows, ours, kind, 0)}"
        if others:
            best = max((figures(rows, others, kind, least) for least in THRESHOLDS), key=lambda found: found[2])
            line += f" | peer {best}"
        print(line)


def figures(rows: list[Any], found: list[Any], kind: str, least: float) -> tuple[float, float, float, int]:
    """Precision, recall, F1, and of how many."""
    right = wanted = said = meant = 0
    for row, some in zip(rows, found, strict=True):
        gold = [one for one in row["spans"] if one[2] == kind]
        mine = [one for one in some if one[2] == kind and one[3] >= least]
        right += sum(any(covers(one, other) for other in mine) for one in gold)
        meant += sum(any(covers(one, other) for other in gold) for one in mine)
        wanted, said = wanted + len(gold), said + len(mine)
    precision, recall = meant / said if said else 0.0, right / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return round(precision, 3), round(recall, 3), round(f1, 3), wanted


def covers(one: Any, other: Any) -> bool:
    return (min(one[1], other[1]) - max(one[0], other[0])) >= 0.5 * (max(one[1], other[1]) - min(one[0], other[0]))


def lists(files: list[str]) -> None:
    known = lists_of(("en", "zh"))
    for name in files:
        found = [hits for text in texts(name) if (hits := known.find(text)) is not None]
        flagged = [hits for hits in found if hits]
        low, high = Scores(tuple(Verdict.of(bool(hits), "") for hits in found)).interval or (0.0, 1.0)
        words = Counter(hit.label for hits in flagged for hit in hits).most_common(5)
        by = ", ".join(f"{label} {count}" for label, count in words)
        file = Path(name.partition(":")[0])
        print(f"{file.parent.name}/{name.removeprefix(str(file.parent) + '/')}: {len(flagged)} of {len(found)} "
              f"({low:.2%} to {high:.2%}) {by}", flush=True)  # fmt: skip


def texts(name: str) -> Iterator[str]:
    """The lines of a text, or a field of each row."""
    if name.endswith(".txt.gz"):
        with gzip.open(name, "rt", encoding="utf-8") as lines:
            yield from (line for line in lines if line.strip())
        return
    file, _, fields = name.rpartition(":")
    for row in read(file):
        yield from leaves(row, fields.split("."))


def leaves(value: Any, fields: list[str]) -> Iterator[str]:
    """A field of a field; of a list, of each in it."""
    if isinstance(value, list):
        for one in value:
            yield from leaves(one, fields)
    else:
        yield from leaves(value[fields[0]], fields[1:]) if fields else [str(value)]


async def judges(file: str, model: str, count: int) -> None:
    votes = [*read(file)]
    random.Random(0).shuffle(votes)
    with connected(model) as provider:
        provider.powers = OURS  # type: ignore[attr-defined]  # a server of ours, which nobody has probed
        agreed = [*pairs(votes)][:count]
        said = [(await better(provider, talk, a, b, WHICH), first) for talk, a, b, first in agreed]
        print(f"pairs {len(said)}: both orders agree on {sum(one.winner != 'unsure' for one, _ in said)}, with people on "
              f"{sum(one.winner == ('first' if first else 'second') for one, first in said)}; the mean of both orders' probabilities agrees "
              f"with people on {sum(((one.share or 0.5) > 0.5) is first for one, first in said)}")  # fmt: skip
        single = judge(provider, rubric=GOOD)
        assert isinstance(single, Judge)
        labels = [(good, await single.label(talk, candidate)) for talk, candidate, good in answers(votes, count // 2)]
        print(calibrate([("pass" if good else "fail", single.labels[one.index]) for good, one in labels]))
        shares = {
            side: [(one.shares or (0.5, 0.5))[1] for good, one in labels if good is side] for side in (True, False)
        }
        above = sum((a > b) + 0.5 * (a == b) for a in shares[True] for b in shares[False])
        print(
            f"P(pass) of a good answer above that of a bad one: {above / (len(shares[True]) * len(shares[False])):.2f}"
        )


def pairs(votes: list[Any]) -> Iterator[tuple[Conversation, str, str, bool]]:
    """Question, two answers, and whether the first is better: where nobody said tie or otherwise."""
    by: dict[Any, list[Any]] = {}
    for row in votes:
        by.setdefault((row["instance_id"], row["model_a"], row["model_b"]), []).append(row)
    for rows in by.values():
        first = rows[0]
        agreed = len({row["preference"][0] for row in rows}) == 1 and first["preference"] != "tie"
        if agreed and max(len(first["completion_a"]), len(first["completion_b"])) < 1500:
            better_first = first["preference"][0] == "a"
            yield Conversation.ask(first["prompt"]), first["completion_a"], first["completion_b"], better_first


def answers(votes: list[Any], each: int) -> Iterator[tuple[Conversation, Candidate, bool]]:
    """So many that people called acceptable, and as many that they did not."""
    for good in (True, False):
        seen: set[Any] = set()
        for row in votes:
            for side in "ab":
                said = row[f"completion_{side}"]
                fits = (
                    (row[f"completion_{side}_is_acceptable"] == "yes") is good
                    and len(said) < 1500
                    and len(row["prompt"]) < 3000
                )
                if fits and len(seen) < each and (row["instance_id"], row[f"model_{side}"]) not in seen:
                    seen.add((row["instance_id"], row[f"model_{side}"]))
                    yield Conversation.ask(row["prompt"]), Candidate((Message("assistant", said),)), good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pii", "lists", "judge"))
    parser.add_argument("files", nargs="+")
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--count", type=int, default=40)
    args = parser.parse_args()
    match args.what:
        case "pii":
            pii(args.files[0], args.files[1] if len(args.files) > 1 else None)
        case "lists":
            lists(args.files)
        case _:
            asyncio.run(judges(args.files[0], args.model, args.count))
