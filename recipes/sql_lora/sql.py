"""Text to SQL: what is learned from, and what is right.

python sql.py data DIR OUT                      questions over SQLite databases, to OUT/train.jsonl and OUT/held.jsonl
python sql.py score MODEL OUT [ADAPTER ...]     the share of held-out questions whose query gives the right rows, without an
                                                adapter and with each

A query counts if it runs and gives the rows that the gold query gives (execution accuracy, Yu et al. 2018, Spider). No database
that is asked about in held.jsonl occurs in train.jsonl.
"""

import asyncio
import gzip
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from myna.apps.sql.database import Limits
from myna.apps.sql.sqlite import Sqlite
from myna.provider import Provider, complete
from myna.provider.local import load
from myna.records import Conversation, MynaError, Sampling, SqlError, jsonl

HERE = Path(__file__).parent
HELD = {"concert_singer", "museum_visit", "voter_1"}  # databases held out
SECONDS, ROWS, BYTES = 5.0, 10_000, 100_000_000  # that a query may take; that it may give
FENCED = re.compile(r"```(?:sql)?\s*(.*?)```", re.DOTALL)
SYSTEM = "You write SQLite queries. Answer with one query and nothing else."


def write_data(source: Path, out: Path) -> None:
    """Spider's questions and our own over Chinook, as conversations; and the databases, unpacked."""
    (out / "databases").mkdir(parents=True, exist_ok=True)
    for packed in [*source.glob("spider/*.sqlite.gz"), source / "chinook/Chinook_Sqlite.sqlite.gz"]:
        name = packed.name.removesuffix(".sqlite.gz").removesuffix("_Sqlite")
        (out / f"databases/{name}.sqlite").write_bytes(gzip.decompress(packed.read_bytes()))
    spider = gzip.decompress((source / "spider/questions.jsonl.gz").read_bytes()).decode()
    lines = [*spider.splitlines(), *(HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    questions = [{"held": False, **json.loads(line)} for line in lines]
    held = [one for one in questions if one["held"] or one["db_id"] in HELD]
    train = [one for one in questions if not one["held"] and one["db_id"] not in HELD]
    jsonl.write(out / "train.jsonl", [conversation(one, out) for one in train])
    jsonl.write(out / "held.jsonl", [conversation(one, out) for one in held])
    print(f"{len(train)} questions to learn from, {len(held)} held out")


def conversation(one: dict[str, Any], out: Path) -> Conversation:
    """The schema and the question; and the query as its answer."""
    database = out / f"databases/{one['db_id']}.sqlite"
    turns = ("system", SYSTEM), ("user", f"{schema(database)}\n\n{one['question']}")
    query = " ".join(one["query"].split()).rstrip(";")
    meta = {"database": str(database.relative_to(out)), "query": query}
    return Conversation.of(*turns, ("assistant", query), meta=meta)


def schema(database: Path) -> str:
    """A line for each table: its columns, and of foreign keys what they mean."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        lines = []
        for table in tables:
            keys = {
                row[3]: f" = {row[2]}.{row[4]}" for row in connection.execute(f'PRAGMA foreign_key_list("{table}")')
            }
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            lines.append(f"{table}({', '.join(column + keys.get(column, '') for column in columns)})")
    return "\n".join(lines)


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query gives. The query is a stranger's: it may read this file, for SECONDS, and nothing else. Raises SqlError."""
    found = Sqlite(database).run(query, Limits(SECONDS, ROWS, BYTES))
    if found.notes:
        raise SqlError("; ".join(found.notes), kind="size", sql=query)
    return list(found.rows)


def right(database: Path, answer: str, gold: str) -> bool:
    """Whether both give the same rows; in the same order, if the gold query orders them."""
    fenced = FENCED.search(answer)
    query, expected = (fenced[1] if fenced else answer).strip(), [_plain(row) for row in rows(database, gold)]
    try:
        found = [_plain(row) for row in rows(database, query)]
    except SqlError:
        return False
    if not query:  # which gives no rows, as some gold queries do
        return False
    return found == expected if "order by" in gold.lower() else Counter(found) == Counter(expected)


def _plain(row: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(round(value, 6) if isinstance(value, float) else value for value in row)


async def score(provider: Provider, out: Path) -> float:
    """The share of the held-out questions that are answered right. Each is shown with what was answered."""
    asked = [*jsonl.read(out / "held.jsonl", Conversation)]
    sampling = Sampling(temperature=0.0, max_tokens=160)
    prompts = [Conversation(one.messages[:-1]) for one in asked]
    replies = await asyncio.gather(*(complete(provider, prompt, sampling) for prompt in prompts))
    count = 0
    for one, reply in zip(asked, replies, strict=True):
        good = right(out / one.meta["database"], reply.text, one.meta["query"])
        count += good
        print(f"{'right' if good else 'WRONG'}  {one.messages[1].text.splitlines()[-1]}\n       {reply.text.strip()}")
    print(f"{provider.name}: {count} of {len(asked)} = {count / len(asked):.0%}\n")
    return count / len(asked)


async def compare(model: str, out: Path, adapters: list[str]) -> None:
    local = load(model)
    try:
        for provider in [local, *(local.load_adapter(folder) for folder in adapters)]:
            await score(provider, out)
    finally:
        local.close()


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["data", source, out]:
                write_data(Path(source), Path(out))
            case ["score", model, out, *adapters]:
                asyncio.run(compare(model, Path(out), adapters))
            case _:
                sys.exit(__doc__)
    except (MynaError, OSError) as e:
        sys.exit(f"sql.py: {e}")
