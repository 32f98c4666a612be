"""Files and folders: every record with its place, every complaint with file, line and field."""

import gzip
import json
from pathlib import Path

import pytest

from myna.data import Audit, Place, Source, look
from myna.data.turns import check_answered, check_candidates
from myna.records import Conversation, DataError, Document, Message, ToolCall

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_every_kind_of_file_in_a_folder_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "b" / "c.txt.gz").write_bytes(gzip.compress("三".encode()))
    (tmp_path / "d.json").write_text('[{"text": "four"}, {"text": "five"}]')
    (tmp_path / "e.png").write_bytes(b"not text")
    found = [
        (place.file.removeprefix(f"{tmp_path}/"), place.line, d.text) for place, d in Source.of(tmp_path).documents()
    ]
    assert found == [
        ("a.jsonl", 1, "one"),
        ("a.jsonl", 3, "two"),
        ("b/c.txt.gz", 1, "三"),
        ("d.json", 1, "four"),
        ("d.json", 2, "five"),
    ]


@pytest.mark.parametrize(("split_on", "texts"), [(None, [1]), ("blank", [1, 4]), ("----", [1, 6])])
def test_a_text_is_one_document_or_cut_where_told(tmp_path: Path, split_on: str | None, texts: list[int]) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n\nthree\n----\nfour\n")
    assert [place.line for place, _ in Source.of(file, split_on=split_on).documents()] == texts


def test_bad_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = ['{"question": "a", "answer": "b"}', '{"question": "a", ', '{"question": "a", "answer": 3}', "7"]
    file.write_text("\n".join([*rows, rows[0]]))
    errors: list[str] = []
    good = [place.line for place, _ in Source.of(file).conversations(lambda place, error: errors.append(str(error)))]
    assert good == [1, 5]
    assert [error.removeprefix(str(tmp_path)).split(":")[1] for error in errors] == ["2", "3", "4"]
    assert "not JSON" in errors[0]
    assert "answer: expected a string, found an integer (read as question)" in errors[1]
    with pytest.raises(DataError, match=r"rows.jsonl:2: not JSON"):
        list(Source.of(file).conversations())


def test_text_is_refused_where_conversations_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: is text, and conversations are wanted"):
        list(Source.of(tmp_path).conversations())


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.txt", b"ok\n\xff", "a.txt:2: not UTF-8"),
        ("a.json", b'{"text": "a"}', "a.json: expected a list of rows"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], "a.jsonl.gz:.* cannot read"),
        ("a.parquet", b"PAR1", "a.parquet: what is in it"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=error):
        list(Source.of(tmp_path / name).records())


def test_a_format_that_is_named_is_used_and_a_wrong_name_is_told_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"question": "2+2?", "choices": ["3"], "answer": "4"}))
    ((_, record),) = Source.of(file, format="question").conversations()
    assert record.meta == {"choices": ["3"]}
    with pytest.raises(DataError, match="did you mean 'alpaca'"):
        list(Source.of(file, format="alpacca").records())


CALL = Message("assistant", tool_calls=(ToolCall("c1", "f", "{}"),))
ASK, SAY = Message("user", "a"), Message("assistant", "b")


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ((), "messages: empty"),
        ((SAY,), "messages.0.role: 'assistant' first"),
        ((ASK, ASK, SAY), "messages.1.role: 'user' after 'user'; expected assistant"),
        ((ASK, SAY, SAY), "messages.2.role: 'assistant' after 'assistant'"),
        ((ASK, SAY, Message("system", "x"), ASK, SAY), "messages.2.role: 'system' after"),
        ((ASK, Message("assistant", " \n")), "messages.1.content: an empty reply"),
        ((ASK, CALL, SAY), "messages.2.role: 'assistant' after 'assistant' that calls; expected tool"),
        ((ASK, CALL, Message("tool", "3", tool_call_id="c2"), SAY), "messages.2.tool_call_id: 'c2'"),
        ((ASK, SAY, ASK), "messages.2.role: the last turn is 'user'"),
        ((ASK, Message("assistant", "b", weight=0)), "every answer has weight 0"),
    ],
)
def test_a_conversation_nothing_can_be_learned_from_is_told_why(messages: tuple[Message, ...], error: str) -> None:
    with pytest.raises(DataError, match=error):
        check_answered(Conversation(messages))


def test_calls_and_their_results_are_in_order() -> None:
    check_answered(
        Conversation((Message("system", "s"), ASK, CALL, Message("tool", "3", tool_call_id="c1"), SAY, ASK, SAY))
    )


def test_candidates_need_scores_and_answers() -> None:
    row = {
        "messages": [{"role": "user", "content": "a"}],
        "candidates": [{"messages": [{"role": "assistant", "content": "b"}]}],
    }
    with pytest.raises(DataError, match=r"candidates.0.score: missing"):
        check_candidates(Conversation.from_json(row))
    row["candidates"][0] |= {"score": 1, "messages": [{"role": "user", "content": "b"}]}
    with pytest.raises(DataError, match=r"candidates.0: messages.1.role: 'user' after 'user'"):
        check_candidates(Conversation.from_json(row))


# What lies in the shared folder: records, rows that cannot be read, and those nothing can be learned from. The bad ones are
# flaws of the sets: results no call asked for, empty answers, two answers in a row.
REAL = [
    ("sft_self_instruct", Conversation, 175, 0, 0),
    ("sft_dolly", Conversation, 5798, 0, 0),
    ("sft_oasst/en_100_tree.jsonl.gz", Conversation, 254, 0, 0),
    ("sft_oasst/zh_pairs.jsonl.gz", Conversation, 775, 0, 0),
    ("sft_oasst/zh_sft.jsonl.gz", Conversation, 766, 0, 0),
    ("sft_toolcall", Conversation, 598, 2, 0),
    ("dpo/dpo_en_demo.jsonl.gz", Conversation, 300, 0, 0),
    ("dpo/dpo_zh_demo.jsonl.gz", Conversation, 300, 0, 0),
    ("dpo/hh_harmless_dev.jsonl.gz", Conversation, 1787, 0, 9),
    ("gsm8k/train.jsonl.gz", Conversation, 7473, 0, 0),
    ("english_web", Document, 301, 0, 0),
    ("chinese_poetry/song_ci.jsonl.gz", Document, 20200, 0, 0),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(("path", "kind", "good", "bad", "useless"), REAL)
def test_real_sets_are_read_as_they_lie_there(path: str, kind: type, good: int, bad: int, useless: int) -> None:
    errors: list[DataError] = []
    records = [record for _, record in Source.of(SHARED / path).records(lambda _, error: errors.append(error))]
    assert ({type(r) for r in records}, len(records), len(errors)) == ({kind}, good, bad)
    refused = 0
    for record in records:
        if isinstance(record, Conversation):
            try:
                (check_candidates if record.candidates else check_answered)(record)
            except DataError:
                refused += 1
    assert refused == useless


def test_a_place_reads_as_file_and_line() -> None:
    assert str(Place("a.jsonl", 3)) == "a.jsonl:3"


def test_a_folder_says_what_of_it_is_not_read_and_leaves_what_is_hidden(tmp_path: Path) -> None:
    for name in (
        "a.jsonl",
        "B.JSONL",
        "c.csv",
        "deep/d.parquet",
        ".ipynb_checkpoints/a.jsonl",
        ".hidden.jsonl",
        "LICENSE",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a text"}\n')
    source = Source.of(tmp_path)
    assert [file.name for file in source.files()] == ["B.JSONL", "a.jsonl"]
    assert len([*source.records()]) == 2
    assert [file.name for file in source.unread()] == ["c.csv", "d.parquet"]
    audit = look(source)
    assert any("2 files are not read, first" in note and "c.csv" in note for note in audit.notes())
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit


@pytest.mark.parametrize(("name", "codec", "says"), [
    ("a.jsonl", "gbk", "not UTF-8 at byte .* iconv -f GB18030"),
    ("a.jsonl", "utf-16", "not UTF-8 at byte 0.* iconv -f UTF-16"),
    ("a.txt", "utf-16", "not UTF-8 at byte 0.* iconv -f UTF-16"),
])  # fmt: skip
def test_text_in_another_encoding_says_how_to_convert_it(tmp_path: Path, name: str, codec: str, says: str) -> None:
    (tmp_path / name).write_bytes('{"text": "世界"}\n'.encode(codec))
    with pytest.raises(DataError, match=rf"{name}:1: {says}"):
        [*Source.of(tmp_path / name).records()]


@pytest.mark.parametrize(("name", "text"), [
    ("a.jsonl", '{"text": "one"}\n{"text": "two", "meta": {"b": 1}, "text": "three"}\n'),
    ("a.jsonl", '{"text": "one"}\n{"messages": [{"role": "user", "content": "a", "role": "user"}]}\n'),
    ("a.json", '[{"text": "one"}, {"text": "two", "text": "three"}]'),
])  # fmt: skip
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """Parsers keep the last, and which was meant nobody knows."""
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"a\.json.*(text|role): is there twice"):
        [*Source.of(tmp_path / name).records()]


def test_a_folders_readme_is_about_its_rows_and_none_of_them(tmp_path: Path) -> None:
    """Hubs keep a data set's card there."""
    (tmp_path / "deep").mkdir()
    for name in ("README.md", "rows.jsonl", "deep/README.md"):
        (tmp_path / name).write_text('{"text": "a text"}\n')
    source = Source.of(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in source.files()] == ["deep/README.md", "rows.jsonl"]
    assert source.unread() == [tmp_path / "README.md"]
    assert len([*Source.of(tmp_path / "README.md").records()]) == 1
