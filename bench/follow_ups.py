"""A question of a conversation that leaves out what it is about ("And how old was he?"): is its paragraph found?

    python bench/follow_ups.py DATA MODEL

Of bench/follow_ups.jsonl, searched by words among all paragraphs of XQuAD (BM25): the words as they stand; with the question and answer before them;
and put on its own feet by the model, as `myna ask -i` does (one call). R@k: its paragraph is among the first k.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import orjson
from rounds import corpus

from myna.apps.answers.queries import Turn, alone
from myna.apps.index.file import FileIndex
from myna.provider import Provider
from myna.provider.connect import connected
from myna.records import MynaError

ROWS = Path(__file__).with_name("follow_ups.jsonl")
AT = (1, 5)


async def measure(index: FileIndex, rows: list[dict[str, str]], provider: Provider) -> None:
    places: dict[str, list[int]] = {"as it stands": [], "with what was said": [], "on its own feet": []}
    for row in rows:
        own = await alone(provider, row["then"], [Turn(row["question"], row["answer"])])
        print(f"    {row['then']} -> {own}", flush=True)
        for name, query in zip(
            places, (row["then"], f"{row['question']} {row['answer']} {row['then']}", own), strict=True
        ):
            names = [hit.names[0] for hit in (await index.search(query, max(AT))).hits]
            places[name].append(names.index(row["right"]) if row["right"] in names else max(AT))
    for name, found in places.items():
        print(
            f"{rows[0]['language']} {name}: "
            + ", ".join(f"R@{k} {sum(place < k for place in found)} of {len(found)}" for k in AT),
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    rows = [orjson.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    try:
        with tempfile.TemporaryDirectory() as folder, connected(sys.argv[2]) as model:
            for language in ("en", "zh"):
                made = asyncio.run(corpus(Path(folder) / f"{language}.sqlite", Path(sys.argv[1]), language))
                asyncio.run(measure(made, [row for row in rows if row["language"] == language], model))
                made.close()
    except (MynaError, OSError) as e:
        sys.exit(f"follow_ups.py: {e}")
