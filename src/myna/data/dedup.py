"""Rows that say the same: exactly, by a hash of the normalized text; nearly, by MinHash and locality-sensitive hashing.

The likeness of two texts is the Jaccard coefficient of their sets of character 5-grams, which needs no words and so serves
Chinese as well. MinHash estimates it from PERMUTATIONS numbers a text (Broder 1997), with a standard error of at most 0.045;
banding finds the pairs worth comparing (Leskovec et al., Mining of Massive Datasets, chapter 3).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from myna.data.formats import Record
from myna.data.ngrams import FACTOR, Hashes, characters, mixed, ngrams, normalized
from myna.records import DataError, Document, Message

Signature = npt.NDArray[np.uint32]
SHINGLE = 5  # characters
PERMUTATIONS = 128
RECALL = 0.99  # the bands are as narrow as it takes to find this share of the pairs that are just alike enough
CROWD = (
    50  # texts in a bucket up to which every two are compared; in a larger one each with the first and its neighbour
)
AT_ONCE = 1 << 11  # shingles; their 128 products of 4 bytes are 1 MB, which stays in a core's cache
_RNG = np.random.default_rng(0x5EED)
_A = _RNG.integers(0, 1 << 31, PERMUTATIONS, np.uint32) * np.uint32(2) + np.uint32(1)
_B = _RNG.integers(0, 1 << 32, PERMUTATIONS, np.uint32)


def content(record: Record) -> str:
    """What a record says, who says it, and its candidates: what makes two records the same."""
    if isinstance(record, Document):
        return record.text
    parts = [_turn(message) for message in record.messages]
    for candidate in record.candidates:
        parts += ["", *(_turn(message) for message in candidate.messages)]
    return "\n".join(parts)


def _turn(message: Message) -> str:
    calls = "".join(f"\n{call.name}({call.arguments})" for call in message.tool_calls)
    return f"{message.role}: {message.reasoning_content or ''}{message.text}{calls}"


def fingerprint(text: str) -> bytes:
    """16 bytes; the same for texts that differ in case, width of letters and white space alone."""
    return hashlib.blake2b(normalized(text).encode(errors="surrogatepass"), digest_size=16).digest()


def shingles(text: str) -> Hashes:
    """The set of the text's character 5-grams, sorted; of a shorter text, itself."""
    return np.unique(_all_shingles(text))


def _all_shingles(text: str) -> Hashes:
    numbers = characters(text)
    return ngrams(numbers, min(SHINGLE, len(numbers))) if len(numbers) else np.zeros(1, np.uint64)


def signature(text: str) -> Signature:
    """[PERMUTATIONS]: the least hash of the text's shingles under each of as many permutations of 32-bit numbers, x -> ax + b;
    for numbers that are hashes themselves this is enough (the tests compare with brute force)."""
    found: Signature = _signatures([shingles(text)])[0]
    return found


def _signatures(sets: Sequence[Hashes]) -> npt.NDArray[np.uint32]:
    """[texts, PERMUTATIONS]. A set may name a shingle twice; it may not be empty."""
    found = np.full((len(sets), PERMUTATIONS), 0xFFFFFFFF, np.uint32)
    text = np.repeat(np.arange(len(sets)), [len(numbers) for numbers in sets])
    numbers = (np.concatenate(sets) >> np.uint64(32)).astype(np.uint32)
    for start in range(0, len(numbers), AT_ONCE):
        hashed = _A[:, None] * numbers[None, start : start + AT_ONCE]
        hashed += _B[:, None]
        which, begins = np.unique(text[start : start + AT_ONCE], return_index=True)
        found[which] = np.minimum(found[which], np.minimum.reduceat(hashed, begins, axis=1).T)
    return found


@dataclass(frozen=True, slots=True)
class Twins:
    """Which texts repeat an earlier one: number -> the first it repeats. `exact` and `near` share no number."""

    exact: dict[int, int]
    near: dict[int, int]

    def __contains__(self, number: int) -> bool:
        return number in self.exact or number in self.near


@dataclass(slots=True)
class Finder:
    """Texts come one by one; `twins` says who repeats whom. Keeps 16 + 512 bytes a text, not the texts.

    `threshold`: from which Jaccard coefficient on texts are nearly the same; None looks for exact copies alone."""

    threshold: float | None = 0.8
    _first: dict[bytes, int] = field(default_factory=dict)
    _exact: dict[int, int] = field(default_factory=dict)
    _numbers: list[int] = field(default_factory=list)
    _tables: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    _waiting: list[Hashes] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.3 <= self.threshold <= 1:
            raise DataError(
                f"threshold {self.threshold}: from 0.3, below which most texts of a language are alike, to 1"
            )

    def add(self, text: str) -> None:
        number, self._count = self._count, self._count + 1
        first = self._first.setdefault(fingerprint(text), number)
        if first != number:
            self._exact[number] = first
        elif self.threshold is not None:
            self._numbers.append(number)
            self._waiting.append(_all_shingles(text))
            if sum(map(len, self._waiting)) >= AT_ONCE:
                self._sign()

    def twins(self) -> Twins:
        self._sign()
        if self.threshold is None or not self._tables:
            return Twins(dict(self._exact), {})
        table = np.concatenate(self._tables)
        groups = _Groups(len(table))
        for a, b in _alike(table, self.threshold):
            groups.join(a, b)
        near = {self._numbers[i]: self._numbers[first] for i, first in groups.firsts() if first != i}
        return Twins(dict(self._exact), near)

    def _sign(self) -> None:
        """Short texts share a call: most of a poem's time is numpy's."""
        if self._waiting:
            self._tables.append(_signatures(self._waiting))
            self._waiting = []


def twins(texts: Iterable[str], threshold: float | None = 0.8) -> Twins:
    """Which of the texts repeat an earlier one."""
    finder = Finder(threshold)
    for text in texts:
        finder.add(text)
    return finder.twins()


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows a band): the most rows with which two texts as alike as this share a band with probability RECALL."""
    fits = [r for r in range(1, 17) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL]
    rows = max(fits, default=1)
    return PERMUTATIONS // rows, rows


def _alike(table: npt.NDArray[np.uint32], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs whose estimated likeness reaches the threshold."""
    count, rows = bands(threshold)
    compared: set[tuple[int, int]] = set()
    for band in range(count):
        for bucket in _buckets(table[:, band * rows : (band + 1) * rows]):
            for pair in _pairs(bucket):
                if pair not in compared:
                    compared.add(pair)
                    if np.mean(table[pair[0]] == table[pair[1]]) >= threshold:
                        yield pair


def _buckets(part: npt.NDArray[np.uint32]) -> Iterator[list[int]]:
    """Numbers of the rows that are equal in this band, two and more."""
    keys = np.zeros(len(part), np.uint64)
    for column in part.T:
        keys = mixed(keys * FACTOR + column)
    order = np.argsort(keys, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(same) > 1:
            yield same.tolist()


def _pairs(bucket: Sequence[int]) -> Iterator[tuple[int, int]]:
    if len(bucket) <= CROWD:
        yield from combinations(bucket, 2)
        return
    yield from ((bucket[0], other) for other in bucket[1:])
    yield from pairwise(bucket[1:])


class _Groups:
    """Union-find whose representative is the first member."""

    def __init__(self, size: int):
        self._parent = list(range(size))

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self._parent[max(a, b)] = min(a, b)

    def firsts(self) -> Iterator[tuple[int, int]]:
        return ((i, self.find(i)) for i in range(len(self._parent)))
