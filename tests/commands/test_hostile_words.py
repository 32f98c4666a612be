"""What a stranger wrote into a model directory reaches the terminal as text, whatever it is."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from myna import commands
from myna.commands import list as list_command
from myna.commands import show
from myna.commands.options import printable, spoken
from myna.modeldir import cache_dir
from myna.records import ProviderError


def test_brackets_and_control_characters_are_shown() -> None:
    assert printable("[/x] [red]a\x1b[2J\n").plain == "[/x] [red]a\\x1b[2J\\x0a"


def test_an_answer_moves_no_cursor_and_keeps_its_lines() -> None:
    assert spoken("一\ttwo\n\x1b]0;title\x07\x9b2J") == "一\ttwo\n\\x1b]0;title\\x07\\x9b2J"


def test_words_are_not_turned_around() -> None:
    assert spoken("a\u202eb\u2066c\u2028d") == "a\\u202eb\\u2066c\\u2028d"
    assert printable("a\u202eb").plain == "a\\u202eb"


def test_what_is_typed_is_utf8(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["myna", "trace", "feedback", "1", "note", "caf\udce9"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "myna: argument 5 is not UTF-8: b'caf\\xe9'. Type it in UTF-8.\n"


@pytest.mark.filterwarnings("ignore:Cyclopts")
def test_a_file_may_be_called_what_is_no_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode("论文.md".encode("gbk"))
    Path(name).write_text("# 论文\n\n石桥建于1871年。\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["myna", "index", "add", name])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert not ended.value.code
    assert capsys.readouterr().out.endswith(".md: 1 chunk\n")


def test_an_error_moves_no_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ProviderError("The endpoint answered 500: busy \x1b[2J now")

    monkeypatch.setattr(commands, "app", fail)
    with pytest.raises(SystemExit):
        commands.main()
    assert capsys.readouterr().err == "myna: The endpoint answered 500: busy \\x1b[2J now\n"


def test_a_models_own_words_are_no_markup(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kernels").symlink_to(cache_dir() / "kernels")  # which take half a minute to compile
    monkeypatch.setenv("MYNA_HOME", str(tmp_path))
    place = tmp_path / "models" / "odd"
    shutil.copytree(smollm2, place)
    lineage = json.loads((place / "lineage.json").read_text())
    words = "[/nothing] \x1b[2J"
    (place / "lineage.json").write_text(json.dumps({**lineage, "source": words, "licence": words, "provenance": words}))
    list_command.run()
    assert "[/nothing] \\x1b[2J" in capsys.readouterr().out
    show.run("odd")
    assert capsys.readouterr().out.count("[/nothing] \\x1b[2J") == 3
