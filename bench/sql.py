"""Text to SQL: the share of questions that a model answers right, and how the others fail.

python bench/sql.py DATA [--part tune|report] [--limit N] MODEL ...

DATA holds spider/ and sqleval/: questions.jsonl.gz and the databases, *.sqlite.gz. A MODEL is what `myna sql --model` takes. Whatever is
chosen is chosen on `tune`, the questions to three of the databases (TUNE), and reported of the others. An answer is right if it
gives the rows of a gold query, compared as each set's own evaluation does by default (see `right`).
"""

import argparse
import asyncio
import gzip
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from myna.apps.sql import query
from myna.apps.sql.sqlite import Sqlite
from myna.provider import Provider, powers
from myna.provider.connect import connect
from myna.records import MynaError, SqlError

AT_ONCE = 2  # questions
TUNE = {"car_1", "course_teach", "academic"}  # 122 questions of Spider's 326, 25 of SQL-Eval's 80
Cells = Sequence[Sequence[Any]]


def questions(data: Path, part: str, limit: int | None) -> list[dict[str, Any]]:
    """Of each set so many, evenly over its order; database by database, so that an engine that keeps what prompts begin with reads each
    schema once."""
    found = []
    for name in ("spider", "sqleval"):
        lines = gzip.decompress((data / name / "questions.jsonl.gz").read_bytes()).decode().splitlines()
        rows = [json.loads(line) | {"set": name} for line in lines]
        rows = [one for one in rows if part in ("all", "tune" if one["db_id"] in TUNE else "report")]
        found += [rows[i * len(rows) // limit] for i in range(limit)] if limit and limit < len(rows) else rows
    return sorted(found, key=lambda one: (one["set"], one["db_id"]))


def right(sql: str, one: dict[str, Any], database: Sqlite) -> bool:
    """Whether a query gives a gold query's rows.

    Spider: DISTINCT is taken out of both (the default of Zhong et al. 2020), rows in order where the gold query orders, columns in any.
    SQL-Eval: rows once each, in order where the question asks for one, and columns beside those of the gold query do not count against it.
    """
    if "gold" not in one:
        given, gold = (
            database.run(re.sub(r"\bdistinct\b", "", text, flags=re.IGNORECASE)) for text in (sql, one["query"])
        )
        return same(given.rows, gold.rows, "order by" in one["query"].lower(), more=False)
    ordered = one["category"] == "order_by" or bool(re.search(r"\b(order|sort|arrange)\b", one["question"].lower()))
    given = tuple(dict.fromkeys(database.run(sql).rows))
    golds = [tuple(dict.fromkeys(database.run(gold).rows)) for gold in one["gold"]]
    return any(same(given, gold, ordered, more=True) for gold in golds)


def same(given: Cells, gold: Cells, ordered: bool, *, more: bool) -> bool:
    """Whether some choice of the given columns makes the gold rows, in their order or in any; `more`: others may be left."""
    if len(given) != len(gold) or not gold:
        return len(given) == len(gold)
    ours, theirs = list(zip(*plain(given), strict=True)), list(zip(*plain(gold), strict=True))
    if len(ours) < len(theirs) or (len(ours) > len(theirs) and not more):
        return False

    def fits(chosen: list[int]) -> bool:
        made = list(zip(*(ours[i] for i in chosen), strict=True))
        wanted = list(zip(*theirs[: len(chosen)], strict=True))
        if made != wanted if ordered else Counter(made) != Counter(wanted):
            return False
        return len(chosen) == len(theirs) or any(fits([*chosen, i]) for i in range(len(ours)) if i not in chosen)

    return any(fits([i]) for i in range(len(ours)))


def plain(rows: Cells) -> list[tuple[Any, ...]]:
    return [tuple(round(cell, 6) if isinstance(cell, float) else cell for cell in row) for row in rows]


async def score(provider: Provider, asked: list[dict[str, Any]], folder: Path) -> None:
    """A line for each set: n, right, and how many failed in which way."""
    forms, free = powers.of(provider).forms, asyncio.Semaphore(AT_ONCE)
    outcomes: dict[str, Counter[str]] = {}
    start = time.monotonic()

    async def answered(one: dict[str, Any]) -> None:
        database = Sqlite(folder / f"{one['set']}_{one['db_id']}.sqlite")
        words = f"{one['question']} {one.get('instructions', '')}".strip()
        async with free:
            try:
                found = await query(provider, database, words, forms=forms)
                outcome = "right" if right(found.sql, one, database) else "wrong rows"
                outcome += ", second try" if len(found.attempts) > 1 else ""
                said = found.sql
            except SqlError as e:
                outcome, said = e.kind, e.sql
        outcomes.setdefault(one["set"], Counter())[outcome] += 1
        shown = " ".join(said.split())[:300]
        print(f"{outcome:12} {one['db_id']}: {one['question'][:100]}\n{'':12} {shown}", flush=True)

    await asyncio.gather(*map(answered, asked))
    for name, counted in outcomes.items():
        n, good = counted.total(), counted["right"] + counted["right, second try"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in counted.most_common())
        print(f"{provider.name} {name}: {good} of {n} = {good / n:.1%}   {kinds}")
    print(f"{time.monotonic() - start:.0f} s")


def main() -> None:
    said = argparse.ArgumentParser(usage=__doc__)
    said.add_argument("data", type=Path)
    said.add_argument("--part", choices=("all", "tune", "report"), default="all")
    said.add_argument("--limit", type=int)
    said.add_argument("models", nargs="+")
    args = said.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("spider", "sqleval"):
            for packed in (args.data / name).glob("*.sqlite.gz"):
                (folder / f"{name}_{packed.name.removesuffix('.gz')}").write_bytes(gzip.decompress(packed.read_bytes()))
        asked = questions(args.data, args.part, args.limit)
        for model in args.models:
            asyncio.run(score(connect(model), asked, folder))


if __name__ == "__main__":
    try:
        main()
    except (MynaError, OSError) as e:
        sys.exit(f"sql.py: {e}")
