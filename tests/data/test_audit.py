"""What a run would train on is counted right, refused when it is nothing, and the same from a cache as when it was made."""

import json
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from myna.chat.byte_chat import TEMPLATE, byte_chat
from myna.chat.template import ChatTemplate
from myna.data import Place, Sourced, Tokenized
from myna.data.audit import Audit, Observer, spans
from myna.data.prepare import Recipe, load, look, prepare, weighted
from myna.data.sources import Source
from myna.records import DataError

CHAT = byte_chat()
ROWS = [{"question": f"What is {n} and {n} together, then?", "answer": f"{n + n}"} for n in range(10, 30)]
SFT = Recipe("conversations", 200)


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_counts_are_those_counted_by_hand(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[3], {"question": "Why?", "answer": "b" * 300}]
    audit = prepare(Source.of(write(tmp_path / "a.jsonl", rows)), CHAT, Recipe("conversations", 200, "drop")).audit
    prompt = len("<user\n") + len("What is 10 and 10 together, then?") + len("|\n<assistant\n")
    assert (audit.rows, audit.examples, audit.tokens) == (22, 21, 21 * (prompt + len("20|\n")))
    assert audit.supervised == 21 * len("20|")
    assert (audit.exact, audit.first_exact) == (1, ((f"{tmp_path}/a.jsonl:21", f"{tmp_path}/a.jsonl:4"),))
    assert (audit.cuts.dropped, audit.endless, audit.untaught, audit.doubled_bos) == (1, 0, 0, 0)
    assert [text for text, learned in audit.sample if learned] == ["20<|im_end|>"]
    assert "trains on 63 of" in str(audit)


def test_audits_read_as_they_were_written(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS[:1] * 2)
    audit = prepare(Source.of(train), CHAT, SFT, against=Source.of(held)).audit
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit


def test_evaluation_rows_in_the_training_data_are_refused_by_name(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", [ROWS[0] | {"answer": "no"}, ROWS[6]])
    with pytest.raises(DataError, match=r"a.jsonl:7 is also .*b.jsonl:2, which evaluates it \(1 such rows\)"):
        load((train,), (held,), CHAT, SFT, seed=0)


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [{"question": "a", "answer": ""}])
    with pytest.raises(DataError, match=r"a.jsonl:1: messages.1.content: an empty reply"):
        load((train,), (), CHAT, SFT, seed=0)
    with pytest.raises(DataError, match=r"nothing to learn from: .*a.jsonl:1: messages.1.content: an empty reply"):
        load((train,), (), CHAT, Recipe("conversations", 200, skip_bad=True), seed=0)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="there are no rows"):
        load((str(tmp_path / "empty.jsonl"),), (), CHAT, SFT, seed=0)


def watched(*sequences: Tokenized, bos: int | None = None) -> Audit:
    observer = Observer("a", CHAT.tokenizer, frozenset({257}))
    examples = [Sourced(Place("a.jsonl", n), (sequence,)) for n, sequence in enumerate(sequences, start=1)]
    assert list(observer.examples(examples)) == examples
    return observer.audit()


def test_a_row_of_which_nothing_is_learned_is_named() -> None:
    good = Tokenized(np.array([1, 2, 257]), np.array([0, 1, 1], np.float32))
    audit = watched(good, Tokenized(np.array([1, 2]), np.array([1, 0], np.float32)))
    assert (audit.untaught, audit.endless) == (1, 1)
    with pytest.raises(DataError, match=r"a.jsonl:2: no token of this row is learned"):
        audit.check()


def test_rows_that_teach_no_end_are_counted() -> None:
    ends, never = (Tokenized(np.array([1, 2, last]), np.array([0, 1, 1], np.float32)) for last in (257, 3))
    context = Tokenized(np.array([1, 2, 257]), np.array([0, 1, 0], np.float32))
    audit = watched(ends, never, context)
    assert audit.endless == 2
    assert "2 rows teach no end" in str(audit)


def test_a_doubled_bos_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CHAT.tokenizer, "bos_id", 256)
    once, twice = (Tokenized(np.array(ids), np.ones(3, np.float32)) for ids in ([256, 1, 257], [256, 256, 257]))
    assert watched(once).doubled_bos == 0
    with pytest.raises(DataError, match="1 sequences begin twice"):
        watched(once, twice).check()


def test_a_cache_gives_the_same_and_is_made_anew_when_anything_changes(tmp_path: Path) -> None:
    train, cache = write(tmp_path / "a.jsonl", ROWS), tmp_path / "cache"
    fresh = prepare(Source.of(train), CHAT, SFT)
    first, second = (prepare(Source.of(train), CHAT, SFT, cache=cache) for _ in range(2))
    assert fresh.audit == first.audit == second.audit
    for n in range(len(ROWS)):
        ids = {tuple(one.examples[n][0].ids.tolist()) for one in (fresh, first, second)}
        assert len(ids) == 1
        assert {one.examples.place(n) for one in (fresh, first, second)} == {Place(train, n + 1)}
    stamp = (cache / "00000.safetensors").stat().st_mtime_ns
    prepare(Source.of(train), CHAT, SFT, cache=cache)
    assert (cache / "00000.safetensors").stat().st_mtime_ns == stamp
    write(tmp_path / "a.jsonl", ROWS[:5])
    assert prepare(Source.of(train), CHAT, SFT, cache=cache).audit.rows == 5
    rows = [ROWS[0], {"question": "a", "answer": "b" * 150}]
    write(tmp_path / "a.jsonl", rows)
    for context, kept in ((250, 2), (100, 1)):
        recipe = Recipe("conversations", context, "drop")
        assert len(prepare(Source.of(train), CHAT, recipe, cache=cache).examples.lengths) == kept


def test_an_interrupted_preparation_goes_on_and_its_audit_knows_all(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "a", "answer": ""}, {"question": "b", "answer": "c" * 400}, *ROWS[:3]]
    source = Source.of(write(tmp_path / "a.jsonl", rows))
    recipe = Recipe("conversations", 200, "truncate", skip_bad=True)
    whole = prepare(source, CHAT, recipe, cache=tmp_path / "whole")
    for stop in (5, 21, 22, 23):  # examples; the row that is cut short is the 21st
        seen = iter(range(stop))
        cache = tmp_path / f"again{stop}"

        def interrupt(tokens: int, seen: "object" = seen) -> None:
            if next(seen, None) is None:  # type: ignore[call-overload]
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("myna.data.shards.SHARD", 60)
            with pytest.raises(KeyboardInterrupt):
                prepare(source, CHAT, recipe, cache=cache, seen=interrupt)
        assert list(cache.glob("*.safetensors"))
        again = prepare(source, CHAT, recipe, cache=cache)
        assert again.audit == whole.audit
        assert [again.examples.place(n) for n in range(len(again.examples.lengths))] == [
            whole.examples.place(n) for n in range(len(whole.examples.lengths))
        ]


def test_weights_make_a_mixture_and_the_audit_says_how_often_each_is_seen(tmp_path: Path) -> None:
    big, small = write(tmp_path / "big.jsonl", ROWS), write(tmp_path / "small.jsonl", ROWS[:4])
    loaded = load((f"{big}:3", f"{small}:1"), (), CHAT, SFT, seed=0)
    assert [audit.rounds for audit in loaded.audits] == [1, pytest.approx(20 / 3 / 4, abs=0.2)]
    assert "weight 1: seen 1." in str(loaded.audits[1])
    plain = load((big, small), (), CHAT, SFT, seed=0)
    assert len(plain.train.lengths) == 24
    assert plain.audits[0].exact == 4


def test_a_weight_is_told_from_a_file_name(tmp_path: Path) -> None:
    odd = tmp_path / "a:3"
    odd.touch()
    assert weighted(str(odd)) == (str(odd), None)
    assert weighted("poems:2.5") == ("poems", 2.5)
    assert weighted("C:poems") == ("C:poems", None)


def test_pairs_are_prepared_and_kept_as_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "chosen": "Hello", "rejected": f"Go {n}"} for n in range(3)]
    source = Source.of(write(tmp_path / "a.jsonl", rows))
    made = prepare(source, CHAT, Recipe("preferences", 200), cache=tmp_path / "cache")
    assert [side.facts["score"] for side in made.examples[2]] == [1, 0]
    assert made.audit.sequences == 6


def test_spans_say_what_is_learned_and_what_was_cut_off() -> None:
    example = (Tokenized(np.array([*b"abcdef"]), np.array([0, 0, 1, 1, 0, 0], np.float32)),)
    assert list(spans(example, CHAT.tokenizer)) == [("ab", False), ("cd", True), ("ef", False)]
    assert list(spans(example, CHAT.tokenizer, 3)) == [("ab", False), ("c... (1 characters more)", True)]


def test_evaluation_files_of_shards_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    """Not by the path that led to them."""
    train, held = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", [{"question": "x", "answer": "y"}])
    prepare(Source.of(train), CHAT, SFT, cache=tmp_path / "shards", against=Source.of(held))
    moved = Path(held).rename(tmp_path / "c.jsonl")
    assert len(load((str(tmp_path / "shards"),), (str(moved),), CHAT, SFT, seed=0).train.lengths) == 20


def test_shards_are_taken_as_they_are_if_they_were_made_for_this(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", [{"question": "x", "answer": "y"}])
    prepare(Source.of(train), CHAT, SFT, cache=tmp_path / "shards")
    folder = str(tmp_path / "shards")
    loaded = load((folder,), (), CHAT, SFT, seed=0)
    assert (len(loaded.train.lengths), loaded.audits[0].rows) == (20, 20)
    with pytest.raises(DataError, match="was made for conversations, not preferences"):
        load((folder,), (), CHAT, Recipe("preferences", 200), seed=0)
    with pytest.raises(DataError, match=r"was made for other evaluation files.* --eval .*b\.jsonl"):
        load((folder,), (held,), CHAT, SFT, seed=0)
    with pytest.raises(DataError, match="and the context holds 30"):
        load((folder,), (), CHAT, Recipe("conversations", 30), seed=0)
    other = copy(CHAT)
    other.template = ChatTemplate(TEMPLATE + " ")
    with pytest.raises(DataError, match="was made for another chat template"):
        load((folder,), (), other, SFT, seed=0)


def test_two_that_prepare_the_same_at_once_make_it_once(tmp_path: Path) -> None:
    source = Source.of(write(tmp_path / "a.jsonl", ROWS))
    seen: list[int] = []

    def one(_: int) -> int:
        return prepare(source, CHAT, SFT, cache=tmp_path / "cache", seen=seen.append).audit.tokens

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(4)))) == 1
    assert len(seen) == len(ROWS)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_shows_every_figure_whole(tmp_path: Path, width: int) -> None:
    screen = Console(width=width, file=StringIO())
    audit = look(Source.of(write(tmp_path / "a_rather_long_name.jsonl", ROWS)))
    screen.print(replace(audit, rows=12_000, tokens=1_234_567))
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "12,000" in said
    assert "a_rather_long_name.jsonl" in said.replace("\n", "")
    assert ("copies" in said.splitlines()[0]) == (width == 200)
