"""Training and evaluation rows, told apart by a hash of what they ask: the same row is on the same side in every set, today
and when the set has grown; and rows that are alike are on one side, all of them."""

import hashlib
from collections.abc import Iterable, Sequence

from myna.data.dedup import Finder
from myna.data.formats import Record
from myna.data.ngrams import normalized
from myna.data.overlap import MOST, Watch, said
from myna.data.sources import Place, Sourced
from myna.records import Conversation, DataError


def question(record: Record) -> str:
    """What decides a row's side: a text; of a conversation what comes before its last answer, so that two answers to one
    question stay together."""
    if not isinstance(record, Conversation):
        return record.text
    last = next((i for i in reversed(range(len(record.messages))) if record.messages[i].role == "assistant"), None)
    if not record.candidates and last is not None:
        record = Conversation(record.messages[:last])
    return said(Conversation(record.messages))


def held_out(text: str, share: float, seed: int = 0) -> bool:
    """Whether a row that asks this is an evaluation row: of all there could be, `share` are."""
    salt = seed.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b(normalized(text).encode(errors="surrogatepass"), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def split(records: Iterable[Record], share: float, *, seed: int = 0, near: float | None = 0.8) -> list[bool]:
    """For each record, whether it is an evaluation row. Rows whose questions repeat another, exactly or nearly, go where the
    first of them goes; `near` is from which likeness on, None for exact copies alone."""
    if not 0 < share < 1:
        raise DataError(f"share {share}: the evaluation rows' part, between 0 and 1")
    finder, texts = Finder(near), list[str]()
    for record in records:
        texts.append(question(record))
        finder.add(texts[-1])
    found = finder.twins()
    firsts = (found.exact.get(n, n) for n in range(len(texts)))
    return [held_out(texts[found.near.get(first, first)], share, seed) for first in firsts]


def apart(train: Sequence[Record], held: Sequence[Record]) -> list[bool]:
    """For each training row, whether it may be learned from while the held-out ones measure: it asks what none of them asks, and
    shares less than MOST of the n-grams of the shorter with each."""
    asked = {normalized(question(one)) for one in held}
    watch = Watch.over(Sourced(Place("held out", n), one) for n, one in enumerate(held, start=1))
    return [
        normalized(question(one)) not in asked
        and all(found.share < MOST and not found.same for found in watch.look(Place("train", n), one))
        for n, one in enumerate(train, start=1)
    ]
