"""myna index and myna search: what is printed, what is refused, and that a build costs nothing before somebody agrees."""

import asyncio
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from encoder_cases import encoder_oracle, write_encoder, write_tokenizer
from myna.apps.agent import Memory
from myna.commands import app
from myna.commands.index import either
from myna.records import DataError, MynaError, RequestError

FOLDER = {
    "bridge.md": "# Bridges\n\n## Old bridge\n\nThe old bridge over the river was built in 1871.\n",
    "桥.md": "# 桥\n\n这座老桥建于1871年。\n",
    "evil\x1b[31m.txt": "Nothing \x1b[31mred.",
    "people.txt": "Mary Somerville taught Ada Lovelace.",
}
READ = '{"names": ["Mary Somerville", "Ada Lovelace"], "facts": [{"from": "Mary Somerville", "how": "taught", "to": "Ada Lovelace"}]}'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MYNA_AGENTS", str(tmp_path / "agents"))
    monkeypatch.chdir(tmp_path)
    for name, text in FOLDER.items():
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    Path("s.jsonl").write_text("\n".join([json.dumps(READ)] * 9), encoding="utf-8")
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    myna(*words)
    return capsys.readouterr().out


def test_dates_are_listed_and_found_with_whose_word_they_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("docs/桥.md").write_text("---\ndate: 2021年5月\n---\n这座老桥建于1871年。\n", encoding="utf-8")
    os.utime("docs/bridge.md", (0, 1709632800))  # 5 March 2024
    myna("index", "add", "docs")
    listed = said(capsys, "index", "list")
    assert " 2024-03-05 (file) " in next(line for line in listed.splitlines() if "bridge.md" in line)
    assert " 2021-05 " in next(line for line in listed.splitlines() if "桥.md" in line)
    assert ", file of 2024-03-05 (Bridges" in said(capsys, "search", "bridge 1871", "-k", "1")
    assert ", as of 2021-05" in said(capsys, "search", "老桥", "-k", "1")
    hit = json.loads(said(capsys, "search", "老桥", "--json"))["hits"][0]
    assert hit["dated"] == {"day": "2021-05", "by": "document"}


def test_a_folder_is_added_listed_searched_and_removed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "index", "add", "docs")
    assert "new      docs/bridge.md: 2 chunks" in out
    assert "\x1b" not in out
    assert "4 documents read" in out
    assert "same     docs/bridge.md" in said(capsys, "index", "add", "docs")
    listed = said(capsys, "index", "list")
    assert "桥.md" in listed
    assert "\x1b" not in listed
    found = said(capsys, "search", "bridge 1871", "-k", "1")
    assert found.startswith("1. docs/bridge.md, ")
    assert "(Bridges > Old bridge)" in found
    assert "words alone" in found
    hit = json.loads(said(capsys, "search", "老桥", "--json"))["hits"][0]
    assert hit["names"] == ["docs/桥.md"]
    assert "1 of 1 documents removed" in said(capsys, "index", "remove", "docs/桥.md")
    assert "nothing was found" in said(capsys, "search", "老桥")
    with pytest.raises(DataError, match="1 name is not in"):
        myna("index", "remove", "docs/桥.md", "docs/bridge.md")


def test_what_agents_remember_from_a_document_goes_with_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("docs/copy.md").write_text(FOLDER["bridge.md"], encoding="utf-8")
    myna("index", "add", "docs")
    with either("index.sqlite") as index:
        sha = next(one.sha256 for one in asyncio.run(index.documents()) if "bridge" in one.name)
    for name in ("clerk-1", "reader-2"):
        with closing(Memory(here / "agents" / f"{name}.memory.sqlite")) as memory:
            asyncio.run(memory.remember("The bridge is old.", source="run 1", tainted=True, documents={sha}))
            asyncio.run(memory.remember("The user is young.", source="run 1"))
    assert "forgotten" not in said(capsys, "index", "remove", "docs/bridge.md")  # it has another name
    broken = here / "agents" / "a-0.memory.sqlite"
    broken.write_bytes(b"no database at all" * 100)
    with pytest.raises(MynaError, match=r"a-0\.memory\.sqlite"):
        myna("index", "remove", "docs/copy.md")
    assert "docs/copy.md" in said(capsys, "index", "list")
    broken.unlink()
    out = said(capsys, "index", "remove", "docs/copy.md")
    assert "1 of 1 documents removed\n2 memories that agents wrote after reading them: forgotten" in out
    with closing(Memory(here / "agents" / "reader-2.memory.sqlite")) as memory:
        assert [one.text for one in memory.all(history=True)] == ["The user is young."]


def test_equal_files_of_a_folder_are_each_there_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("docs/copy.md").write_text(FOLDER["bridge.md"], encoding="utf-8")
    assert "new      docs/copy.md: 2 chunks" in said(capsys, "index", "add", "docs")
    assert "docs/copy.md" in said(capsys, "index", "list")
    reported = said(capsys, "index", "report")
    assert "4 documents read" in reported
    assert "5 chunks, 0 with vectors" in reported
    assert "  docs/copy.md = docs/bridge.md" in reported
    myna("index", "remove", "docs/bridge.md")
    assert said(capsys, "search", "bridge 1871", "-k", "1").startswith("1. docs/copy.md, ")


def test_a_document_is_named_as_its_file_is_or_as_it_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, byte = "docs/a\nb.md", os.fsdecode(b"docs/\xff.md")
    Path(line).write_text("Windmill.")
    Path(byte).write_text("Windmill.")
    assert "new      docs/a\ufffd0ab.md" in said(capsys, "index", "add", line, byte)
    assert "same     docs/\ufffddcff.md" in said(capsys, "index", "add", "docs")
    assert "words 1.000" in said(capsys, "index", "compare", line, byte)
    assert said(capsys, "search", "--like", line) == "nothing was found\n"
    assert "2 of 2 documents removed" in said(capsys, "index", "remove", line, "docs/\ufffddcff.md")
    with pytest.raises(DataError, match="1 name is not in"):
        myna("index", "remove", byte)
    with pytest.raises(MynaError, match="name documents to remove"):
        myna("index", "remove")


def test_a_tree_over_documents_too_short_to_sum_up_is_built(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("index", "add", "docs")
    assert "there is no tree" in said(capsys, "search", "bridge", "--by", "tree")
    assert "0 summaries made" in said(capsys, "index", "build", "tree", "--by", "script:s.jsonl")
    found = said(capsys, "search", "bridge", "--by", "tree")
    assert "the tree does not reach 5 passages: too short for a summary" in found


def test_a_document_that_cannot_be_read_does_not_keep_others_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("坏.pdf").write_bytes(b"%PDF-1.7\nnothing")
    Path("empty").mkdir()
    with pytest.raises(SystemExit) as left:
        myna("index", "add", "docs/bridge.md", "坏.pdf", "nothing.md", "empty", "x" * 300, "docs/桥.md")
    assert left.value.code == 1
    said = capsys.readouterr()
    for line in ("new      docs/bridge.md: 2 chunks", "new      docs/桥.md: 1 chunk"):
        assert line in said.out.splitlines()
    first, second, third, fourth, last = said.err.splitlines()
    assert first.startswith("myna: 坏.pdf: ")
    assert second == "myna: there is no file nothing.md; `ls .` shows what there is."
    assert third.startswith(
        "myna: empty: there is no document in it that could be read. These are: .bmp .csv .docm .docx "
    )
    assert fourth.endswith("xx: File name too long")
    assert last == "myna: 4 of 6 could not be added"


def test_what_a_document_may_take_is_the_readers_to_say(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("docs/big.txt").write_text("mill " * 400_000)
    assert "big.txt: it has more than 1 MiB; `myna index add --size` (Limits.size) raises that" in said(
        capsys, "index", "add", "docs", "--size", 1
    )
    with pytest.raises(SystemExit):
        myna("index", "add", "docs/big.txt", "--seconds", 0.001)
    assert (
        "longer than 0.001 seconds; `myna index add --seconds` (Limits.seconds) raises that" in capsys.readouterr().err
    )
    assert "new      docs/big.txt" in said(capsys, "index", "add", "docs/big.txt", "--size", 2)
    for words in (("--size", 0), ("--seconds", -1)):
        with pytest.raises(MynaError, match="are more than 0, not"):
            myna("index", "add", "docs", *words)


def test_no_index_is_made_of_what_is_not_there(here: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file docs/bridge\.mdx; did you mean docs/bridge\.md\?"):
        myna("index", "add", "docs/bridge.mdx")
    with pytest.raises(DataError, match="xx cannot be opened: File name too long"):
        myna("index", "add", "x" * 300)
    assert not Path("index.sqlite").exists()


def test_one_is_not_several(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one").mkdir()
    Path("one/a.txt").write_text("x")
    out = said(capsys, "index", "add", "one")
    for what in ("1 chunk\n", "1 document read (1 text), 1 byte\n", "1 character, 0 pages", "0 files skipped"):
        assert what in out
    assert "1 chunk, 0 with vectors" in said(capsys, "index", "report")


def test_a_document_without_a_title_is_listed_by_its_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titles = {
        "a.html": "Untitled Document",
        "b.html": "untitled",
        "c.html": "无标题文档 2",
        "d.html": "Untitled sonnets",
    }
    for name, title in titles.items():
        Path(name).write_text(f"<title>{title}</title><p>{name}</p>", encoding="utf-8")
    myna("index", "add", *titles)
    listed = [line.split("  ")[1:] for line in said(capsys, "index", "list").splitlines()[1:]]
    assert [row[0].strip() for row in listed] == ["a.html", "b.html", "c.html", "Untitled sonnets"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("index", "add"), "name files"),
        (("index", "list"), "there is no index"),
        (("search", "x"), "there is no index"),
        (("index", "build", "tree"), "there is no index"),
        (("index", "tune", "--by", "tree"), "--questions"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(here: Path, words: tuple[str, ...], why: str) -> None:
    with pytest.raises(MynaError, match=why):
        myna(*words)
    assert not (here / "index.sqlite").exists()


def test_nothing_is_asked_of_a_model_before_somebody_agrees(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("index", "add", "docs")
    (here / "myna").mkdir()
    (here / "myna" / "prices.yaml").write_text("prices: [{model: 'script:*', input: 1, output: 2}]")
    with pytest.raises(MynaError, match="nothing was built"):
        myna("index", "build", "graph", "--by", "script:s.jsonl")
    out = capsys.readouterr().out
    assert "5 calls to script:s.jsonl, at most" in out
    assert "cost at most 0.00" in out
    assert "USD" in out
    assert "no graph" in said(capsys, "index", "report")


def test_a_graph_is_built_recorded_reported_and_searched(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("index", "add", "docs")
    out = said(capsys, "index", "build", "graph", "--by", "script:s.jsonl", "--yes", "--trace", "t.sqlite")
    assert "5 passages read, 0 of them without an answer of the form" in out
    assert "2 entities, 1 relation from 5 passages; 0 missing" in said(capsys, "index", "report")
    assert said(capsys, "index", "entity", "the mary  SOMERVILLE").startswith(
        "Mary Somerville —taught→ Ada Lovelace (docs/people.txt, "
    )
    with pytest.raises(DataError, match="no relation of 'Nobody'"):
        myna("index", "entity", "Nobody")
    found = said(capsys, "search", "Ada Lovelace", "--by", "graph")
    assert "by names Ada Lovelace" in found
    assert "weight 0.3 of graph, which is not fitted" in found
    assert "script:s.jsonl" in said(capsys, "trace", "list", "--trace", "t.sqlite")
    assert "0 calls" in said(capsys, "index", "build", "graph", "--by", "script:s.jsonl")


def test_a_tree_is_built_and_its_summaries_are_printed_beside_what_they_led_to(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "\n\n".join(
        f"The {word} runs on and on through the night. " * 8
        for word in ("river", "train", "engine", "clock", "horse", "river")
    )
    (here / "docs" / "long.md").write_text(f"# Things\n\n{long}", encoding="utf-8")
    myna("index", "add", "docs")
    Path("s.jsonl").write_text("\n".join([json.dumps("Locomotion \x1b[31mat night.")] * 9))
    out = said(capsys, "index", "build", "tree", "--by", "script:s.jsonl", "--yes")
    assert "summaries made, 0 of them empty" in out
    assert "tree by script:s.jsonl: " in said(capsys, "index", "report")
    found = said(capsys, "search", "locomotion", "--by", "tree")
    assert "docs/long.md" in found
    assert ": Locomotion [31mat night." in found
    assert "\x1b" not in found


def test_documents_like_others_and_how_like_they_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "docs" / "ford.md").write_text("The river has a ford beside the old bridge.", encoding="utf-8")
    myna("index", "add", "docs")
    assert said(capsys, "search", "--like", "docs/bridge.md").startswith("1. docs/ford.md  ")
    assert json.loads(said(capsys, "search", "--like", "docs/bridge.md", "--json"))[0]["names"] == ["docs/ford.md"]
    assert "shared: " in said(capsys, "index", "compare", "docs/bridge.md", "docs/ford.md")
    with pytest.raises(MynaError, match="not both"):
        myna("search", "bridge", "--like", "docs/bridge.md")
    with pytest.raises(RequestError, match="is not in the index"):
        myna("search", "--like", "nobody.md")


def test_vectors_are_made_fitted_and_weighed_on_questions_of_ones_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(here / "tiny", pooling="mean_tokens")
    out = said(capsys, "index", "add", "docs", "--embedder", here / "tiny")
    assert "too few to fit on" in out
    Path("q.jsonl").write_text(
        "\n".join(json.dumps({"question": "bridge", "name": "docs/bridge.md"}) for _ in range(25))
    )
    assert "25 given questions" in said(capsys, "index", "tune", here / "tiny", "--questions", "q.jsonl")
    assert "25 given questions" in said(capsys, "index", "add", "docs", "--embedder", here / "tiny")  # kept
    Path("q.jsonl").write_text('{"question": 3}')
    with pytest.raises(DataError, match=r"q\.jsonl:1"):
        myna("index", "tune", here / "tiny", "--questions", "q.jsonl")


def test_a_cross_encoder_reranks_and_makes_no_vectors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder_oracle("bert that scores", here / "cross")
    write_tokenizer(here / "cross")
    myna("index", "add", "docs")
    assert "ordered by cross" in said(capsys, "search", "bridge 1871", "--rerank", here / "cross")
    with pytest.raises(MynaError, match="makes no vectors"):
        myna("search", "bridge", "--embedder", here / "cross")
    with pytest.raises(MynaError, match="name the model"):
        myna("search", "bridge", "--rerank", "http://127.0.0.1:9/v1")


def test_qdrant_is_named_by_its_url_and_what_it_cannot_is_said(here: Path) -> None:
    pytest.importorskip("qdrant_client")
    for words in (("list",), ("add", "docs"), ("remove", "x")):
        with pytest.raises(MynaError, match=r"there is no answer: .*refused\. Start Qdrant"):
            myna("index", *words, "--index", "http://127.0.0.1:9#docs")
    with pytest.raises(MynaError, match="needs an index in a file"):
        myna("index", "report", "--index", "http://127.0.0.1:9#docs")
    with pytest.raises(MynaError, match="names no collection"):
        myna("search", "x", "--index", "http://127.0.0.1:9")
    with pytest.raises(MynaError, match="searched in a file"):
        myna("search", "x", "--index", "http://127.0.0.1:9#docs", "--by", "tree")
