"""Documents like others, by words and by vectors."""

import asyncio
from pathlib import Path

import pytest
from test_file_index import Letters, document

from myna.apps.index.file import FileIndex
from myna.apps.index.fusion import Fitted
from myna.apps.index.like import compare, similar
from myna.records import RequestError

TEXTS = {
    "pump.md": "The pump moves water. Clean the pump's filter every week. A dry pump burns.",
    "filter.md": "A filter holds back dirt. Change the filter of the pump once a year.",
    "tides.md": "Tides rise with the moon. Water comes and goes.",
    "水泵.md": "水泵输送水。每周清洗水泵的过滤器。干转的水泵会烧坏。",
    "过滤器.md": "过滤器挡住污物。每年更换水泵的过滤器。",
    "月亮.md": "潮汐随月亮涨落。",
}


def made(path: Path, embedder: Letters | None = None) -> FileIndex:
    index = FileIndex(path, embedder)
    asyncio.run(index.add(document(name, text) for name, text in TEXTS.items()))
    return index


def names(index: FileIndex, *like: str, unlike: tuple[str, ...] = (), k: int = 10) -> list[str]:
    return [one.names[0] for one in similar(index, like, unlike, k)]


def test_the_nearest_document_speaks_of_the_same_in_its_own_language(tmp_path: Path) -> None:
    index = made(tmp_path / "i")
    assert names(index, "pump.md")[0] == "filter.md"
    assert names(index, "水泵.md")[0] == "过滤器.md"
    assert "pump.md" not in names(index, "pump.md")
    assert names(index, "pump.md", k=1) == ["filter.md"]


def test_what_is_not_wanted_turns_the_search_away_from_it(tmp_path: Path) -> None:
    index = made(tmp_path / "i")
    asyncio.run(
        index.add(
            [document("sieve.md", "A sieve is a filter that holds back dirt."), document("river.md", "Water moves.")]
        )
    )
    turned = {one.names[0]: one.words for one in similar(index, ["pump.md"], ["filter.md"])}
    plain = {one.names[0]: one.words for one in similar(index, ["pump.md"])}
    assert "filter.md" in plain
    assert "filter.md" not in turned
    assert plain["sieve.md"] > 0
    assert turned["sieve.md"] / turned["river.md"] < plain["sieve.md"] / plain["river.md"] / 1.2


def test_several_documents_are_one_wish(tmp_path: Path) -> None:
    assert set(names(made(tmp_path / "i"), "pump.md", "水泵.md")[:2]) == {"filter.md", "过滤器.md"}


def test_a_document_is_as_like_itself_as_can_be_and_likeness_has_no_direction(tmp_path: Path) -> None:
    index = made(tmp_path / "i", Letters())
    itself = compare(index, "pump.md", "pump.md")
    assert itself.words == pytest.approx(1)
    assert itself.vectors == pytest.approx(1, abs=1e-5)
    there, back = compare(index, "pump.md", "filter.md"), compare(index, "filter.md", "pump.md")
    assert there == back
    assert 0 < there.words < 1
    assert {"pump", "filter"} <= set(there.shared)
    assert compare(index, "pump.md", "月亮.md").shared == ()


def test_vectors_decide_where_they_were_given_all_the_weight(tmp_path: Path) -> None:
    index = made(tmp_path / "i", Letters())
    asyncio.run(index.keep(Fitted(1.0, 99, 0, 1, 1)))
    found = similar(index, ["pump.md"])
    assert [one.vectors for one in found] == sorted((one.vectors or 0 for one in found), reverse=True)
    assert len(found) == len(TEXTS) - 1
    assert found[0].vectors == compare(index, "pump.md", found[0].names[0]).vectors


@pytest.mark.parametrize("like", [(), ("nobody.md",)])
def test_names_that_are_not_there_are_said(tmp_path: Path, like: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match=r"nobody\.md is not in|nothing that"):
        similar(made(tmp_path / "i"), like)


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_document_cannot_be_asked_for(tmp_path: Path, k: int) -> None:
    with pytest.raises(RequestError, match="at least one document"):
        similar(made(tmp_path / "i"), ["pump.md"], k=k)


def test_looking_leaves_no_trace_in_the_file(tmp_path: Path) -> None:
    index = made(tmp_path / "i")
    before = list(index.store._db.execute("SELECT name FROM sqlite_master"))
    names(index, "pump.md")
    assert list(index.store._db.execute("SELECT name FROM sqlite_master")) == before
