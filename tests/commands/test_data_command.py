"""myna data, as a user meets it: what each verb prints, writes and exits with."""

import json
from pathlib import Path
from typing import Any

import pytest

from myna.chat.byte_chat import byte_chat
from myna.commands.data import app
from myna.data.shards import Shards
from myna.records import Conversation, DataError
from myna.records.jsonl import read

ROWS = [{"question": f"How much is {n} and {n + 7}, dear friend?", "answer": str(2 * n + 7)} for n in range(100, 400)]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--model bytes` is the chat of bytes."""
    monkeypatch.setattr("myna.commands.data.find", lambda name: name)
    monkeypatch.setattr("myna.commands.data.Chat.load", lambda name: byte_chat())


def myna_data(*words: object) -> int:
    """The exit code."""
    try:
        app([str(word) for word in words], result_action="return_value")
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def rows(path: Path, found: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in found))
    return path


BAD = [
    '{"messages": [{"role": "user", "content": "a"}',
    {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]},
    {"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "b"}]},
    {"messages": [{"role": "user", "content": "a"}]},
]
WHY = [
    "bad.jsonl:2: not JSON",
    "bad.jsonl:3: messages.1.role: 'user' after 'user'",
    "bad.jsonl:4: messages.1.content: an empty reply",
    "bad.jsonl:5: messages.0.content: expected a string or a list",
    "bad.jsonl:6: messages.0.role: the last turn is 'user'",
]
GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize("model", [(), ("--model", "bytes")])
def test_check_names_every_bad_row_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: tuple[str, ...]
) -> None:
    file = rows(tmp_path / "bad.jsonl", [GOOD, *BAD, GOOD])
    assert myna_data("check", file, *model) == 1
    said = capsys.readouterr().out
    assert all(why in said for why in WHY)
    assert "5 of 7 rows cannot be learned from" in said
    assert myna_data("check", file, *model, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["bad"], found["exact"]) == (False, 5, 1)


def test_check_of_good_rows_exits_0_and_counts_tokens_with_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = rows(tmp_path / "good.jsonl", ROWS)
    assert myna_data("check", file, "--model", "bytes", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["examples"], found["supervised"]) == (
        300,
        300,
        sum(len(r["answer"]) + 1 for r in ROWS),
    )
    assert myna_data("check", file) == 0
    assert "every row can be learned from" in capsys.readouterr().out


def test_check_finds_rows_that_are_too_long_for_the_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rows(tmp_path / "long.jsonl", [*ROWS[:3], {"question": "a", "answer": "b" * 200}])
    assert myna_data("check", file, "--model", "bytes", "--context", 128) == 1
    assert "long.jsonl:4: 2" in capsys.readouterr().out
    assert myna_data("check", file, "--model", "bytes", "--context", 128, "--overlong", "truncate") == 0


def test_check_finds_evaluation_rows_among_the_training_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, held = rows(tmp_path / "train.jsonl", ROWS), rows(tmp_path / "eval.jsonl", ROWS[5:7])
    assert myna_data("check", train, "--eval", held) == 1
    assert "train.jsonl:6 is also" in capsys.readouterr().out


def test_stats_count_turns_scripts_and_broken_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rows(tmp_path / "a.jsonl", [*ROWS[:9], {"question": "三加四是多少？", "answer": "七"}])
    assert myna_data("stats", file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kinds"]["conversations"] == 10
    assert found["turns"] == {"user": 10, "assistant": 10}
    assert found["scripts"] == {"Latin": 9, "Han": 1}
    assert found["broken"]["fewer than 50 words"] == 10
    assert myna_data("stats", file) == 0
    assert "fewer than 50 words" in capsys.readouterr().out


def test_convert_writes_our_records_whole_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}
    file, out = rows(tmp_path / "a.jsonl", [pair, "{", pair]), tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"a.jsonl:2: not JSON"):
        myna_data("convert", file, "--out", out)
    assert not out.exists()
    assert myna_data("convert", file, "--out", out, "--best", "--skip-bad") == 0
    assert [[m.text for m in record.messages] for record in read(out, Conversation)] == [["Hi", "Hello"]] * 2
    assert "left out 1 rows" in capsys.readouterr().err
    with pytest.raises(DataError, match="is there already"):
        myna_data("convert", file, "--out", out)


def test_dedup_keeps_the_first_and_leaves_out_what_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, held = rows(tmp_path / "a.jsonl", [*ROWS[:9], ROWS[2], ROWS[4]]), rows(tmp_path / "eval.jsonl", ROWS[7:9])
    out = tmp_path / "out.jsonl"
    assert myna_data("dedup", file, "--out", out, "--near", 0, "--against", held, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"kept": 7, "exact": 2, "near": 0, "against": 2}
    assert [r.messages[0].text for r in read(out, Conversation)] == [r["question"] for r in ROWS[:7]]


def test_split_gives_every_row_to_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, train, held = rows(tmp_path / "a.jsonl", ROWS), tmp_path / "t.jsonl", tmp_path / "e.jsonl.gz"
    assert myna_data("split", file, "--train", train, "--eval", held, "--share", 0.2, "--near", 0, "--json") == 0
    sides = [{r.messages[0].text for r in read(path, Conversation)} for path in (train, held)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 300
    assert json.loads(capsys.readouterr().out) == {"train": len(sides[0]), "eval": len(sides[1])}
    assert len(sides[1]) == pytest.approx(60, abs=25)


def test_rows_too_alike_to_split_are_told_so(tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", ROWS[:1] * 5)
    with pytest.raises(DataError, match="all 5 rows fall on one side"):
        myna_data("split", file, "--train", tmp_path / "t.jsonl", "--eval", tmp_path / "e.jsonl")


def test_tokenize_makes_shards_that_training_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = rows(tmp_path / "a.jsonl", ROWS), tmp_path / "shards"
    assert myna_data("tokenize", file, "--out", out, "--model", "bytes", "--context", 128, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    shards = Shards.open(out)
    assert (len(shards.lengths), int(shards.lengths.sum())) == (300, found["tokens"])


def test_a_folder_of_another_kind_of_file_is_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"no \.jsonl, \.json, \.txt, \.md in this folder"):
        myna_data("check", tmp_path)
    with pytest.raises(DataError, match="which files"):
        myna_data("check")


def test_tokenize_does_not_write_over_what_was_made_otherwise(tmp_path: Path) -> None:
    file, out = rows(tmp_path / "good.jsonl", ROWS), tmp_path / "shards"
    told = ("tokenize", file, "--model", "bytes", "--out", out)
    assert myna_data(*told) == 0
    made = (out / "shards.json").read_bytes()
    assert myna_data(*told) == 0
    with pytest.raises(DataError, match=r"context"):
        myna_data(*told, "--context", "512")
    assert (out / "shards.json").read_bytes() == made


def test_check_says_what_training_would_refuse_though_no_row_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = rows(tmp_path / "good.jsonl", ROWS)
    assert myna_data("check", file, "--eval", file) == 1
    said = capsys.readouterr().out
    assert "cannot be learned from" not in said
    assert "training would refuse this" in said
