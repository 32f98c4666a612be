"""Tokenized examples on disk, mapped: a folder of safetensors files, and shards.json, which says that they are all there.

    00000.safetensors   ids [tokens] uint16 or uint32; lengths [sequences]; weights [tokens] unless they are all 1;
                        sequences [examples] unless each has one; file and line [examples]: the row each was made from;
                        facts.NAME [sequences], numbers.NAME [tokens]
    shards.json         {"key", "shards": [{"file", "bytes", "crc32", "examples", "tokens"}], "notes"}

`key` says what the examples were made of and how; shards of another key are not these shards. Each file has it too: a stop
in the middle leaves whole shards, and the next attempt goes on after the last row in them.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from myna.data.sources import Place, Sourced
from myna.data.tokens import Example, Tokenized
from myna.modeldir.safetensors import read_metadata, read_safetensors, write_safetensors
from myna.records import DataError, Json, ModelDirError

DONE = "shards.json"
SHARD = 1 << 26  # tokens after which a shard ends, with the row: 128 MB or 256
KINDS = {"uint8": "U8", "uint16": "U16", "uint32": "U32", "float32": "F32"}
DTYPES = {kind: np.dtype(name) for name, kind in KINDS.items()}
REMAKE = "Remove the folder, and make it again with `myna data tokenize`."


@dataclass
class Shard:
    """The examples of one file."""

    path: Path
    ids: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.int64]  # of sequences
    sequences: npt.NDArray[np.int64]  # of examples
    files: list[str]
    file: npt.NDArray[np.integer]
    line: npt.NDArray[np.integer]
    weights: npt.NDArray[Any] | None
    facts: dict[str, npt.NDArray[np.float32]]
    numbers: dict[str, npt.NDArray[np.float32]]
    notes: Json

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each sequence begins among the tokens [sequences + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def firsts(self) -> npt.NDArray[np.int64]:
        """Each example's first sequence [examples + 1]."""
        return np.concatenate([[0], np.cumsum(self.sequences)])

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.starts[self.firsts])

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Example:
        return tuple(self._sequence(n) for n in range(int(self.firsts[index]), int(self.firsts[index + 1])))

    def place(self, index: int) -> Place:
        return Place(self.files[int(self.file[index])], int(self.line[index]))

    def _sequence(self, n: int) -> Tokenized:
        here = slice(int(self.starts[n]), int(self.starts[n + 1]))
        if self.weights is None:
            weights = np.ones(here.stop - here.start, np.float32)
            weights[:1] = 0
        else:
            weights = self.weights[here].astype(np.float32)
        facts = {name: float(values[n]) for name, values in self.facts.items() if not np.isnan(values[n])}
        numbers = {name: values[here] for name, values in self.numbers.items()}
        return Tokenized(self.ids[here], weights, numbers, facts)


class Shards:
    """An Examples over a finished folder. Open one with `Shards.open`."""

    def __init__(self, shards: Sequence[Shard], key: Json, notes: Json):
        self.key, self.notes = key, notes
        self._shards = tuple(shards)
        self._ends = np.cumsum([len(shard) for shard in shards])
        self.lengths = np.concatenate([shard.sizes for shard in shards])

    @classmethod
    def open(cls, folder: str | Path, key: Json | None = None) -> "Shards":
        """Raises DataError naming the file that is missing, cut, altered or of another key than this."""
        folder = Path(folder)
        header = _header(folder)
        if key is not None and header["key"] != key:
            raise DataError(f"{folder}: was made of something else: {_difference(header['key'], key)}. {REMAKE}")
        shards = []
        for entry in header["shards"]:
            path = folder / Path(str(entry["file"])).name
            if not path.is_file():
                raise DataError(f"{path}: missing. {REMAKE}")
            if path.stat().st_size != entry["bytes"] or _crc(path) != entry["crc32"]:
                raise DataError(f"{path}: is not what was written: cut or altered. {REMAKE}")
            shards.append(_read(path, header["key"]))
        if not shards:
            raise DataError(f"{folder}: holds no example. {REMAKE}")
        return cls(shards, header["key"], header["notes"])

    def __getitem__(self, index: int, /) -> Example:
        shard, n = self._at(index)
        return shard[n]

    def place(self, index: int) -> Place:
        """The row an example was made from."""
        shard, n = self._at(index)
        return shard.place(n)

    def _at(self, index: int) -> tuple[Shard, int]:
        if not 0 <= index < len(self.lengths):
            raise IndexError(index)
        n = int(np.searchsorted(self._ends, index, side="right"))
        return self._shards[n], index - int(self._ends[n]) + len(self._shards[n])


class Writer:
    """Writes a folder of shards. What an earlier attempt left whole is kept, and is `kept`, to be looked at again."""

    def __init__(self, folder: str | Path, key: Json, vocab: int, *, shard: int | None = None):
        self.folder, self.key, self._room = Path(folder), key, shard or SHARD
        self._dtype = np.uint16 if vocab <= 1 << 16 else np.uint32
        _make(self.folder)
        self.kept = self._keep()
        self._held = _Held()
        self._made = list[Path]()

    @property
    def after(self) -> Place | None:
        """The last row whose examples are kept; to go on, begin after it."""
        return self.kept[-1].place(len(self.kept[-1]) - 1) if self.kept else None

    def write(self, examples: Iterable[Sourced[Example]], notes: Callable[[], Json]) -> None:
        """Write all of them. `notes()` is asked after the last example of each shard, and is kept with it."""
        about: Json = {}
        for place, example in examples:
            if self._held.tokens >= self._room and place != self._held.places[-1]:
                self._flush(about)
            self._held.add(place, example)
            if self._held.tokens >= self._room:
                about = notes()  # now: the next example is made before we see it, and its row is noted by then
        if self._held.places:
            self._flush(notes())

    def finish(self, notes: Json) -> Shards:
        """Write shards.json: now they are all there. Shards of an earlier key go."""
        entries = [_entry(path) for path in (*(shard.path for shard in self.kept), *self._made)]
        text = json.dumps({"key": self.key, "shards": entries, "notes": notes}, ensure_ascii=False, indent=1)
        _publish(self.folder / DONE, lambda file: file.write(text.encode()))
        for path in self.folder.glob("[0-9]*.safetensors"):
            if path.name not in {entry["file"] for entry in entries}:
                path.unlink()
        return Shards.open(self.folder, self.key)

    def _keep(self) -> list[Shard]:
        kept: list[Shard] = []
        for number in range(len(list(self.folder.glob("*.safetensors")))):
            path = self.folder / f"{number:05}.safetensors"
            try:
                kept.append(_read(path, self.key))
            except (DataError, OSError):  # of another key, or not whole: it is written anew
                break
        return kept

    def _flush(self, notes: Json) -> None:
        path = self.folder / f"{len(self.kept) + len(self._made):05}.safetensors"
        tensors, files = self._held.arrays(self._dtype)
        about = {"key": _text(self.key), "files": _text(files), "notes": _text(notes)}
        _publish(path, lambda file: write_safetensors(file, tensors, about, KINDS))
        self._made.append(path)
        self._held = _Held()


@dataclass
class _Held:
    """The examples of the next shard."""

    places: list[Place] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    tokens: int = 0

    def add(self, place: Place, example: Example) -> None:
        self.places.append(place)
        self.examples.append(example)
        self.tokens += sum(map(len, example))

    def arrays(self, dtype: type) -> tuple[dict[str, np.ndarray], list[str]]:
        sequences = [sequence for example in self.examples for sequence in example]
        files = sorted({place.file for place in self.places})
        number = {file: n for n, file in enumerate(files)}
        weights = np.concatenate([sequence.weights for sequence in sequences])
        lengths = np.array([len(sequence) for sequence in sequences], np.uint32)
        many = np.array([len(example) for example in self.examples], np.uint32)
        tensors = {
            "ids": np.concatenate([sequence.ids for sequence in sequences]).astype(dtype),
            "lengths": lengths,
            "file": np.array([number[place.file] for place in self.places], np.uint32),
            "line": np.array([place.line for place in self.places], np.uint32),
        }
        if (many != 1).any():
            tensors["sequences"] = many
        if not _plain(weights, lengths):
            whole = bool(np.isin(weights, (0, 1)).all())
            tensors["weights"] = weights.astype(np.uint8 if whole else np.float32)
        for name in sorted({name for sequence in sequences for name in sequence.facts}):
            tensors[f"facts.{name}"] = np.array([s.facts.get(name, np.nan) for s in sequences], np.float32)
        for name in sorted({name for sequence in sequences for name in sequence.numbers}):
            filled = [s.numbers.get(name, np.zeros(len(s), np.float32)) for s in sequences]
            tensors[f"numbers.{name}"] = np.concatenate(filled).astype(np.float32)
        widest_first = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # so that each begins aligned
        return dict(widest_first), files


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else writes to this folder, and keep others waiting."""
    _make(folder)
    with open(folder / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"{folder}: cannot be a folder of shards: {e.strerror or e}") from None


def _plain(weights: npt.NDArray[np.float32], lengths: npt.NDArray[np.uint32]) -> bool:
    """Whether all are 1 but those of first tokens, which are 0."""
    expected = np.ones(len(weights), np.float32)
    expected[np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)] = 0
    return bool((weights == expected).all())


def _read(path: Path, key: Json) -> Shard:
    """Raises DataError for a file that is not a shard of this key."""
    try:
        about = read_metadata(path)
        stored = {name: tensor.raw.view(DTYPES[tensor.kind]) for name, tensor in read_safetensors(path).items()}
        files, notes, found = (json.loads(about[name]) for name in ("files", "notes", "key"))
    except (ModelDirError, KeyError, ValueError) as e:
        raise DataError(f"{path}: not a shard: {e}. {REMAKE}") from None
    if found != key:
        raise DataError(f"{path}: belongs to other shards: {_difference(found, key)}. {REMAKE}")
    try:
        shard = _shard(path, stored, files, notes)
    except (KeyError, ValueError) as e:
        raise DataError(f"{path}: its arrays do not fit together: {e}. {REMAKE}") from None
    return shard


def _shard(path: Path, stored: dict[str, np.ndarray], files: list[str], notes: Json) -> Shard:
    facts = {name.removeprefix("facts."): array for name, array in stored.items() if name.startswith("facts.")}
    numbers = {name.removeprefix("numbers."): array for name, array in stored.items() if name.startswith("numbers.")}
    lengths, line = stored["lengths"].astype(np.int64), stored["line"]
    many = stored["sequences"].astype(np.int64) if "sequences" in stored else np.ones(len(line), np.int64)
    shard = Shard(
        path, stored["ids"], lengths, many, files, stored["file"], line, stored.get("weights"), facts, numbers, notes
    )
    tokens = [shard.ids, *numbers.values(), *([] if shard.weights is None else [shard.weights])]
    if any(len(array) != lengths.sum() for array in tokens) or any(
        len(array) != len(lengths) for array in facts.values()
    ):
        raise ValueError("lengths")
    if many.sum() != len(lengths) or len(shard.file) != len(line) != len(many) or shard.file.max() >= len(files):
        raise ValueError("sequences")
    return shard


def check_free(folder: Path, key: Json) -> None:
    """Raises DataError if these are finished shards of another key, which nobody asked to write over."""
    if (folder / DONE).is_file() and (found := _header(folder)["key"]) != key:
        raise DataError(f"{folder} is there already, of something else: {_difference(found, key)}. Give another name")


def _header(folder: Path) -> Json:
    path = folder / DONE
    if not path.is_file():
        half = "; it was not finished" if any(folder.glob("*.safetensors")) else ""
        raise DataError(
            f"{folder}: no {DONE} in it{half}. Make it with `myna data tokenize`, which goes on where it stopped."
        )
    try:
        header = json.loads(path.read_bytes())
        if not all(isinstance(header[name], kind) for name, kind in (("key", dict), ("shards", list), ("notes", dict))):
            raise ValueError("a field is of another kind")
        for entry in header["shards"]:
            _ = entry["file"], entry["bytes"], entry["crc32"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as e:
        raise DataError(f"{path}: not the header of shards: {e}. {REMAKE}") from None
    found: Json = header
    return found


def _difference(found: Json, wanted: Json) -> str:
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    return "; ".join(
        f"{name} was {_text(found.get(name))[:80]}, is {_text(wanted.get(name))[:80]}" for name in names[:3]
    )


def _entry(path: Path) -> Json:
    return {"file": path.name, "bytes": path.stat().st_size, "crc32": _crc(path)}


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while part := file.read(1 << 22):
            crc = zlib.crc32(part, crc)
    return crc


def _publish(path: Path, write: Callable[[Any], object]) -> None:
    """The file appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as e:
        raise DataError(f"{path}: cannot write: {e.strerror or e}") from None
    finally:
        partial.unlink(missing_ok=True)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def after(records: Iterator[Sourced[Any]], place: Place | None) -> Iterator[Sourced[Any]]:
    """The records that come after this row; all of them without one."""
    reached = place is None
    for record in records:
        if reached and record.place != place:
            yield record
            place = None
        reached = reached or record.place == place
