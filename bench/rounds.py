"""Does looking again find what one search does not? Questions that need two paragraphs, the second of which they do not name.

    python bench/rounds.py DATA QUESTIONS en|zh MODEL [K:ROUNDS ...]

QUESTIONS are rows as in bench/structures_en.jsonl, of which those with an `answer` are asked, to an index of all paragraphs of DATA/xquad by words;
K is how many passages the first search brings, ROUNDS how often the model looks again (1:0 1:2 3:0 if left out). Of each: of how many questions both
paragraphs are shown, F1 (SQuAD's) of the answer, calls and passages a question, and how often "enough" was said and right (both were there).
"""

import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

import orjson
from answers import SHORT, f1, words_of
from retrieval import document, read_rows

from myna.apps.answers import Answer, answer
from myna.apps.index.file import FileIndex
from myna.provider import Provider
from myna.provider.connect import connected
from myna.records import MynaError


async def measure(index: FileIndex, asked: list[dict], language: str, provider: Provider, k: int, rounds: int) -> None:
    made = [
        await answer(provider, index, one["question"], k=k, rounds=rounds, enough=0.0, style=SHORT[language])
        for one in asked
    ]
    both = [there(one, found) for one, found in zip(asked, made, strict=True)]
    scores = [f1(words_of(found), one["answer"]) for one, found in zip(asked, made, strict=True)]
    said = [
        ("the passages are enough" in found.rounds[-1].ended, right)
        for found, right in zip(made, both, strict=True)
        if found.rounds
    ]
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5 / len(scores) ** 0.5
    print(
        f"{language} k {k}, {rounds} rounds, n {len(asked)}: both paragraphs {sum(both)}, F1 {mean:.3f} ± {1.96 * spread:.3f}, calls {sum(one.calls for one in made) / len(made):.2f}, "
        f"passages {sum(len(one.passages) for one in made) / len(made):.1f}; enough was said {sum(enough for enough, _ in said)} times, right {sum(enough and right for enough, right in said)}",
        flush=True,
    )
    for one, found, right in zip(asked, made, both, strict=True):
        print(
            f"    {right:d} {found.text[:80]!r} wanted {one['answer'][0]!r}; {[(r.query, r.fresh, r.ended) for r in found.rounds]}"
        )


def there(one: dict, found: Answer) -> bool:
    """Whether all paragraphs are shown that the question needs."""
    return set(one["right"]) <= {name for passage in found.passages for name in passage.hit.names}


async def corpus(path: Path, data: Path, language: str) -> FileIndex:
    """All paragraphs, named as QUESTIONS name them: "Title/3.txt"."""
    counts: Counter[str] = Counter()
    documents = []
    for row in read_rows(data / f"xquad/{language}_dev.jsonl.gz"):
        counts[row["title"]] += 1
        documents.append(document(f"{row['title']}/{counts[row['title']]}.txt", row["context"]))
    index = FileIndex(path)
    await index.add(documents)
    return index


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    rows = [orjson.loads(line) for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
    try:
        with tempfile.TemporaryDirectory() as folder, connected(sys.argv[4]) as model:
            made = asyncio.run(corpus(Path(folder) / "index.sqlite", Path(sys.argv[1]), sys.argv[3]))
            for pair in sys.argv[5:] or ["1:0", "1:2", "3:0"]:
                k, _, rounds = pair.partition(":")
                asyncio.run(
                    measure(made, [row for row in rows if "answer" in row], sys.argv[3], model, int(k), int(rounds))
                )
            made.close()
    except (MynaError, OSError) as e:
        sys.exit(f"rounds.py: {e}")
