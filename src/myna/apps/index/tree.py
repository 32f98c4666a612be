"""Summaries of sections, documents and folders, as one more arm of the search.

    estimate = Tree().estimate(index, provider)         # what it will take; nothing is asked
    built = await Tree().build(index, Budgeted(provider, Budget(estimate.limits)))
    found = await FileIndex("index.sqlite", arm=Tree()).search("what are these manuals about?")

A summary is found by its words, and by its vector where the index has vectors; what it leads to are the chunks it was made from.
It is a model's account of strangers' texts, so it is a stranger's text itself: fenced when the next summary is made from it, bounded,
and never cited.

Its rows hang on the chunks it was made from (triggers of the file): when one of them goes, so do the summary and those above it,
whichever program deletes. What is missing then is made by the next build, and nothing else.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.apps.index import vectors as matrix
from myna.apps.index.arm import Asked, Led
from myna.apps.index.building import TOGETHER, Estimate, Told, each, one_line
from myna.apps.index.embed import embed_all
from myna.apps.index.fusion import Pool, fuse
from myna.apps.index.outline import SUMMARY, Node, outline
from myna.apps.index.rank import any_of, query_words
from myna.apps.index.store import fact, say
from myna.apps.index.words import words
from myna.provider import Embedder, Provider, complete
from myna.provider.budget import prompt_at_most
from myna.records import Conversation, Sampling
from myna.records.fence import RULE, fenced
from myna.records.language import counted

if TYPE_CHECKING:
    import numpy as np

    from myna.apps.index.file import FileIndex

ASK = (
    f"{RULE}\n\nSummarise the passages that the user gives, in at most four sentences, in their own language. Name the people, places, "
    "dates and numbers that matter, and what the passages have in common. Reply with the summary alone."
)
# Said once more after the passages, and in Chinese: without it the default model wrote of Chinese passages in English.
AGAIN = "Summarise these passages in their own language (中文的文章用中文总结), in at most four sentences."
DRAW = Sampling(temperature=0, max_tokens=256)
BEST = 20  # summaries that lead somewhere
DOWN = 10  # chunks that each leads to
TIE = 1e-3  # of a chunk's own score: which chunk of a summary comes first

# Places name documents, so what was made of one goes with any of its names.
_NAMED = "DELETE FROM summaries WHERE id IN (SELECT summary FROM summary_chunks JOIN chunks ON id = chunk WHERE sha = old.sha)"
TABLES = (
    "CREATE TABLE summaries (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, level INTEGER NOT NULL, place TEXT NOT NULL, "
    "text TEXT NOT NULL)",
    "CREATE TABLE summary_chunks (summary INTEGER NOT NULL REFERENCES summaries (id) ON DELETE CASCADE, chunk INTEGER NOT NULL "
    "REFERENCES chunks (id) ON DELETE CASCADE, PRIMARY KEY (summary, chunk)) WITHOUT ROWID",
    "CREATE INDEX summaries_of_chunk ON summary_chunks (chunk)",
    "CREATE TABLE summary_vectors (summary INTEGER PRIMARY KEY REFERENCES summaries (id) ON DELETE CASCADE, vector BLOB NOT NULL)",
    "CREATE VIRTUAL TABLE summary_words USING fts5 (body, tokenize = \"ascii tokenchars '.,'\")",
    "CREATE TRIGGER summary_lost_a_chunk AFTER DELETE ON summary_chunks BEGIN DELETE FROM summaries WHERE id = old.summary; END",
    f"CREATE TRIGGER summary_lost_a_name AFTER DELETE ON names BEGIN {_NAMED}; END",
    f"CREATE TRIGGER summary_renamed AFTER UPDATE ON names WHEN old.sha <> new.sha BEGIN {_NAMED}; END",
    "CREATE TRIGGER summary_gone AFTER DELETE ON summaries BEGIN DELETE FROM summary_words WHERE rowid = old.id; END",
)
VECTORS = "SELECT summary, vector FROM summary_vectors JOIN summaries ON id = summary ORDER BY key"


@dataclass(frozen=True, slots=True)
class Built:
    """`made` summaries, of which `empty` because the model said nothing; `lapsed` because their documents changed meanwhile."""

    made: int
    empty: int = 0
    lapsed: int = 0

    def __str__(self) -> str:
        return f"{self.made} summaries made, {self.empty} of them empty; {self.lapsed} left out: their documents changed meanwhile"


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is: summaries by level, who made them, how many are missing."""

    levels: dict[int, int]
    model: str
    missing: int


class Tree:
    """See Arm."""

    name = "tree"

    def __init__(self) -> None:
        self._matrix: matrix.Matrix | None = None

    def estimate(self, index: "FileIndex", provider: Provider) -> Estimate:
        """What `build` would take now."""
        with index.store.read() as db:
            nodes = outline(db, provider.name)
            there = _keys(db)
        missing = [node for node in nodes if node.key not in there]
        empty = prompt_at_most(provider, asking([]))
        prompts = sum(_prompt_at_most(provider, node, empty) for node in missing)
        kept = len(nodes) - len(missing)
        return Estimate(len(missing), prompts, len(missing) * (DRAW.max_tokens or 0), kept, len(there) - kept)

    async def build(
        self, index: "FileIndex", provider: Provider, *, together: int = TOGETHER, told: Told = lambda done, of: None
    ) -> Built:
        """Make the summaries that are missing, each kept as soon as it is there: what was interrupted goes on. What is no longer part of
        the tree goes. At most as many calls as `estimate` says. Raises IndexFileError, and what the provider raises."""
        missing = await asyncio.to_thread(_begin, index, provider.name)
        made = [0, 0, 0]  # made, of them empty, lapsed

        async def one(node: Node) -> None:
            texts = await asyncio.to_thread(_texts, index, node)
            if texts is not None:
                text = await _summary(provider, texts)
                kept = await asyncio.to_thread(_keep, index, node, text)
                made[0], made[1] = made[0] + kept, made[1] + (kept and not text)
                made[2] += not kept
            else:
                made[2] += 1
            told(sum((made[0], made[2])), len(missing))

        for level in sorted({node.level for node in missing}):
            await each([node for node in missing if node.level == level], one, together)
        if index.embedder:
            await _embed_missing(index, index.embedder)
        return Built(*made)

    def lead(self, db: sqlite3.Connection, asked: Asked) -> Led:
        """See Arm.lead."""
        if not _there(db):
            return Led({}, {}, ("there is no tree; build it: myna index build tree",))
        found = fuse(self._pool(db, asked), asked.weight)
        best = sorted(found, key=lambda one: (-found[one], one))[:BEST]
        scores: dict[int, float] = {}
        via: dict[int, tuple[str, ...]] = {}
        highest = max(asked.flat.values(), default=1.0) or 1.0
        for summary in best:
            place, text = db.execute("SELECT place, text FROM summaries WHERE id = ?", (summary,)).fetchone()
            below = db.execute(
                "SELECT chunk, sha, start FROM summary_chunks JOIN chunks ON id = chunk WHERE summary = ?", (summary,)
            )
            ranked = sorted(below.fetchall(), key=lambda row: (-asked.flat.get(row[0], 0.0), row[1:]))[:DOWN]
            for chunk, *_ in ranked:
                score = round(found[summary] + TIE * asked.flat.get(chunk, 0.0) / highest, 6)
                if score > scores.get(chunk, 0.0):
                    scores[chunk], via[chunk] = score, (f"{place}: {text}",)
        return Led(scores, via, _uncovered(db))

    def standing(self, index: "FileIndex") -> Standing | None:
        """What the file has of a tree; None where it was never built."""
        with index.store.read() as db:
            known = fact(db, "tree")
            if known is None or not _there(db):
                return None
            levels = dict(db.execute("SELECT level, count(*) FROM summaries GROUP BY level ORDER BY level").fetchall())
            there = _keys(db)
            return Standing(levels, known, sum(node.key not in there for node in outline(db, known)))

    def _pool(self, db: sqlite3.Connection, asked: Asked) -> Pool:
        query = any_of(query_words(asked.query)[0])
        sql = (
            "SELECT summary_words.rowid, round(-bm25(summary_words), 6) AS score FROM summary_words JOIN summaries ON id = summary_words.rowid "
            "WHERE summary_words MATCH ? ORDER BY score DESC, key LIMIT 100"
        )
        lexical: dict[int, float] = dict(db.execute(sql, (query,)).fetchall()) if query else {}
        if asked.meant is None:
            return Pool(lexical, {})
        if self._matrix is None or self._matrix.changes != asked.changes:
            self._matrix = matrix.load(db, asked.changes, VECTORS)
        known = self._matrix
        return Pool(lexical, known.beside(asked.meant, lexical, 100) if len(known.chunks) else {})


def asking(texts: Sequence[tuple[str, str]]) -> Conversation:
    """What the model is asked for one summary: (place, text) of its parts."""
    data = "\n\n".join(f"[{place}]\n{text}" for place, text in texts)
    return Conversation.of(("system", ASK), ("user", f"{fenced(data, 'passages')}\n\n{AGAIN}"))


def _prompt_at_most(provider: Provider, node: Node, empty: int) -> int:
    """`empty`: what a prompt without passages takes."""
    if all(part.text for part in node.parts):
        return prompt_at_most(provider, asking([(part.place, part.text) for part in node.parts]))
    return empty + sum(part.size + 8 for part in node.parts)  # 8: brackets and line ends, escaped


async def _summary(provider: Provider, texts: Sequence[tuple[str, str]]) -> str:
    """ "" where the model says nothing, or there is nothing to say anything about."""
    if not texts:
        return ""
    reply = await complete(provider, asking(texts), DRAW)
    return one_line(reply.text, SUMMARY)


def _begin(index: "FileIndex", model: str) -> list[Node]:
    """Tables where there are none; what the tree no longer has is dropped. The summaries to make."""
    with index.store.write() as db:
        if not _there(db):
            for statement in TABLES:
                db.execute(statement)
        nodes = outline(db, model)
        there, wanted = _keys(db), {node.key for node in nodes}
        db.executemany("DELETE FROM summaries WHERE key = ?", ((key,) for key in there - wanted))
        say(db, "tree", model)
    if there - wanted:
        index.store.scrub()
    return [node for node in nodes if node.key not in there]


def _texts(index: "FileIndex", node: Node) -> list[tuple[str, str]] | None:
    """Places and texts of its parts; None where one has gone meanwhile."""
    with index.store.read() as db:
        found = []
        for part in node.parts:
            row = (
                (part.text,)
                if part.text
                else db.execute("SELECT text FROM summaries WHERE key = ?", (part.key,)).fetchone()
            )
            if row is None:
                return None
            found += [(part.place, row[0])] if row[0] else []
    return found


def _keep(index: "FileIndex", node: Node, text: str) -> bool:
    """False where what it was made from has gone meanwhile."""
    with index.store.write() as db:
        chunks = list(node.chunks())
        for chunk in chunks:
            if not db.execute("SELECT 1 FROM chunks WHERE id = ? AND sha = ? AND start = ?", chunk).fetchone():
                return False
        row = (node.key, node.level, node.place, text)
        put = db.execute("INSERT OR IGNORE INTO summaries (key, level, place, text) VALUES (?, ?, ?, ?)", row)
        if not put.rowcount:  # another process was faster
            return True
        number = put.lastrowid
        db.executemany("INSERT INTO summary_chunks VALUES (?, ?)", ((number, chunk) for chunk, *_ in chunks))
        body = " ".join(words(f"{node.place} {text}"))
        db.execute("INSERT INTO summary_words (rowid, body) VALUES (?, ?)", (number, body))
    return True


async def _embed_missing(index: "FileIndex", embedder: Embedder) -> None:
    with index.store.read() as db:
        todo = db.execute(
            "SELECT id, text FROM summaries WHERE text <> '' AND id NOT IN (SELECT summary FROM summary_vectors) ORDER BY key"
        ).fetchall()
    for at in range(0, len(todo), 64):
        some = todo[at : at + 64]
        made = await embed_all(embedder, [text for _, text in some], "document")
        await asyncio.to_thread(_keep_vectors, index, some, made)


def _keep_vectors(index: "FileIndex", todo: list[tuple[int, str]], made: "np.ndarray") -> None:
    with index.store.write() as db:
        for (summary, text), vector in zip(todo, made, strict=True):
            row = (matrix.pack(vector), summary, text)
            db.execute(
                "INSERT OR REPLACE INTO summary_vectors SELECT id, ? FROM summaries WHERE id = ? AND text = ?", row
            )


def _there(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'summaries'").fetchone() is not None


def _keys(db: sqlite3.Connection) -> set[str]:
    return {key for (key,) in db.execute("SELECT key FROM summaries")} if _there(db) else set()


def _uncovered(db: sqlite3.Connection) -> tuple[str, ...]:
    """What is to be said where documents have changed since the tree was built, or are so short that they have no summary."""
    (count,) = db.execute("SELECT count(*) FROM chunks WHERE id NOT IN (SELECT chunk FROM summary_chunks)").fetchone()
    return (
        (
            f"the tree does not reach {counted(count, 'passage')}: too short for a summary, or later than the tree; "
            "myna index build tree makes what is missing",
        )
        if count
        else ()
    )
