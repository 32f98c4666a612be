"""myna tokenizer: text in, a directory out, and figures to judge it by."""

import gzip
import json
from pathlib import Path

import pytest

import myna.chat
from myna.chat import Chat
from myna.commands import tokenizer
from myna.records import ChatError, DataError, MynaError

SOURCE = [file.read_text() for file in sorted(Path(myna.chat.__file__).parent.glob("*.py"))]
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The same kinds of text in every kind of file."""
    text, rows, talk = tmp_path / "a.txt", tmp_path / "b.jsonl.gz", tmp_path / "c.jsonl"
    text.write_text("".join(SOURCE[::2]))
    rows.write_bytes(
        gzip.compress("".join(json.dumps({"text": t}) + "\n" for t in [*SOURCE[1::2], POEM * 30]).encode())
    )
    turns = [{"role": "user", "content": "Who wrote it?"}, {"role": "assistant", "content": "Li Bai (李白)."}]
    talk.write_text(json.dumps({"messages": turns}) + "\n")
    return [text, rows, talk]


def test_a_tokenizer_is_made_and_told_of(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own"
    tokenizer.train_from(*files, out=out, vocab=900)
    chat = Chat.load(out)
    assert chat.tokenizer.vocab_size == 900
    assert len(chat.tokenizer.encode(POEM)) < len(POEM), "it was never shown the poem"
    lineage = json.loads((out / "lineage.json").read_text())
    assert [Path(data["path"]).name for data in lineage["data"]] == ["a.txt", "b.jsonl.gz", "c.jsonl"]
    assert lineage["vocab"] == 900
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == str(out)
    assert "held out" in shown.out
    assert '"what": "reading"' in shown.err
    last = [json.loads(line) for line in shown.err.splitlines() if "progress" in line][-1]
    assert last["done"] == last["total"] > 100_000


def test_an_existing_directory_is_kept_unless_told(files: list[Path], tmp_path: Path) -> None:
    tokenizer.train_from(*files, out=tmp_path / "own", vocab=300)
    with pytest.raises(MynaError, match="exists"):
        tokenizer.train_from(*files, out=tmp_path / "own", vocab=400)
    assert Chat.load(tmp_path / "own").tokenizer.vocab_size == 300
    tokenizer.train_from(*files, out=tmp_path / "own", vocab=400, replace=True)
    assert Chat.load(tmp_path / "own").tokenizer.vocab_size == 400


def test_nothing_is_left_of_a_failure(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="gives"):
        tokenizer.train_from(files[2], out=tmp_path / "own", vocab=900)
    with pytest.raises(DataError, match=r"nowhere.txt"):
        tokenizer.train_from(tmp_path / "nowhere.txt", out=tmp_path / "own")
    files[2].write_text('{"messages": [{"role": "usr", "content": "x"}]}\n')
    with pytest.raises(DataError, match=r"c\.jsonl:1: messages\.0"):
        tokenizer.train_from(*files, out=tmp_path / "own")
    with pytest.raises(MynaError, match="FILES"):
        tokenizer.train_from(out=tmp_path / "own")
    assert not [*tmp_path.glob("own*")]


def test_held_out_pieces_are_spread_evenly_and_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "ENOUGH", 20)
    kept = tokenizer._HeldOut(f"{i:04}" for i in range(3000))
    learned = [*kept.learned()]
    assert 3000 - 120 <= len(learned) < 3000
    assert not {*learned} & {*kept.texts}
    assert 2 <= len(kept.texts) <= 6
    assert int(kept.texts[-1]) > 1500


def test_compare_says_how_dense_each_is_and_which_lose_text(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, vocab in (("small", 300), ("large", 1500)):
        tokenizer.train_from(*files, out=tmp_path / name, vocab=vocab)
    capsys.readouterr()
    tokenizer.compare(str(tmp_path / "small"), str(tmp_path / "large"), on=[files[0]])
    rows = {Path(line.split()[0]).name: line.split()[1:] for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows["small"][0] == "300"
    assert rows["large"][0] == "1,500"
    assert 1 < float(rows["small"][1]) < float(rows["large"][1]) < 8
    with pytest.raises(MynaError, match="nosuch"):
        tokenizer.compare("nosuch", on=[files[0]])
    with pytest.raises(MynaError, match="compare what"):
        tokenizer.compare(on=[files[0]])
