"""One corpus searched flat, with a tree of summaries, and with a graph of entities: what each costs and what each finds.

    python bench/structures.py build xquad/en_dev.jsonl.gz index.sqlite --articles 10 --model http://127.0.0.1:8000/v1#MODEL
    python bench/structures.py measure index.sqlite bench/structures_en.jsonl xquad/en_dev.jsonl.gz [--embedder all-minilm-l6-v2]

Rows of the corpus are {"title", "context", "qas"}; each paragraph is a document in its article's folder. Rows of questions are
{"kind", "question", "right": [names]}: `bridge` needs two paragraphs, the second of which the question does not name; `broad` asks what
an article is about, and any of its paragraphs is right ("Title/"). The corpus's own questions are `single`: one paragraph, the first two
of each.
"""

import argparse
import asyncio
import gzip
import hashlib
import time
from pathlib import Path

import orjson

from myna.apps.index.file import FileIndex
from myna.apps.index.fusion import STEPS, Fitted
from myna.apps.index.graph import Graph
from myna.apps.index.index import Hit
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import Document
from myna.apps.index.tree import Tree
from myna.provider.budget import Budget, Budgeted
from myna.provider.connect import connect

K = 5


def read(path: Path, articles: int) -> list[Document]:
    made: list[Document] = []
    counts: dict[str, int] = {}
    with gzip.open(path) as lines:
        for row in map(orjson.loads, lines):
            title, text = row["title"], row["context"]
            if title not in counts and len(counts) == articles:
                break
            counts[title] = counts.get(title, 0) + 1
            sha = hashlib.sha256(text.encode()).hexdigest()
            name = f"{title}/{counts[title]}.txt"
            made.append(Document(Path(name), sha, len(text.encode()), Parsed(text, title=title.replace("_", " "))))
    return made


async def build(corpus: Path, out: Path, articles: int, model: str, embedder: str | None) -> None:
    provider = connect(model)
    index = FileIndex(out, _embedder(embedder))
    await index.add(read(corpus, articles))
    for arm in (Graph(), Tree()):
        estimate, began = arm.estimate(index, provider), time.monotonic()
        print(arm.name, estimate, flush=True)
        budget = Budget(estimate.limits)
        built = await arm.build(index, Budgeted(provider, budget), together=2, told=_told)
        print(arm.name, built, f"{time.monotonic() - began:.0f} s, {budget.spent}", flush=True)
        print(arm.standing(index), flush=True)


def _told(done: int, of: int) -> None:
    if done % 10 == 0 or done == of:
        print(f"  {done} of {of}", flush=True)


def singles(corpus: Path, documents: set[str]) -> list[dict]:
    found: list[dict] = []
    counts: dict[str, int] = {}
    with gzip.open(corpus) as lines:
        for row in map(orjson.loads, lines):
            title = row["title"]
            counts[title] = counts.get(title, 0) + 1
            name = f"{title}/{counts[title]}.txt"
            if name in documents:
                found += [{"kind": "single", "question": qa["question"], "right": [name]} for qa in row["qas"][:2]]
    return found


async def measure(path: Path, questions: Path, corpus: Path, embedder: str | None) -> None:
    asked = [orjson.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    asked += singles(corpus, {one.name for one in await FileIndex(path).documents()})
    kinds = sorted({one["kind"] for one in asked})
    print(f"{path}, {questions}: " + ", ".join(f"{sum(o['kind'] == kind for o in asked)} {kind}" for kind in kinds))
    print(f"  single: right at first; bridge: both among the first three; broad: share of the first {K} that are right")
    embed = _embedder(embedder)
    for arm in (None, Tree(), Graph()):
        index = FileIndex(path, embed, arm)
        for step in [0] if arm is None else range(2, STEPS + 1, 2):
            if arm:
                await index.keep(Fitted(step / STEPS, 0, 0, 0, 0, arms=("search", arm.name)))
            scores = [score(one, list((await index.search(one["question"], K)).hits)) for one in asked]
            means = [_mean(s for s, one in zip(scores, asked, strict=True) if one["kind"] == kind) for kind in kinds]
            name = f"{arm.name} {step / STEPS:.1f}" if arm else "flat"
            print(
                f"  {name:10}",
                *(f"{kind} {m:.3f}" for kind, m in zip(kinds, means, strict=True)),
                f"all {_mean(scores):.3f}",
            )
        if arm:  # halves: fitted on one, judged on the other
            await _crossed(index, asked)


async def _crossed(index: FileIndex, asked: list[dict]) -> None:
    weights = [step / STEPS for step in range(0, STEPS + 1, 2)]
    table = []
    for weight in weights:
        assert index.arm
        await index.keep(Fitted(weight, 0, 0, 0, 0, arms=("search", index.arm.name)))
        table.append([score(one, list((await index.search(one["question"], K)).hits)) for one in asked])
    total, chosen = 0.0, []
    for side in (0, 1):
        best = max(range(len(weights)), key=lambda i: (round(sum(table[i][1 - side :: 2]), 6), -i))
        chosen.append(weights[best])
        total += sum(table[best][side::2])
    gains = [table[weights.index(chosen[i % 2])][i] - table[0][i] for i in range(len(asked))]
    mean = _mean(gains)
    error = (sum((g - mean) ** 2 for g in gains) / (len(gains) - 1) / len(gains)) ** 0.5
    print(
        f"  {'':10} fitted on the other half: {total / len(asked):.3f}, gain {mean:+.3f} ± {error:.3f}, weights {chosen}"
    )


def score(one: dict, hits: list[Hit]) -> float:
    right = one["right"]
    if one["kind"] == "broad":
        return sum(any(hit.names[0].startswith(folder) for folder in right) for hit in hits) / K
    return float(set(right) <= {hit.names[0] for hit in hits[: 2 * len(right) - 1]})


def _mean(values: object) -> float:
    found = list(values)  # type: ignore[call-overload]
    return sum(found) / max(len(found), 1)


def _embedder(model: str | None):
    if model is None:
        return None
    from myna.provider.local_embed import load_embedder

    return load_embedder(model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("build")
    making.add_argument("corpus", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--articles", type=int, default=10)
    making.add_argument("--model", required=True)
    making.add_argument("--embedder")
    measuring = verbs.add_parser("measure")
    measuring.add_argument("index", type=Path)
    measuring.add_argument("questions", type=Path)
    measuring.add_argument("corpus", type=Path)
    measuring.add_argument("--embedder")
    args = parser.parse_args()
    if args.verb == "build":
        asyncio.run(build(args.corpus, args.out, args.articles, args.model, args.embedder))
    else:
        asyncio.run(measure(args.index, args.questions, args.corpus, args.embedder))
