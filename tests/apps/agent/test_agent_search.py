"""An agent searches documents until it has enough, and no longer."""

import asyncio
from dataclasses import replace
from pathlib import Path

from apps_agent import Speech, sent

from myna.apps.agent import Agent, Ended, Memory, Session, run
from myna.apps.agent.search import NOTHING_NEW, OVER, search_tool
from myna.apps.index.file import FileIndex
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import read_file
from myna.apps.tools import Asked
from myna.provider import Scripted
from myna.records import Json


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


async def yes(asked: Asked) -> bool:
    return True


def reader(index: FileIndex, memory: Memory, speech: Speech) -> Agent:
    return Agent("reader", "", (search_tool(index, passages=1),), memory=memory, speech=speech.speech)


def test_what_is_remembered_says_which_documents_had_been_read(speech: Speech, tmp_path: Path) -> None:
    index, memory = indexed(tmp_path), Memory(tmp_path / "memory.sqlite")
    sha = {one.name.rpartition("/")[2]: one.sha256 for one in asyncio.run(index.documents())}

    def told(agent: Agent, *calls: tuple[str, Json], task: str = "Go on.") -> Ended:
        said = [*(speech.call(name, arguments) for name, arguments in calls), speech.answer("ok")]
        return asyncio.run(run(agent, task, Scripted(said), ask=yes))

    agent = reader(index, memory, speech)
    told(agent, ("remember", {"text": "Nothing was read yet."}))
    told(
        reader(index, memory, speech),
        ("search", {"question": "How many people has Lyon?"}),
        ("remember", {"text": "Lyon is large."}),
        ("search", {"question": "杭州有多少人？"}),
        ("remember", {"text": "杭州更大。"}),
    )
    told(agent, ("recall", {"query": "Lyon"}), ("remember", {"text": "Somebody asked for large places."}))
    told(agent, ("remember", {"text": "The user asks again."}), task="Is Lyon large?")
    theirs = Memory(tmp_path / "other.sqlite")
    helper, native = reader(index, theirs, speech), Speech("native")
    tools = (replace(search_tool(index, passages=1), name="look"),)
    boss = Agent("boss", "", tools, helpers=(helper,), memory=memory, speech="native")
    said = [
        native.call("look", {"question": "杭州有多少人？"}),
        native.call("reader", {"task": "Is it cold in Oslo?"}),
        speech.call("search", {"question": "Oslo cold"}),
        speech.call("remember", {"text": "It is cold there."}),
        speech.answer("cold"),
        native.call("remember", {"text": "Oslo: take a coat."}),
        native.answer("ok"),
    ]
    asyncio.run(run(boss, "What to wear?", Scripted(said), ask=yes))
    lyon, both = frozenset({sha["lyon.md"]}), frozenset({sha["lyon.md"], sha["hz.md"]})
    assert {one.text: one.documents for one in memory.all()} == {
        "Nothing was read yet.": frozenset(),
        "Lyon is large.": lyon,
        "杭州更大。": both,
        "Somebody asked for large places.": lyon,
        "The user asks again.": lyon,
        "Oslo: take a coat.": {sha["hz.md"], sha["oslo.md"]},
    }
    assert [one.documents for one in theirs.all()] == [{sha["hz.md"], sha["oslo.md"]}]
    assert memory.forget_documents(lyon) == 4
    index.close()


def test_a_session_that_is_read_back_knows_what_it_has_read() -> None:
    session = Session.of("Go on.")
    session.documents |= {"aa", "bb"}
    assert Session.from_json(session.to_json(), ours=True).documents == {"aa", "bb"}
