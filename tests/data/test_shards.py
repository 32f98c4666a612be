"""Shards hold what was put in, go on where a stopped attempt left off, and refuse what was cut, altered or is another's."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from myna.data import Feed, Place, Sourced, Tokenized
from myna.data.shards import DONE, Shards, Writer, after
from myna.data.tokens import Example, collate
from myna.records import DataError, Json

KEY: Json = {"tokenizer": "abc", "context": 64}


def sequence(rng: np.random.Generator, *, weighed: bool, extra: bool) -> Tokenized:
    size = int(rng.integers(2, 40))
    weights = np.ones(size, np.float32)
    weights[0] = 0
    if weighed:
        weights = rng.choice([0.0, 0.5, 1.0], size).astype(np.float32)
    numbers = {"logprob": rng.standard_normal(size).astype(np.float32)} if extra else {}
    return Tokenized(rng.integers(0, 300, size), weights, numbers, {"score": float(size)} if extra else {})


def made(count: int, *, weighed: bool = False, pairs: bool = False, extra: bool = False) -> list[Sourced[Example]]:
    """Two examples a row, in two files."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        place = Place("a.jsonl" if n < count // 2 else "b.jsonl", 1 + n // 2)
        many = 1 + (pairs and n % 3 > 0)
        found.append(Sourced(place, tuple(sequence(rng, weighed=weighed, extra=extra) for _ in range(many))))
    return found


def written(folder: Path, examples: list[Sourced[Example]], vocab: int = 300, shard: int = 300) -> Shards:
    writer = Writer(folder, KEY, vocab, shard=shard)
    writer.write(examples, dict)
    return writer.finish({"rows": len(examples)})


@pytest.mark.parametrize("vocab", [300, 100_000])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_what_is_read_is_what_was_written(tmp_path: Path, vocab: int, weighed: bool, pairs: bool, extra: bool) -> None:
    examples = made(40, weighed=weighed, pairs=pairs, extra=extra)
    written(tmp_path, examples, vocab)
    shards = Shards.open(tmp_path, KEY)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert shards.lengths.tolist() == [sum(map(len, example)) for _, example in examples]
    for n, (place, example) in enumerate(examples):
        assert shards.place(n) == place
        assert len(shards[n]) == len(example)
        for a, b in zip(shards[n], example, strict=True):
            assert (a.ids.tolist(), a.weights.tolist(), a.facts) == (b.ids.tolist(), b.weights.tolist(), b.facts)
            assert {k: v.tolist() for k, v in a.numbers.items()} == {k: v.tolist() for k, v in b.numbers.items()}
            assert a.ids.dtype == (np.uint16 if vocab == 300 else np.uint32)


def test_a_feed_makes_batches_of_them(tmp_path: Path) -> None:
    feed = Feed(written(tmp_path, made(40)), context=64, rows=4, seed=0)
    assert collate(feed.step(0), 64).supervised > 0


def test_a_stopped_attempt_is_gone_on_with_after_its_last_whole_row(tmp_path: Path) -> None:
    examples = made(60)
    whole = written(tmp_path / "whole", examples)

    def stopping() -> Iterator[Sourced[Example]]:
        yield from examples[:37]
        raise KeyboardInterrupt

    writer = Writer(tmp_path / "again", KEY, 300, shard=300)
    with pytest.raises(KeyboardInterrupt):
        writer.write(stopping(), dict)
    with pytest.raises(DataError, match="it was not finished"):
        Shards.open(tmp_path / "again")
    second = Writer(tmp_path / "again", KEY, 300, shard=300)
    kept = sum(map(len, second.kept))
    assert 0 < kept < 37
    left = list(after(iter(examples), second.after))
    assert left == examples[kept:]
    second.write(left, dict)
    second.finish({"rows": 60})
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert len(whole.lengths) == 60


def test_shards_of_another_key_are_not_gone_on_with_and_go_in_the_end(tmp_path: Path) -> None:
    written(tmp_path, made(60))
    writer = Writer(tmp_path, {"tokenizer": "other"}, 300)
    assert not writer.kept
    writer.write(made(4), dict)
    assert len(writer.finish({}).lengths) == 4
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["00000.safetensors"]


def cut(folder: Path) -> None:
    path = folder / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def flip(folder: Path) -> None:
    data = bytearray((folder / "00001.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "00001.safetensors").write_bytes(data)


def swap(folder: Path) -> None:
    written(folder / "other", made(60))
    header = json.loads((folder / DONE).read_text()) | {"key": {"tokenizer": "xyz"}}
    (folder / DONE).write_text(json.dumps(header))


def lose(folder: Path) -> None:
    (folder / "00001.safetensors").unlink()


def break_header(folder: Path) -> None:
    (folder / DONE).write_text('{"key": {}}')


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (cut, "00001.safetensors: is not what was written"),
        (flip, "00001.safetensors: is not what was written"),
        (lose, "00001.safetensors: missing"),
        (swap, "00000.safetensors: belongs to other shards: tokenizer was .abc., is .xyz."),
        (break_header, "shards.json: not the header of shards"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused_by_name(tmp_path: Path, harm: object, error: str) -> None:
    written(tmp_path, made(60))
    harm(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=error):
        Shards.open(tmp_path)


def test_another_key_is_told_what_differs(tmp_path: Path) -> None:
    written(tmp_path, made(4))
    with pytest.raises(DataError, match="context was 64, is 128"):
        Shards.open(tmp_path, KEY | {"context": 128})


def test_a_row_is_never_in_two_shards(tmp_path: Path) -> None:
    written(tmp_path, made(60), shard=20)
    lines: list[set[Place]] = []
    for path in sorted(tmp_path.glob("*.safetensors")):
        shard = next(s for s in Writer(tmp_path, KEY, 300).kept if s.path == path)
        lines.append({shard.place(n) for n in range(len(shard))})
    assert len(lines) > 5
    assert sum(map(len, lines)) == len(set().union(*lines))
