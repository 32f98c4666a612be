"""A second model that the trained one learns from, and what it says of the training data, computed once and kept on disk.

What is kept of a place is the teacher's k likeliest tokens, their log-probabilities and that of all others together. To those
k + 1 shares student and teacher are compared: so a student that is its teacher has nothing to learn, whatever k is, and k = all
tokens is the whole distribution. A place takes 8 k + 4 bytes; only places that are learned from are kept.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from myna.chat import Chat
from myna.data import Example, Examples
from myna.model import Decoder, load_model
from myna.model.load import describe
from myna.modeldir import ModelDir, find
from myna.records import DataError
from myna.train.config import Config
from myna.train.loss import counted, rows_at_once
from myna.train.once import batches, mark
from myna.train.rundir import TEACHER
from myna.train.setup import Setup
from myna.train.trainee import Trainee, hashes

IDS, SHARES = "teacher_ids", "teacher_shares"  # numbers of a token: [T, k] and [T, k + 1]


@dataclass
class Teacher:
    """`vocab` is how many tokens both models have rows for; `files` are what it is read from, with their hashes."""

    directory: ModelDir
    vocab: int
    device: torch.device
    files: dict[str, str] = field(default_factory=dict)

    @cached_property
    def decoder(self) -> Decoder:
        """Loaded when it is first asked for: a run whose cache is whole never does."""
        return load_model(self.directory, "float32").to(self.device)


def find_teacher(setup: Setup, name: str) -> Teacher:
    """DataError if there is no name, if its tokenizer is another than the student's, or if it does not reach data.context."""
    if not name:
        raise DataError("who teaches? Give --distill.teacher NAME, a model directory or a pulled model")
    place = find(name)
    directory, chat = ModelDir.open(place), Chat.load(place)
    spec, _ = describe(directory)
    own = setup.trainee.chat.tokenizer
    if chat.tokenizer.fingerprint != own.fingerprint:
        raise DataError(
            f"the tokenizer of teacher {directory.name} ({chat.tokenizer.vocab_size} tokens) is not that of the student "
            f"({own.vocab_size} tokens): the probabilities of one mean nothing to the other. Take a teacher of the student's "
            f"family, or a new student with the teacher's tokenizer: --model.tokenizer {name}"
        )
    if setup.config.data.context > spec.max_len:
        raise DataError(
            f"data.context is {setup.config.data.context}, and teacher {directory.name} reaches to {spec.max_len} tokens"
        )
    vocab = min(spec.vocab, setup.trainee.decoder.spec.vocab)
    return Teacher(directory, vocab, setup.trainee.device, hashes(directory.path))


def shares(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities [n, k + 1] of these tokens [n, k] and of all others together; [n, k] where there are no others."""
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    chosen = logits.gather(1, ids) - total
    if ids.shape[1] == logits.shape[1]:
        return chosen
    others = logits.scatter(1, ids, -torch.inf).logsumexp(-1, keepdim=True) - total
    return torch.cat([chosen, others], 1)


@dataclass(frozen=True)
class Taught:
    """Examples whose tokens know their teacher's shares. `starts` [examples + 1]: which of the kept places are whose."""

    examples: Examples
    starts: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float32]

    @property
    def lengths(self) -> npt.NDArray[np.integer]:
        return self.examples.lengths

    def __getitem__(self, index: int, /) -> Example:
        at, found = int(self.starts[index]), []
        for sequence in self.examples[index]:
            learned = np.flatnonzero(sequence.weights[1:]) + 1
            numbers = {**sequence.numbers}
            for name, kept in ((IDS, self.ids), (SHARES, self.shares)):
                numbers[name] = np.zeros((len(sequence), kept.shape[1]), np.float32)
                numbers[name][learned] = kept[at : at + len(learned)]
            at += len(learned)
            found.append(replace(sequence, numbers=numbers))
        return tuple(found)

    def place(self, index: int) -> object:
        """Where the example was read."""
        return getattr(self.examples, "place", str)(index)


def taught(
    setup: Setup, teacher: Teacher, top_k: int, temperature: float, parts: Mapping[str, Examples]
) -> dict[str, Taught]:
    """The examples with their teacher's `top_k` tokens at this temperature, from the run directory if they are there.

    DataError if what is there is of other examples or another teacher, or if the disk has no room."""
    k, folder = min(top_k, teacher.vocab), setup.run / TEACHER
    starts = {name: _starts(examples) for name, examples in parts.items()}
    mine = _mark(teacher, k, temperature, setup.config, parts)
    if not folder.exists() and setup.world.is_main:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _check_room(partial, sum(int(s[-1]) for s in starts.values()), k)
        for name, examples in parts.items():
            _write(partial / name, setup.trainee, teacher, (k, temperature), examples, starts[name], setup.config)
        (partial / "mark").write_text(mine)
        partial.rename(folder)
    if not (folder / "mark").is_file() or (folder / "mark").read_text() != mine:
        raise DataError(
            f"{folder} was computed with another teacher or other data. If they were not meant to change, put them back; "
            "else remove it, and it is computed again."
        )
    return {name: Taught(examples, starts[name], *_read(folder / name)) for name, examples in parts.items()}


@torch.no_grad()
def _write(
    place: Path, student: Trainee, teacher: Teacher, kept: tuple[int, float], examples: Examples,
    starts: npt.NDArray[np.int64], config: Config,
) -> None:  # fmt: skip
    """Every learned place of every example, as PLACE.ids.npy and PLACE.shares.npy."""
    k, temperature = kept
    width = k + (k < teacher.vocab)
    files = (f"{place}.ids.npy", np.int32, k), (f"{place}.shares.npy", np.float32, width)
    ids, found = (
        np.lib.format.open_memmap(file, "w+", dtype=kind, shape=(int(starts[-1]), columns))
        for file, kind, columns in files
    )
    decoder, done = teacher.decoder, 0
    for members, batch in batches(examples, config, student.device):
        with student.computing(config.model.precision):
            (hidden,) = counted(batch.targets, decoder(batch.ids, batch.positions, batch.memory))
            chunks = [_likeliest(teacher, h, k, temperature) for h in hidden.split(rows_at_once(teacher.vocab))]
        where = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in members])
        ids[where], found[where] = (torch.cat(of).cpu().numpy() for of in zip(*chunks, strict=True))
        done += len(where)
        if sys.stderr.isatty():
            print(f"\rteacher: {done:,} of {starts[-1]:,} tokens of {place.name}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for array in (ids, found):
        array.flush()


def _likeliest(teacher: Teacher, hidden: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    logits = teacher.decoder.logits(hidden)[:, : teacher.vocab] / temperature
    ids = logits.topk(k).indices
    return ids, shares(logits, ids)


def _starts(examples: Examples) -> npt.NDArray[np.int64]:
    sizes = [sum(sequence.supervised for sequence in examples[i]) for i in range(len(examples.lengths))]
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def _read(place: Path) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    try:
        ids, found = (np.load(f"{place}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("ids", "shares"))
    except (OSError, ValueError) as e:
        raise DataError(f"{place.parent} cannot be read: {e}. Remove it, and it is computed again.") from None
    return ids, found


def _check_room(folder: Path, places: int, k: int) -> None:
    """A file that is mapped must not meet the end of the disk."""
    needed, free = places * (8 * k + 4), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"what the teacher says of {places:,} tokens takes {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB. "
            f"Keep fewer of its tokens with --distill.top_k, now {k}, or none with --distill.top_k 0"
        )


def _mark(teacher: Teacher, k: int, temperature: float, config: Config, parts: Mapping[str, Examples]) -> str:
    """Of who says what, of what."""
    told = [sorted(teacher.files.values()), k, temperature, config.model.precision, sorted(parts)]
    return mark(hashlib.blake2b(json.dumps(told).encode(), digest_size=16), parts.values())
