"""Text to SQL: the share of questions that a model answers right, and how the others fail.

python bench/sql.py DATA [--limit N] MODEL ...

DATA holds spider/ and sqleval/: questions.jsonl.gz and the databases, *.sqlite.gz. A MODEL is what `myna sql --model` takes. An
answer is right if it gives the rows of a gold query (execution accuracy, Yu et al. 2018); in its order, if the gold query orders.
"""

import asyncio
import gzip
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from myna.apps.sql import QUERY, query
from myna.apps.sql.database import Rows
from myna.apps.sql.sqlite import Sqlite
from myna.provider import Provider, powers
from myna.provider.connect import connect
from myna.records import MynaError, SqlError

Cells = Sequence[Sequence[Any]]


def questions(data: Path, limit: int | None) -> list[dict[str, Any]]:
    """Of each set so many, evenly over its order."""
    found = []
    for name in ("spider", "sqleval"):
        lines = gzip.decompress((data / name / "questions.jsonl.gz").read_bytes()).decode().splitlines()
        rows = [json.loads(line) | {"set": name} for line in lines]
        found += rows[:: max(1, len(rows) // limit)][:limit] if limit else rows
    return found


def right(rows: Rows, one: dict[str, Any], database: Sqlite) -> bool:
    """Whether these are a gold query's rows, its columns in any order (Zhong et al. 2020); where several gold queries are
    listed (SQL-Eval), columns beside them do not count against an answer."""
    golds = one.get("gold") or [one["query"]]
    return any(
        same(rows.rows, database.run(gold).rows, "order by" in gold.lower(), more="gold" in one) for gold in golds
    )


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
    form = QUERY if "regex" in powers.of(provider).forms else None
    outcomes: dict[str, Counter[str]] = {}
    start = time.monotonic()
    for one in asked:
        database = Sqlite(folder / f"{one['set']}_{one['db_id']}.sqlite")
        words = f"{one['question']} {one.get('instructions', '')}".strip()
        try:
            found = await query(provider, database, words, form=form)
            outcome = "right" if right(found.rows, one, database) else "wrong rows"
            outcome += ", repaired" if len(found.attempts) > 1 and outcome == "right" else ""
            said = found.sql
        except SqlError as e:
            outcome, said = e.kind, e.sql
        outcomes.setdefault(one["set"], Counter())[outcome] += 1
        print(
            f"{outcome:12} {one['db_id']}: {one['question'][:100]}\n{'':12} {' '.join(said.split())[:300]}", flush=True
        )
    for name, counted in outcomes.items():
        n, good = counted.total(), counted["right"] + counted["right, repaired"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in counted.most_common())
        print(f"{provider.name} {name}: {good} of {n} = {good / n:.1%}   {kinds}")
    print(f"{time.monotonic() - start:.0f} s")


def main(data: Path, limit: int | None, models: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("spider", "sqleval"):
            for packed in (data / name).glob("*.sqlite.gz"):
                (folder / f"{name}_{packed.name.removesuffix('.gz')}").write_bytes(gzip.decompress(packed.read_bytes()))
        asked = questions(data, limit)
        for model in models:
            asyncio.run(score(connect(model), asked, folder))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [data, "--limit", limit, *models] if models:
            args = Path(data), int(limit), models
        case [data, *models] if models:
            args = Path(data), None, models
        case _:
            sys.exit(__doc__)
    try:
        main(*args)
    except (MynaError, OSError) as e:
        sys.exit(f"sql.py: {e}")
