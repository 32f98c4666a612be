"""An agent searches documents until it has enough, and no longer."""

import asyncio
from pathlib import Path

from apps_agent import Speech, sent

from myna.apps.agent import Agent, run
from myna.apps.agent.search import NOTHING_NEW, OVER, search_tool
from myna.apps.index.file import FileIndex
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import read_file
from myna.provider import Scripted


def indexed(folder: Path) -> FileIndex:
    texts = {
        "lyon.md": "# Lyon\n\nLyon has 522,000 people.",
        "hz.md": "# 杭州\n\n杭州有一千二百万人。",
        "oslo.md": "# Oslo\n\nOslo is cold.",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    index = FileIndex(folder / "index.sqlite")
    asyncio.run(index.add(read_file(folder / name) for name in texts))
    return index


def test_it_searches_again_in_other_words_and_stops_when_nothing_is_new(speech: Speech, tmp_path: Path) -> None:
    index = indexed(tmp_path)
    agent = Agent("reader", "", (search_tool(index, searches=4, passages=1),), speech=speech.speech)
    words = ("How many people has Lyon?", "Lyon people", "杭州人口", "Oslo", "Lyon again")
    script = Scripted(
        [*(speech.call("search", {"question": one}) for one in words), speech.answer("522,000 and 12 million")]
    )
    ended = asyncio.run(run(agent, "Lyon and 杭州?", script))
    results = [one.result for one in ended.outcomes]
    assert ended.tainted
    assert "522,000" in results[0]
    assert results[1] == NOTHING_NEW
    assert "一千二百万" in results[2]
    assert results[4] == OVER
    sha, span = results[0][1:].split("]")[0].split(":")
    start, end = map(int, span.split("-"))
    (document,) = [one.sha256 for one in asyncio.run(index.documents()) if one.sha256.startswith(sha)]
    parsed = index.parsed(document)
    assert isinstance(parsed, Parsed)
    assert "522,000" in parsed.text[start:end]
    assert "<untrusted" in sent(script)
    index.close()
