"""What an embedding model finds, loses by its precision, and costs: questions and the paragraphs that answer them.

    python bench/embed.py [MODEL] [--data xquad/en_dev.jsonl.gz] [--precisions float32,bfloat16,int8] [--budgets 512,2048]

R@1 is the share of questions whose own paragraph is the nearest of all; cosines are to the first precision's vectors.
Texts a second are of the paragraphs, best of three, at each number of tokens computed at once.
"""

import argparse
import asyncio
import gzip
import json
import time
from pathlib import Path

import numpy as np

from myna.modeldir import find
from myna.provider import local_embed
from myna.provider.local_embed import EmbedLoading, LocalEmbedder, load_embedder
from myna.records import Embedding

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", nargs="?", default="all-minilm-l6-v2")
    args.add_argument("--data", default="xquad/en_dev.jsonl.gz")
    args.add_argument("--precisions", default="float32,bfloat16,int8")
    args.add_argument("--budgets", default="512,1024,2048,4096,8192")
    given = args.parse_args()
    questions, paragraphs, own = read(DATA / given.data)
    print(f"{len(questions)} questions, {len(paragraphs)} paragraphs of {given.data}")
    exact: np.ndarray | None = None
    for precision in given.precisions.split(","):
        model = load_embedder(str(find(given.model)), EmbedLoading(precision=precision))
        assert isinstance(model, LocalEmbedder)
        found, asked = vectors(model, paragraphs), vectors(model, questions)
        exact = found if exact is None else exact
        cosines = (found * exact).sum(1)
        print(
            f"{precision:9} R@1 {100 * np.mean((asked @ found.T).argmax(1) == own):.1f} %  "
            f"cosine mean {cosines.mean():.5f} worst {cosines.min():.5f}"
        )
        model.close()
        for budget in map(int, given.budgets.split(",")):
            print(f"    {budget:5} tokens at once: {speed(given.model, precision, budget, paragraphs):.1f} texts/s")


def read(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Questions, the paragraphs, and the number of each question's own."""
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    pairs = [(qa["question"], number) for number, row in enumerate(rows) for qa in row["qas"]]
    return [question for question, _ in pairs], [row["context"] for row in rows], np.array([n for _, n in pairs])


def vectors(model: LocalEmbedder, texts: list[str]) -> np.ndarray:
    return asyncio.run(model.embed(texts, Embedding(truncate=True))).rows


def speed(name: str, precision: str, budget: int, texts: list[str]) -> float:
    local_embed.BUDGET = budget
    model = load_embedder(str(find(name)), EmbedLoading(precision=precision))
    assert isinstance(model, LocalEmbedder)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        vectors(model, texts)
        seconds.append(time.perf_counter() - started)
    model.close()
    return len(texts) / min(seconds)


if __name__ == "__main__":
    main()
