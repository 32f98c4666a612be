"""Entities and how they are related, taken from the passages by a model, as one more arm of the search.

    estimate = Graph().estimate(index, provider)        # a call a passage; nothing is asked
    built = await Graph().build(index, Budgeted(provider, Budget(estimate.limits)))
    found = await FileIndex("index.sqlite", arm=Graph()).search("who taught the woman who wrote the first program?")

A question's entities lead to the passages that name them, and along the relations to those that name their neighbours (a random walk
with restart in two steps, as HippoRAG takes one to its end; Gutierrez et al. 2024).

Every mention and relation is a row of the passage it was read in, and goes with it; an entity goes with its last mention. A name that
does not stand in its passage is left out and counted: a model's invention is never an entity. What a relation is called is the
model's word about a stranger's text: untrusted, bounded, shown with the place it is from, and never cited.
"""

import asyncio
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.apps.index import names, rows
from myna.apps.index.arm import Asked, Led
from myna.apps.index.building import TOGETHER, Estimate, Told, each, one_line
from myna.apps.index.communities import communities
from myna.apps.index.extract import DRAW, VERSION, Passage, Read, asking, parse
from myna.apps.index.store import fact, say
from myna.provider import Provider, complete
from myna.provider.budget import prompt_at_most
from myna.records.language import counted

if TYPE_CHECKING:
    from myna.apps.index.file import FileIndex

DECAY, HOPS = 0.5, 2  # of a weight that goes over to the neighbours, so many times
EDGES = 200  # relations of one entity that a search follows
PASSAGES = 1_000  # mentions of one entity that a search counts
LINES = 3  # of Hit.via

TABLES = (
    "CREATE TABLE entities (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, last TEXT NOT NULL)",
    "CREATE INDEX entities_by_last ON entities (last)",
    "CREATE TABLE extracted (chunk INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE, made TEXT NOT NULL, "
    "failed INTEGER NOT NULL, left_out INTEGER NOT NULL)",
    "CREATE TABLE mentions (chunk INTEGER NOT NULL REFERENCES extracted (chunk) ON DELETE CASCADE, entity INTEGER NOT NULL "
    "REFERENCES entities (id) ON DELETE CASCADE, name TEXT NOT NULL, PRIMARY KEY (chunk, entity, name)) WITHOUT ROWID",
    "CREATE INDEX mentions_of_entity ON mentions (entity)",
    "CREATE TABLE relations (chunk INTEGER NOT NULL REFERENCES extracted (chunk) ON DELETE CASCADE, source INTEGER NOT NULL "
    "REFERENCES entities (id) ON DELETE CASCADE, how TEXT NOT NULL, target INTEGER NOT NULL REFERENCES entities (id) "
    "ON DELETE CASCADE, PRIMARY KEY (chunk, source, target, how)) WITHOUT ROWID",
    "CREATE INDEX relations_from ON relations (source)",
    "CREATE INDEX relations_to ON relations (target)",
    "CREATE TABLE aliases (chunk INTEGER NOT NULL REFERENCES extracted (chunk) ON DELETE CASCADE, one INTEGER NOT NULL "
    "REFERENCES entities (id) ON DELETE CASCADE, other INTEGER NOT NULL REFERENCES entities (id) ON DELETE CASCADE, "
    "PRIMARY KEY (chunk, one, other)) WITHOUT ROWID",
    "CREATE INDEX aliases_one ON aliases (one)",
    "CREATE INDEX aliases_other ON aliases (other)",
    "CREATE TRIGGER entity_lost_a_mention AFTER DELETE ON mentions BEGIN DELETE FROM entities WHERE id = old.entity "
    "AND NOT EXISTS (SELECT 1 FROM mentions WHERE entity = old.entity); END",
)


@dataclass(frozen=True, slots=True)
class Built:
    """`read` passages, of which `failed` because the answer was none of the form; `lapsed` because they changed meanwhile."""

    read: int
    failed: int = 0
    lapsed: int = 0

    def __str__(self) -> str:
        return f"{self.read} passages read, {self.failed} of them without an answer of the form; {self.lapsed} left out: they changed meanwhile"


@dataclass(frozen=True, slots=True)
class Edge:
    """A relation and the passage that states it: document, names, range."""

    source: str
    how: str
    target: str
    names: tuple[str, ...]
    sha256: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.source} —{self.how}→ {self.target} ({self.names[0]}, {self.start}-{self.end})"


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is. `groups`: communities with the names of their members, the largest first."""

    entities: int
    relations: int
    passages: int
    failed: int
    left_out: int
    missing: int
    model: str
    groups: tuple[tuple[str, ...], ...]


class Graph:
    """See Arm."""

    name = "graph"

    def estimate(self, index: "FileIndex", provider: Provider) -> Estimate:
        """What `build` would take now: a call a passage that was not read yet, or whose answer was none of the form."""
        with index.store.read() as db:
            missing = _missing(db, _made(provider.name))
            there = _count(db, "extracted") if _there(db) else 0
            kept = _count(db, "chunks") - len(missing)
        prompts = sum(prompt_at_most(provider, asking(one)) for one in missing)
        return Estimate(len(missing), prompts, len(missing) * (DRAW.max_tokens or 0), kept, there - kept)

    async def build(
        self, index: "FileIndex", provider: Provider, *, together: int = TOGETHER, told: Told = lambda done, of: None
    ) -> Built:
        """Read the passages that are missing, each kept as soon as it is read: what was interrupted goes on. One call a passage.
        Raises IndexFileError, and what the provider raises."""
        missing = await asyncio.to_thread(_begin, index, provider.name)
        made = [0, 0, 0]  # read, of them failed, lapsed

        async def one(passage: Passage) -> None:
            reply = await complete(provider, asking(passage), DRAW)
            found = parse(reply.text, passage)
            kept = await asyncio.to_thread(_keep, index, passage, found, _made(provider.name))
            made[0], made[1], made[2] = made[0] + kept, made[1] + (kept and found is None), made[2] + (not kept)
            told(made[0] + made[2], len(missing))

        await each(missing, one, together)
        return Built(*made)

    def lead(self, db: sqlite3.Connection, asked: Asked) -> Led:
        """See Arm.lead."""
        if not _there(db):
            return Led({}, {}, ("there is no graph; build it: myna index build graph",))
        weights, ways = _walk(db, _seeds(db, asked.query))
        scores: defaultdict[int, float] = defaultdict(float)
        via: defaultdict[int, list[str]] = defaultdict(list)
        for entity in sorted(weights, key=lambda one: (-weights[one], one)):
            query = "SELECT DISTINCT chunk FROM mentions JOIN chunks ON id = chunk WHERE entity = ? ORDER BY sha, start LIMIT ?"
            for (chunk,) in db.execute(query, (entity, PASSAGES)):
                scores[chunk] += weights[entity]
                if len(via[chunk]) < LINES:
                    via[chunk].append(ways[entity])
        return Led(
            {one: round(score, 6) for one, score in scores.items()}, {k: tuple(v) for k, v in via.items()}, _unread(db)
        )

    def standing(self, index: "FileIndex") -> Standing | None:
        """What the file has of a graph; None where it was never built."""
        with index.store.read() as db:
            known = fact(db, "graph")
            if known is None or not _there(db):
                return None
            edges = db.execute(
                "SELECT source, target, 1.0 FROM relations UNION ALL SELECT one, other, 10.0 FROM aliases"
            ).fetchall()
            keys = dict(db.execute("SELECT id, key FROM entities").fetchall())
            shown = {key: number for number, key in keys.items()}
            groups = communities((keys[a], keys[b], weight) for a, b, weight in edges)
            (failed, left_out) = db.execute("SELECT total(failed), total(left_out) FROM extracted").fetchone()
            return Standing(
                len(keys), _count(db, "relations"), _count(db, "extracted"), int(failed), int(left_out),
                len(_missing(db, _made(known))), known,
                tuple(tuple(_shown(db, shown[key]) for key in group[:20]) for group in groups[:20]),
            )  # fmt: skip

    def edges(self, index: "FileIndex", name: str) -> list[Edge]:
        """All relations of an entity, each with the passage that states it, in the order of the documents."""
        with index.store.read() as db:
            if not _there(db):
                return []
            found = db.execute("SELECT id FROM entities WHERE key = ?", (names.key(name),)).fetchone()
            return [_edge(db, row) for entity in sorted(_same(db, found or ())) for row in _edges_of(db, entity)]


def _made(model: str) -> str:
    return f"{VERSION} {model}"


def _missing(db: sqlite3.Connection, made: str) -> list[Passage]:
    """In an order that has nothing to do with when documents came."""
    unread = (
        "WHERE c.id NOT IN (SELECT chunk FROM extracted WHERE made = ? AND NOT failed)"
        if _there(db)
        else "WHERE ? <> ''"
    )
    query = f"SELECT c.id, c.sha, c.start, c.section, c.text FROM chunks c {unread} ORDER BY c.sha, c.start"
    return [
        Passage(chunk, sha, start, text, _place(db, sha, section))
        for chunk, sha, start, section, text in db.execute(query, (made,)).fetchall()
    ]


def _place(db: sqlite3.Connection, sha: str, section: int | None) -> str:
    """Title of the document and of the sections around: what a passage does not repeat."""
    (title,) = db.execute("SELECT title FROM documents WHERE sha = ?", (sha,)).fetchone()
    return one_line(" > ".join(one for one in (title, *rows.path(db, sha, section)) if one), 400)


def _begin(index: "FileIndex", model: str) -> list[Passage]:
    with index.store.write() as db:
        if not _there(db):
            for statement in TABLES:
                db.execute(statement)
        say(db, "graph", model)
        gone = db.execute("DELETE FROM extracted WHERE made <> ?", (_made(model),)).rowcount
        missing = _missing(db, _made(model))
    if gone:
        index.store.scrub()
    return missing


def _keep(index: "FileIndex", passage: Passage, found: Read | None, made: str) -> bool:
    """False where the passage has gone meanwhile."""
    with index.store.write() as db:
        identity = (passage.chunk, passage.sha, passage.start, passage.text)
        if not db.execute(
            "SELECT 1 FROM chunks WHERE id = ? AND sha = ? AND start = ? AND text = ?", identity
        ).fetchone():
            return False
        db.execute("DELETE FROM extracted WHERE chunk = ?", (passage.chunk,))
        left_out = found.left_out if found else 0
        db.execute("INSERT INTO extracted VALUES (?, ?, ?, ?)", (passage.chunk, made, found is None, left_out))
        if found:
            _put(db, passage.chunk, found)
    return True


def _put(db: sqlite3.Connection, chunk: int, found: Read) -> None:
    number: dict[str, int] = {}
    for key, name in found.names:
        db.execute("INSERT OR IGNORE INTO entities (key, last) VALUES (?, ?)", (key, names.last(key)))
        (number[key],) = db.execute("SELECT id FROM entities WHERE key = ?", (key,)).fetchone()
        db.execute("INSERT INTO mentions VALUES (?, ?, ?)", (chunk, number[key], name))
    relations = ((chunk, number[a], how, number[b]) for a, how, b in found.relations)
    db.executemany("INSERT INTO relations VALUES (?, ?, ?, ?)", relations)
    db.executemany("INSERT INTO aliases VALUES (?, ?, ?)", ((chunk, number[a], number[b]) for a, b in found.same))


def _seeds(db: sqlite3.Connection, query: str) -> dict[int, float]:
    """The entities that a question names, if only by the last word of a name, by how rare they are: ln(1 + passages / mentions)."""
    could = names.keys_in(query[:2_000])
    known: dict[str, int] = {}
    keys = list(dict.fromkeys(key for *_, key in could))
    for at in range(0, len(keys), 500):
        some = keys[at : at + 500]
        marks = ", ".join("?" * len(some))
        known |= dict(
            db.execute(
                f"SELECT last, min(id) FROM entities WHERE last IN ({marks}) GROUP BY last HAVING count(*) = 1", some
            )
        )
        known |= dict(db.execute(f"SELECT key, id FROM entities WHERE key IN ({marks})", some))
    kept = [known[key] for key in names.longest([one for one in could if one[2] in known])]
    return {entity: _rarity(db, entity) for entity in sorted(_same(db, kept))}


def _rarity(db: sqlite3.Connection, entity: int) -> float:
    (mentions,) = db.execute("SELECT count(DISTINCT chunk) FROM mentions WHERE entity = ?", (entity,)).fetchone()
    return math.log(1 + _count(db, "extracted") / max(mentions, 1))


def _same(db: sqlite3.Connection, entities: Iterable[int]) -> set[int]:
    """With all that texts say to be the same."""
    found: set[int] = set()
    left = list(entities)
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            query = "SELECT other FROM aliases WHERE one = ?1 UNION SELECT one FROM aliases WHERE other = ?1"
            left += [other for (other,) in db.execute(query, (one,))] + _surname(db, one)
    return found


def _surname(db: sqlite3.Connection, entity: int) -> list[int]:
    """Somerville is Mary Somerville, as long as the index knows one Somerville alone."""
    (last,) = db.execute("SELECT last FROM entities WHERE id = ?", (entity,)).fetchone()
    bearers = db.execute("SELECT id, key FROM entities WHERE last = ? LIMIT 3", (last,)).fetchall() if last else []
    alone = len(bearers) == 2 and any(key == last for _, key in bearers)
    return [bearer for bearer, _ in bearers] if alone else []


def _walk(db: sqlite3.Connection, seeds: dict[int, float]) -> tuple[dict[int, float], dict[int, str]]:
    """Entities and their weights; how each was come to. A step hands half of a weight over to the neighbours, in shares as large as
    the relations are many."""
    weights = dict(seeds)
    ways = {entity: f"names {_shown(db, entity)}" for entity in seeds}
    edge = seeds
    for _ in range(HOPS):
        step: defaultdict[int, float] = defaultdict(float)
        for entity in sorted(edge):
            rows = _edges_of(db, entity, EDGES)
            for row in rows:
                other = row[3] if row[1] == entity else row[1]
                step[other] += DECAY * edge[entity] / len(rows)
                ways.setdefault(other, str(_edge(db, row)))
        for entity, weight in step.items():
            weights[entity] = weights.get(entity, 0.0) + weight
        edge = step
    return weights, ways


Row = tuple[int, int, str, int]  # chunk, source, how, target


def _edges_of(db: sqlite3.Connection, entity: int, most: int = -1) -> list[Row]:
    return db.execute(
        "SELECT r.chunk, source, how, target FROM relations r JOIN chunks c ON c.id = r.chunk WHERE source = ?1 OR target = ?1 "
        "ORDER BY sha, start, how LIMIT ?2", (entity, most),
    ).fetchall()  # fmt: skip


def _edge(db: sqlite3.Connection, row: Row) -> Edge:
    chunk, source, how, target = row
    sha, start, end = db.execute("SELECT sha, start, end FROM chunks WHERE id = ?", (chunk,)).fetchone()
    called = db.execute("SELECT name FROM names WHERE sha = ? ORDER BY name", (sha,)).fetchall()
    return Edge(_shown(db, source), how, _shown(db, target), tuple(name for (name,) in called), sha, start, end)


def _shown(db: sqlite3.Connection, entity: int) -> str:
    """As it is mostly written."""
    query = "SELECT name FROM mentions WHERE entity = ? GROUP BY name ORDER BY count(*) DESC, name LIMIT 1"
    (name,) = db.execute(query, (entity,)).fetchone()
    return str(name)


def _count(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _there(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entities'").fetchone() is not None


def _unread(db: sqlite3.Connection) -> tuple[str, ...]:
    (count,) = db.execute(
        "SELECT count(*) FROM chunks WHERE id NOT IN (SELECT chunk FROM extracted WHERE NOT failed)"
    ).fetchone()
    return (
        (f"the graph does not reach {counted(count, 'passage')}; build it again: myna index build graph",)
        if count
        else ()
    )
