"""myna extract, from the command line."""

import json
from pathlib import Path

import pytest

from myna.commands import app
from myna.records import DataError, RequestError

SCHEMA = {
    "type": "object",
    "properties": {"编号": {"type": "string"}, "total": {"type": "number"}},
    "required": ["编号"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "trace.sqlite"))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "发票.md").write_text("发票编号 R-12\n\nTotal: 80.50\n", encoding="utf-8")
    return tmp_path


def leaf(value: object, quote: str | None) -> dict[str, object]:
    return {"_quote": quote, "_value": value}


def script(folder: Path, *answers: object) -> str:
    (folder / "answers.jsonl").write_text("".join(json.dumps(json.dumps(one)) + "\n" for one in answers))
    return f"script:{folder / 'answers.jsonl'}"


def test_fields_come_with_their_words_and_where_they_stand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = script(folder, {"编号": leaf("R-12", "发票编号 R-12"), "total": leaf(81, "Total: 80.50")})
    files = [str(folder / "schema.json"), str(folder / "发票.md")]
    app(["extract", *files, "--model", model, "--json"], result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert (found["value"], found["found"]) == ({"编号": "R-12"}, {"编号": "R-12", "total": None})
    words = {one["path"]: (one["text"], one["doubt"]) for one in found["fields"]}
    assert words == {"编号": ("发票编号 R-12", ""), "total": ("", "81 was said; its words do not have 81")}


def test_what_the_document_does_not_give_is_said_and_exits_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = script(folder, {"编号": leaf(None, None)})
    with pytest.raises(SystemExit) as left:
        app(
            ["extract", str(folder / "schema.json"), str(folder / "发票.md"), "--model", model],
            result_action="return_value",
        )
    assert left.value.code == 1
    assert '"编号" is a required property' in capsys.readouterr().out


def test_what_the_model_made_up_is_said_of_each_document_and_exits_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.md").write_text("编号 R-13", encoding="utf-8")
    made_up = {"编号": leaf("R-99", "编号 R-99"), "total": leaf(12.5, "Sum: EUR 12.50")}
    model = script(folder, made_up, {"编号": leaf("R-13", "R-13"), "total": leaf(12.5, "Sum: EUR 12.50")})
    files = [str(folder / name) for name in ("schema.json", "发票.md", "b.md")]
    with pytest.raises(SystemExit) as left:
        app(["extract", *files, "--model", model, "--json"], result_action="return_value")
    assert left.value.code == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["value"], first["problems"]) == (None, ['it: "编号" is a required property'])
    assert [one["doubt"] for one in first["fields"]] == [
        "R-99 was said; its words are not in the document", "12.5 was said; its words are not in the document",
    ]  # fmt: skip
    assert (second["value"], second["problems"]) == ({"编号": "R-13"}, [])


def test_a_document_that_cannot_be_read_does_not_keep_others_from_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7\nnothing")
    model = script(folder, {"编号": leaf("R-12", "R-12")})
    files = [str(folder / name) for name in ("schema.json", "bad.pdf", "发票.md")]
    with pytest.raises(SystemExit) as left:
        app(["extract", *files, "--model", model], result_action="return_value")
    assert left.value.code == 1
    said = capsys.readouterr()
    assert "bad.pdf" in said.err
    assert "R-12" in said.out


def test_a_budget_ends_one_document_and_not_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "long.md").write_text("很长。" * 2000, encoding="utf-8")
    model = script(folder, {"编号": leaf("R-12", "R-12")})
    files = [str(folder / name) for name in ("schema.json", "long.md", "发票.md")]
    with pytest.raises(SystemExit) as left:
        app(["extract", *files, "--model", model, "--tokens", "6000"], result_action="return_value")
    said = capsys.readouterr()
    assert left.value.code == 1
    assert "long.md" in said.err
    assert "tokens: 6,000 left, and " in said.err
    assert "R-12" in said.out
    with pytest.raises(RequestError, match="seconds"):
        app(["extract", *files, "--model", "script:none", "--seconds", "nan"], result_action="return_value")


def test_an_extraction_is_recorded_and_given_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = script(folder, {"编号": leaf("R-12", "R-12")})
    files = [str(folder / "schema.json"), str(folder / "发票.md")]
    app(["extract", *files, "--model", model, "--json"], result_action="return_value")
    first = capsys.readouterr().out
    replayed = f"replay:{folder / 'trace.sqlite'}#1"
    app(["extract", *files, "--model", replayed, "--json", "--trace", str(folder / "other.sqlite")], result_action="return_value")  # fmt: skip
    assert capsys.readouterr().out == first


def test_a_long_text_without_blanks_is_printed_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "".join(chr(0x4E00 + i) for i in range(150))  # wider than a terminal
    (folder / "long.md").write_text(f"编号 {name}", encoding="utf-8")
    model = script(folder, {"编号": leaf(name, name)})
    app(
        ["extract", str(folder / "schema.json"), str(folder / "long.md"), "--model", model],
        result_action="return_value",
    )
    out = capsys.readouterr().out
    assert "…" not in out
    assert set(name) <= set(out)


def test_a_folder_a_schema_of_nothing_and_what_is_no_schema_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", script(folder))
    with pytest.raises(SystemExit):
        app(["extract", str(folder / "schema.json"), str(folder), *model], result_action="return_value")
    assert f"{folder}: it is a folder; name the documents in it" in capsys.readouterr().err
    (folder / "none.json").write_text('{"type": "object", "properties": {}}')
    with pytest.raises(RequestError, match="one at least"):
        app(["extract", str(folder / "none.json"), str(folder / "发票.md"), *model], result_action="return_value")
    with pytest.raises(DataError, match="is no JSON"):
        app(["extract", str(folder / "发票.md"), str(folder / "发票.md"), *model], result_action="return_value")
