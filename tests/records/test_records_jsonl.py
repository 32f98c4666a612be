"""JSON lines: errors name file, line and field; files of any size stream; writing is whole or not at all."""

import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from myna.records import Conversation, DataError, Document
from myna.records.jsonl import read, read_rows, unopened, write

GOOD = Conversation.of(("user", "你好，世界"), ("assistant", "Hello 🐦"), id="c1")


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    rows = [GOOD, Conversation.ask("b"), Conversation.ask("")]
    assert write(tmp_path / name, rows) == 3
    assert list(read(tmp_path / name, Conversation)) == rows


def test_documents_too(tmp_path: Path) -> None:
    rows = [Document("静夜思\n床前明月光"), Document("x", meta={"source": {"page": 3}})]
    write(tmp_path / "d.jsonl", rows)
    assert list(read(tmp_path / "d.jsonl", Document)) == rows


def test_text_is_readable_on_disk(tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", [GOOD])
    assert "你好，世界" in (tmp_path / "d.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "robot"}]}, "messages.1.role: 'robot' is not one of"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.tool_call_id: missing"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "messages.0.content: expected a string or a list, found an int",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content.0.type: 'video'"),
        ({"messages": [{"role": "user", "weight": 2}]}, "messages.0.weight: 2 is neither 0 nor 1"),
        ({"messages": [{"role": "user", "weight": True}]}, "messages.0.weight: expected an integer, found a boolean"),
        ({"messages": "hi"}, "messages: expected a list, found a string"),
        ({"message": []}, "messages: missing"),
        ({"messages": [], "candidates": [{"score": "high"}]}, "candidates.0.score: expected an integer or a number"),
        (
            {"messages": [], "candidates": [{"tokens": {"ids": [1, -1]}}]},
            "candidates.0.tokens.ids.1: expected a token id",
        ),
        (
            {"messages": [], "candidates": [{"tokens": {"ids": [1], "logprobs": [0.1, 0.2]}}]},
            "candidates.0.tokens.logprobs: 2 values for 1 ids",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "tool_calls.0.function.name: missing",
        ),
        ({"messages": [], "tools": ["x"]}, "tools.0: expected an object, found a string"),
        ([], "row: expected an object, found a list"),
        ("{", "not JSON"),
        ('{"messages": [}', "not JSON"),
    ],
)
def test_errors_name_file_line_and_field(row: object, says: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", GOOD.to_json(), "", row)
    rows = read(path, Conversation)
    assert next(rows) == GOOD
    with pytest.raises(DataError) as error:
        next(rows)
    assert str(error.value).startswith(f"{path}:3: ")
    assert says in str(error.value)


def test_a_byte_order_mark_and_windows_line_ends_are_no_errors(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"text": "一"}\r\n\r\n{"text": "二"}\r\n'.encode())
    assert [(line, row) for line, row in read_rows(path)] == [(1, {"text": "一"}), (3, {"text": "二"})]


def test_bytes_that_are_not_utf8_are_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not JSON"):
        list(read_rows(path))


@pytest.mark.parametrize("keep", [10, 100, -9])
def test_a_cut_gzip_file_is_an_error_not_an_end(keep: int, tmp_path: Path) -> None:
    whole, path = tmp_path / "w.jsonl.gz", tmp_path / "cut.jsonl.gz"
    write(whole, [Document(f"row {i} {hash(str(i))}") for i in range(200)])
    path.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz:\d+: cannot read"):
        list(read(path, Document))


def test_a_file_that_cannot_be_opened_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "答案.jsonl").write_text("1")
    for name, said in (
        ("答案s.jsonl", f"there is no file {tmp_path}/答案s.jsonl; did you mean {tmp_path}/答案.jsonl?"),
        ("zzz", f"there is no file {tmp_path}/zzz; `ls {tmp_path}` shows what there is."),
        ("none/zzz", f"there is no file {tmp_path}/none/zzz, and no folder {tmp_path}/none."),
        (".", f"{tmp_path} is a folder; name a file in it."),
    ):
        with pytest.raises(DataError) as refused:
            list(read_rows(tmp_path / name))
        assert str(refused.value) == said
    assert "may not be read" in unopened(tmp_path / "答案.jsonl", PermissionError())


def test_a_gzip_file_with_broken_bytes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl.gz"
    write(path, [Document(f"row {i} {hash(str(i))}") for i in range(200)])
    whole = path.read_bytes()
    for at in range(0, len(whole) - 8, 37):  # gzip's own header and checksum, and what zlib makes of the middle
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(DataError):  # a byte of its header may not matter
            assert len(list(read(path, Document))) == 200


@pytest.mark.parametrize("place", ["none/rows.jsonl", "", "file/rows.jsonl"])
def test_a_place_that_cannot_be_written_is_an_error_with_its_name(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        write(tmp_path / place, [Document("a")])


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl"):
        list(read(tmp_path / "none.jsonl", Document))


def test_an_unfinished_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, [Document("old")])

    def broken() -> Iterator[Document]:
        yield Document("new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(path, broken())
    assert list(read(path, Document)) == [Document("old")]


def test_a_file_may_be_rewritten_from_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, [Document("a"), Document("b")])
    write(path, (Document(row.text + "!") for row in read(path, Document)))
    assert [row.text for row in read(path, Document)] == ["a!", "b!"]


STREAM = """
import resource, sys
from myna.records import Document
from myna.records.jsonl import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read(sys.argv[1], Document))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_is_read_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        row = json.dumps({"text": "x" * 10_000}) + "\n"
        for _ in range(6000):  # 60 MB of text
            file.write(row)
    said = subprocess.run([sys.executable, "-c", STREAM, str(path)], capture_output=True, text=True, check=True).stdout
    count, grown = map(int, said.split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert count == 6000
    assert grown * unit < 10e6


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_a_file_of_two_byte_letters_says_how_to_save_it(coding: str, tmp_path: Path) -> None:
    (tmp_path / "u.jsonl").write_bytes(('\ufeff{"messages": []}\n').encode(coding))
    with pytest.raises(DataError, match=r"u\.jsonl:1: not UTF-8 at byte 0: it is UTF-16\. Convert the file: iconv"):
        [*read_rows(tmp_path / "u.jsonl")]
