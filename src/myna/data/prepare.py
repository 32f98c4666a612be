"""From files to what a run trains on: read, audit, tokenize, and keep beside the run. `load` is what a trainer calls.

loaded = load(("stories:3", "poems:1"), ("held_out.jsonl",), chat, Recipe("documents", 512), seed=0, cache=run / "data")
loaded.train, loaded.eval     Examples, for a Feed
loaded.audits                 to print, and to keep as data.json
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from myna.chat import Chat
from myna.chat.byte_chat import byte_chat
from myna.data import overlap
from myna.data.audit import Audit, Observer
from myna.data.examples import (
    Cuts,
    Fit,
    Overlong,
    end_of_text,
    of_conversations,
    of_documents,
    of_judged,
    of_preferences,
)
from myna.data.mixture import Mixture, Part
from myna.data.shards import DONE, Shards, Writer, after, alone
from myna.data.sources import OnBad, Place, Source, Sourced, stop
from myna.data.tokens import Example, length_of
from myna.data.turns import check_answered, check_candidates
from myna.records import Conversation, DataError, Json

Kind = Literal["documents", "conversations", "preferences", "judged"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows become examples; what shards are a cache of.

    kind       documents (next token), conversations (SFT), preferences (pairs) or judged (one answer and its score)
    context    tokens an example may have
    overlong   what becomes of longer rows (examples.Fit); texts are always cut into windows
    skip_bad   leave rows out that cannot be used, and count them; else the first one is an error
    near       from which likeness on rows count as nearly the same; None does not look
    """

    kind: Kind
    context: int
    overlong: Overlong = "error"
    skip_bad: bool = False
    near: float | None = 0.8


class Placed(Protocol):
    """Examples that know the row each was made from."""

    @property
    def lengths(self) -> npt.NDArray[np.integer]: ...

    def __getitem__(self, index: int, /) -> Example: ...

    def place(self, index: int) -> Place: ...


class InMemory:
    """Examples in memory, with their places."""

    def __init__(self, examples: Sequence[Sourced[Example]]):
        self._examples = examples
        self.lengths = np.array([length_of(example) for _, example in examples], np.int64)

    def __getitem__(self, index: int, /) -> Example:
        return self._examples[index].value

    def place(self, index: int) -> Place:
        return self._examples[index].place


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One source's examples and their audit."""

    examples: Placed
    audit: Audit


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What a run trains and is evaluated on. `train` is a Mixture where sources have weights."""

    train: Placed | Mixture
    eval: Placed | None
    audits: tuple[Audit, ...]

    def to_json(self) -> list[Json]:
        return [audit.to_json() for audit in self.audits]


def load(
    train: Sequence[str], evals: Sequence[str], chat: Chat, recipe: Recipe, *, seed: int, cache: Path | None = None
) -> Loaded:
    """Examples of files and folders, each "PATH" or "PATH:WEIGHT". Without weights all are one source, each row seen once;
    with them they are a mixture by tokens, in which a source without a weight has 1. Evaluation rows have none.

    `cache` is a folder for shards, used again when nothing they were made of has changed. Raises DataError, at the first bad
    row too unless the recipe skips them, and for data that would train nothing or holds an evaluation row.
    """
    given = named(train)
    sources = [Source.of(path) for path, _ in given]
    if not any(weight for _, weight in given):
        sources = [Source.of(*(path for path, _ in given))]
    held_out = Source.of(*evals) if evals else None
    places = (None if cache is None else cache / name for name in ("eval", *(f"train{n}" for n in range(len(sources)))))
    eval_place, *train_places = places
    evaluated = prepare(held_out, chat, recipe, name="eval", cache=eval_place) if held_out else None
    found = [
        prepare(source, chat, recipe, cache=place, against=held_out)
        for source, place in zip(sources, train_places, strict=True)
    ]
    for one in (*found, *([evaluated] if evaluated else [])):
        one.audit.check()
    audits = [one.audit for one in found]
    examples: Placed | Mixture = found[0].examples
    if any(weight for _, weight in given):
        parts = [
            Part(one.audit.name, one.examples, weight or 1.0) for one, (_, weight) in zip(found, given, strict=True)
        ]
        examples = Mixture(parts, seed=seed)
        audits = [
            replace(audit, weight=part.weight, rounds=rounds)
            for audit, part, rounds in zip(audits, parts, examples.rounds, strict=True)
        ]
    return Loaded(
        examples, evaluated.examples if evaluated else None, (*audits, *([evaluated.audit] if evaluated else []))
    )


def named(train: Sequence[str]) -> list[tuple[str, float | None]]:
    """(path, weight or None) of each "PATH" or "PATH:WEIGHT". DataError if there is none to learn from."""
    if not train:
        raise DataError("data.train: names no file or folder to learn from")
    return [weighted(path) for path in train]


def weighted(path: str) -> tuple[str, float | None]:
    """("poems", 3.0) of "poems:3"; the weight is None where there is none."""
    head, _, tail = path.rpartition(":")
    if not head or Path(path).exists():
        return path, None
    try:
        return head, float(tail)
    except ValueError:
        return path, None


def prepare(
    source: Source,
    chat: Chat,
    recipe: Recipe,
    *,
    name: str = "",
    cache: Path | None = None,
    against: Source | None = None,
    seen: Callable[[int], None] = lambda tokens: None,
) -> Prepared:
    """One source's examples and audit. `against`: evaluation rows to look for. `seen` is told the tokens of each example.

    A folder of shards is taken as it is, if it was made for this model, recipe and evaluation set."""
    name = name or ", ".join(path.name for path in source.paths)
    if len(source.paths) == 1 and (source.paths[0] / DONE).is_file():
        return _given(source.paths[0], chat, recipe, against, name)
    if cache is None:
        observer = _observer(name, chat, recipe, against, source)
        made = InMemory([*observer.examples(_made(source, chat, recipe, observer, None, seen))])
        return Prepared(made, observer.audit())
    key = key_of(source, chat, recipe, against)
    with alone(cache):  # of the ranks of a run, and of runs that share a cache, the first makes it
        if cached := _cached(cache, key):
            return Prepared(cached, replace(Audit.from_json(cached.notes["audit"]), name=name))
        observer = _observer(name, chat, recipe, against, source)
        writer = Writer(cache, key, chat.tokenizer.vocab_size)
        _recall(writer, observer)
        examples = _made(source, chat, recipe, observer, writer.after, seen)
        writer.write(observer.examples(examples), lambda: _remember(observer))
        audit = observer.audit()
        if not audit.examples:
            audit.check()
        return Prepared(writer.finish({"audit": audit.to_json()}), audit)


def look(source: Source, *, against: Source | None = None, near: float | None = 0.8) -> Audit:
    """The rows without a tokenizer: whether each can be used, copies, and evaluation rows among them. Nothing is counted in
    tokens."""
    watch = overlap.Watch.over(against.records(_ignore)) if against else None
    name = ", ".join(path.name for path in source.paths)
    observer = Observer(name, byte_chat().tokenizer, frozenset(), watch, near, unread=unread(source))
    for place, record in observer.records(source.records(observer.note_bad)):
        try:
            if isinstance(record, Conversation):
                (check_candidates if record.candidates else check_answered)(record)
            elif not record.text:
                raise DataError("text: empty")
        except DataError as e:
            observer.note_bad(place, DataError(f"{place}: {e}"))
    return observer.audit()


def kind_of(source: Source) -> Kind:
    """What the first row that can be read is good for."""
    for _, record in source.records(_ignore):
        if not isinstance(record, Conversation):
            return "documents"
        return "conversations" if not record.candidates else "preferences" if len(record.candidates) > 1 else "judged"
    raise DataError(f"{', '.join(map(str, source.paths))}: no row that can be read; `myna data check` says why")


def _ignore(place: Place, error: DataError) -> None:
    """For rows that are complained of elsewhere."""


def key_of(source: Source, chat: Chat, recipe: Recipe, against: Source | None = None) -> Json:
    """What the examples follow from: files by their contents, the tokenizer, the template, the recipe."""
    return {
        "format": 1,
        "kind": recipe.kind,
        "context": recipe.context,
        "overlong": recipe.overlong,
        "skip_bad": recipe.skip_bad,
        "near": recipe.near,
        "from": source.format,
        "split_on": source.split_on,
        "tokenizer": chat.tokenizer.fingerprint,
        "template": _template_hash(chat, recipe),
        "sources": _hashes(source),
        "against": _hashes(against),
    }


def _template_hash(chat: Chat, recipe: Recipe) -> str:
    template = chat.template.source if chat.template and recipe.kind != "documents" else ""
    return hashlib.sha256(template.encode()).hexdigest()


def _given(folder: Path, chat: Chat, recipe: Recipe, against: Source | None, name: str) -> Prepared:
    shards = Shards.open(folder)
    wanted = {
        "kind": recipe.kind,
        "tokenizer": chat.tokenizer.fingerprint,
        "template": _template_hash(chat, recipe),
        "against": sorted(digest for _, digest in _hashes(against)),
    }
    made_of = shards.key | {"against": sorted(digest for _, digest in shards.key.get("against", ()))}
    for part, value in wanted.items():
        if made_of.get(part) != value:
            said = {
                "tokenizer": "another tokenizer",
                "template": "another chat template",
                "against": "other evaluation files",
            }
            made = said.get(part, f"{shards.key.get(part)}, not {value}")
            flags = " --eval " + " ".join(map(str, against.paths)) if against else ""
            raise DataError(f"{folder}: was made for {made}. Make it again with `myna data tokenize{flags}`.")
    if int(shards.lengths.max()) > recipe.context:
        raise DataError(
            f"{folder}: has examples of {shards.lengths.max()} tokens, and the context holds {recipe.context}"
        )
    return Prepared(shards, replace(Audit.from_json(shards.notes["audit"]), name=name))


def _hashes(source: Source | None) -> list[list[str]]:
    """As JSON keeps pairs."""
    return [[file, digest] for file, digest in source.hashes().items()] if source else []


def _cached(cache: Path, key: Json) -> Shards | None:
    """The shards if they are whole and of this key; None where there is none, or only the beginning, or another's."""
    try:
        return Shards.open(cache, key)
    except DataError:
        return None


def _observer(name: str, chat: Chat, recipe: Recipe, against: Source | None, source: Source) -> Observer:
    end = end_of_text(chat.tokenizer)
    ends = chat.stop_ids if recipe.kind != "documents" else frozenset(() if end is None else (end,))
    watch = overlap.Watch.over(against.records(_ignore)) if against else None
    return Observer(name, chat.tokenizer, ends, watch, recipe.near, unread=unread(source))


def unread(source: Source) -> tuple[str, ...]:
    return tuple(map(str, source.unread()))


def _made(
    source: Source, chat: Chat, recipe: Recipe, observer: Observer, place: Place | None, seen: Callable[[int], None]
) -> Iterator[Sourced[Example]]:
    bad: OnBad = observer.note_bad if recipe.skip_bad else stop
    for example in _examples(source, chat, recipe, observer, bad, place):
        seen(length_of(example.value))
        yield example


def _examples(
    source: Source, chat: Chat, recipe: Recipe, observer: Observer, bad: OnBad, place: Place | None
) -> Iterator[Sourced[Example]]:
    if recipe.kind == "documents":
        documents = after(observer.records(source.documents(bad)), place)
        return of_documents(documents, chat.tokenizer, Fit(recipe.context).context, bad)
    make = {"conversations": of_conversations, "preferences": of_preferences, "judged": of_judged}[recipe.kind]
    conversations = after(observer.records(source.conversations(bad)), place)
    return make(conversations, chat, Fit(recipe.context, recipe.overlong), observer.cuts, bad)


def _remember(observer: Observer) -> Json:
    """What an interrupted attempt must tell the next, beside its examples."""
    cuts = observer.cuts
    bad = [[place.file, place.line, error] for place, error in observer.bad.items()]
    return {"cuts": [cuts.split, cuts.truncated, cuts.dropped, cuts.lost_tokens], "bad": bad}


def _recall(writer: Writer, observer: Observer) -> None:
    """Go on as if the kept shards had just been made."""
    if writer.kept:
        notes = writer.kept[-1].notes
        observer.cuts = Cuts(*notes["cuts"])
        observer.bad = {Place(file, line): error for file, line, error in notes["bad"]}
        shards = ((shard, n) for shard in writer.kept for n in range(len(shard)))
        for _ in observer.examples(Sourced(shard.place(n), shard[n]) for shard, n in shards):
            pass
