"""Does asking in other words find more? The question alone, and with other ways to ask it that a model writes, searched by words.

    python bench/rewriting.py DATA MODEL [LIMIT]

LIMIT questions of each set (XQuAD en, XQuAD zh, CMRC 2018), drawn with seed 0, among all paragraphs of the set; R@k counts a question when a
chunk of its paragraph is among the first k. Beside it the questions that only one of the two finds, and the calls.
"""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

from retrieval import read

from myna.apps.answers.queries import ways
from myna.apps.index.file import FileIndex, Question
from myna.provider import Provider
from myna.provider.connect import connected
from myna.records import MynaError

SETS = ("xquad/en_dev", "xquad/zh_dev", "cmrc2018/dev")
REWRITES, AT = 3, (1, 10)


async def ranks(index: FileIndex, provider: Provider, one: Question) -> tuple[int, int]:
    """Where the right paragraph stands: for the question alone, and with the other ways. 99: not among the first ten."""
    question, name = one
    found = []
    for queries in ((question,), await ways(provider, question, REWRITES)):
        names = [hit.names[0] for hit in (await index.search(queries, max(AT))).hits]
        found.append(names.index(name) + 1 if name in names else 99)
    return found[0], found[1]


async def measure(data: Path, provider: Provider, limit: int) -> None:
    for name in SETS:
        documents, questions = read(data / f"{name}.jsonl.gz")
        asked = random.Random(0).sample(questions, min(limit, len(questions)))
        with tempfile.TemporaryDirectory() as folder:
            index = FileIndex(Path(folder) / "index.sqlite")
            await index.add(documents)
            placed = [await ranks(index, provider, one) for one in asked]
            index.close()
        for k in AT:
            alone, both = (sum(pair[side] <= k for pair in placed) / len(placed) for side in (0, 1))
            won = sum(pair[1] <= k < pair[0] for pair in placed)
            lost = sum(pair[0] <= k < pair[1] for pair in placed)
            print(f"{name} R@{k}: alone {alone:.3f}, with {REWRITES} other ways {both:.3f}; found only so {won}, lost {lost}; n {len(placed)}", flush=True)  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        with connected(sys.argv[2]) as provider:
            asyncio.run(measure(Path(sys.argv[1]), provider, int(sys.argv[3]) if len(sys.argv) == 4 else 100))
    except (MynaError, OSError) as e:
        sys.exit(f"rewriting.py: {e}")
