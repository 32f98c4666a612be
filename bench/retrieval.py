"""Does a question find its own paragraph among all of a set? By words, by vectors, and by both with a fitted weight.

    python bench/retrieval.py xquad/en_dev.jsonl.gz xquad/zh_dev.jsonl.gz cmrc2018/dev.jsonl.gz [--model all-minilm-l6-v2]

Rows are {"context", "qas": [{"question"}]}. R@1 counts a question when the first hit is a chunk of its paragraph; a tie with
another paragraph does not count. The weight is fitted on the questions of one half of the paragraphs and judged on the other
half's, both ways, always among all paragraphs: no question is judged by a weight it helped to fit. A row "made" is the weight
fitted on questions made from the corpus alone, judged on all questions.
"""

import argparse
import asyncio
import gzip
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from myna.apps.index.file import FileIndex, Question
from myna.apps.index.fusion import Fitted, Pool, fit, reciprocal_rank
from myna.apps.index.parsed import Parsed
from myna.apps.index.questions import cloze
from myna.apps.index.reading import Document


def read(path: Path) -> tuple[list[Document], list[Question]]:
    documents, questions = [], []
    for number, row in enumerate(read_rows(path)):
        documents.append(document(f"{number:05d}", row["context"]))
        questions += [(one["question"], f"{number:05d}") for one in row["qas"]]
    return documents, questions


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) as lines:
        yield from map(orjson.loads, lines)


def document(name: str, text: str) -> Document:
    """A text as if it had been read from a file."""
    return Document(Path(name), hashlib.sha256(text.encode()).hexdigest(), len(text.encode()), Parsed(text))


def recall(pools: list[Pool], weight: float) -> float:
    return sum(reciprocal_rank(pool, weight) == 1 for pool in pools) / len(pools)


def rrf(pools: list[Pool], k: int = 60) -> float:
    """Naive fusion, for comparison: 1 / (k + rank) of each arm, summed."""
    right = 0
    for pool in pools:
        scores: dict[int, float] = {}
        for arm in (pool.lexical, pool.dense):
            for rank, one in enumerate(sorted(arm, key=lambda one: -arm[one]), 1):
                scores[one] = scores.get(one, 0) + 1 / (k + rank)
        right += bool(scores) and max(scores, key=lambda one: scores[one]) in pool.right
    return right / len(pools)


def crossed(pools: list[Pool], questions: list[Question]) -> tuple[float, list[Fitted]]:
    halves = [[p for p, (_, name) in zip(pools, questions, strict=True) if int(name) % 2 == side] for side in (0, 1)]
    fits = [fit(half) for half in halves]
    right = sum(recall(half, other.weight) * len(half) for half, other in zip(halves, fits[::-1], strict=True))
    return right / len(pools), fits


async def measure(path: Path, model: str | None) -> None:
    documents, questions = read(path)
    embedder = None
    if model:
        from myna.provider.local_embed import load_embedder

        embedder = load_embedder(model)
    with tempfile.TemporaryDirectory() as folder:
        index = FileIndex(Path(folder) / "index.sqlite", embedder)
        await index.add(documents)
        pools = await index.pools(questions)
        print(f"{path}: {len(documents)} paragraphs, {len(questions)} questions")
        print(f"  words R@1 {recall(pools, 0):.4f}")
        if embedder:
            fused, fits = crossed(pools, questions)
            auto = fit(await cloze(index), "made")
            arms = recall(pools, 0), recall(pools, 1)
            print(f"  vectors {arms[1]:.4f}, naive RRF {rrf(pools):.4f}")
            print(
                f"  fused {fused:.4f} ({fused - max(arms):+.4f} to the best arm), weights {[one.weight for one in fits]}"
            )
            print(f"  made: {recall(pools, auto.weight):.4f} ({recall(pools, auto.weight) - max(arms):+.4f}); {auto}")
            embedder.close()
        index.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--model")
    args = parser.parse_args()
    for one in args.sets:
        asyncio.run(measure(one, args.model))
