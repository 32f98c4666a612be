"""The trace file: what is in it is what happened, whatever happens."""

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from myna.provider import Scripted, complete
from myna.provider.traced import Traced
from myna.records import (
    Candidate,
    Conversation,
    DataError,
    Delta,
    Document,
    Form,
    Message,
    ProviderError,
    Reply,
    RequestError,
    Sampled,
    Sampling,
    Tokens,
    ToolCall,
    ToolChoice,
    Usage,
)
from myna.trace import Prices, Trace, TraceError
from myna.trace.prices import Price
from myna.trace.read import pass_rates, runs, total, tree
from myna.trace.request import read_reply, read_request, request_hash, write_reply, write_request

ASKED = Conversation.of(("system", "简短。"), ("user", "1+1?"))


def full(trace: Trace) -> None:
    """As if the disk were full: not a page more."""
    (pages,) = trace.store._db.execute("PRAGMA page_count").fetchone()
    trace.store._db.execute(f"PRAGMA max_page_count = {pages}")


def test_spans_go_below_the_one_that_is_open(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("flow", "答", question="几点?") as flow, trace.span("step", "one"), trace.span("tool", "clock"):
        pass
    with pytest.raises(ValueError, match="no"), trace.span("flow", "later"):
        raise ValueError("no")
    later, first = runs(trace.store)
    assert (first.id, first.kind, first.name, first.facts, first.outcome) == (
        flow.id,
        "flow",
        "答",
        {"question": "几点?"},
        "ok",
    )
    assert [(node.name, node.run) for node in first.spans] == [("答", flow.id), ("one", flow.id), ("clock", flow.id)]
    assert first.below[0].below[0].name == "clock"
    assert (later.outcome, later.error, later.below) == ("error", "ValueError: no", [])


def test_tasks_side_by_side_are_below_their_own_parent(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")

    async def branch(name: str) -> None:
        with trace.span("step", name):
            await asyncio.sleep(0)
            with trace.span("tool", f"{name}'s"):
                await asyncio.sleep(0)

    async def both() -> None:
        with trace.span("flow", "both"):
            await asyncio.gather(branch("a"), branch("b"))

    asyncio.run(both())
    (run,) = runs(trace.store)
    assert [(node.name, [one.name for one in node.below]) for node in run.below] == [("a", ["a's"]), ("b", ["b's"])]


def test_a_span_that_was_killed_stays_open(tmp_path: Path) -> None:
    script = f"""
import os
from myna.trace import Trace
trace = Trace({str(tmp_path / "t.sqlite")!r})
with trace.span("flow", "killed"):
    with trace.span("step", "done"): pass
    trace.begin("step", "open")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    (run,) = runs(Trace(tmp_path / "t.sqlite").store)
    assert [(node.name, node.outcome) for node in run.spans] == [("killed", None), ("done", "ok"), ("open", None)]


def test_requests_and_replies_come_back_as_they_were(tmp_path: Path) -> None:
    store = Trace(tmp_path / "t.sqlite").store
    sampling = Sampling(
        temperature=0.5, seed=7, stop=("\n", "。"), logit_bias=((3, -1.5),), form=Form("schema", "{}", strict=False),
        tool_choice=ToolChoice("named", "f"),
    )  # fmt: skip
    call = ToolCall("c1", "f", '{"x": 1')
    talk = Conversation(
        (*ASKED.messages, Message("assistant", "", tool_calls=(call,), tokens=Tokens((1, 2), (-0.1, -0.30000000000000004))),
         Message("tool", "三", tool_call_id="c1")), tools=({"type": "function", "function": {"name": "f"}},), continues=True,
    )  # fmt: skip
    ids = tuple(Sampled(n, b"", -n / 3) for n in range(3))
    told = (Sampled(None, b"\xe4", -0.1, (Sampled(None, b"\xe4", -0.1), Sampled(4, b"x", -2.0))),)
    one = Candidate(
        (Message("assistant", "好", reasoning_content="想"),),
        tokens=Tokens((0, 1, 2), (0.0, -1 / 3, -2 / 3)),
        finish_reason="stop",
    )
    two = Candidate((Message("assistant", "", tool_calls=(call,)),), finish_reason="tool_calls")
    for what in (talk, ASKED, Document("从前", suffix="。")):
        for reply in (Reply((one,), (ids,), Usage(1, 2, 0)), Reply((two, two), (told, ()), Usage(1, 2, 0))):
            with store.write() as db:
                asked, said = write_request(db, what, sampling), write_reply(db, reply)
            assert read_request(store, asked) == (what, sampling)
            assert request_hash(what, sampling) == asked
            assert read_reply(store, said, Usage(1, 2, 0)) == reply


def test_a_request_is_the_same_whatever_it_is_called() -> None:
    named = Conversation(ASKED.messages, id="7", target="2", meta={"from": "a test"})
    assert request_hash(named, Sampling()) == request_hash(ASKED, Sampling())
    assert request_hash(ASKED, Sampling(seed=1)) != request_hash(ASKED, Sampling())


def test_a_message_is_stored_once_however_often_it_is_sent(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    long = "很长的文章。" * 20_000
    provider = Traced(Scripted([f"第{n}" for n in range(10)]), trace)

    async def talk() -> None:
        asked = Conversation.of(("system", long), ("user", "0"))
        for n in range(10):
            reply = await complete(provider, asked)
            asked = asked + reply.message + Message("user", str(n + 1))

    asyncio.run(talk())
    kept = trace.store.rows("SELECT sum(length(json)) FROM contents")[0][0]
    assert kept < len(long.encode()) + 20_000


def test_a_call_is_recorded_with_what_it_took(tmp_path: Path) -> None:
    prices = Prices((Price("scr*", 2.0, 8.0, 0.5),))
    trace = Trace(tmp_path / "t.sqlite", prices)
    said = Reply((Candidate((Message("assistant", "2"),), finish_reason="stop"),), ((),), Usage(100, 10, 40))
    provider = Traced(Scripted([said]), trace)
    with trace.span("flow", "f") as flow:
        reply = asyncio.run(complete(provider, Conversation(ASKED.messages, meta={"prompt": "abc"})))
    (node,) = tree(trace.store, flow.id).below
    assert node.call is not None
    assert (node.kind, node.outcome, node.call.model, node.call.prompt) == ("call", "ok", "scripted", "abc")
    assert read_request(trace.store, node.call.request) == (ASKED, Sampling())
    assert node.call.usage == Usage(100, 10, 40)
    assert read_reply(trace.store, node.call.reply or "", node.call.usage).candidates == reply.candidates
    assert node.call.cost == pytest.approx((60 * 2 + 40 * 0.5 + 10 * 8) / 1e6)
    assert total(tree(trace.store, flow.id).spans).cost == node.call.cost


def test_what_nobody_knows_is_unknown_and_not_zero(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    provider = Traced(Scripted([("half", ProviderError("gone")), ProviderError("refused"), "whole"]), trace)

    async def three() -> None:
        for _ in range(2):
            with pytest.raises(ProviderError):
                await complete(provider, ASKED)
        await complete(provider, ASKED)

    with trace.span("flow", "three"):
        asyncio.run(three())
    (run,) = runs(trace.store)
    half, refused, whole = run.below
    assert (half.outcome, half.error) == ("error", "ProviderError: gone")
    assert half.call
    assert half.call.usage is None
    assert read_reply(trace.store, half.call.reply or "", Usage()).text == "half"
    assert (refused.outcome, refused.call.reply if refused.call else "") == ("error", None)
    assert whole.call
    assert whole.call.usage
    assert total(run.spans).calls == 3
    assert (total(run.spans).unknown_usage, total(run.spans).unknown_cost) == (2, 3)
    assert total(run.spans).usage == whole.call.usage


def test_a_call_that_is_dropped_is_cancelled(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    scripted = Scripted(["a long answer " * 10], delay=0.001)
    provider = Traced(scripted, trace)

    async def some() -> None:
        stream = provider.stream(ASKED)
        for _ in range(4):
            await anext(stream)
        await stream.aclose()

    asyncio.run(some())
    (run,) = runs(trace.store)
    assert run.outcome == "cancelled"
    assert scripted.requests[0].outcome == "closed"
    assert run.call
    assert read_reply(trace.store, run.call.reply or "", Usage()).text == "a long answe"


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    script = f"""
from myna.trace import Trace
trace = Trace({str(tmp_path / "t.sqlite")!r})
for n in range(200):
    with trace.span("flow", "f"), trace.span("step", "s") as span:
        span.note(n=n)
"""
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    found = runs(Trace(tmp_path / "t.sqlite").store, limit=1000)
    assert len(found) == 400
    assert all(run.outcome == "ok" and run.below[0].outcome == "ok" and run.below[0].run == run.id for run in found)
    assert sorted(run.below[0].facts["n"] for run in found) == sorted([*range(200)] * 2)


def test_nothing_is_asked_that_cannot_be_recorded(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    full(trace)
    scripted = Scripted(["2"])
    with pytest.raises(TraceError, match="full"):
        asyncio.run(complete(Traced(scripted, trace), Conversation.ask("长" * 10_000)))
    assert scripted.requests == []


def test_an_answer_is_not_lost_because_it_cannot_be_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace(tmp_path / "t.sqlite")

    def answer(_: object) -> str:
        full(trace)
        return "答" * 10_000

    with caplog.at_level(logging.WARNING):
        reply = asyncio.run(complete(Traced(Scripted([answer]), trace), ASKED))
    assert reply.text == "答" * 10_000
    assert "not recorded" in caplog.text


def test_a_file_of_others_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    (tmp_path / "text").write_text("no database at all, " * 100)
    later = Trace(tmp_path / "later.sqlite")
    later.store._db.execute("PRAGMA user_version = 99")
    later.close()
    for name, why in (("other.sqlite", "no trace file"), ("text", "not a database"), ("later.sqlite", "later Myna")):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(TraceError, match=why):
            Trace(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    assert sqlite3.connect(tmp_path / "other.sqlite").execute("SELECT name FROM sqlite_master").fetchall() == [
        ("mine",)
    ]


def test_the_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    Trace(tmp_path / "t.sqlite")
    assert os.stat(tmp_path / "t.sqlite").st_mode & 0o077 == 0


def test_a_damaged_content_is_found(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    asyncio.run(complete(Traced(Scripted(["2"]), trace), ASKED))
    (run,) = runs(trace.store)
    trace.store._db.execute("UPDATE contents SET json = CAST(replace(json, '1+1', '1+2') AS BLOB)")
    assert run.call
    with pytest.raises(TraceError, match="damaged"):
        read_request(trace.store, run.call.request)


def test_feedback_is_of_its_kind_and_of_a_span_that_is_there(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("flow", "f") as span:
        pass
    good = [("thumb", -1, True), ("edit", "更好", False), ("choice", 0, True), ("note", "嗯", False)]
    for kind, value, consent in good:
        trace.feedback(span.id, kind, value, consent=consent)
    for kind, value in (("thumb", 0), ("thumb", True), ("edit", 3), ("choice", -1), ("star", 5)):
        with pytest.raises(RequestError):
            trace.feedback(span.id, kind, value, consent=True)
    with pytest.raises(RequestError, match="no span 99"):
        trace.feedback(99, "thumb", 1, consent=True)
    assert [(said.kind, said.value, said.consent) for said in tree(trace.store, span.id).feedback] == good


def test_steps_are_counted_as_passed_only_if_all_their_checks_are(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("flow", "f") as flow:
        for n in range(10):
            with trace.span("step", "draft") as step:
                step.check("length", True, 1.0)
                step.check("schema", n > 0, float(n > 0), "no JSON")
        with pytest.raises(ZeroDivisionError), trace.span("step", "send"):
            raise ZeroDivisionError
    assert pass_rates(tree(trace.store, flow.id)) == {"draft": (9, 10), "send": (0, 1)}


def test_the_first_price_that_fits_holds(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "currency: CNY\nprices:\n- {model: 'a*', input: 2, cached: 1, output: 4}\n- {model: '*', input: 0, output: 0}\n"
    )
    prices = Prices.read(file)
    assert prices.currency == "CNY"
    assert prices.cost("a1", Usage(1_000_000, 500_000, 1_000_000)) == 1 + 2
    assert prices.cost("other", Usage(10, 10)) == 0
    file.write_text("prices: [{model: a, input: 2, output: 4}]")
    assert Prices.read(file).cost("a", Usage(1_000_000, 0, 500_000)) == 2  # what is cached is as dear as the rest
    assert Prices().cost("a1", Usage(1, 1)) is None
    assert Prices.read(tmp_path / "none.yaml") == Prices()
    for text in ("prices: 3", "prices: [{model: a, input: -1, output: 0}]", "prices: [{model: a, input: .nan, output: 0}]",
                 "prices: [{model: a, input: 1}]", "prices: [{model: a, input: 1, output: 1, per: hour}]", "rows: []", "a: [",):  # fmt: skip
        file.write_text(text)
        with pytest.raises(DataError, match=r"prices\.yaml") as caught:
            Prices.read(file)
        assert len(str(caught.value).splitlines()) == 1


def test_text_that_is_no_unicode_loses_no_span(tmp_path: Path) -> None:
    """A file's name on Linux is bytes; Python makes lone surrogates of what is no UTF-8."""
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("step", "a\udc80", file="b\udc80") as span:
        span.check("c", False, 0.0, "d\udc80")
        span.fail(ValueError("no e\udc80"))
    (found,) = runs(trace.store)
    assert (found.name, found.facts["file"], found.checks[0].reason) == ("a?", "b?", "d?")
    assert found.error == "ValueError: no e?"
    with pytest.raises(RequestError, match="cannot be recorded"):
        trace.begin("call", "m").ask("m", Conversation.ask("\udc80"), Sampling())


def test_a_call_that_was_accepted_has_a_reply_though_nothing_was_said(tmp_path: Path) -> None:
    class Accepts:
        name = "m"

        async def stream(self, what: object, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
            yield Delta()
            raise ProviderError("gone")

    trace = Trace(tmp_path / "t.sqlite")
    with pytest.raises(ProviderError):
        asyncio.run(complete(Traced(Accepts(), trace), ASKED))
    (call,) = runs(trace.store)
    assert call.call is not None
    assert read_reply(trace.store, call.call.reply or "", Usage()).candidates[0].text == ""
