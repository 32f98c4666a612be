"""Progress: JSON lines for programs, a bar for people, nothing on stdout."""

import json
import sys

import pytest

from myna.modeldir import progress as module
from myna.modeldir.progress import note, progress


def test_programs_get_one_json_object_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.0)
    note("开始")
    with progress("下载", 100, done=40) as advance:
        advance(10)
        advance(50)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert lines[0] == {"event": "note", "text": "开始"}
    assert [line["done"] for line in lines[1:]] == [50, 100, 100]
    assert lines[-1]["eta"] == 0


def test_people_get_a_bar_with_the_name_and_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("Downloading [odd] name", 1000) as advance:
        advance(1000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Downloading [odd] name" in err
    assert "1.0/1.0 kB" in err
