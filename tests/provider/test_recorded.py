"""A recorded run answers as it did, without a model and without a network."""

import asyncio
import socket
from pathlib import Path

import pytest

from myna.provider import Provider, Scripted, complete, powers
from myna.provider.connect import connect
from myna.provider.recorded import Recorded
from myna.provider.traced import Traced
from myna.records import (
    Candidate,
    Conversation,
    DataError,
    Form,
    Message,
    ProviderError,
    Reply,
    RequestError,
    Sampling,
    ToolCall,
    Usage,
)
from myna.trace import Trace
from myna.trace.read import runs


async def app(provider: Provider) -> list[Message]:
    """Some calls, one of which fails, two of which are equal."""
    talk = Conversation.ask("天气?")
    for _ in range(3):
        reply = await complete(provider, talk, Sampling(seed=1))
        talk = talk + reply.message + Message("user", "再说一遍")
    with pytest.raises(ProviderError, match="gone"):
        await complete(provider, Conversation.ask("fails"))
    twins = [await complete(provider, Conversation.ask("dice")) for _ in range(2)]
    return [*talk.messages, *(reply.message for reply in twins)]


SCRIPT = [
    Message("assistant", "", reasoning_content="查", tool_calls=(ToolCall("c", "weather", '{"城市":"北京"}'),)),
    "晴", "还是晴", ("half", ProviderError("gone")), "4", "6",
]  # fmt: skip


def record(path: Path) -> tuple[int, list[Message]]:
    trace = Trace(path)
    with trace.span("flow", "app") as span:
        said = asyncio.run(app(Traced(Scripted(SCRIPT), trace)))
    return span.id, said


def test_a_replayed_run_is_equal_and_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, said = record(tmp_path / "t.sqlite")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    again = Trace(tmp_path / "again.sqlite")
    with again.span("flow", "app"):
        replayed = asyncio.run(app(Traced(connect(f"replay:{tmp_path / 't.sqlite'}#{run}"), again)))
    assert [message.to_json() for message in replayed] == [message.to_json() for message in said]
    first, second = (runs(Trace(tmp_path / name).store)[0] for name in ("t.sqlite", "again.sqlite"))
    calls = [
        [(node.call.request, node.call.reply, node.call.usage) for node in run.below if node.call]
        for run in (first, second)
    ]
    assert calls[0] == calls[1]
    assert len(calls[0]) == 6


def test_a_request_that_was_not_made_says_where_it_differs(tmp_path: Path) -> None:
    run, said = record(tmp_path / "t.sqlite")
    provider = Recorded(Trace(tmp_path / "t.sqlite"), run)
    talk = Conversation(tuple(said[:3]))
    for what, sampling, where in (
        (Conversation.ask("other"), Sampling(seed=1), r"messages\.0"),
        (talk + Message("user", "不同"), Sampling(seed=1), r"messages\.3"),
        (talk, Sampling(seed=2), "sampled"),
    ):
        with pytest.raises(RequestError, match=where):
            asyncio.run(complete(provider, what, sampling))
    asyncio.run(complete(provider, Conversation.ask("dice")))
    asyncio.run(complete(provider, Conversation.ask("dice")))
    with pytest.raises(RequestError, match="more than 2 times"):
        asyncio.run(complete(provider, Conversation.ask("dice")))


def test_candidates_come_back_in_their_order(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    said = Reply(
        tuple(Candidate((Message("assistant", text),), finish_reason="stop") for text in "甲乙"), ((), ()), Usage(3, 2)
    )
    with trace.span("flow", "n") as span:
        asyncio.run(complete(Traced(Scripted([said]), trace), Conversation.ask("?"), Sampling(n=2)))
    again = asyncio.run(complete(Recorded(trace, span.id), Conversation.ask("?"), Sampling(n=2)))
    assert (again.candidates, again.usage) == (said.candidates, said.usage)


@pytest.mark.parametrize(
    ("where", "error"),
    [("replay:nowhere.sqlite#1", "no trace file"), ("replay:x", "names no run"), ("ollama:", "names no model"), ("openai:gpt", "OPENAI_API_KEY"),
     ("http://127.0.0.1:9", "list models")],
)  # fmt: skip
def test_a_string_that_names_nobody_says_why(where: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises((RequestError, ProviderError), match=error):
        connect(where)


def test_a_script_is_a_file_of_answers(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text('"你好"\n{"role": "assistant", "content": "B"}\n', encoding="utf-8")
    provider = connect(f"script:{file}")
    assert [asyncio.run(complete(provider, Conversation.ask("?"))).text for _ in range(2)] == ["你好", "B"]
    file.write_text('"a"\n{"role": "nobody"}\n')
    with pytest.raises(DataError, match=r"s\.jsonl:2: message\.role"):
        connect(f"script:{file}")


def test_a_run_keeps_the_forms_it_was_asked_for_so_that_they_are_asked_for_again(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("flow", "app") as span:
        asyncio.run(
            complete(Traced(Scripted(["7"]), trace), Conversation.ask("?"), Sampling(form=Form("regex", "[0-9]")))
        )
    assert powers.of(Recorded(trace, span.id)).forms == ("regex",)
    assert powers.of(Recorded(Trace(tmp_path / "u.sqlite"), record(tmp_path / "u.sqlite")[0])).forms == ()


def test_a_call_that_was_stopped_is_no_answer_to_replay(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    stopped = Traced(Scripted(["a whole answer that nobody waits for"]), trace).stream(Conversation.ask("?"))

    async def first() -> None:
        while not (await anext(stopped)).text:
            pass
        await stopped.aclose()

    asyncio.run(first())
    with pytest.raises(RequestError, match="has no calls"):
        Recorded(trace, 1)
