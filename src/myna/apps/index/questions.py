"""Questions to fit the weight of vectors on, made from the corpus: by a model that reads passages (`ask`), or without one (`cloze`).

Without a model a question is a sentence, and what answers it is the passage it was taken out of (the inverse cloze task, Lee,
Chang, Toutanova 2019). The sentence is searched for where its passage lacks it, so words do not win by being copied.
"""

import asyncio
import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from myna.apps.index.embed import embed_all
from myna.apps.index.file import FileIndex, Question
from myna.apps.index.fusion import Pool
from myna.apps.index.index import DEPTH
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import Document
from myna.apps.index.vectors import nearest
from myna.apps.index.words import words
from myna.provider import Provider, complete
from myna.records import Conversation, RequestError, Sampling

MOST = 200  # questions: the standard error of a recall of 0.9 is 0.02
AMONG = 5000  # chunks that a sentence is searched among
LEAST = 6  # words of a sentence that asks for something

ASK = (
    "Here is a passage. Write one question that it answers, as somebody would ask it who does not have the passage, in the "
    "passage's language. Reply with the question alone.\n\n<passage>\n{passage}\n</passage>"
)
_SENTENCE = re.compile(r"(?:[^。！？!?.\n]|\.(?=\S))+(?:[。！？!?]+|\.|$)", re.M)


@dataclass(frozen=True, slots=True)
class _Cloze:
    chunk: int
    sentence: str
    rest: str


async def cloze(index: FileIndex, most: int = MOST) -> list[Pool]:
    """What words and vectors find for sentences of the corpus, each searched for without its own copy. Embeds two texts a question;
    the same index gives the same questions."""
    if not index.embedder:
        raise RequestError("there is nothing to weigh without an embedder.", param="model")
    texts = await asyncio.to_thread(_sample, index, AMONG)
    taken = [one for chunk, text in texts if (one := _take(chunk, text))][:most]
    if not taken:
        return []
    found = await _by_words(texts, taken)
    asked = await embed_all(index.embedder, [one.sentence for one in taken], "query")
    rests = await embed_all(index.embedder, [one.rest for one in taken], "document")
    matrix = index.vectors()
    known = {chunk for chunk, _ in texts}
    keep = [i for i, chunk in enumerate(matrix.chunks) if int(chunk) in known]
    place = {int(matrix.chunks[i]): at for at, i in enumerate(keep)}
    pools = []
    for one, lexical, query, rest in zip(taken, found, asked, rests, strict=True):
        cosines = matrix.cosines(query)[keep]
        if one.chunk in place:
            cosines[place[one.chunk]] = round(float(query @ rest), 6)
        best = {int(matrix.chunks[keep[i]]): float(cosines[i]) for i in nearest(cosines, DEPTH)}
        best |= {chunk: float(cosines[place[chunk]]) for chunk in lexical if chunk in place}
        pools.append(Pool(lexical, best, frozenset((one.chunk,))))
    return pools


async def ask(provider: Provider, index: FileIndex, most: int = MOST) -> list[Question]:
    """One call a question, one after the other. What the model says is a question and nothing else: it is only searched for."""
    texts = await asyncio.to_thread(_sample, index, most)
    names = await asyncio.to_thread(_names, index)
    questions = []
    for chunk, text in texts:
        reply = await complete(
            provider, Conversation.ask(ASK.format(passage=text)), Sampling(temperature=0, max_tokens=80)
        )
        if line := reply.text.strip().partition("\n")[0][:500]:
            questions.append((line, names[chunk]))
    return questions


def _sample(index: FileIndex, most: int) -> list[tuple[int, str]]:
    """Chunks in an order that has nothing to do with what they say, nor with when they came."""
    with index.store.read() as db:
        rows = db.execute("SELECT id, sha, start, text FROM chunks").fetchall()
    rows.sort(key=lambda row: hashlib.sha256(f"{row[1]} {row[2]}".encode()).digest())
    return [(chunk, text) for chunk, _, _, text in rows[:most]]


def _names(index: FileIndex) -> dict[int, str]:
    with index.store.read() as db:
        return dict(db.execute("SELECT c.id, min(name) FROM chunks c JOIN names n ON n.sha = c.sha GROUP BY c.id"))


def _take(chunk: int, text: str) -> _Cloze | None:
    """The middle one of the sentences that say enough, where as many words stay behind."""
    spans = [m.span() for m in _SENTENCE.finditer(text) if len(set(words(m.group()))) >= LEAST]
    if len(spans) < 2:
        return None
    start, end = spans[len(spans) // 2]
    rest = f"{text[:start]} {text[end:]}"
    return _Cloze(chunk, text[start:end].strip(), rest) if rest.strip() else None


async def _by_words(texts: Sequence[tuple[int, str]], taken: Sequence[_Cloze]) -> list[dict[int, float]]:
    """BM25 of each sentence among the passages without the sentences."""
    short = {one.chunk: one.rest for one in taken}
    with tempfile.TemporaryDirectory() as folder:
        bare = FileIndex(Path(folder) / "cloze.sqlite")
        try:
            await bare.add(_document(chunk, short.get(chunk, text)) for chunk, text in texts)
            pools = await bare.pools([(one.sentence, str(one.chunk)) for one in taken])
            owners = {mine: int(name) for mine, name in _names(bare).items()}
        finally:
            bare.close()
    return [{owners[mine]: score for mine, score in pool.lexical.items()} for pool in pools]


def _document(chunk: int, text: str) -> Document:
    return Document(Path(str(chunk)), hashlib.sha256(str(chunk).encode()).hexdigest(), len(text), Parsed(text))
