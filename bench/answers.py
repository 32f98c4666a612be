"""Answers from documents: how good, what retrieval adds, what is searched for, and what is left unanswered.

python bench/answers.py DATA gate                       small talk, questions, coverage: no model is asked
python bench/answers.py DATA answers MODEL [LIMIT]      LIMIT questions of each language

DATA holds xquad/. F1 and exact match are SQuAD's (Rajpurkar et al. 2016), in Chinese by characters. Of each question the model is asked
alone, beside the paragraph that has the answer, and by `answer` out of an index of all paragraphs; and once more out of an index that has no
paragraph of the question's article, where every answer is wrong.
"""

import asyncio
import json
import random
import re
import string
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retrieval import document, read_rows

from myna.apps.answers import Answer, answer
from myna.apps.answers.gate import before, coverage
from myna.apps.hallucination.curve import aurc, auroc
from myna.apps.index.file import FileIndex
from myna.provider import Provider, complete
from myna.provider.connect import connected
from myna.records import Conversation, MynaError, Sampling
from myna.records.fence import RULE, fenced

SHORT = {"en": "Answer with the fewest words that answer the question.", "zh": "用尽可能少的字回答问题。"}
GREEDY = Sampling(temperature=0.0, max_tokens=80)
SMALL_TALK = Path(__file__).with_name("small_talk.json")


@dataclass(frozen=True)
class Question:
    text: str
    answers: tuple[str, ...]
    article: str
    paragraph: str


def questions(data: Path, language: str) -> list[Question]:
    return [
        Question(one["question"], tuple(one["answers"]), row["title"], row["context"])
        for row in read_rows(data / f"xquad/{language}_dev.jsonl.gz")
        for one in row["qas"]
    ]


@contextmanager
def indexed(paragraphs: Sequence[str]) -> Iterator[FileIndex]:
    with tempfile.TemporaryDirectory() as folder:
        made = FileIndex(Path(folder) / "index.sqlite")
        asyncio.run(made.add(document(f"{i:04d}", text) for i, text in enumerate(dict.fromkeys(paragraphs))))
        yield made
        made.close()


def tokens(text: str) -> list[str]:
    """Words without case, punctuation and articles; each Chinese character is one."""
    bare = "".join(" " if unicodedata.category(c)[0] == "P" or c in string.punctuation else c for c in text.lower())
    spaced = re.sub(r"([\u3040-\u30ff\u3400-\u9fff])", r" \1 ", bare)
    return [word for word in spaced.split() if word not in ("a", "an", "the")]


def f1(said: str, golds: Sequence[str]) -> float:
    return max(_f1(Counter(tokens(said)), Counter(tokens(gold))) for gold in golds)


def _f1(said: Counter[str], gold: Counter[str]) -> float:
    same = (said & gold).total()
    return 2 * same / (said.total() + gold.total()) if same else float(not said and not gold)


def gate(data: Path) -> None:
    talk = json.loads(SMALL_TALK.read_text(encoding="utf-8"))
    for language in ("en", "zh"):
        asked = questions(data, language)
        talked = sum(before(one).way == "none" for one in talk[language])
        lost = sum(before(one.text).way == "none" for one in asked)
        print(
            f"{language}: small talk not searched for {talked} of {len(talk[language])}; questions taken for it {lost} of {len(asked)}"
        )
        articles = sorted({one.article for one in asked})
        here = set(articles[::2])
        with indexed([one.paragraph for one in asked if one.article in here]) as index:
            shares: dict[bool, list[float]] = {True: [], False: []}
            for one in asked:
                found = asyncio.run(index.search(one.text, 5))
                shares[one.article in here].append(coverage(one.text, [hit.text for hit in found.hits]))
        sure = shares[True] + shares[False]
        there = [True] * len(shares[True]) + [False] * len(shares[False])
        print(
            f"  of {len(sure)} questions {1 - sum(there) / len(there):.3f} cannot be answered: the risk of who always answers; by the share of words "
            f"the area under risk and coverage is {aurc(sure, there):.3f}, AUROC {auroc(sure, there):.3f}"
        )
        for enough in (0.1, 0.2, 0.25, 0.28, 0.3, 0.35, 0.4, 0.5, 0.55, 0.6, 0.7):
            kept, wrong = (sum(share >= enough for share in shares[side]) / len(shares[side]) for side in (True, False))
            print(
                f"  enough {enough:.2f}: asked about {kept:6.1%} of questions to the index, {wrong:6.1%} of questions about what is not in it"
            )


async def alone(provider: Provider, one: Question, language: str) -> str:
    talk = Conversation.of(("system", SHORT[language]), ("user", one.text))
    return (await complete(provider, talk, GREEDY)).text


async def beside(provider: Provider, one: Question, language: str) -> str:
    system = f"Answer from the passage. {SHORT[language]} {RULE}"
    talk = Conversation.of(("system", system), ("user", f"{fenced(one.paragraph)}\n\n{one.text}"))
    return (await complete(provider, talk, GREEDY)).text


def words_of(found: Answer) -> str:
    return " ".join(one.text for one in found.sentences)


def answers(data: Path, model: str, limit: int) -> None:
    with connected(model) as provider:
        for language in ("en", "zh"):
            every = questions(data, language)
            asked = random.Random(0).sample(every, min(limit, len(every)))
            with indexed([one.paragraph for one in every]) as index:
                score(provider, asked, language, index)
            without(provider, every, asked, language)


def score(provider: Provider, asked: list[Question], language: str, index: FileIndex) -> None:
    said: dict[str, list[tuple[str, Question]]] = {"alone": [], "its paragraph": [], "myna ask": []}
    made: list[Answer] = []
    for one in asked:
        said["alone"].append((asyncio.run(alone(provider, one, language)), one))
        said["its paragraph"].append((asyncio.run(beside(provider, one, language)), one))
        found = asyncio.run(answer(provider, index, one.text, style=SHORT[language]))
        made.append(found)
        said["myna ask"].append((words_of(found), one))
        print(
            f"  {one.text[:90]}\n    wanted {one.answers[0][:60]!r}, alone {said['alone'][-1][0][:60]!r}, beside {said['its paragraph'][-1][0][:60]!r}, ask {found.text[:120]!r} ({found.decision.way})",
            flush=True,
        )
    for name, pairs in said.items():
        exact = [any(tokens(text) == tokens(gold) for gold in one.answers) for text, one in pairs]
        scores = [f1(text, one.answers) for text, one in pairs]
        mean = sum(scores) / len(scores)
        spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5 / len(scores) ** 0.5
        print(
            f"{language} {name:14} n {len(pairs)}: exact {sum(exact) / len(exact):.3f}, F1 {mean:.3f} ± {1.96 * spread:.3f}"
        )
    cited = [(one, found) for one, found in zip(asked, made, strict=True) if found.sources]
    right = sum(any(source.text in one.paragraph for source in found.sources) for one, found in cited)
    ways = Counter(one.decision.way for one in made)
    marked = sum(bool(sentence.unsupported) for one in made for sentence in one.sentences)
    total = sum(len(one.sentences) for one in made)
    print(
        f"{language} ways {dict(ways)}; {right} of {len(cited)} cited answers cite the question's own paragraph; {marked} of {total} sentences marked unsupported; marks made up {sum(len(one.removed) for one in made)}"
    )


def without(provider: Provider, every: list[Question], asked: list[Question], language: str) -> None:
    """The same questions where their article is not: whatever is answered is wrong, and what is marked is at least known to be."""
    abstained = marked = 0
    articles = sorted({one.article for one in every})
    for half in (set(articles[::2]), set(articles[1::2])):
        with indexed([one.paragraph for one in every if one.article in half]) as index:
            for one in (one for one in asked if one.article not in half):
                found = asyncio.run(answer(provider, index, one.text, style=SHORT[language]))
                abstained += found.decision.way == "abstain"
                marked += found.decision.way != "abstain" and all(sentence.unsupported for sentence in found.sentences)
    print(
        f"{language} not in the index: {abstained} of {len(asked)} abstained, {marked} answered with every sentence marked [—]"
    )


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case [data, "gate"]:
                gate(Path(data))
            case [data, "answers", model]:
                answers(Path(data), model, 60)
            case [data, "answers", model, limit]:
                answers(Path(data), model, int(limit))
            case _:
                sys.exit(__doc__)
    except (MynaError, OSError) as e:
        sys.exit(f"answers.py: {e}")
